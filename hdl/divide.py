"""Sequential division: two quotient bits a cycle."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal
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
        return final // 2 + 2

    def elaborate(self, platform: object) -> Module:
        m = Module()
        active = Signal()
        step = Signal(range(max((self.steps + 1) // 2, 2)))
        last = Signal()
        # left < 4 * divisor before each step: the digit is how many of the multiples fit.
        left = Signal(self.bits + 2, reset_less=True)
        triple = Signal(self.bits + 2, reset_less=True)
        multiples = (self.divisor, self.divisor << 1, triple)
        rests = [Signal(self.bits + 3, name=f"rest_{i + 1}") for i in range(3)]
        m.d.comb += [rest.eq(left - n) for rest, n in zip(rests, multiples, strict=True)]
        fits = [~rest[-1] for rest in rests]
        digit = Cat(Mux(fits[1], fits[2], fits[0]), fits[1])
        rest = Signal(self.bits)
        m.d.comb += [
            last.eq(step == self.final[1:]),
            rest.eq(
                Mux(
                    fits[1],
                    Mux(fits[2], rests[2], rests[1]),
                    Mux(fits[0], rests[0], left),
                )
            ),
        ]
        m.d.sync += self.done.eq(active & last)
        with m.If(self.start):
            m.d.sync += [
                active.eq(1),
                step.eq(0),
                # An odd number of bits begins with a digit of one bit.
                left.eq(Mux(self.final[0], self.remainder << 1, self.remainder)),
                triple.eq(self.divisor + (self.divisor << 1)),
                self.quotient.eq(0),
            ]
        with m.Elif(active):
            m.d.sync += [
                left.eq(Cat(Const(0, 2), rest)),
                self.quotient.eq(Cat(digit, self.quotient)),
                step.eq(step + 1),
                active.eq(~last),
            ]
        return m
