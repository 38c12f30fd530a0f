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

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hwcompile.compiler.ir.weight_logic import WORD_BITS, BoolArray, IntArray, Stage

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
    flat = flat.reshape(inputs, outputs * height)
    carries = _column_set(np.arange(outputs * height) % height < height - 1)
    adders: list[Triple] = []
    literals: list[list[list[int]]] = [[[] for _ in range(height)] for _ in range(outputs)]
    for first in range(0, inputs, TILE):
        tile = _Tile(flat[first : first + TILE], first + 1, inputs + 1, carries)
        if share:
            tile.share(adders)
        for literal, columns in tile.columns.items():
            for column in _members(columns):
                literals[column // height][column % height].append(literal)
    return SharedTerms(
        inputs,
        np.array(adders, np.int64).reshape(-1, 3),
        [[np.array(c, np.int64) for c in output] for output in literals],
    )


# --- one tile -------------------------------------------------------------------------------------
# Sets of columns are integers: bit ``o * height + k`` is column k of output o.


def _column_set(member: BoolArray) -> int:
    return int.from_bytes(np.packbits(member, bitorder="little").tobytes(), "little")


def _members(columns: int) -> list[int]:
    data = np.frombuffer(columns.to_bytes((columns.bit_length() + 7) // 8, "little"), np.uint8)
    return np.flatnonzero(np.unpackbits(data, bitorder="little")).tolist()


class _Tile:
    """The columns of each literal of some inputs, and of the adders made from them.

    ``digits [T, columns]``; input t is variable ``first + t``; adders start at ``first_made``.
    ``carries``: columns that have a next one.
    """

    def __init__(self, digits: IntArray, first: int, first_made: int, carries: int) -> None:
        self.signs = np.sign(digits).astype(np.float32)
        self.first = first
        self.first_made = first_made
        self.carries = carries
        self.columns: dict[int, int] = {}
        self.held: dict[int, dict[int, int]] = defaultdict(dict)
        """Column -> variable -> its sign there."""
        for t, row in enumerate(digits):
            self._enter(first + t, _column_set(row > 0), _column_set(row < 0))

    def share(self, adders: list[Triple]) -> None:
        """Make adders from the most common triple down; appends to ``adders``."""
        waiting = self._triples()
        for count in range(max(waiting, default=0), 1, -1):
            for triple in waiting[count]:  # grows as triples of the same count are found
                plain, complemented = self._common(triple)
                actual = plain.bit_count() + complemented.bit_count()
                if actual == count:
                    self._extract(triple, plain, complemented, adders, waiting)
                elif actual > 1:
                    waiting[actual].append(triple)
            del waiting[count]

    def _enter(self, variable: int, plain: int, complemented: int) -> None:
        for sign, columns in ((1, plain), (-1, complemented)):
            self.columns[sign * variable] = columns
            for c in _members(columns):
                self.held[c][variable] = sign

    def _common(self, triple: Triple) -> tuple[int, int]:
        """Columns that hold the triple, and those that hold its complement."""
        a, b, c = triple
        columns = self.columns
        plain = columns[a] & columns[b] & columns[c]
        complemented = columns[-a] & columns[-b] & columns[-c]
        return plain & self.carries, complemented & self.carries

    def _extract(
        self,
        triple: Triple,
        plain: int,
        complemented: int,
        adders: list[Triple],
        waiting: dict[int, list[Triple]],
    ) -> None:
        """Make the adder of a triple, and queue the triples that its outputs are part of."""
        gone = _members(plain | complemented)
        for v in triple:
            self.columns[v] &= ~plain
            self.columns[-v] &= ~complemented
            for c in gone:
                del self.held[c][abs(v)]
        if complemented.bit_count() > plain.bit_count():
            plain, complemented = complemented, plain
            triple = (-triple[0], -triple[1], -triple[2])
        made = self.first_made + 2 * len(adders)
        adders.append(triple)
        for shift in (0, 1):
            self._enter(made + shift, plain << shift, complemented << shift)
            columns = (plain | complemented) << shift
            for other, number in self._triples_with(made + shift, columns).items():
                if number > 1:
                    waiting[number].append(other)

    def _triples(self) -> dict[int, list[Triple]]:
        """Triples of inputs with two columns or more, by their number of columns."""
        found: dict[int, list[Triple]] = defaultdict(list)
        for i, row in enumerate(self.signs):
            # Signs relative to input i, in the columns that hold it.
            relative = (self.signs * row)[i + 1 :, row != 0]
            halves = np.concatenate([relative > 0, relative < 0]).astype(np.float32)
            number = halves @ halves.T
            later = np.arange(len(relative)) + self.first + i + 1
            literal = np.concatenate([later, -later])
            a, b = np.nonzero((number >= 2) & (np.abs(literal)[:, None] < np.abs(literal)))
            counted = zip(
                number[a, b].astype(int).tolist(),
                literal[a].tolist(),
                literal[b].tolist(),
                strict=True,
            )
            for count, j, k in counted:
                found[count].append((self.first + i, j, k))
        return found

    def _triples_with(self, made: int, columns: int) -> Counter[Triple]:
        """Triples of the variable ``made`` with two others, and in how many of ``columns``."""
        found: Counter[Triple] = Counter()
        for c in _members(columns):
            # Every other variable is lower than ``made``; the lowest of a triple is positive.
            here = sorted(self.held[c].items())
            sign = here.pop()[1]
            for (a, sign_a), (b, sign_b) in combinations(here, 2):
                found[a, sign_a * sign_b * b, sign_a * sign * made] += 1
        return found
