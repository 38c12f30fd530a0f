"""Statistics of weight matrices: what the area of weight logic rests on, in one histogram.

A matrix of any size is read in blocks, twice: for the largest magnitude of each output column,
then for the histogram of its integers. Only a histogram and one number a column are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.ir.compiled import compiled

HALF = 128
"""Integers of a histogram: -128 to 127, so 256 entries; entry ``HALF`` counts the zeros."""

Blocks = Callable[[], Iterable[NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class MatrixStatistics:
    """A matrix ``[inputs, outputs]`` of ``bits``-bit integers by how often each occurs.

    ``copies``: equal-shaped matrices counted together (experts of a layer). ``used``: share of
    them that one item passes. ``rows``: how often an item passes the matrix (positions of an
    encoder).
    """

    name: str
    inputs: int
    outputs: int
    bits: int
    histogram: tuple[int, ...]
    copies: int = 1
    used: float = 1.0
    rows: int = 1

    @property
    def weights(self) -> int:
        """Weights, zeros included."""
        return sum(self.histogram)

    @property
    def zeros(self) -> int:
        """Weights that are zero."""
        return self.histogram[HALF]

    @property
    def digits(self) -> int:
        """Canonical signed digits of all weights that are not zero."""
        return int(np.asarray(self.histogram, np.int64) @ _DIGITS)

    @property
    def ones(self) -> int:
        """Bits of all magnitudes that are one."""
        return int(np.asarray(self.histogram, np.int64) @ _ONES)

    @property
    def macs(self) -> float:
        """Multiply-accumulates of one item, zeros included."""
        return self.weights * self.used * self.rows


def signed_digits(value: int) -> int:
    """Digits of the canonical signed form that are not zero (Reitwiesner, 1960)."""
    magnitude = abs(value)
    return ((3 * magnitude) ^ magnitude).bit_count()


_DIGITS = np.array([signed_digits(v - HALF) for v in range(2 * HALF)])
_ONES = np.array([abs(v - HALF).bit_count() for v in range(2 * HALF)])


def float_histogram(blocks: Blocks, shape: tuple[int, ...], axis: int, bits: int) -> list[int]:
    """Histogram of a float tensor as symmetric integers, a scale for each output column.

    ``blocks`` yields all elements in order, float32, flat; it is called twice. ``axis``: the axis
    of the outputs. The scale takes the largest magnitude of a column to ``2^(bits-1) - 1``.
    """
    across, inner = shape[axis], prod(shape[axis:]) // shape[axis]
    largest = np.zeros(across, np.float32)
    start = 0
    for block in blocks():
        _largest(block, start, inner, largest)
        start += block.size
    top = np.float32(2 ** (bits - 1) - 1)
    factors = np.divide(top, largest, out=np.zeros_like(largest), where=largest > 0)
    counts = np.zeros(2 * HALF, np.int64)
    start = 0
    for block in blocks():
        _count(block, start, inner, factors, counts)
        start += block.size
    return [int(c) for c in counts]


def integer_histogram(blocks: Blocks) -> list[int]:
    """Histogram of a tensor that holds integers of at most 8 bits already."""
    counts = np.zeros(2 * HALF, np.int64)
    for block in blocks():
        values = block.astype(np.int16)
        if values.size and block.dtype.kind == "u":
            values -= HALF
        counts += np.bincount(values + HALF, minlength=2 * HALF)
    return [int(c) for c in counts]


def nibble_histogram(blocks: Blocks) -> list[int]:
    """Histogram of bytes that hold two unsigned 4-bit integers each, zero at 8."""
    counts = np.zeros(256, np.int64)
    for block in blocks():
        counts += np.bincount(block, minlength=256)
    low = counts.reshape(16, 16).sum(0)
    high = counts.reshape(16, 16).sum(1)
    made = [0] * (2 * HALF)
    made[HALF - 8 : HALF + 8] = [int(c) for c in low + high]
    return made


@compiled
def _largest(block: Any, start: int, inner: int, largest: Any) -> None:
    """Raise ``largest`` [columns] to the magnitudes in ``block``, elements ``start`` and on."""
    across = largest.size
    position = 0
    while position < block.size:
        place = start + position
        column, offset = (place // inner) % across, place % inner
        if inner == 1:
            run = min(across - column, block.size - position)
            for k in range(run):
                largest[column + k] = max(largest[column + k], abs(block[position + k]))
        else:
            run = min(inner - offset, block.size - position)
            top = np.float32(0)
            for k in range(position, position + run):
                top = max(top, abs(block[k]))
            largest[column] = max(largest[column], top)
        position += run


@compiled
def _count(block: Any, start: int, inner: int, factors: Any, counts: Any) -> None:
    """Add the integers of ``block`` to ``counts`` [256]."""
    across = factors.size
    position = 0
    shift = np.float32(128.5)
    while position < block.size:
        place = start + position
        column, offset = (place // inner) % across, place % inner
        if inner == 1:
            run = min(across - column, block.size - position)
            for k in range(run):
                counts[int(block[position + k] * factors[column + k] + shift) & 255] += 1
        else:
            run = min(inner - offset, block.size - position)
            factor = factors[column]
            for k in range(position, position + run):
                counts[int(block[k] * factor + shift) & 255] += 1
        position += run
