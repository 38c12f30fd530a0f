"""The compiled core of the constant-matrix solver: greedy sharing of two-term sums.

A matrix is held as *residual coefficients*: ``coef[n, j]`` says how much of node n is still to be
added to output j. A *pattern* (a, b, shift, sign) is the sum ``a + sign * b * 2^shift`` (a negative
shift moves a instead). Extracting it makes a new node p and replaces, in every output that can
spare the digits, one signed digit of a and one of b by a digit of p. A digit ``+-2^k`` may be
taken from a coefficient when the rest has one signed digit less, so that all minimal signed-digit
forms of a number compete (``csd`` tables admit the canonical form only).

Patterns wait in buckets by the logarithm of their score. The number of outputs that hold a pattern
only falls, so a stored score is a bound: the pattern on top is counted anew and taken if its score
still belongs there, else it moves down (lazy greedy). Inside a bucket the last one in comes first:
patterns of the newest nodes. Nothing depends on a random number or on time.

Only arrays enter and leave; :mod:`hwcompile.passes.solve_cmvm` is the interface. All compiled
functions are in this one file because numba's cache on disk is renewed by the file of the function
that is called, not by those of the functions it calls.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.ir.compiled import compiled

BoolArray = NDArray[np.bool_]

BUCKETS_PER_OCTAVE = 64
OCTAVES = 40
LEAST_OCTAVE = -10
BUCKETS = BUCKETS_PER_OCTAVE * OCTAVES


class Tables(NamedTuple):
    """Digits of each coefficient c at index ``c + reach``: which ``+2^k`` and ``-2^k`` may be
    taken (bit masks), and how many signed digits c has."""

    plus: NDArray[np.uint32]
    minus: NDArray[np.uint32]
    weight: NDArray[np.uint8]
    places: int
    reach: int


class Rule(NamedTuple):
    """How patterns are ranked. ``bits``: count full-adder bits (else adders). ``half``: worth of a
    half adder in full adders. ``conflict``: exponent of uses over the occurrences of the rarer
    operand (``by_most``: of the commoner). ``oldest``: first in, first out among equals."""

    bits: bool
    half: float
    conflict: float
    by_most: bool
    oldest: bool


class State(NamedTuple):
    """Nodes and outputs while they are solved; ``size[0]`` nodes are in use.

    ``left``, ``right``, ``shift``, ``negative``: the pattern of each node (inputs: -1). ``span``:
    greatest less least value; ``level``: adders on the longest path. ``mask[n]``: bit set of the
    outputs that hold node n; ``held``: their number. ``row[j, : row_size[j]]``: nodes of output j,
    gone ones included. ``room[j]``: how much ``sum of 2^level`` may still grow (depth bound).
    """

    coef: NDArray[Any]
    mask: NDArray[np.uint64]
    held: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    shift: NDArray[np.int8]
    negative: NDArray[np.bool_]
    span: NDArray[np.int64]
    level: NDArray[np.int16]
    row: NDArray[np.int32]
    row_size: NDArray[np.int32]
    room: NDArray[np.int64]
    size: NDArray[np.int64]


@compiled
def _popcount(x: Any) -> Any:
    x = np.uint64(x)
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@compiled
def _lowest(x: Any) -> Any:
    """Index of the lowest set bit of a word that is not zero."""
    return _popcount((x & (~x + np.uint64(1))) - np.uint64(1))


@compiled
def _bit_length(x: Any) -> Any:
    count = 0
    while x > 0:
        x >>= 1
        count += 1
    return count


@compiled
def _set_coef(state: Any, tables: Any, node: Any, output: Any, value: Any) -> None:
    """Store a coefficient and keep ``mask``, ``held``, ``row`` and ``room`` in step."""
    before = np.int64(state.coef[node, output])
    more = np.int64(tables.weight[value + tables.reach])
    more -= np.int64(tables.weight[before + tables.reach])
    state.room[output] -= more << np.int64(state.level[node])
    word, bit = output >> 6, np.uint64(1) << np.uint64(output & 63)
    there = state.mask[node, word] & bit
    state.coef[node, output] = value
    if value != 0:
        if not there:
            state.mask[node, word] |= bit
            state.held[node] += 1
            if state.row_size[output] == state.row.shape[1]:
                _tidy(state, output)
            state.row[output, state.row_size[output]] = node
            state.row_size[output] += 1
    elif there:
        state.mask[node, word] ^= bit
        state.held[node] -= 1


@compiled
def _tidy(state: Any, output: Any) -> None:
    """Drop the nodes of a row that are no longer in it."""
    kept = 0
    for i in range(state.row_size[output]):
        node = state.row[output, i]
        if state.coef[node, output] != 0:
            state.row[output, kept] = node
            kept += 1
    state.row_size[output] = kept


@compiled
def _match(tables: Any, ca: Any, cb: Any, same: Any, shift: Any, negative: Any) -> Any:
    """Take a pattern from coefficients as often as it is there, lowest place first.

    Returns how often, what is left of both, and the coefficient of the pattern.
    """
    times, made = np.int64(0), np.int64(0)
    up, down = max(shift, 0), max(-shift, 0)
    while ca != 0 and cb != 0:
        plus_b, minus_b = tables.plus[cb + tables.reach], tables.minus[cb + tables.reach]
        if negative:
            plus_b, minus_b = minus_b, plus_b
        both_plus = (tables.plus[ca + tables.reach] >> down) & (plus_b >> up)
        both_minus = (tables.minus[ca + tables.reach] >> down) & (minus_b >> up)
        either = np.int64(both_plus | both_minus)
        found = False
        while either != 0:
            digit = either & -either
            either ^= digit
            sign = 1 if np.int64(both_plus) & digit else -1
            taken_a = sign * (digit << down)
            taken_b = sign * (digit << up)
            if negative:
                taken_b = -taken_b
            if same:
                rest = ca - taken_a - taken_b
                if (
                    rest > tables.reach
                    or rest < -tables.reach
                    or tables.weight[rest + tables.reach] + 2 != tables.weight[ca + tables.reach]
                ):
                    continue
                ca = cb = rest
            else:
                ca -= taken_a
                cb -= taken_b
            made += sign * digit
            times += 1
            found = True
            break
        if not found:
            break
    return times, ca, cb, made


@compiled
def _count(state: Any, tables: Any, a: Any, b: Any, shift: Any, negative: Any, limit: Any) -> Any:
    """How often a pattern can be extracted now."""
    times = 0
    if tables.places == 1 and not limit:  # ternary: coefficients are signs, one match an output
        for word in range(state.mask.shape[1]):
            both = state.mask[a, word] & state.mask[b, word]
            while both:
                output = word * 64 + _lowest(both)
                both &= both - np.uint64(1)
                if (state.coef[a, output] == state.coef[b, output]) != negative:
                    times += 1
        return times
    same = a == b
    for word in range(state.mask.shape[1]):
        both = state.mask[a, word] & state.mask[b, word]
        while both:
            output = word * 64 + _lowest(both)
            both &= both - np.uint64(1)
            ca, cb = np.int64(state.coef[a, output]), np.int64(state.coef[b, output])
            here, rest_a, rest_b, made = _match(tables, ca, cb, same, shift, negative)
            if limit and here:
                grows = _growth(state, tables, a, b, ca, cb, rest_a, rest_b, 0, made)
                if grows > state.room[output]:
                    continue
            times += here
    return times


@compiled
def _growth(
    state: Any,
    tables: Any,
    a: Any,
    b: Any,
    ca: Any,
    cb: Any,
    rest_a: Any,
    rest_b: Any,
    had: Any,
    made: Any,
) -> Any:
    """Growth of ``sum of 2^level`` over the digits of an output that takes a pattern."""
    weight, reach = tables.weight, tables.reach
    la, lb = np.int64(state.level[a]), np.int64(state.level[b])
    grows = np.int64(weight[made + reach]) - np.int64(weight[had + reach])
    grows <<= max(la, lb) + 1
    grows -= (np.int64(weight[ca + reach]) - np.int64(weight[rest_a + reach])) << la
    if a != b:
        grows -= (np.int64(weight[cb + reach]) - np.int64(weight[rest_b + reach])) << lb
    return grows


@compiled
def _bucket(
    state: Any, rule: Any, a: Any, b: Any, shift: Any, uses: Any, there: Any = False
) -> Any:
    """Bucket of a pattern with so many uses; -1 for one that gains nothing. ``there``: the
    pattern's node exists and costs no more."""
    gain = float(uses if there else uses - 1)
    if gain <= 0:
        return -1
    if rule.bits:
        wa, wb = _bit_length(state.span[a]), _bit_length(state.span[b])
        span = (state.span[a] << max(-shift, 0)) + (state.span[b] << max(shift, 0))
        wide = _bit_length(span)
        full = wa + wb - wide
        half = max(wide - 1 - abs(shift) - full, 0)
        gain = gain * max(full, 0.5) - (0.0 if there else rule.half * half)
        if gain <= 0:
            return -1
    if rule.conflict > 0:
        if rule.by_most:
            rest = max(state.held[a], state.held[b])
        else:
            rest = min(state.held[a], state.held[b])
        gain *= (uses / max(rest, 1)) ** rule.conflict
    place = int((math.log2(gain) - LEAST_OCTAVE) * BUCKETS_PER_OCTAVE)
    return min(max(place, 0), BUCKETS - 1)


@compiled
def _new_node(state: Any, node: Any, a: Any, b: Any, shift: Any, negative: Any) -> Any:
    state.left[node], state.right[node] = a, b
    state.shift[node], state.negative[node] = shift, negative
    state.span[node] = (state.span[a] << max(-shift, 0)) + (state.span[b] << max(shift, 0))
    state.level[node] = max(state.level[a], state.level[b]) + 1


@compiled
def _use(state: Any, tables: Any, node: Any, limit: Any) -> Any:
    """Put a node in the place of its operands wherever it can be."""
    a, b = state.left[node], state.right[node]
    shift, negative = np.int64(state.shift[node]), state.negative[node]
    same = a == b
    for word in range(state.mask.shape[1]):
        both = state.mask[a, word] & state.mask[b, word]
        while both:
            output = word * 64 + _lowest(both)
            both &= both - np.uint64(1)
            ca, cb = np.int64(state.coef[a, output]), np.int64(state.coef[b, output])
            times, rest_a, rest_b, made = _match(tables, ca, cb, same, shift, negative)
            had = np.int64(state.coef[node, output])
            made += had
            if times == 0 or abs(made) > tables.reach:
                continue
            if limit:
                grows = _growth(state, tables, a, b, ca, cb, rest_a, rest_b, had, made)
                if grows > state.room[output]:
                    continue
            _set_coef(state, tables, a, output, rest_a)
            if not same:
                _set_coef(state, tables, b, output, rest_b)
            _set_coef(state, tables, node, output, made)


@compiled
def _tally(
    state: Any, tables: Any, node: Any, output: Any, older: Any, seen: Any, touched: Any, found: Any
) -> Any:
    """Count, for the pairs of a node with the other nodes of an output, each pattern once more.

    ``seen[x * codes + code]`` counts; codes that were zero are appended to ``touched``.
    ``older``: pairs with x <= node only, else with x >= node.
    """
    codes = 2 * (2 * tables.places + 1)
    reach = tables.reach
    mine = np.int64(state.coef[node, output])
    my_plus, my_minus = np.int64(tables.plus[mine + reach]), np.int64(tables.minus[mine + reach])
    for i in range(state.row_size[output]):
        x = state.row[output, i]
        if (x > node) if older else (x < node):
            continue
        its = np.int64(state.coef[x, output])
        if its == 0:
            continue
        its_plus, its_minus = (
            np.int64(tables.plus[its + reach]),
            np.int64(tables.minus[its + reach]),
        )
        # The older node is a, the newer is b: shift = place of b less place of a.
        if x <= node:
            a_plus, a_minus, b_plus, b_minus = its_plus, its_minus, my_plus, my_minus
        else:
            a_plus, a_minus, b_plus, b_minus = my_plus, my_minus, its_plus, its_minus
        base = x * codes
        if tables.places == 1:
            at = base + 2 + (mine != its)
            if x != node:
                if seen[at] == 0:
                    touched[found] = at
                    found += 1
                seen[at] += 1
            continue
        for place_a in range(tables.places):
            sign_a = (a_plus >> place_a) & 1
            if not (sign_a or (a_minus >> place_a) & 1):
                continue
            for both_signs in range(2):
                # Whether a's digit here is + or -; a minimal form never offers both unless tied.
                here = (a_plus if both_signs == 0 else a_minus) >> place_a & 1
                if not here:
                    continue
                for negative in range(2):
                    rest = b_plus if both_signs == negative else b_minus
                    while rest:
                        digit = rest & -rest
                        rest ^= digit
                        shift = _lowest(np.uint64(digit)) - place_a
                        if x == node and shift <= 0:
                            continue
                        at = base + 2 * (shift + tables.places) + negative
                        if seen[at] == 0:
                            touched[found] = at
                            found += 1
                        seen[at] += 1
    return found


@compiled
def _grown(array: Any, size: Any) -> Any:
    out = np.zeros(max(size, 2 * len(array)), array.dtype)
    out[: len(array)] = array
    return out


@compiled
def _queue(heads: Any, tails: Any, after: Any, place: Any, entry: Any, last: Any) -> Any:
    """Put a pattern into a bucket: behind all others, or before them."""
    if last:
        after[entry] = -1
        if heads[place] < 0:
            heads[place] = entry
        else:
            after[tails[place]] = entry
        tails[place] = entry
    else:
        after[entry] = heads[place]
        heads[place] = entry


@compiled
def greedy(state: Any, tables: Any, rule: Any, limit: Any, most_nodes: Any) -> Any:
    """Extract patterns until none has two uses; returns the number of patterns looked at."""
    codes = 2 * (2 * tables.places + 1)
    heads = np.full(BUCKETS, -1, np.int32)
    tails = np.full(BUCKETS, -1, np.int32)
    pair_a = np.zeros(1 << 16, np.int32)
    pair_b = np.zeros(1 << 16, np.int32)
    pair_code = np.zeros(1 << 16, np.int16)
    after = np.zeros(1 << 16, np.int32)
    free, used, top, looked = -1, 0, -1, 0
    seen = np.zeros((state.size[0] + 1024) * codes, np.int32)
    touched = np.zeros(1 << 16, np.int64)
    first_new = 0
    while True:
        # Patterns of new nodes with all nodes before them (at the start: of every input).
        for node in range(first_new, state.size[0]):
            if len(seen) < (node + 1) * codes:
                seen = _grown(seen, (node + 1) * codes)
            found = 0
            for word in range(state.mask.shape[1]):
                bits = state.mask[node, word]
                while bits:
                    output = word * 64 + _lowest(bits)
                    bits &= bits - np.uint64(1)
                    most = found + state.row_size[output] * 4 * tables.places * tables.places
                    if most > len(touched):
                        touched = _grown(touched, most)
                    if first_new:
                        _tidy(state, output)
                    found = _tally(state, tables, node, output, True, seen, touched, found)
            if used + found > len(after):
                pair_a = _grown(pair_a, used + found)
                pair_b = _grown(pair_b, used + found)
                pair_code = _grown(pair_code, used + found)
                after = _grown(after, used + found)
            for i in range(found):
                at = touched[i]
                uses = seen[at]
                seen[at] = 0
                a, code = at // codes, at % codes
                place = _bucket(state, rule, a, node, code // 2 - tables.places, uses)
                if place < 0:
                    continue
                if free >= 0:
                    entry = free
                    free = after[entry]
                else:
                    entry = used
                    used += 1
                pair_a[entry], pair_b[entry], pair_code[entry] = a, node, code
                _queue(heads, tails, after, place, entry, rule.oldest)
                top = max(top, place)
        first_new = state.size[0]
        if first_new >= most_nodes:
            return looked
        # The best pattern that still is what it was thought to be.
        while True:
            while top >= 0 and heads[top] < 0:
                top -= 1
            if top < 0:
                return looked
            entry = heads[top]
            heads[top] = after[entry]
            a, b, code = pair_a[entry], pair_b[entry], np.int64(pair_code[entry])
            shift, negative = code // 2 - tables.places, code % 2 == 1
            looked += 1
            uses = _count(state, tables, a, b, shift, negative, limit)
            place = _bucket(state, rule, a, b, shift, uses)
            if place >= top:
                after[entry] = free
                free = entry
                node = state.size[0]
                state.size[0] += 1
                _new_node(state, node, a, b, shift, negative)
                _use(state, tables, node, limit)
                break
            if place < 0:
                after[entry] = free
                free = entry
            else:
                _queue(heads, tails, after, place, entry, rule.oldest)
    return looked


# --- ruin and recreate ----------------------------------------------------------------------------


@compiled
def _random(seed: Any) -> Any:
    """Next number in [0, 1) of a 64-bit xorshift generator (Marsaglia, 2003)."""
    x = seed[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    seed[0] = x
    return np.float64(x >> np.uint64(11)) / 9007199254740992.0


@compiled
def _node_cost(state: Any, rule: Any, node: Any) -> Any:
    """Full adders (half adders at their worth) of a node; 1 where adders count."""
    if not rule.bits:
        return 1.0
    wide = _bit_length(state.span[node])
    full = _bit_length(state.span[state.left[node]]) + _bit_length(state.span[state.right[node]])
    full -= wide
    return full + rule.half * max(wide - 1 - abs(state.shift[node]) - full, 0)


@compiled
def _row_cost(state: Any, tables: Any, rule: Any, output: Any) -> Any:
    """Bits (or terms) that enter the sum of an output."""
    total = 0.0
    for i in range(state.row_size[output]):
        node = state.row[output, i]
        digits = tables.weight[np.int64(state.coef[node, output]) + tables.reach]
        if digits:
            total += digits * (_bit_length(state.span[node]) if rule.bits else 1)
    return total


class Search(NamedTuple):
    """Working storage of ruin and recreate, for nodes ``[cap]`` and outputs ``[M]``.

    ``alive``: nodes in use. ``child[side, n]``, ``sibling[side, n]``: list of the nodes that have n
    as left (0) or right (1) operand. ``counts``: used lengths, see ``_ROWS`` and so on.
    """

    alive: NDArray[np.bool_]
    child: NDArray[np.int32]
    sibling: NDArray[np.int32]
    counts: NDArray[np.int64]
    saved: NDArray[np.bool_]
    rows: NDArray[np.int32]
    row_node: NDArray[np.int32]
    row_coef: NDArray[np.int64]
    row_size: NDArray[np.int32]
    gone: NDArray[np.int32]
    is_gone: NDArray[np.bool_]
    made: NDArray[np.int32]
    changed: NDArray[np.int32]
    is_changed: NDArray[np.bool_]
    free: NDArray[np.int32]
    seen: NDArray[np.int32]
    touched: NDArray[np.int64]
    candidate: NDArray[np.int32]
    score: NDArray[np.float64]
    seed: NDArray[np.uint64]


_ROWS, _GONE, _MADE, _CHANGED, _FREE, _CANDIDATES = range(6)
_MOST_CANDIDATES = 1 << 16
_MOST_GONE = 24


def new_search(state: State, tables: Tables, seed: int) -> Search:
    """Storage for :func:`improve` of a solved state; ``seed`` is not zero."""
    nodes, outputs = state.coef.shape
    size, longest = int(state.size[0]), state.row.shape[1]
    codes = 2 * (2 * tables.places + 1)
    search = Search(
        alive=np.arange(nodes) < size,
        child=np.full((2, nodes), -1, np.int32),
        sibling=np.full((2, nodes), -1, np.int32),
        counts=np.zeros(6, np.int64),
        saved=np.zeros(outputs, bool),
        rows=np.zeros(outputs, np.int32),
        row_node=np.zeros((outputs, longest), np.int32),
        row_coef=np.zeros((outputs, longest), np.int64),
        row_size=np.zeros(outputs, np.int32),
        gone=np.zeros(nodes, np.int32),
        is_gone=np.zeros(nodes, bool),
        made=np.zeros(nodes, np.int32),
        changed=np.zeros(4 * nodes, np.int32),
        is_changed=np.zeros(nodes, bool),
        free=np.zeros(2 * nodes, np.int32),
        seen=np.zeros(nodes * codes, np.int32),
        touched=np.zeros(nodes * codes, np.int64),
        candidate=np.zeros((_MOST_CANDIDATES, 4), np.int32),
        score=np.zeros(_MOST_CANDIDATES),
        seed=np.array([seed], np.uint64),
    )
    link_all(state, search)
    return search


@compiled
def _link(state: Any, search: Any, node: Any) -> Any:
    for side in range(2):
        operand = state.left[node] if side == 0 else state.right[node]
        search.sibling[side, node] = search.child[side, operand]
        search.child[side, operand] = node
    search.alive[node] = True


@compiled
def link_all(state: Any, search: Any) -> Any:
    """Enter all adders in the lists of their operands."""
    for node in range(state.size[0]):
        if state.left[node] >= 0:
            _link(state, search, node)


@compiled
def _unlink(state: Any, search: Any, node: Any) -> Any:
    for side in range(2):
        operand = state.left[node] if side == 0 else state.right[node]
        at = search.child[side, operand]
        if at == node:
            search.child[side, operand] = search.sibling[side, node]
        else:
            while search.sibling[side, at] != node:
                at = search.sibling[side, at]
            search.sibling[side, at] = search.sibling[side, node]
    search.alive[node] = False


@compiled
def _put(search: Any, which: Any, array: Any, value: Any) -> Any:
    array[search.counts[which]] = value
    search.counts[which] += 1


@compiled
def _change(search: Any, node: Any) -> Any:
    if not search.is_changed[node]:
        search.is_changed[node] = True
        _put(search, _CHANGED, search.changed, node)


@compiled
def _condemn(search: Any, node: Any) -> Any:
    if not search.is_gone[node]:
        search.is_gone[node] = True
        _put(search, _GONE, search.gone, node)


@compiled
def _close(search: Any, most: Any) -> Any:
    """Condemn all that depends on condemned nodes; whether these are at most so many."""
    at = 0
    while at < search.counts[_GONE]:
        if search.counts[_GONE] > most:
            return False
        node = search.gone[at]
        for side in range(2):
            child = search.child[side, node]
            while child >= 0:
                _condemn(search, child)
                child = search.sibling[side, child]
        at += 1
    return search.counts[_GONE] <= most


@compiled
def _save(state: Any, tables: Any, rule: Any, search: Any, output: Any) -> Any:
    """Keep the row of an output for a retreat; returns its cost, 0 if it is kept already."""
    if search.saved[output]:
        return 0.0
    search.saved[output] = True
    _tidy(state, output)
    at = search.counts[_ROWS]
    size = state.row_size[output]
    search.row_size[at] = size
    for i in range(size):
        node = state.row[output, i]
        search.row_node[at, i] = node
        search.row_coef[at, i] = state.coef[node, output]
    _put(search, _ROWS, search.rows, output)
    return _row_cost(state, tables, rule, output)


@compiled
def _save_all(state: Any, tables: Any, rule: Any, search: Any, a: Any, b: Any) -> Any:
    """Keep the rows that hold both nodes; returns the cost of the new ones."""
    cost = 0.0
    for word in range(state.mask.shape[1]):
        bits = state.mask[a, word] & state.mask[b, word]
        while bits:
            cost += _save(state, tables, rule, search, word * 64 + _lowest(bits))
            bits &= bits - np.uint64(1)
    return cost


@compiled
def _dissolve(state: Any, tables: Any, search: Any, node: Any) -> Any:
    """Put a node's operands in its place in all outputs; False if a coefficient is too large."""
    a, b = state.left[node], state.right[node]
    shift: Any = np.int64(state.shift[node])
    sign = -1 if state.negative[node] else 1
    fine = True
    for word in range(state.mask.shape[1]):
        bits = state.mask[node, word]
        while bits:
            output = word * 64 + _lowest(bits)
            bits &= bits - np.uint64(1)
            value = np.int64(state.coef[node, output])
            _set_coef(state, tables, node, output, 0)
            for side in range(2):
                operand = a if side == 0 else b
                moved = np.int64(max(-shift, 0) if side == 0 else max(shift, 0))
                more = (value << moved) * (1 if side == 0 else sign)
                total = np.int64(state.coef[operand, output]) + more
                if abs(total) > tables.reach:
                    fine = False
                    total = np.int64(0)
                _set_coef(state, tables, operand, output, total)
    _change(search, a)
    _change(search, b)
    _unlink(state, search, node)
    return fine


@compiled
def _offer(
    state: Any,
    tables: Any,
    rule: Any,
    search: Any,
    a: Any,
    b: Any,
    code: Any,
    node: Any,
    limit: Any,
) -> Any:
    """Make a pattern a candidate; ``node`` has it already, or is -1."""
    shift, negative = code // 2 - tables.places, code % 2 == 1
    uses = _count(state, tables, a, b, shift, negative, limit)
    place = _bucket(state, rule, a, b, shift, uses, node >= 0)
    at = search.counts[_CANDIDATES]
    if place < 0 or at == len(search.score):
        return
    search.candidate[at, 0], search.candidate[at, 1] = a, b
    search.candidate[at, 2], search.candidate[at, 3] = code, node
    search.score[at] = place
    search.counts[_CANDIDATES] += 1


@compiled
def _offer_all(
    state: Any, tables: Any, rule: Any, search: Any, x: Any, ban: Any, limit: Any
) -> Any:
    """Candidates that a changed node takes part in, in the rows that are kept."""
    codes = 2 * (2 * tables.places + 1)
    found, split = 0, 0
    for older in range(2):
        split = found
        for word in range(state.mask.shape[1]):
            bits = state.mask[x, word]
            while bits:
                output = word * 64 + _lowest(bits)
                bits &= bits - np.uint64(1)
                if search.saved[output]:
                    found = _tally(
                        state, tables, x, output, older == 0, search.seen, search.touched, found
                    )
    for i in range(found):
        at = search.touched[i]
        here = search.seen[at]
        search.seen[at] = 0
        y, code = at // codes, at % codes
        a, b = (y, x) if i < split else (x, y)
        if here == 0 or (a == ban[0] and b == ban[1] and code == ban[2]):
            continue
        common = 0
        for word in range(state.mask.shape[1]):
            common += _popcount(state.mask[a, word] & state.mask[b, word])
        if here > 1 or common > 1:
            _offer(state, tables, rule, search, a, b, code, -1, limit)
    for side in range(2):
        child = search.child[side, x]
        while child >= 0:
            a, b = state.left[child], state.right[child]
            code = 2 * (np.int64(state.shift[child]) + tables.places) + state.negative[child]
            _offer(state, tables, rule, search, a, b, code, child, limit)
            child = search.sibling[side, child]


@compiled
def _drop_candidate(search: Any, at: Any) -> Any:
    search.counts[_CANDIDATES] -= 1
    last = search.counts[_CANDIDATES]
    search.candidate[at] = search.candidate[last]
    search.score[at] = search.score[last]


@compiled
def _recreate(state: Any, tables: Any, rule: Any, search: Any, ban: Any, limit: Any) -> Any:
    """Extract the best candidates until none is left; returns the cost of rows saved on the way."""
    cost, looked = 0.0, 0
    while True:
        while looked < search.counts[_CHANGED]:
            node = search.changed[looked]
            if search.alive[node]:
                _offer_all(state, tables, rule, search, node, ban, limit)
            looked += 1
        if search.counts[_CANDIDATES] == 0:
            return cost
        pick = np.argmax(search.score[: search.counts[_CANDIDATES]])
        a, b, code, node = search.candidate[pick]
        shift, negative = code // 2 - tables.places, code % 2 == 1
        uses = _count(state, tables, a, b, shift, negative, limit)
        place = _bucket(state, rule, a, b, shift, uses, node >= 0)
        if place < 0:
            _drop_candidate(search, pick)
        elif place < search.score[pick]:
            search.score[pick] = place
        else:
            _drop_candidate(search, pick)
            cost += _save_all(state, tables, rule, search, a, b)
            if node < 0:
                if search.counts[_FREE] == 0 and state.size[0] == len(search.alive):
                    continue
                if search.counts[_FREE]:
                    search.counts[_FREE] -= 1
                    node = search.free[search.counts[_FREE]]
                else:
                    node = state.size[0]
                    state.size[0] += 1
                _new_node(state, node, a, b, shift, negative)
                _link(state, search, node)
                _put(search, _MADE, search.made, node)
            _use(state, tables, node, limit)
            _change(search, node)


@compiled
def _bury(state: Any, search: Any, inputs: Any) -> Any:
    """Condemn changed nodes that nothing uses, and then their operands."""
    at = 0
    while at < search.counts[_CHANGED]:
        node = search.changed[at]
        at += 1
        if (
            node >= inputs
            and search.alive[node]
            and state.held[node] == 0
            and search.child[0, node] < 0
            and search.child[1, node] < 0
        ):
            _unlink(state, search, node)
            _condemn(search, node)
            for operand in (state.left[node], state.right[node]):
                if search.is_changed[operand]:
                    _put(search, _CHANGED, search.changed, operand)
                else:
                    _change(search, operand)


@compiled
def _spread(state: Any, search: Any, first: Any, inputs: Any, more: Any) -> Any:
    """Condemn up to so many more nodes of a random output of a node."""
    if more == 0 or state.held[first] == 0:
        return
    nth = int(_random(search.seed) * state.held[first])
    output = -1
    for word in range(state.mask.shape[1]):
        bits = state.mask[first, word]
        while bits and output < 0:
            if nth == 0:
                output = word * 64 + _lowest(bits)
            nth -= 1
            bits &= bits - np.uint64(1)
    for _ in range(8 * more):
        node = state.row[output, int(_random(search.seed) * state.row_size[output])]
        if more and node >= inputs and not search.is_gone[node] and state.coef[node, output] != 0:
            _condemn(search, node)
            more -= 1


@compiled
def _ruin(state: Any, tables: Any, search: Any) -> Any:
    """Dissolve the condemned nodes, the deepest first; False if a coefficient is too large."""
    fine = True
    for _ in range(search.counts[_GONE]):
        deepest = -1
        for i in range(search.counts[_GONE]):
            node = search.gone[i]
            if search.alive[node] and (deepest < 0 or state.level[node] > state.level[deepest]):
                deepest = node
        fine &= _dissolve(state, tables, search, deepest)
    return fine


@compiled
def _gain(state: Any, tables: Any, rule: Any, search: Any, dissolved: Any) -> Any:
    """Cost of what has gone less cost of what was made and of the rows as they are now.

    ``dissolved``: how many of the gone nodes were there before the step, as their cost is known.
    """
    gain = 0.0
    for i in range(dissolved, search.counts[_GONE]):
        gain += _node_cost(state, rule, search.gone[i])
    for i in range(search.counts[_MADE]):
        gain -= _node_cost(state, rule, search.made[i])  # one that has gone again counts twice
    for i in range(search.counts[_ROWS]):
        gain -= _row_cost(state, tables, rule, search.rows[i])
    return gain


@compiled
def _retreat(state: Any, tables: Any, search: Any) -> Any:
    """Undo a step: rows as they were saved, made nodes away, gone nodes back."""
    for i in range(search.counts[_ROWS]):
        output = search.rows[i]
        for k in range(state.row_size[output]):
            _set_coef(state, tables, state.row[output, k], output, 0)
        state.row_size[output] = 0
        for k in range(search.row_size[i]):
            node = search.row_node[i, k]
            _set_coef(state, tables, node, output, search.row_coef[i, k])
    for i in range(search.counts[_MADE]):
        node = search.made[i]
        if search.alive[node]:
            _unlink(state, search, node)
        search.is_gone[node] = False
        _put(search, _FREE, search.free, node)
    for i in range(search.counts[_GONE]):
        node = search.gone[i]
        if search.is_gone[node]:
            _link(state, search, node)


@compiled
def _settle(search: Any) -> Any:
    """Clear the marks of a step."""
    for i in range(search.counts[_ROWS]):
        search.saved[search.rows[i]] = False
    for i in range(search.counts[_CHANGED]):
        search.is_changed[search.changed[i]] = False
    for i in range(search.counts[_GONE]):
        search.is_gone[search.gone[i]] = False
    search.counts[:_FREE] = 0
    search.counts[_CANDIDATES] = 0


@compiled
def improve(
    state: Any,
    tables: Any,
    rule: Any,
    search: Any,
    limit: Any,
    inputs: Any,
    steps: Any,
    heat: Any,
    spread: Any,
) -> Any:
    """Ruin and recreate, so many steps; returns the cost that was saved.

    A step dissolves a random node, up to ``spread - 1`` others of one of its outputs, and all that
    is made of them; then patterns are extracted again, the best first, but not the first node's. It
    stands if it costs no more, or at random (Metropolis) with a mean loss that falls from ``heat``
    to nothing.
    """
    saved = 0.0
    ban = np.zeros(3, np.int64)
    for step in range(steps):
        if state.size[0] == inputs:
            break
        first = inputs + int(_random(search.seed) * (state.size[0] - inputs))
        if not search.alive[first]:
            continue
        _condemn(search, first)
        _spread(state, search, first, inputs, int(_random(search.seed) * spread))
        if not _close(search, _MOST_GONE):
            _settle(search)
            continue
        dissolved = search.counts[_GONE]
        gain = 0.0
        for i in range(dissolved):
            node = search.gone[i]
            gain += _node_cost(state, rule, node)
            gain += _save_all(state, tables, rule, search, node, node)
        ban[0], ban[1] = state.left[first], state.right[first]
        ban[2] = 2 * (np.int64(state.shift[first]) + tables.places) + state.negative[first]
        fine = _ruin(state, tables, search)
        if fine:
            gain += _recreate(state, tables, rule, search, ban, limit)
            _bury(state, search, inputs)
            gain += _gain(state, tables, rule, search, dissolved)
        heat_now = heat * (1.0 - step / steps)
        if fine and gain >= heat_now * math.log(1.0 - _random(search.seed)):
            saved += gain
            for i in range(search.counts[_GONE]):
                _put(search, _FREE, search.free, search.gone[i])
        else:
            _retreat(state, tables, search)
        _settle(search)
    return saved
