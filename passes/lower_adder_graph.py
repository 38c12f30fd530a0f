"""Lower an adder graph to the gates of a weight block of style ``parallel``: one vector a cycle.

1. A node with a single use is added up where it is used: chains become sums of many operands.
2. Every word is offset binary, ``value - least`` or, complemented, ``greatest - value``: unsigned,
   so that no sign is extended. A subtracted word enters a sum as its inverted bits.
3. Which words are kept complemented is chosen so that the fewest bits need an inverter: flips of
   single words are repeated until none helps.
4. Each sum is compressed column by column, bits that are there first first, with one ripple at the
   end; words that depend on other words follow them.
5. All constants (offsets, complements) are left out and met once, in the block's ``correction``.

What must NOT change: the gates are walked back and must give the matrix of the graph, always.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir.adder_graph import AdderGraph, IntArray
from hwcompile.compiler.ir.adder_graph import expand as expand_graph
from hwcompile.compiler.ir.weight_logic import (
    WORD_BITS,
    Stage,
    WeightBlock,
    WeightLogicError,
    expand,
)
from hwcompile.passes.cmvm_tile import signed_weight
from hwcompile.passes.cut_trees import Pace, cut_to_pace
from hwcompile.passes.lower_weights import compress

Term = tuple[int, int, int]
"""Node, shift, sign (1 or -1)."""


def lower_adder_graph(
    graph: AdderGraph, x_bits: int, collapse: bool = True, pace: Pace | None = None
) -> WeightBlock:
    """The block of ``y = x K`` that adds up as the graph says, ``x_bits`` planes in one cycle.

    ``collapse``: add up words with a single use where they are used; else every adder of the graph
    is a ripple adder. ``pace``: how fast the block should be; rows of registers go through it where
    it would not be. Raises UsageError when an input does not fit ``x_bits``.
    """
    half = 1 << (x_bits - 1)
    ends = graph.low[: graph.inputs], graph.high[: graph.inputs]
    if x_bits < 1 or (ends[0] < -half).any() or (ends[1] >= half).any():
        raise UsageError(f"The inputs of this graph need more than {x_bits} bits.")
    sums = _sums(graph, collapse)
    polarity = _polarities(graph, sums, x_bits)
    matrix = expand_graph(graph)
    made = _Gates(graph, matrix, sums, polarity, x_bits).block()
    block = cut_to_pace(lambda join: made, pace)
    expansion = expand(block)
    if not np.array_equal(expansion.weight, matrix):
        raise WeightLogicError("A weight block does not compute its matrix.")
    return replace(block, correction=expansion.correction)


@dataclass(frozen=True, slots=True)
class _Sums:
    """What is added up: ``words[n]``, terms of each node that is a word of its own, operands first;
    ``outputs[j]``, terms of each output."""

    words: dict[int, list[Term]]
    outputs: list[list[Term]]

    def all(self) -> list[tuple[int, list[Term]]]:
        """Every sum with its number: the node, or ``-1 - j`` for output j."""
        return [*self.words.items(), *((-1 - j, terms) for j, terms in enumerate(self.outputs))]


def _sums(graph: AdderGraph, collapse: bool) -> _Sums:
    terms = list(
        zip(
            graph.term_node.tolist(),
            graph.term_shift.tolist(),
            (1 - 2 * graph.term_negative).tolist(),
            strict=True,
        )
    )
    start = graph.term_start.tolist()
    outputs = [terms[start[j] : start[j + 1]] for j in range(graph.outputs)]
    adders = list(
        zip(
            graph.left.tolist(),
            graph.left_shift.tolist(),
            (1 - 2 * graph.left_negative).tolist(),
            graph.right.tolist(),
            graph.right_shift.tolist(),
            (1 - 2 * graph.right_negative).tolist(),
            strict=True,
        )
    )
    made = {graph.inputs + i: [a[:3], a[3:]] for i, a in enumerate(adders)}
    uses = np.bincount(graph.term_node, minlength=len(graph.low))
    for operand in (graph.left, graph.right):
        uses += np.bincount(operand, minlength=len(graph.low))

    def flat(terms: Iterable[Term]) -> list[Term]:
        found: list[Term] = []
        for node, shift, sign in terms:
            if collapse and node >= graph.inputs and uses[node] == 1:
                found += [(n, s + shift, g * sign) for n, s, g in flat(made[node])]
            else:
                found.append((node, shift, sign))
        return found

    words = {n: flat(t) for n, t in made.items() if uses[n] > 1 or (uses[n] and not collapse)}
    return _Sums(words, [flat(terms) for terms in outputs])


# --- polarity -------------------------------------------------------------------------------------


def _polarities(graph: AdderGraph, sums: _Sums, x_bits: int) -> dict[int, int]:
    """1 or -1 (complemented) of every sum and input, so that few bits are inverted."""
    width = [int(v).bit_length() for v in (graph.high - graph.low).tolist()]
    polarity = {number: 1 for number, _ in sums.all()} | dict.fromkeys(range(graph.inputs), 1)
    plain = dict.fromkeys(polarity, 0)  # uses that are not inverted
    inverted = dict.fromkeys(polarity, 0)
    for _, terms in sums.all():
        for node, _, sign in terms:
            (plain if sign > 0 else inverted)[node] += 1
    for j in range(graph.outputs):
        width_of_output = x_bits + sum(1 << s for _, s, _ in sums.outputs[j]).bit_length()
        plain[-1 - j] = 1
        width.append(width_of_output)
    size = {n: width[n] for n in polarity if n >= 0}
    size |= {-1 - j: width[len(graph.low) + j] for j in range(graph.outputs)}

    def flip(number: int, terms: list[Term]) -> int:
        """Flip a sum; returns the inverters that this saves."""
        saved = size[number] * (bool(inverted[number]) - bool(plain[number]))
        plain[number], inverted[number] = inverted[number], plain[number]
        for node, _, sign in terms:
            saved += size[node] * bool(inverted[node])
            now = polarity[node] * polarity[number] * sign
            (plain if now > 0 else inverted)[node] -= 1
            (inverted if now > 0 else plain)[node] += 1
            saved -= size[node] * bool(inverted[node])
        polarity[number] = -polarity[number]
        return saved

    improved = True
    while improved:
        improved = False
        for number, terms in sums.all():
            if flip(number, terms) > 0:
                improved = True
            else:
                flip(number, terms)
    return polarity


# --- gates ----------------------------------------------------------------------------------------


class _Gates:
    """Makes the stages of all sums, and remembers the bits of every word and of its complement."""

    def __init__(
        self,
        graph: AdderGraph,
        matrix: IntArray,
        sums: _Sums,
        polarity: dict[int, int],
        x_bits: int,
    ) -> None:
        self.graph, self.matrix, self.sums = graph, matrix, sums
        self.polarity, self.x_bits = polarity, x_bits
        self.stages: list[Stage] = []
        self.word: dict[tuple[int, int], tuple[IntArray, int]] = {}
        """(node, sign) -> bits whose value is ``sign * node`` plus the constant."""
        used = {(n, s * polarity[number]) for number, terms in sums.all() for n, _, s in terms}
        self.literals = [key for key in sorted(used) if key[0] < graph.inputs]
        for i, key in enumerate(self.literals):
            bits = np.arange(i * x_bits, (i + 1) * x_bits)
            self.word[key] = bits, (1 << (x_bits - 1)) - (key[1] < 0)
        self.first = len(self.literals) * x_bits

    def block(self) -> WeightBlock:
        level: dict[int, int] = {}
        for number, terms in self.sums.all():
            level[number] = 1 + max((level.get(n, 0) for n, _, _ in terms), default=0)
        words = list(self.sums.words)
        for depth in sorted({level[n] for n in words}):
            self._make([n for n in words if level[n] == depth])
        upper = self._outputs()
        count = len(self.literals) * self.x_bits
        node = np.array([n for n, _ in self.literals], np.int64)
        sign = np.array([s < 0 for _, s in self.literals], bool)
        matrix = self.matrix
        places = int(np.abs(matrix).max(initial=0)).bit_length() + 1
        return WeightBlock(
            inputs=self.graph.inputs,
            outputs=self.graph.outputs,
            phases=1,
            planes=self.x_bits,
            x_bits=self.x_bits,
            tap_input=np.repeat(node, self.x_bits),
            tap_plane=np.tile(np.arange(self.x_bits), len(node)),
            tap_tree=np.full(count, -1),
            tap_sign=np.repeat(sign, self.x_bits)[:, None],
            leaf_tap=np.arange(count),
            leaf_mask=np.ones((count, 1), bool),
            inverted=False,
            stages=tuple(self.stages),
            upper_bits=np.concatenate([np.zeros(0, np.int64), *upper]),
            upper_start=np.concatenate([[0], np.cumsum([len(u) for u in upper], dtype=np.int64)]),
            zero_digits=places * matrix.size - int(signed_weight(matrix).sum()),
            correction=np.zeros(self.graph.outputs, np.int64),
        )

    def _make(self, numbers: list[int]) -> None:
        """The words of nodes that do not depend on each other."""
        sums = [self._columns(n, self.sums.words[n]) for n in numbers]
        words = self._compressed([columns for columns, _ in sums])
        for number, bits, (_, constant) in zip(numbers, words, sums, strict=True):
            width = int(np.flatnonzero(bits >= 0)[-1]) + 1
            self.word[number, self.polarity[number]] = bits[:width], constant

    def _columns(self, number: int, terms: list[Term]) -> tuple[list[IntArray], int]:
        """Bits of each column, those that are there first first, and the constant in their sum."""
        columns: list[list[int]] = [[] for _ in range(64)]
        constant = 0
        for node, shift, sign in terms:
            bits, more = self._word(node, sign * self.polarity[number])
            constant += more << shift
            for k, bit in enumerate(bits.tolist(), shift):
                if bit >= 0:
                    columns[k].append(bit)
        most = sum(len(c) << k for k, c in enumerate(columns))
        made = [np.sort(np.array(c, np.int64)) for c in columns[: most.bit_length() + 1]]
        return made, constant

    def _word(self, node: int, sign: int) -> tuple[IntArray, int]:
        """Bits of a node under a sign (-1: always 0), and what they are more than it."""
        if (node, sign) not in self.word:
            bits, constant = self.word[node, -sign]
            ones = sum(1 << k for k, bit in enumerate(bits.tolist()) if bit >= 0)
            self.word[node, sign] = self._inverted(bits), ones - constant
        return self.word[node, sign]

    def _inverted(self, bits: IntArray) -> IntArray:
        made = bits.copy()
        there = np.flatnonzero(bits >= 0)
        for at in range(0, len(there), WORD_BITS):
            part = there[at : at + WORD_BITS]
            self.stages.append(Stage("inverter", bits[part][None], self.first))
            made[part] = np.arange(self.first, self.first + len(part))
            self.first += len(part)
        return made

    def _compressed(self, queues: list[list[IntArray]]) -> list[IntArray]:
        made = compress(queues, self.first)
        self.stages += made
        if made:
            self.first = made[-1].end
        return [np.array([c[0] if len(c) else -1 for c in queue], np.int64) for queue in queues]

    def _outputs(self) -> list[IntArray]:
        # A block holds for every x of its width, whatever the intervals of the graph.
        half, matrix = 1 << (self.x_bits - 1), self.matrix
        up, down = np.maximum(matrix, 0).sum(0), np.minimum(matrix, 0).sum(0)
        ends = down * (half - 1) - up * half, up * (half - 1) - down * half
        queues = []
        for j, terms in enumerate(self.sums.outputs):
            columns, constant = self._columns(-1 - j, terms)
            sign = self.polarity[-1 - j]
            most = sign * int(ends[sign > 0][j]) + constant
            # The top bit of a complement may be always 0; its 1 is in the constant: it stays.
            tops = [
                shift + len(self._word(node, s * sign)[0])
                for node, shift, s in terms
                if s * sign != (self.polarity[node] if node >= self.graph.inputs else 1)
            ]
            queues.append(columns[: max([most.bit_length(), *tops])])
        upper = self._compressed(queues)
        return [
            self._inverted(bits) if self.polarity[-1 - j] < 0 else bits
            for j, bits in enumerate(upper)
        ]
