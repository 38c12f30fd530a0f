"""Sequential integer square root: one bit of the root a cycle."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class SquareRoot(wiring.Component):
    """``root = isqrt(radicand)``, its bit length, and its leading one alone (``lead``).

    All valid with ``done`` (one cycle, ``latency(bits)`` after ``start``) until the next ``start``.

    Args:
        bits: of the root; the radicand has twice as many.
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        super().__init__(
            {
                "start": In(1),
                "radicand": In(2 * bits),
                "root": Out(bits),
                "lead": Out(bits),
                "length": Out(range(bits + 1)),
                "done": Out(1),
            }
        )

    @staticmethod
    def latency(bits: int) -> int:
        """Cycles from ``start`` to ``done``, ``start`` not counted."""
        return bits + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        active = Signal()
        step = Signal(range(max(self.bits, 2)))
        rest = Signal(2 * self.bits, reset_less=True)
        # remainder <= 2 * root after each step
        remainder = Signal(self.bits + 1, reset_less=True)
        trial = Signal(self.bits + 3)
        difference = Signal(self.bits + 4)
        fits = Signal()
        m.d.comb += [
            trial.eq(Cat(rest[-2:], remainder)),
            difference.eq(trial - Cat(1, 0, self.root)),
            fits.eq(~difference[-1]),
        ]
        m.d.sync += self.done.eq(active & (step == self.bits - 1))
        with m.If(self.start):
            m.d.sync += [
                active.eq(1),
                step.eq(0),
                rest.eq(self.radicand),
                remainder.eq(0),
                self.root.eq(0),
                self.lead.eq(0),
                self.length.eq(0),
            ]
        with m.Elif(active):
            found = Signal()
            m.d.comb += found.eq(self.lead.any())
            m.d.sync += [
                rest.eq(rest << 2),
                remainder.eq(Mux(fits, difference, trial)),
                self.root.eq(Cat(fits, self.root)),
                self.lead.eq(Cat(fits & ~found, self.lead)),
                self.length.eq(self.length + (found | fits)),
                step.eq(step + 1),
                active.eq(step != self.bits - 1),
            ]
        return m
