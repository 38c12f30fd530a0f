"""The loops over every bit of a block, compiled by numba.

Kinds of operations (their operands are literals): ``ALL`` of, ``ANY`` of, ``PARITY`` of the
operands; ``CHOICE`` (s, a, b): b if s else a; ``SELECT`` (default, then pairs of a choice and its
condition); ``TABLE``: the operands are the address, lowest bit first; ``ADDER`` (a, b, c): sum and
carry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.ir.compiled import compiled

IntArray = NDArray[np.int64]

ALL, ANY, PARITY, CHOICE, SELECT, TABLE, ADDER = range(7)

FINE, LOST_CARRY, NOT_LINEAR = range(3)
"""What became of a walk."""


@compiled
def topological_order(
    start: IntArray, operands: IntArray, out: IntArray, carry: IntArray, nets: int
) -> Any:
    """Operations in an order in which each comes after those it reads; short if there is a loop."""
    count = len(out)
    driver = np.full(nets, -1, np.int64)
    for n in range(count):
        driver[out[n]] = n
        if carry[n] >= 0:
            driver[carry[n]] = n
    readers = np.zeros(count + 1, np.int64)
    waiting = np.zeros(count, np.int64)
    for n in range(count):
        for at in range(start[n], start[n + 1]):
            source = driver[operands[at] >> 1]
            if source >= 0:
                readers[source + 1] += 1
                waiting[n] += 1
    readers = np.cumsum(readers)
    reader = np.empty(readers[-1], np.int64)
    filled = readers[:-1].copy()
    for n in range(count):
        for at in range(start[n], start[n + 1]):
            source = driver[operands[at] >> 1]
            if source >= 0:
                reader[filled[source]] = n
                filled[source] += 1
    order = np.empty(count, np.int64)
    done = 0
    for n in range(count):
        if waiting[n] == 0:
            order[done] = n
            done += 1
    at = 0
    while at < done:
        n = order[at]
        at += 1
        for r in range(readers[n], readers[n + 1]):
            waiting[reader[r]] -= 1
            if waiting[reader[r]] == 0:
                order[done] = reader[r]
                done += 1
    return order[:done]


@compiled
def cycles_late(
    start: IntArray,
    operands: IntArray,
    out: IntArray,
    carry: IntArray,
    delay: IntArray,
    late: IntArray,
) -> int:
    """How many cycles ago the inputs were that each net depends on; -1 where on none.

    ``delay``: of each operation. ``late[net]``: on entry that of nets without driver, afterwards of
    all. Returns the first operation whose operands are of different cycles, -1 where there is none.
    """
    for n in range(len(out)):
        own = -1
        for at in range(start[n], start[n + 1]):
            found = late[operands[at] >> 1]
            if found < 0:
                continue
            if own >= 0 and found != own:
                return n
            own = found
        if own >= 0:
            own += delay[n]
        late[out[n]] = own
        if carry[n] >= 0:
            late[carry[n]] = own
    return -1


@compiled
def specialise(
    kind: IntArray,
    start: IntArray,
    operands: IntArray,
    out: IntArray,
    carry: IntArray,
    table: IntArray,
    tables: NDArray[np.int8],
    value: IntArray,
    maker: IntArray,
) -> None:
    """What every net is in one state of the control inputs.

    ``value[net]``: on entry the literal of nets without driver (constants for the control inputs),
    afterwards that of all nets: a constant, an earlier net or its complement, or the net itself
    where it is something new; ``maker[net]`` is then the operation that makes it, -1 otherwise.
    """
    for n in range(len(kind)):
        first, end, k, y = start[n], start[n + 1], kind[n], out[n]
        maker[y] = -1
        if k in (ALL, ANY):
            # ANY is ALL with everything complemented.
            flip = 1 if k == ANY else 0
            result = 1
            opaque = False
            for at in range(first, end):
                literal = value[operands[at] >> 1] ^ (operands[at] & 1) ^ flip
                if literal == 0 or literal == result ^ 1:
                    result = 0
                    opaque = False
                    break
                if literal == 1 or literal == result:
                    continue
                if result == 1:
                    result = literal
                else:
                    opaque = True
            value[y] = 2 * y if opaque else result ^ flip
            if opaque:
                # A zero may still follow: the loop breaks on it, so there was none.
                maker[y] = n
        elif k == PARITY:
            result = 0
            for at in range(first, end):
                literal = value[operands[at] >> 1] ^ (operands[at] & 1)
                if literal < 2 or result < 2:
                    result ^= literal
                elif result >> 1 == literal >> 1:
                    result = (result ^ literal) & 1
                else:
                    result = -1
                    break
            value[y] = result if result >= 0 else 2 * y
            if result < 0:
                maker[y] = n
        elif k == CHOICE:
            choice = value[operands[first] >> 1] ^ (operands[first] & 1)
            a = value[operands[first + 1] >> 1] ^ (operands[first + 1] & 1)
            b = value[operands[first + 2] >> 1] ^ (operands[first + 2] & 1)
            if choice == 0 or a == b:
                value[y] = a
            elif choice == 1:
                value[y] = b
            else:
                value[y] = 2 * y
                maker[y] = n
        elif k == SELECT:
            result = value[operands[first] >> 1] ^ (operands[first] & 1)
            hot = 0
            for at in range(first + 1, end, 2):
                condition = value[operands[at + 1] >> 1] ^ (operands[at + 1] & 1)
                if condition == 1:
                    hot += 1
                    result = value[operands[at] >> 1] ^ (operands[at] & 1)
                elif condition != 0:
                    hot = 2
            if hot < 2:
                value[y] = result
            else:
                value[y] = 2 * y
                maker[y] = n
        elif k == TABLE:
            address = 0
            for at in range(first, end):
                literal = value[operands[at] >> 1] ^ (operands[at] & 1)
                if literal > 1:
                    address = -1
                    break
                address += literal << (at - first)
            word = tables[table[n] + address] if address >= 0 else -1
            if word >= 0:
                value[y] = word
            else:
                value[y] = 2 * y
                maker[y] = n
        else:
            a = value[operands[first] >> 1] ^ (operands[first] & 1)
            b = value[operands[first + 1] >> 1] ^ (operands[first + 1] & 1)
            c = value[operands[first + 2] >> 1] ^ (operands[first + 2] & 1)
            total, over = add_literals(a, b, c)
            value[y] = total if total >= 0 else 2 * y
            if total < 0:
                maker[y] = n
            if carry[n] >= 0:
                maker[carry[n]] = -1 if over >= 0 else n
                value[carry[n]] = over if over >= 0 else 2 * carry[n]


@compiled
def add_literals(a: int, b: int, c: int) -> tuple[int, int]:
    """Sum and carry of three literals, where a literal says them; else -1, -1."""
    if a >> 1 == b >> 1:
        pair, other = a ^ b, c
        same = a
    elif a >> 1 == c >> 1:
        pair, other = a ^ c, b
        same = a
    elif b >> 1 == c >> 1:
        pair, other = b ^ c, a
        same = b
    else:
        return -1, -1
    # Equal: twice the one; complements: one, so that the other is added to 1.
    return (other, same) if pair == 0 else (other ^ 1, other)


@compiled
def linear_forms(
    start: IntArray,
    operands: IntArray,
    kind: IntArray,
    out: IntArray,
    carry: IntArray,
    value: IntArray,
    maker: IntArray,
    words: IntArray,
    word_start: IntArray,
    modulus_bits: IntArray,
) -> Any:
    """Each word (literals, lowest bit first) as a linear form of the nets that nothing makes.

    Word ``g`` is ``words[word_start[g] : word_start[g + 1]]``; its form holds modulo
    ``2 ** modulus_bits[g]``. A walk from the outputs back: an adder whose sum counts c and whose
    carry 2c stands for c times each operand, a parity likewise where twice its coefficient is 0.

    Returns the outcome, the word and net where it failed, the constants, and the terms: word, net,
    coefficient (not 0), sorted by word.
    """
    weight = np.zeros(len(value), np.int64)
    reached = np.full(len(value), -1, np.int64)
    seen = np.full(len(kind), -1, np.int64)
    count = len(word_start) - 1
    constants = np.zeros(count, np.int64)
    terms = [(np.int64(0), np.int64(0), np.int64(0)) for _ in range(0)]
    nets = np.empty(len(value), np.int64)
    stack = [np.int64(0) for _ in range(0)]
    todo = [np.int64(0) for _ in range(0)]
    for g in range(count):
        mask = (np.int64(1) << modulus_bits[g]) - 1
        constant = np.int64(0)
        todo.clear()
        for at in range(word_start[g], word_start[g + 1]):
            literal = words[at]
            amount = np.int64(1) << (at - word_start[g])
            if literal & 1:
                constant += amount
                amount = -amount
            weight[literal >> 1] += amount
            stack.append(literal >> 1)
        found = 0
        while len(stack):
            net = stack.pop()
            if reached[net] == g:
                continue
            reached[net] = g
            nets[found] = net
            found += 1
            n = maker[net]
            if n >= 0 and seen[n] != g:
                seen[n] = g
                todo.append(n)
                for at in range(start[n], start[n + 1]):
                    stack.append(value[operands[at] >> 1] >> 1)
        order = np.empty(len(todo), np.int64)
        for i in range(len(todo)):
            order[i] = todo[i]
        order.sort()
        for n in order[::-1]:
            amount = weight[out[n]]
            carried = np.int64(0)
            if kind[n] == ADDER:
                if carry[n] >= 0:
                    carried = weight[carry[n]]
            elif kind[n] != PARITY and amount & mask:
                return NOT_LINEAR, g, out[n], constants, terms
            if (carried - 2 * amount) & mask:
                return LOST_CARRY, g, out[n], constants, terms
            for at in range(start[n], start[n + 1]):
                literal = value[operands[at] >> 1] ^ (operands[at] & 1)
                if literal & 1:
                    constant += amount
                    weight[literal >> 1] -= amount
                else:
                    weight[literal >> 1] += amount
        for i in range(found):
            net = nets[i]
            if net != 0 and maker[net] < 0 and weight[net] & mask:
                terms.append((np.int64(g), net, weight[net] & mask))
            weight[net] = 0
        constants[g] = constant & mask
    return FINE, 0, 0, constants, terms
