"""Sequential division: one quotient bit a cycle."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Divide(wiring.Component):
    """``quotient = floor(remainder * 2^final / divisor)`` where ``remainder < 2 * divisor``.

    Valid with ``done`` (one cycle, ``latency(final)`` after ``start``) until the next ``start``.
    A divisor of 0 gives some quotient, and still ends.

    Args:
        bits: of the divisor, which must stay stable.
        steps: the most quotient bits; ``final`` is at most one less.
    """

    def __init__(self, bits: int, steps: int) -> None:
        self.bits = bits
        self.steps = steps
        super().__init__(
            {
                "start": In(1),
                "remainder": In(bits),
                "divisor": In(bits),
                "final": In(range(max(steps, 2))),
                "quotient": Out(steps),
                "done": Out(1),
            }
        )

    @staticmethod
    def latency(final: int) -> int:
        """Cycles from ``start`` to ``done``, ``start`` not counted."""
        return final + 2

    def elaborate(self, platform: object) -> Module:
        m = Module()
        active = Signal()
        left = Signal(self.bits + 1, reset_less=True)
        step = Signal(self.final.shape())
        difference = Signal(self.bits + 2)
        fits = Signal()
        m.d.comb += [difference.eq(left - self.divisor), fits.eq(~difference[-1])]
        m.d.sync += self.done.eq(active & (step == self.final))
        with m.If(self.start):
            m.d.sync += [active.eq(1), step.eq(0), left.eq(self.remainder), self.quotient.eq(0)]
        with m.Elif(active):
            m.d.sync += [
                left.eq(Cat(0, Mux(fits, difference[: self.bits], left[: self.bits]))),
                self.quotient.eq(Cat(fits, self.quotient)),
                step.eq(step + 1),
                active.eq(step != self.final),
            ]
        return m
