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

from hwcompile.compiler.ir.compiled import borrowing, compiled, inlined

BoolArray = NDArray[np.bool_]

BUCKETS_PER_OCTAVE = 32
OCTAVES = 80
LEAST_OCTAVE = -20
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
    half adder in full adders. ``conflict``: twice the exponent of uses over the occurrences of the
    rarer operand. ``oldest``: first in, first out among equals."""

    bits: bool
    half: float
    conflict: int
    oldest: bool


class State(NamedTuple):
    """Nodes and outputs while they are solved; ``size[0]`` nodes are in use.

    ``left``, ``right``, ``shift``, ``negative``: the pattern of each node (inputs: -1). ``span``:
    greatest less least value, ``width``: its bits; ``level``: adders on the longest path.

    Bit sets of outputs: ``mask[n]``, those that hold node n (``held``: their number);
    ``plane[n, :, 2 k]`` and ``plane[n, :, 2 k + 1]``, those where ``+2^k`` and ``-2^k`` may be
    taken from its coefficient. ``row[j]``: bit set of the nodes of output j. ``room[j]``: how much
    ``sum of 2^level`` may still grow (depth bound).
    """

    coef: NDArray[np.int32]
    plane: NDArray[np.uint64]
    mask: NDArray[np.uint64]
    held: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    shift: NDArray[np.int64]
    negative: NDArray[np.int64]
    span: NDArray[np.int64]
    width: NDArray[np.int64]
    level: NDArray[np.int64]
    row: NDArray[np.uint64]
    room: NDArray[np.int64]
    size: NDArray[np.int64]


@inlined
def _popcount(x: Any) -> Any:
    x = np.uint64(x)
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@inlined
def _lowest(x: Any) -> Any:
    """Index of the lowest set bit of a word that is not zero."""
    return _popcount((x & (~x + np.uint64(1))) - np.uint64(1))


@borrowing
def _set_coef(state: Any, tables: Any, node: Any, output: Any, value: Any) -> None:
    """Store a coefficient and keep the bit sets, ``held`` and ``room`` in step."""
    before = np.int64(state.coef[node, output]) + tables.reach
    after = value + tables.reach
    more = np.int64(tables.weight[after]) - np.int64(tables.weight[before])
    state.room[output] -= more << state.level[node]
    word, bit = output >> 6, np.uint64(1) << np.uint64(output & 63)
    state.coef[node, output] = value
    for side in range(2):
        table = tables.plus if side == 0 else tables.minus
        changed = np.uint64(table[before] ^ table[after])
        while changed:
            state.plane[node, word, 2 * _lowest(changed) + side] ^= bit
            changed &= changed - np.uint64(1)
    there = state.mask[node, word] & bit
    if (value != 0) != (there != 0):
        state.mask[node, word] ^= bit
        state.held[node] += 1 if value != 0 else -1
        state.row[output, node >> 6] ^= np.uint64(1) << np.uint64(node & 63)


@borrowing
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


@inlined
def _places_met(
    plane: Any, places: Any, a: Any, b: Any, shift: Any, negative: Any, word: Any
) -> Any:
    """Outputs of a word where a pattern's digits meet at a place at least, and at two at least."""
    once, twice = np.uint64(0), np.uint64(0)
    for k in range(max(-shift, 0), min(places, places - shift)):
        i = 2 * (k + shift) + negative
        both = plane[a, word, 2 * k] & plane[b, word, i]
        twice |= once & both
        once |= both
        both = plane[a, word, 2 * k + 1] & plane[b, word, i ^ 1]
        twice |= once & both
        once |= both
    return once, twice


@inlined
def _count(state: Any, tables: Any, a: Any, b: Any, shift: Any, negative: Any, limit: Any) -> Any:
    """How often a pattern can be extracted now."""
    times = 0
    for word in range(state.mask.shape[1]):
        if not state.mask[a, word] & state.mask[b, word]:
            continue
        once, rest = _places_met(state.plane, tables.places, a, b, shift, negative, word)
        if limit or a == b:
            rest = once
        times += _popcount(once & ~rest)
        if rest:
            times += _count_exactly(state, tables, a, b, shift, negative, limit, word, rest)
    return times


@borrowing
def _count_exactly(
    state: Any,
    tables: Any,
    a: Any,
    b: Any,
    shift: Any,
    negative: Any,
    limit: Any,
    word: Any,
    outputs: Any,
) -> Any:
    """How often a pattern can be extracted in a word of outputs."""
    times = 0
    while outputs:
        output = word * 64 + _lowest(outputs)
        outputs &= outputs - np.uint64(1)
        ca, cb = np.int64(state.coef[a, output]), np.int64(state.coef[b, output])
        here, rest_a, rest_b, made = _match(tables, ca, cb, a == b, shift, negative)
        if limit and here:
            grows = _growth(state, tables, a, b, ca, cb, rest_a, rest_b, 0, made)
            if grows > state.room[output]:
                continue
        times += here
    return times


@borrowing
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
    la, lb = state.level[a], state.level[b]
    grows = np.int64(weight[made + reach]) - np.int64(weight[had + reach])
    grows <<= max(la, lb) + 1
    grows -= (np.int64(weight[ca + reach]) - np.int64(weight[rest_a + reach])) << la
    if a != b:
        grows -= (np.int64(weight[cb + reach]) - np.int64(weight[rest_b + reach])) << lb
    return grows


@inlined
def _sum(state: Any, a: Any, b: Any, shift: Any) -> Any:
    """Span of a pattern and its bits."""
    up, down = max(shift, 0), max(-shift, 0)
    span = (state.span[a] << down) + (state.span[b] << up)
    top = max(state.width[a] + down, state.width[b] + up)
    return span, top + (span >> top)


@inlined
def _worth(state: Any, rule: Any, a: Any, b: Any, shift: Any, uses: Any, there: Any) -> Any:
    """Score, squared, of a pattern with so many uses; 0 for one that gains nothing. ``there``: the
    pattern's node exists and costs no more."""
    gain = float(uses if there else uses - 1)
    if rule.bits:
        _, wide = _sum(state, a, b, shift)
        full = state.width[a] + state.width[b] - wide
        gain *= max(full, 0.5)
        if not there:
            gain -= rule.half * max(wide - 1 - abs(shift) - full, 0)
    if gain <= 0:
        return 0.0
    gain *= gain
    for _ in range(rule.conflict):
        gain *= uses / min(state.held[a], state.held[b])
    return gain


@inlined
def _bucket(worth: Any) -> Any:
    """Bucket of a score: its octave, and its place in it."""
    mantissa, octave = math.frexp(worth)
    place = (octave - LEAST_OCTAVE) * BUCKETS_PER_OCTAVE
    place += int((mantissa - 0.5) * (2 * BUCKETS_PER_OCTAVE))
    return min(max(place, 0), BUCKETS - 1)


@borrowing
def _new_node(state: Any, node: Any, a: Any, b: Any, shift: Any, negative: Any) -> Any:
    state.left[node], state.right[node] = a, b
    state.shift[node], state.negative[node] = shift, negative
    state.span[node], state.width[node] = _sum(state, a, b, shift)
    state.level[node] = max(state.level[a], state.level[b]) + 1


@borrowing
def _use(state: Any, tables: Any, node: Any, limit: Any) -> Any:
    """Put a node in the place of its operands wherever it can be."""
    a, b = state.left[node], state.right[node]
    shift, negative = state.shift[node], state.negative[node]
    same = a == b
    for word in range(state.mask.shape[1]):
        if not state.mask[a, word] & state.mask[b, word]:
            continue
        both, _ = _places_met(state.plane, tables.places, a, b, shift, negative, word)
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


@borrowing
def _partners(state: Any, tables: Any, node: Any, words: Any, partners: Any) -> None:
    """Bit set of the nodes that may share a pattern with a node twice: they meet in two outputs,
    or in one where the node has two digits."""
    once = partners[0]
    twice = partners[1]
    once[:words] = 0
    twice[:words] = 0
    for word in range(state.mask.shape[1]):
        bits = state.mask[node, word]
        while bits:
            output = word * 64 + _lowest(bits)
            bits &= bits - np.uint64(1)
            if tables.weight[state.coef[node, output] + tables.reach] > 1:
                for i in range(words):
                    twice[i] |= state.row[output, i]
            else:
                for i in range(words):
                    twice[i] |= once[i] & state.row[output, i]
                    once[i] |= state.row[output, i]


@inlined
def _tally(state: Any, tables: Any, a: Any, b: Any, among: Any, counts: Any, touched: Any) -> Any:
    """Count the patterns of two nodes (a is the older) in a bit set of outputs.

    ``counts[code]`` counts; codes that were zero are put into ``touched``; returns their number.
    """
    found = 0
    places = tables.places
    for word in range(state.mask.shape[1]):
        common = state.mask[a, word] & state.mask[b, word] & among[word]
        if not common:
            continue
        for i in range(2 * places):
            mine = state.plane[b, word, i] & common
            if not mine:
                continue
            for k in range(2 * places):
                both = mine & state.plane[a, word, k]
                if not both:
                    continue
                shift = (i >> 1) - (k >> 1)
                if a == b and shift <= 0:
                    continue
                code = 2 * (shift + places) + ((i ^ k) & 1)
                if counts[code] == 0:
                    touched[found] = code
                    found += 1
                counts[code] += _popcount(both)
    return found


@compiled
def _grown(array: Any, size: Any) -> Any:
    out = np.empty(max(size, 2 * len(array)), array.dtype)
    out[: len(array)] = array
    return out


@inlined
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
    pattern = np.empty(1 << 12, np.int64)  # a, b, code
    after = np.empty(1 << 12, np.int32)
    free, used, top, looked = -1, 0, -1, 0
    counts = np.zeros(codes, np.int64)
    touched = np.empty(codes, np.int64)
    partners = np.empty((2, state.row.shape[1]), np.uint64)
    everywhere = np.full(state.mask.shape[1], ~np.uint64(0))
    first_new = 0
    while True:
        # Patterns of new nodes with all nodes before them (at the start: of every input).
        for node in range(first_new, state.size[0]):
            words = (node >> 6) + 1
            _partners(state, tables, node, words, partners)
            for word in range(words):
                bits = partners[1, word]
                while bits:
                    a = word * 64 + _lowest(bits)
                    bits &= bits - np.uint64(1)
                    if a > node:
                        break
                    found = _tally(state, tables, a, node, everywhere, counts, touched)
                    if used + found > len(after):
                        pattern = _grown(pattern, used + found)
                        after = _grown(after, used + found)
                    for i in range(found):
                        code = touched[i]
                        uses = counts[code]
                        counts[code] = 0
                        if uses < 2:
                            continue
                        shift = code // 2 - tables.places
                        place = _bucket(_worth(state, rule, a, node, shift, uses, False))
                        if free >= 0:
                            entry = free
                            free = after[entry]
                        else:
                            entry = used
                            used += 1
                        pattern[entry] = a << 40 | node << 16 | code
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
            a, b, code = (
                pattern[entry] >> 40,
                pattern[entry] >> 16 & 0xFFFFFF,
                pattern[entry] & 0xFFFF,
            )
            shift, negative = code // 2 - tables.places, code % 2
            looked += 1
            uses = _count(state, tables, a, b, shift, negative, limit)
            if uses < 2:
                after[entry] = free
                free = entry
                continue
            place = _bucket(_worth(state, rule, a, b, shift, uses, False))
            if place >= top:
                after[entry] = free
                free = entry
                node = state.size[0]
                state.size[0] += 1
                _new_node(state, node, a, b, shift, negative)
                _use(state, tables, node, limit)
                break
            _queue(heads, tails, after, place, entry, rule.oldest)
    return looked


# --- ruin and recreate ----------------------------------------------------------------------------


@borrowing
def _random(seed: Any) -> Any:
    """Next number in [0, 1) of a 64-bit xorshift generator (Marsaglia, 2003)."""
    x = seed[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    seed[0] = x
    return np.float64(x >> np.uint64(11)) / 9007199254740992.0


@inlined
def _node_cost(state: Any, rule: Any, node: Any) -> Any:
    """Full adders (half adders at their worth) of a node; 1 where adders count."""
    if not rule.bits:
        return 1.0
    wide = state.width[node]
    full = state.width[state.left[node]] + state.width[state.right[node]] - wide
    return full + rule.half * max(wide - 1 - abs(state.shift[node]) - full, 0)


@borrowing
def _row_cost(state: Any, tables: Any, rule: Any, output: Any) -> Any:
    """Bits (or terms) that enter the sum of an output."""
    total: Any = 0
    for word in range((state.size[0] + 63) >> 6):
        bits = state.row[output, word]
        while bits:
            node = word * 64 + _lowest(bits)
            bits &= bits - np.uint64(1)
            digits = np.int64(tables.weight[state.coef[node, output] + tables.reach])
            total += digits * (state.width[node] if rule.bits else 1)
    return float(total)


class Search(NamedTuple):
    """Working storage of ruin and recreate, for nodes ``[cap]`` and outputs ``[M]``.

    ``alive``: nodes in use. ``child[side, n]``, ``sibling[side, n]``: list of the nodes that have n
    as left (0) or right (1) operand. ``counts``: used lengths, see ``_ROWS`` and so on. ``saved``:
    bit set of the outputs that are kept in ``row_node`` and ``row_coef``.
    """

    alive: NDArray[np.bool_]
    child: NDArray[np.int32]
    sibling: NDArray[np.int32]
    counts: NDArray[np.int64]
    saved: NDArray[np.uint64]
    rows: NDArray[np.int32]
    row_node: NDArray[np.int32]
    row_coef: NDArray[np.int32]
    row_size: NDArray[np.int32]
    gone: NDArray[np.int32]
    is_gone: NDArray[np.bool_]
    made: NDArray[np.int32]
    changed: NDArray[np.int32]
    is_changed: NDArray[np.bool_]
    free: NDArray[np.int32]
    tally: NDArray[np.int64]
    touched: NDArray[np.int64]
    partners: NDArray[np.uint64]
    candidate: NDArray[np.int32]
    score: NDArray[np.float64]
    seed: NDArray[np.uint64]


_ROWS, _GONE, _MADE, _CHANGED, _FREE, _CANDIDATES = range(6)
_MOST_CANDIDATES = 1 << 16
_MOST_GONE = 24
_ROOM = 2  # a row may grow to so many times the longest of the start


def new_search(state: State, tables: Tables, seed: int) -> Search:
    """Storage for :func:`improve` of a solved state; ``seed`` is not zero."""
    nodes, outputs = state.coef.shape
    size, longest = int(state.size[0]), _ROOM * int(np.bitwise_count(state.row).sum(1).max()) + 64
    codes = 2 * (2 * tables.places + 1)
    search = Search(
        alive=np.arange(nodes) < size,
        child=np.full((2, nodes), -1, np.int32),
        sibling=np.full((2, nodes), -1, np.int32),
        counts=np.zeros(6, np.int64),
        saved=np.zeros(state.mask.shape[1], np.uint64),
        rows=np.zeros(outputs, np.int32),
        row_node=np.zeros((outputs, longest), np.int32),
        row_coef=np.zeros((outputs, longest), np.int32),
        row_size=np.zeros(outputs, np.int32),
        gone=np.zeros(nodes, np.int32),
        is_gone=np.zeros(nodes, bool),
        made=np.zeros(nodes, np.int32),
        changed=np.zeros(4 * nodes, np.int32),
        is_changed=np.zeros(nodes, bool),
        free=np.zeros(2 * nodes, np.int32),
        tally=np.zeros(codes, np.int64),
        touched=np.zeros(codes, np.int64),
        partners=np.zeros((3, state.row.shape[1]), np.uint64),
        candidate=np.zeros((_MOST_CANDIDATES, 4), np.int32),
        score=np.zeros(_MOST_CANDIDATES),
        seed=np.array([seed], np.uint64),
    )
    link_all(state, search)
    return search


@borrowing
def _link(state: Any, search: Any, node: Any) -> Any:
    for side in range(2):
        operand = state.left[node] if side == 0 else state.right[node]
        search.sibling[side, node] = search.child[side, operand]
        search.child[side, operand] = node
    search.alive[node] = True


@borrowing
def link_all(state: Any, search: Any) -> Any:
    """Enter all adders in the lists of their operands."""
    for node in range(state.size[0]):
        if state.left[node] >= 0:
            _link(state, search, node)


@borrowing
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


@borrowing
def _put(search: Any, which: Any, array: Any, value: Any) -> Any:
    array[search.counts[which]] = value
    search.counts[which] += 1


@borrowing
def _change(search: Any, node: Any) -> Any:
    if not search.is_changed[node]:
        search.is_changed[node] = True
        _put(search, _CHANGED, search.changed, node)


@borrowing
def _condemn(search: Any, node: Any) -> Any:
    if not search.is_gone[node]:
        search.is_gone[node] = True
        _put(search, _GONE, search.gone, node)


@borrowing
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


@borrowing
def _save(state: Any, tables: Any, rule: Any, search: Any, output: Any) -> Any:
    """Keep a row as it is; returns its cost, 0 if it is kept already."""
    word, bit = output >> 6, np.uint64(1) << np.uint64(output & 63)
    if search.saved[word] & bit:
        return 0.0
    search.saved[word] |= bit
    at, size = search.counts[_ROWS], 0
    for i in range((state.size[0] + 63) >> 6):
        bits = state.row[output, i]
        while bits:
            node = i * 64 + _lowest(bits)
            bits &= bits - np.uint64(1)
            search.row_node[at, size] = node
            search.row_coef[at, size] = state.coef[node, output]
            size += 1
    search.row_size[at] = size
    _put(search, _ROWS, search.rows, output)
    return _row_cost(state, tables, rule, output)


@borrowing
def _save_all(state: Any, tables: Any, rule: Any, search: Any, a: Any, b: Any) -> Any:
    """Keep the rows that hold both nodes; returns the cost of the new ones."""
    cost = 0.0
    for word in range(state.mask.shape[1]):
        bits = state.mask[a, word] & state.mask[b, word]
        while bits:
            cost += _save(state, tables, rule, search, word * 64 + _lowest(bits))
            bits &= bits - np.uint64(1)
    return cost


@borrowing
def _dissolve(state: Any, tables: Any, search: Any, node: Any) -> Any:
    """Put a node's operands in its place in all outputs; False if a coefficient is too large."""
    a, b = state.left[node], state.right[node]
    shift: Any = state.shift[node]
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


@inlined
def _score(
    state: Any, tables: Any, rule: Any, a: Any, b: Any, code: Any, there: Any, limit: Any
) -> Any:
    """Score of a pattern as it is now; 0 if it gains nothing."""
    shift, negative = code // 2 - tables.places, code % 2
    uses = _count(state, tables, a, b, shift, negative, limit)
    if uses == 0:
        return 0.0
    return _worth(state, rule, a, b, shift, uses, there)


@inlined
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
    score = _score(state, tables, rule, a, b, code, node >= 0, limit)
    at = search.counts[_CANDIDATES]
    if score <= 0 or at == len(search.score):
        return
    search.candidate[at, 0], search.candidate[at, 1] = a, b
    search.candidate[at, 2], search.candidate[at, 3] = code, node
    search.score[at] = score
    search.counts[_CANDIDATES] += 1


@borrowing
def _offer_all(
    state: Any, tables: Any, rule: Any, search: Any, x: Any, ban: Any, limit: Any
) -> Any:
    """Candidates that a changed node takes part in, in the rows that are kept."""
    words = (state.size[0] + 63) >> 6
    _partners(state, tables, x, words, search.partners)
    near = search.partners[2]
    near[:words] = 0
    for word in range(state.mask.shape[1]):
        bits = state.mask[x, word] & search.saved[word]
        while bits:
            output = word * 64 + _lowest(bits)
            bits &= bits - np.uint64(1)
            for i in range(words):
                near[i] |= state.row[output, i]
    for word in range(words):
        bits = near[word] & search.partners[1, word]
        while bits:
            y = word * 64 + _lowest(bits)
            bits &= bits - np.uint64(1)
            a, b = min(x, y), max(x, y)
            found = _tally(state, tables, a, b, search.saved, search.tally, search.touched)
            for i in range(found):
                code = search.touched[i]
                search.tally[code] = 0
                if not (a == ban[0] and b == ban[1] and code == ban[2]):
                    _offer(state, tables, rule, search, a, b, code, -1, limit)
    for side in range(2):
        child = search.child[side, x]
        while child >= 0:
            a, b = state.left[child], state.right[child]
            code = 2 * (state.shift[child] + tables.places) + state.negative[child]
            _offer(state, tables, rule, search, a, b, code, child, limit)
            child = search.sibling[side, child]


@borrowing
def _drop_candidate(search: Any, at: Any) -> Any:
    search.counts[_CANDIDATES] -= 1
    last = search.counts[_CANDIDATES]
    for i in range(4):
        search.candidate[at, i] = search.candidate[last, i]
    search.score[at] = search.score[last]


@borrowing
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
        pick = 0
        for i in range(1, search.counts[_CANDIDATES]):
            if search.score[i] > search.score[pick]:
                pick = i
        a, b = np.int64(search.candidate[pick, 0]), np.int64(search.candidate[pick, 1])
        code, node = np.int64(search.candidate[pick, 2]), np.int64(search.candidate[pick, 3])
        score = _score(state, tables, rule, a, b, code, node >= 0, limit)
        if score <= 0:
            _drop_candidate(search, pick)
        elif score < search.score[pick]:
            search.score[pick] = score
        else:
            _drop_candidate(search, pick)
            cost += _save_all(state, tables, rule, search, a, b)
            if node < 0:
                if search.counts[_FREE] == 0 and state.size[0] == len(search.alive):
                    continue
                if search.counts[_FREE]:
                    search.counts[_FREE] -= 1
                    node = np.int64(search.free[search.counts[_FREE]])
                else:
                    node = state.size[0]
                    state.size[0] += 1
                _new_node(state, node, a, b, code // 2 - tables.places, code % 2)
                _link(state, search, node)
                _put(search, _MADE, search.made, node)
            _use(state, tables, node, limit)
            _change(search, node)


@borrowing
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


@borrowing
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
        node = _nth(state, output, int(_random(search.seed) * _row_size(state, output)))
        if more and node >= inputs and not search.is_gone[node]:
            _condemn(search, node)
            more -= 1


@inlined
def _row_size(state: Any, output: Any) -> Any:
    total = 0
    for word in range((state.size[0] + 63) >> 6):
        total += _popcount(state.row[output, word])
    return total


@inlined
def _nth(state: Any, output: Any, nth: Any) -> Any:
    """The nth node of a row."""
    word = 0
    while nth >= _popcount(state.row[output, word]):
        nth -= _popcount(state.row[output, word])
        word += 1
    bits = state.row[output, word]
    for _ in range(nth):
        bits &= bits - np.uint64(1)
    return word * 64 + _lowest(bits)


@borrowing
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


@borrowing
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


@borrowing
def _retreat(state: Any, tables: Any, search: Any) -> Any:
    """Undo a step: rows as they were saved, made nodes away, gone nodes back."""
    for i in range(search.counts[_ROWS]):
        output = search.rows[i]
        for word in range((state.size[0] + 63) >> 6):
            bits = state.row[output, word]
            while bits:
                _set_coef(state, tables, word * 64 + _lowest(bits), output, 0)
                bits &= bits - np.uint64(1)
        for k in range(search.row_size[i]):
            node = search.row_node[i, k]
            _set_coef(state, tables, node, output, np.int64(search.row_coef[i, k]))
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


@borrowing
def _fits(state: Any, search: Any) -> Any:
    """Whether the rows that were changed can be saved again."""
    for i in range(search.counts[_ROWS]):
        if _row_size(state, search.rows[i]) > search.row_node.shape[1]:
            return False
    return True


@borrowing
def _settle(search: Any) -> Any:
    """Clear the marks of a step."""
    search.saved[:] = 0
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
        ban[2] = 2 * (state.shift[first] + tables.places) + state.negative[first]
        fine = _ruin(state, tables, search)
        if fine:
            gain += _recreate(state, tables, rule, search, ban, limit)
            _bury(state, search, inputs)
            gain += _gain(state, tables, rule, search, dissolved)
            fine = _fits(state, search)
        heat_now = heat * (1.0 - step / steps)
        if fine and gain >= heat_now * math.log(1.0 - _random(search.seed)):
            saved += gain
            for i in range(search.counts[_GONE]):
                _put(search, _FREE, search.free, search.gone[i])
        else:
            _retreat(state, tables, search)
        _settle(search)
    return saved
