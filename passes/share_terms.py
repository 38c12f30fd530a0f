"""Share full adders between the columns of a bit-plane block (P = 1).

A column is the set of literals (a variable or its complement) of weight ``2^k`` in one output. A
full adder of three literals serves every column that holds all three, or all three complemented,
because ``(NOT a) + (NOT b) + (NOT c) = (NOT sum) + 2 (NOT carry)``. The rule, applied to the triple
with the most columns until no triple has two:

    a column with the triple loses it and gets the sum; the next column of its output the carry.

Sums and carries are variables like inputs, so that shared adders build on each other. Triples are
sought among ``TILE`` inputs at a time: the time grows linearly with the inputs, and shared wires
stay near. Columns without a common triple do NOT change. Ties go to the lowest variables.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hwcompile.compiler.ir.weight_logic import WORD_BITS, IntArray, Stage

TILE = 64
GUARD = 4
"""Columns above the highest digit for carries; an adder never carries out of them."""

Triple = tuple[int, int, int]
"""Literals, the first positive: ``v`` or ``-v`` for variable ``v >= 1``; variables rise."""


@dataclass(frozen=True, slots=True)
class SharedTerms:
    """Columns as literals, and the shared adders they use.

    ``v = i + 1`` is input i of ``inputs`` N; ``N + 1 + 2f`` and ``N + 2 + 2f`` are the sum and the
    carry of adder f; ``-v`` is the complement. ``adders [F, 3]``: literals of each shared adder.
    ``columns[o][k]``: literals of weight ``2^k`` of output o.
    """

    inputs: int
    adders: IntArray
    columns: list[list[IntArray]]

    def literals(self) -> IntArray:
        """Every literal that an adder or a column reads, sorted."""
        parts = [self.adders.ravel()] + [c for column in self.columns for c in column]
        return np.unique(np.concatenate(parts))

    def stages(self, number: dict[int, int]) -> tuple[Stage, ...]:
        """The adders as stages, by depth, and inverters for complements that are read.

        ``number``: bit number of each input literal; gets those of the adders' literals. Bits are
        numbered on from ``len(number)``.
        """
        stages: list[Stage] = []
        first = len(number)
        negated = {int(-v) for v in self.literals() if v < -self.inputs}
        for adders in self._by_depth():
            for word in _words(adders):
                inputs = np.array([[number[v] for v in self._adder(f)] for f in word]).T
                stages.append(Stage("full_adder", inputs, first))
                for n, f in enumerate(word):
                    number[self.inputs + 1 + 2 * f] = first + n
                    number[self.inputs + 2 + 2 * f] = first + len(word) + n
                first = stages[-1].end
            outputs = [self.inputs + 1 + 2 * f + half for f in adders for half in (0, 1)]
            for word in _words([v for v in outputs if v in negated]):
                inputs = np.array([[number[v] for v in word]])
                stages.append(Stage("inverter", inputs, first))
                number.update({-v: first + n for n, v in enumerate(word)})
                first = stages[-1].end
        return tuple(stages)

    def _adder(self, f: int) -> list[int]:
        return [int(v) for v in self.adders[f]]

    def _by_depth(self) -> list[list[int]]:
        """Adders that read only inputs and adders of earlier lists."""
        depth: list[int] = []
        for f in range(len(self.adders)):
            made = [(abs(v) - self.inputs - 1) // 2 for v in self._adder(f)]
            depth.append(1 + max((depth[g] for g in made if g >= 0), default=0))
        return [
            [f for f, d in enumerate(depth) if d == at]
            for at in range(1, max(depth, default=0) + 1)
        ]


def _words(values: list[int]) -> Iterator[list[int]]:
    return (values[at : at + WORD_BITS] for at in range(0, len(values), WORD_BITS))


def share_terms(digits: IntArray, share: bool = True) -> SharedTerms:
    """Columns of signed ``digits [K, N, M]``, adders shared unless ``share`` is False."""
    places, inputs, outputs = digits.shape
    height = places + GUARD
    flat = np.zeros((inputs, outputs, height), np.int64)
    flat[:, :, :places] = digits.transpose(1, 2, 0)
    adders: list[Triple] = []
    uses: dict[int, tuple[int, int]] = {}
    allowed = _column_set(np.tile(np.arange(height) < height - 1, outputs))
    for tile in range(0, inputs, TILE):
        members = range(tile, min(tile + TILE, inputs))
        found = {i + 1: (_column_set(flat[i] > 0), _column_set(flat[i] < 0)) for i in members}
        if share:
            _share_tile(
                flat[tile : tile + TILE].reshape(len(members), -1),
                found,
                allowed,
                adders,
                inputs,
                tile,
            )
        uses |= found
    literals: list[list[list[int]]] = [[[] for _ in range(height)] for _ in range(outputs)]
    for variable, signs in uses.items():
        for sign, columns in zip((1, -1), signs, strict=True):
            for column in _members(columns):
                literals[column // height][column % height].append(sign * variable)
    return SharedTerms(
        inputs,
        np.array(adders, np.int64).reshape(-1, 3),
        [[np.array(c, np.int64) for c in output] for output in literals],
    )


# --- one tile -------------------------------------------------------------------------------------
# Sets of columns are integers: bit ``o * height + k`` is column k of output o.


def _column_set(member: np.ndarray) -> int:
    packed = np.packbits(member.ravel(), bitorder="little")
    return int.from_bytes(packed.tobytes(), "little")


def _members(columns: int) -> list[int]:
    data = np.frombuffer(columns.to_bytes((columns.bit_length() + 7) // 8, "little"), np.uint8)
    return [int(c) for c in np.flatnonzero(np.unpackbits(data, bitorder="little"))]


def _share_tile(
    digits: IntArray,
    uses: dict[int, tuple[int, int]],
    allowed: int,
    adders: list[Triple],
    inputs: int,
    offset: int,
) -> None:
    """Extract triples greedily. ``uses``: columns of each variable and of its complement."""
    heap = [(-count, triple) for triple, count in _triples(digits, offset)]
    heapq.heapify(heap)
    held: dict[int, dict[int, int]] = defaultdict(dict)
    for v, signs in uses.items():
        _hold(held, v, *signs)
    while heap:
        count, triple = heapq.heappop(heap)
        plain, complemented = _common(uses, triple, allowed)
        actual = plain.bit_count() + complemented.bit_count()
        if actual < 2:
            continue
        if actual < -count:
            heapq.heappush(heap, (-actual, triple))
            continue
        for v in triple:
            p, n = uses[abs(v)]
            gone = (plain, complemented) if v > 0 else (complemented, plain)
            uses[abs(v)] = (p & ~gone[0], n & ~gone[1])
            for c in _members(plain | complemented):
                del held[c][abs(v)]
        total = inputs + 1 + 2 * len(adders)
        if complemented.bit_count() > plain.bit_count():
            plain, complemented = complemented, plain
            triple = (-triple[0], -triple[1], -triple[2])
        adders.append(triple)
        uses[total] = (plain, complemented)
        uses[total + 1] = (plain << 1, complemented << 1)
        for made in (total, total + 1):
            _hold(held, made, *uses[made])
            triples = _triples_with(held, made, uses[made][0] | uses[made][1])
            for other, number in triples.items():
                if number > 1:
                    heapq.heappush(heap, (-number, other))


def _hold(held: dict[int, dict[int, int]], v: int, plain: int, complemented: int) -> None:
    """Enter variable v in its columns."""
    for sign, columns in ((1, plain), (-1, complemented)):
        for c in _members(columns):
            held[c][v] = sign


def _common(uses: dict[int, tuple[int, int]], triple: Triple, allowed: int) -> tuple[int, int]:
    """Columns that hold the triple, and those that hold its complement."""
    plain = complemented = allowed
    for v in triple:
        p, n = uses[abs(v)]
        plain &= p if v > 0 else n
        complemented &= n if v > 0 else p
    return plain, complemented


def _triples(digits: IntArray, offset: int) -> Iterator[tuple[Triple, int]]:
    """Triples of inputs with two columns or more, and how many. digits ``[T, columns]``."""
    signs = np.sign(digits).astype(np.float32)
    for i in range(len(signs)):
        # Signs relative to input i, in the columns that hold it.
        relative = (signs * signs[i])[i + 1 :, signs[i] != 0]
        halves = np.concatenate([relative > 0, relative < 0]).astype(np.float32)
        number = halves @ halves.T
        rest = len(relative)
        for a, b in np.argwhere(np.triu(number >= 2, 1)):
            j, k = int(a) % rest, int(b) % rest
            first = (j + i + 2 + offset) * (1 if a < rest else -1)
            second = (k + i + 2 + offset) * (1 if b < rest else -1)
            if j != k:
                pair = (first, second) if j < k else (second, first)
                yield (i + 1 + offset, *pair), int(number[a, b])


def _triples_with(held: dict[int, dict[int, int]], made: int, columns: int) -> Counter[Triple]:
    """Triples of the variable ``made`` with two others in one column, and how many columns."""
    found: Counter[Triple] = Counter()
    for c in _members(columns):
        # ``made`` is the highest variable, so it stands last; the lowest is to be positive.
        here = sorted(held[c].items())[:-1]
        for (a, sign_a), (b, sign_b) in combinations(here, 2):
            found[a, sign_a * sign_b * b, sign_a * held[c][made] * made] += 1
    return found
