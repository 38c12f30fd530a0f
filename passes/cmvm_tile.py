"""What a tile of a constant matrix is solved with and to: options, terms, signed digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hwcompile.compiler.ir.adder_graph import IntArray

Objective = Literal["area", "adders", "depth"]


@dataclass(frozen=True, slots=True)
class SolverOptions:
    """How hard to search, and for what.

    ``level`` 0 to 3. ``depth``: most additions on a path (None: no bound; with objective ``depth``
    the least possible). ``steps``: ruin-and-recreate steps for each shared node at level 3.
    ``tile``: most inputs solved in one piece (0: by the number of weights).
    """

    level: int = 1
    objective: Objective = "area"
    depth: int | None = None
    steps: int = 60
    tile: int = 0


@dataclass(frozen=True, slots=True)
class Tile:
    """A solved tile: nodes are its ``inputs``, then its A adders.

    ``operands [6, A]`` as of :func:`hwcompile.compiler.ir.adder_graph.build`; ``terms [4, T]``:
    output, node, shift, negative, sorted by output.
    """

    inputs: int
    operands: IntArray
    terms: IntArray


def signed_weight(values: IntArray) -> IntArray:
    """Digits that are not zero in the canonical signed form of each value."""
    size = np.abs(values)
    count: IntArray = np.bitwise_count(size ^ (3 * size)).astype(np.int64)
    return count


def signed_masks(values: IntArray) -> tuple[IntArray, IntArray]:
    """Bit masks of the +1 and of the -1 digits in the canonical signed form of each value."""
    size = np.abs(values)
    plus, minus = ((3 * size) & ~size) >> 1, (size & ~(3 * size)) >> 1
    return np.where(values < 0, minus, plus), np.where(values < 0, plus, minus)


def digit_terms(coefficients: IntArray) -> IntArray:
    """Terms ``[4, T]`` (output, node, shift, negative) of coefficients ``[nodes, M]``: one for each
    canonical signed digit, sorted by output, node and shift."""
    output, node = np.nonzero(coefficients.T)
    plus, minus = signed_masks(coefficients[node, output])
    places = int(np.max(plus | minus, initial=0)).bit_length()
    taken, shift = np.nonzero((plus | minus)[:, None] >> np.arange(places) & 1)
    return np.stack([output[taken], node[taken], shift, minus[taken] >> shift & 1])
