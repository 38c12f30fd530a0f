"""A peer's adder graph as plain ripple adders: the neutral emitter of :mod:`benchmarks.cmvm`.

Words are two's complement of exact width. An adder has one cell a column from the first column that
both operands reach: a full adder, or with one bit known a half adder (its form with a carry in,
XNOR and OR, has the same area), in the top column exclusive ors only. A subtracted word costs
inverters, its ``+1`` enters as carry. Every bit is simulated on random vectors as it is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwcompile.compiler.ir.adder_graph import AdderGraph, expand

VECTORS = 256
_ALL = (1 << VECTORS) - 1


@dataclass(slots=True)
class Cells:
    """Cells in use; a bit is its value on all vectors, or the constant 0 or all ones."""

    full_adder: int = 0
    half_adder: int = 0
    xor: int = 0
    inverter: int = 0

    def add(self, bits: list[int], top: bool) -> tuple[int, int]:
        """Sum and carry of up to three bits of one column."""
        ones = bits.count(_ALL)
        free = [b for b in bits if b not in (0, _ALL)]
        total = 0
        for bit in bits:
            total ^= bit
        a, b, c = [*bits, 0, 0][:3]
        carry = (a & b) | (c & (a | b))
        if len(free) == 3:
            if top:
                self.xor += 2
            else:
                self.full_adder += 1
        elif len(free) == 2:
            if top:
                self.xor += 1
            else:
                self.half_adder += 1
        elif len(free) == 1 and ones == 1:
            self.inverter += 1
        return total, 0 if top else carry


def ripple_cells(graph: AdderGraph, seed: int = 0) -> Cells:
    """Cells of a graph of two-operand adders. Raises ValueError if an output is wrong."""
    cells = Cells()
    random = np.random.default_rng(seed)
    inputs = graph.inputs
    x = random.integers(graph.low[:inputs], graph.high[:inputs] + 1, (VECTORS, inputs))
    width = [_width(a, b) for a, b in zip(graph.low.tolist(), graph.high.tolist(), strict=True)]
    words = [_word(x[:, i], width[i]) for i in range(inputs)]
    for i in range(graph.adders):
        words.append(_adder(graph, i, words, width[inputs + i], cells))
    wanted = x @ expand(graph)
    start = graph.term_start.tolist()
    for j in range(graph.outputs):
        if start[j + 1] - start[j] > 1:
            raise ValueError("this emitter knows outputs of one term")
        found: np.ndarray = np.zeros(VECTORS, np.int64)
        for t in range(start[j], start[j + 1]):
            node = int(graph.term_node[t])
            found = _numbers(words[node]) << int(graph.term_shift[t])
            if graph.term_negative[t]:  # the one that is missing joins the bias
                cells.inverter += width[node]
                found = -found
        if not np.array_equal(found, wanted[:, j]):
            raise ValueError("the netlist of a peer's graph is wrong")
    return cells


def _width(low: int, high: int) -> int:
    return max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0) + 1


def _word(values: np.ndarray, width: int) -> list[int]:
    return [sum(1 << v for v in np.flatnonzero(values >> k & 1).tolist()) for k in range(width)]


def _numbers(word: list[int]) -> np.ndarray:
    total = np.zeros(VECTORS, np.int64)
    for k, bits in enumerate(word):
        value = np.array([bits >> v & 1 for v in range(VECTORS)], np.int64) << k
        total += -value if k == len(word) - 1 else value
    return total


def _adder(
    graph: AdderGraph, i: int, words: list[list[int]], width: int, cells: Cells
) -> list[int]:
    operands: list[list[int]] = []
    ones: list[int] = []
    for node, shift, negative in (
        (graph.left[i], graph.left_shift[i], graph.left_negative[i]),
        (graph.right[i], graph.right_shift[i], graph.right_negative[i]),
    ):
        word = words[node]
        if negative:
            cells.inverter += len(word)
            word = [bit ^ _ALL for bit in word]
            ones.append(int(shift))
        extended = [0] * int(shift) + word + [word[-1]] * width
        operands.append(extended[:width])
    made, carry = [], 0
    for k in range(width):
        bits = [operands[0][k], operands[1][k], carry]
        if k in ones:
            # Below it there is no carry: it enters in its place. Two ones never meet a carry.
            ones.remove(k)
            at = 2 if carry == 0 else 0
            if bits[at] != 0:
                raise ValueError("a second one in a column")
            bits[at] = _ALL
        total, carry = cells.add(bits, k == width - 1)
        made.append(total)
    return made
