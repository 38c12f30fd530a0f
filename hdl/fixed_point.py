"""Rounding, shifting and saturation in hardware, equal to :mod:`hwcompile.compiler.ir.operations`.

The shift may depend on ``select``: the data is first shifted left by the greatest left shift, so
that what remains is a right shift by 0 or more, whose common part is wiring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth import Module, Mux, Signal, Value
from amaranth.hdl import Shape

from hwcompile.compiler.ir.operations import limit
from hwcompile.hdl.intervals import Interval, hull
from hwcompile.hdl.tables import choose, pick, shape_of


@dataclass(frozen=True, slots=True)
class Rounding:
    """How sums of each task are shifted: ``shifts[select]``, negative for left."""

    shifts: tuple[int, ...]

    @property
    def left(self) -> int:
        """Bits by which the data is shifted left beforehand."""
        return max(0, -min(self.shifts))

    def halves(self) -> list[int]:
        """What to add, after the left shift, before the right shift."""
        return [1 << (s - 1) << self.left if s > 0 else 0 for s in self.shifts]

    def half(self, m: Module, select: Value, name: str) -> Value:
        """The constant of :meth:`halves` that is selected."""
        return pick(m, select, self.halves(), name)

    def shift(self, m: Module, select: Value, x: Value, name: str) -> Value:
        """``x`` (left shift and half applied) shifted right."""
        right = [s + self.left for s in self.shifts]
        fixed = x >> min(right)
        if len(set(right)) == 1:
            return fixed
        return fixed >> pick(m, select, [r - min(right) for r in right], name)


def saturated(m: Module, x: Value, bits: int, interval: Interval, name: str) -> Value:
    """``x`` clipped to the symmetric ``bits``-wide range; wiring if ``interval`` fits in it."""
    most = limit(bits)
    if -most <= interval[0] and interval[1] <= most:
        return x
    sign = x[-1]
    fits = Signal(name=f"{name}_fits")
    least = Signal(name=f"{name}_least")  # -2^(bits-1): inside the word, outside the range
    m.d.comb += fits.eq(x[bits - 1 :] == sign.replicate(len(x) - bits + 1))
    m.d.comb += least.eq(sign & ~x[: bits - 1].any())
    bound = Mux(sign, -most, most)
    clipped = Signal(Shape(bits, True), name=name)
    m.d.comb += clipped.eq(Mux(fits & ~least, x[:bits], bound))
    return clipped


def saturated_by(
    m: Module,
    select: Value,
    x: Value,
    bits: Sequence[int],
    exact: Sequence[Interval],
    name: str,
) -> Value:
    """:func:`saturated` with the width and interval of the selected task."""
    low, high = hull(exact)
    source = Signal(shape_of(min(low, -1), high), name=f"{name}_exact")
    m.d.comb += source.eq(x)
    variants = {
        width: saturated(m, source, width, (low, high), f"{name}_{width}")
        for width in sorted(set(bits))
    }
    return choose(m, select, [variants[width] for width in bits], name)
