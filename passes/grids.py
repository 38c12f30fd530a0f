"""Integer grids: which real numbers the integers of a value stand for, and how to choose them.

All functions are pure. ``samples`` are floats seen in calibration; errors are mean squared errors
over them. A grid means ``real = integer * scale + offset`` with the integers of a symmetric
``bits``-wide range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import frexp

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.ir.operations import limit

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_FACTORS = np.geomspace(0.35, 1.02, 28)  # candidate ranges, as parts of the range seen
_SAMPLES = 10_000  # enough to judge a grid by


@dataclass(frozen=True, slots=True)
class Grid:
    """``real = integer * scale + offset``; scale and offset are numbers or one a column."""

    bits: int
    scale: float | FloatArray
    offset: float | FloatArray = 0.0

    @property
    def nominal(self) -> float:
        """One scale for reports: of the value itself unless it varies by column."""
        return float(np.mean(np.abs(self.scale))) or 1.0

    def integers(self, real: FloatArray) -> IntArray:
        """Nearest integers of the grid (half up), clipped."""
        scale = np.where(self.scale == 0, 1.0, self.scale)
        x = np.floor((real - self.offset) / scale + 0.5)
        return np.clip(x, -limit(self.bits), limit(self.bits)).astype(np.int64)

    def reals(self, integers: IntArray) -> FloatArray:
        """What the integers stand for."""
        return np.asarray(integers * self.scale + self.offset, np.float64)


def widest(samples: FloatArray, bits: int, margin: float) -> Grid:
    """The grid over the greatest magnitude seen, times ``margin``."""
    most = float(np.abs(samples).max(initial=0.0)) or 1.0
    return Grid(bits, most * margin / limit(bits))


def _thin(samples: FloatArray) -> FloatArray:
    """At most 10000 samples, drawn alike from all columns (a stride could miss some)."""
    flat = samples.ravel()
    if flat.size <= _SAMPLES:
        return flat
    return flat[np.random.default_rng(0).integers(0, flat.size, _SAMPLES)]


def symmetric(samples: FloatArray, bits: int) -> Grid:
    """The grid without offset of least error."""
    most = float(np.abs(samples).max(initial=0.0)) or 1.0
    samples = _thin(samples)
    grids = [Grid(bits, most * float(factor) / limit(bits)) for factor in _FACTORS]
    return min(grids, key=lambda grid: error(samples, grid))


def symmetric_columns(samples: FloatArray, bits: int) -> FloatArray:
    """Scales ``[cols]`` of least error, each column of ``[n, cols]`` for itself."""
    most = np.abs(samples).max(0)
    candidates = np.where(most > 0, most, 1.0) * _FACTORS[:, None] / limit(bits)
    errors = [
        ((Grid(bits, scale).integers(samples) * scale - samples) ** 2).mean(0)
        for scale in candidates
    ]
    best = np.argmin(errors, 0)[None, :]
    return np.asarray(np.take_along_axis(candidates, best, 0)[0], np.float64)


def shifted(
    samples: FloatArray, bits: int, function: Callable[[FloatArray], FloatArray] | None = None
) -> Grid:
    """The grid with offset of least error, of ``function`` of the value if given.

    Both ends of the range are searched: a function that is flat on one side needs no levels there.
    """
    low, high = float(samples.min(initial=0.0)), float(samples.max(initial=0.0))
    if low == high:
        return symmetric(samples, bits)
    samples = _thin(samples)
    best = _search_ends(samples, bits, function, low, high, np.linspace(0, 0.75, 11))
    step = 0.075 * (high - low)
    low, high = max(low, best[0] - step), min(high, best[1] + step)
    part = min(0.9, 2 * step / (high - low))
    ends = _search_ends(samples, bits, function, low, high, np.linspace(0, part, 8))
    return _between(ends[0], ends[1], bits)


def _search_ends(
    samples: FloatArray,
    bits: int,
    function: Callable[[FloatArray], FloatArray] | None,
    low: float,
    high: float,
    cuts: FloatArray,
) -> tuple[float, float]:
    span = high - low
    ends = [(low + a * span, high - b * span) for a in cuts for b in cuts if a + b < 0.95]
    exact = None if function is None else function(samples)
    return min(ends, key=lambda e: error(samples, _between(e[0], e[1], bits), function, exact))


def _between(low: float, high: float, bits: int) -> Grid:
    return Grid(bits, (high - low) / (2 * limit(bits)), (high + low) / 2)


def error(
    samples: FloatArray,
    grid: Grid,
    function: Callable[[FloatArray], FloatArray] | None = None,
    exact: FloatArray | None = None,
) -> float:
    """Mean squared error of the grid over samples, or of a function of them."""
    near = grid.reals(grid.integers(samples))
    if function is not None:
        near = function(near)
    return float(np.mean((near - (samples if exact is None else exact)) ** 2))


# --- requantisation constants ---------------------------------------------------------------------


def multiplier_shift(ratio: float, bits: int) -> tuple[int, int]:
    """Least odd multiplier and shift with ``multiplier * 2^-shift`` near a positive ratio.

    The relative error is below ``2^-(bits + 1)``: under half a unit at full scale of ``bits``.

    >>> multiplier_shift(0.75, 8)
    (3, 2)
    """
    mantissa, exponent = frexp(ratio)
    for width in range(bits + 2):
        multiplier = round(mantissa * (1 << width))
        if multiplier and abs(multiplier / (1 << width) / mantissa - 1) < 2.0 ** -(bits + 1):
            return multiplier, width - exponent
    return round(mantissa * (1 << bits + 2)), bits + 2 - exponent


def coarse_multiplier_shift(ratio: float, bits: int = 4) -> tuple[int, int]:
    """The greatest ``multiplier * 2^-shift`` not above a ratio, with a multiplier of ``bits``.

    For results whose scale is free to move: it moves up a little, so the range still holds.
    """
    mantissa, exponent = frexp(ratio)
    multiplier, shift = int(np.floor(mantissa * (1 << bits))), bits - exponent
    while multiplier % 2 == 0:
        multiplier, shift = multiplier // 2, shift - 1
    return multiplier, shift


# --- weights --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Weights:
    """``weight ~ integers * multiplier * 2^-shift`` by column."""

    integers: IntArray
    multiplier: IntArray
    shift: IntArray

    @property
    def step(self) -> FloatArray:
        """Real value of one unit, by column."""
        return np.asarray(self.multiplier * 2.0**-self.shift, np.float64)


def power_of_two_weights(weight: FloatArray, bits: int, importance: FloatArray) -> Weights:
    """Multiplier 1: by column the power of two of least error, weighted by row ``importance``."""
    most = np.abs(weight).max(0)
    exact = np.where(most > 0, most, 1.0)
    first = np.floor(np.log2(limit(bits) / exact)).astype(np.int64)
    shifts = first[None, :] + np.arange(3)[:, None]
    errors = [_weight_error(weight, 2.0**-s, bits, importance) for s in shifts]
    shift = np.take_along_axis(shifts, np.argmin(errors, 0)[None, :], 0)[0]
    shift = np.where(most > 0, shift, 8)
    return Weights(_round(weight, 2.0**-shift, bits), np.ones_like(shift), shift)


def free_weights(weight: FloatArray, bits: int, importance: FloatArray) -> Weights:
    """By column the 8-bit multiplier and shift of least error: for few weight bits."""
    most = np.where(np.abs(weight).max(0) > 0, np.abs(weight).max(0), 1.0)
    tops = most / limit(bits) * np.geomspace(0.2, 1.0, 40)[:, None]
    exponent = np.floor(np.log2(tops)).astype(np.int64)
    multipliers = np.clip(np.floor(tops * 2.0 ** (7 - exponent) + 0.5), 128, 255).astype(np.int64)
    steps = multipliers * 2.0 ** (exponent - 7)
    errors = [_weight_error(weight, step, bits, importance) for step in steps]
    best = np.argmin(errors, 0)[None, :]
    multiplier = np.take_along_axis(multipliers, best, 0)[0]
    shift = 7 - np.take_along_axis(exponent, best, 0)[0]
    integers = _round(weight, multiplier * 2.0**-shift, bits)
    return Weights(integers, multiplier, shift)


def relative_error(weight: FloatArray, bits: int) -> float:
    """Root mean square of what rounding to a power of two a column changes, by that of weights."""
    importance = np.ones(len(weight))
    near = power_of_two_weights(weight, bits, importance)
    change = near.integers * near.step - weight
    return float(np.sqrt((change**2).mean() / (weight**2).mean()))


def given_weights(integers: IntArray, scale: FloatArray, bits: int) -> Weights:
    """Integers of the file, never changed: a multiplier and shift a column for their scale."""
    pairs = [multiplier_shift(float(s), bits) for s in scale]
    columns = np.array(pairs, np.int64).reshape(len(pairs), 2)
    return Weights(integers, columns[:, 0], columns[:, 1])


def _round(weight: FloatArray, step: FloatArray, bits: int) -> IntArray:
    return np.clip(np.rint(weight / step), -limit(bits), limit(bits)).astype(np.int64)


def _weight_error(
    weight: FloatArray, step: FloatArray, bits: int, importance: FloatArray
) -> FloatArray:
    return np.asarray(importance @ (_round(weight, step, bits) * step - weight) ** 2)
