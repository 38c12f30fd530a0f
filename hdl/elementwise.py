"""Rescale, Add and Multiply. Operands a, b (two inputs), d.

Two inputs take two cycles an element (one read port): first ``a``, then ``b``. A multiplier is
built only where a constant other than 1, or a product of two inputs, asks for one.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Module, Mux, Signal, Value
from amaranth.hdl import Shape

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl import intervals
from hwcompile.hdl.fixed_point import Rounding, saturated_by
from hwcompile.hdl.intervals import Interval
from hwcompile.hdl.tables import shape_of
from hwcompile.hdl.unit import Operand, Pipeline, Task, Unit, Widths, pointer, scan


class ElementwiseUnit(Unit):
    """One cycle for each element of each input."""

    def __init__(self, tasks: Sequence[Task], widths: Widths) -> None:
        self._pairs = [len(task.inputs) == 2 for task in tasks]
        operands: tuple[Operand, ...] = ("a", "b", "d") if any(self._pairs) else ("a", "d")
        super().__init__(tasks, widths, operands)
        self._factors = [_factors(task.operation) for task in tasks]
        self._products = [isinstance(task.operation, ir.Multiply) for task in tasks]
        self._scales = any(factor != (1, 1) for factor in self._factors)
        self._rounding = Rounding(tuple(_shift(task.operation) for task in tasks))

    def cycles(self, select: int, row: int = 0) -> int:
        """Start, the reads, and the stages: read, element, (product), (scale), sum, write."""
        reads = self.columns(select) * (1 + self._pairs[select])
        return 1 + reads + 4 + any(self._products) + self._scales

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pipe = self._issue(m)
        terms = [tuple(intervals.of(v) for v in task.inputs) for task in self.tasks]
        x = pipe.step(self.read_data, _shape(terms), "x")
        if any(self._products):
            x, terms = self._product(m, pipe, x, terms)
        if self._scales:
            x, terms = self._scale(m, pipe, x, terms)
        x, sums = self._sum(m, pipe, x, terms)
        exact = [
            intervals.rounded(s, shift)
            for s, shift in zip(sums, self._rounding.shifts, strict=True)
        ]
        shifted = self._rounding.shift(m, self.select, x, "shift")
        bits = [task.operation.output.bits for task in self.tasks]
        self.write(m, pipe, saturated_by(m, self.select, shifted, bits, exact, "result"))
        return m

    def _issue(self, m: Module) -> Pipeline:
        """Read the inputs in turn. ``first``: the first read of an element; ``valid``: its last."""
        pair = self.pick(m, [int(p) for p in self._pairs], "pair")
        reads = [self.columns(s) * (1 + p) for s, p in enumerate(self._pairs)]
        read = scan(m, self.start, self.pick(m, [r - 1 for r in reads], "final_read"), "read")
        second = Signal()
        m.d.comb += [second.eq(read.index[0] & pair), self.read_en.eq(read.active)]
        a = pointer(m, self.start, self.a, read.active & ~second, "source_a")
        if any(self._pairs):
            b = pointer(m, self.start, self.b, read.active & second, "source_b")
            m.d.comb += self.read_addr.eq(Mux(second, b, a))
        else:
            m.d.comb += self.read_addr.eq(a)
        pipe = Pipeline(m, valid=read.active & (second | ~pair), last=read.last, first=~second)
        pipe.wait("arrived")
        return pipe

    def _product(
        self, m: Module, pipe: Pipeline, x: Signal, terms: list[tuple[Interval, ...]]
    ) -> tuple[Signal, list[tuple[Interval, ...]]]:
        """Of a Multiply, the second term becomes the product of both; else x passes."""
        pairs = [t for t, is_product in zip(terms, self._products, strict=True) if is_product]
        left = Signal(shape_of(*intervals.hull(p[0] for p in pairs)), reset_less=True)
        right = Signal(shape_of(*intervals.hull(p[1] for p in pairs)))
        m.d.comb += right.eq(x)
        m.d.sync += left.eq(x)
        after = [
            (intervals.times(*t),) if is_product else t
            for t, is_product in zip(terms, self._products, strict=True)
        ]
        is_product = self.pick(m, [int(p) for p in self._products], "is_product")
        y = pipe.step(Mux(is_product, left * right, x), _shape(after), "product")
        return y, after

    def _scale(
        self, m: Module, pipe: Pipeline, x: Signal, terms: list[tuple[Interval, ...]]
    ) -> tuple[Signal, list[tuple[Interval, ...]]]:
        """Multiply each term by its constant."""
        first = self.pick(m, [f[0] for f in self._factors], "factor_a")
        second = self.pick(m, [f[1] for f in self._factors], "factor_b")
        # A product is alone in its list, and takes the constant of the second read.
        after = [
            tuple(intervals.times(x, k) for x, k in zip(t, f[-len(t) :], strict=True))
            for t, f in zip(terms, self._factors, strict=True)
        ]
        factor = Mux(pipe["first"], first, second)
        return pipe.step(x * factor, _shape(after), "scaled"), after

    def _sum(
        self, m: Module, pipe: Pipeline, x: Signal, terms: list[tuple[Interval, ...]]
    ) -> tuple[Signal, list[Interval]]:
        """Sum of the terms, with half of the last place: ready to be shifted right.

        Returns the register and the interval of each task's plain sum.
        """
        left = self._rounding.left
        starts = [t[0] for t in terms]
        sums = [intervals.plus(*t) if len(t) == 2 else t[0] for t in terms]
        reach = [
            intervals.plus(intervals.times(s, 1 << left), (half, half))
            for part in (starts, sums)
            for s, half in zip(part, self._rounding.halves(), strict=True)
        ]
        total = Signal(shape_of(*intervals.hull(reach)), name="total", reset_less=True)
        is_product = self.pick(m, [int(p) for p in self._products], "starts_late")
        half = self._rounding.half(m, self.select, "half")
        before: Value = Mux(pipe["first"] | is_product, half, total)
        m.d.sync += total.eq((x << left) + before)
        pipe.wait("summed")
        return total, sums


def _factors(op: ir.Operation) -> tuple[int, int]:
    """The constants that multiply the first and the second read (the product, for Multiply)."""
    match op:
        case ir.Rescale():
            return op.multiplier, op.multiplier
        case ir.Add():
            return op.multiplier_a, op.multiplier_b
        case ir.Multiply():
            return op.multiplier, op.multiplier
    raise TypeError(f"{type(op).__name__} is not elementwise")


def _shift(op: ir.Operation) -> int:
    assert isinstance(op, ir.Rescale | ir.Add | ir.Multiply)
    return op.shift


def _shape(terms: Sequence[tuple[Interval, ...]]) -> Shape:
    return shape_of(*intervals.hull(x for term in terms for x in term))
