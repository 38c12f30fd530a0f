"""Layer and RMS norm. Operands a, d.

Two passes over the row. The first sums elements and squares; then the root of the variance is taken
bit by bit and inverted; the second multiplies each element by the inverse, then by its
gain. One element a cycle in each pass; both passes share the wide multiplier.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal, Value, signed, unsigned

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.operations import INVERSE_BITS, NORMED_FRACTION
from hwcompile.hdl import intervals
from hwcompile.hdl.adders import multiple, wide_sum
from hwcompile.hdl.divide import Divide
from hwcompile.hdl.fixed_point import Rounding, saturated_by
from hwcompile.hdl.intervals import Interval
from hwcompile.hdl.square_root import SquareRoot
from hwcompile.hdl.tables import choose, column_bits, distinct, rom, shape_of
from hwcompile.hdl.unit import Pipeline, Task, Unit, Widths, element_shape, scan

INVERSE_STEPS = INVERSE_BITS + 2
READ_STAGES = 2
"""Memory, element register."""
MOMENT_STAGES = 4
"""Factor, half products, product, sum of squares."""
OUTPUT_STAGES = 6
"""Factor, half products, product, normed, gained, write."""


class NormaliseUnit(Unit):
    """See :class:`hwcompile.compiler.ir.program.Normalise`."""

    def __init__(self, tasks: Sequence[Task], widths: Widths) -> None:
        super().__init__(tasks, widths, ("a", "d"))
        self._operations: list[ir.Normalise] = []
        for task in tasks:
            assert isinstance(task.operation, ir.Normalise)
            self._operations.append(task.operation)
        self._inputs = [intervals.of(task.inputs[0]) for task in tasks]
        self._sizes = [len(op.gain) for op in self._operations]
        self._fractions = [op.root_fraction for op in self._operations]
        self._rounding = Rounding(tuple(op.shift for op in self._operations))
        self._root_bits = max(
            (_most_variance(op, x) << 2 * op.root_fraction).bit_length() + 1 >> 1
            for op, x in zip(self._operations, self._inputs, strict=True)
        )

    def cycles(self, select: int, row: int = 0) -> int:
        """Start, both passes, and between them the moments, the root and the inverse."""
        moments = self.columns(select) + READ_STAGES + MOMENT_STAGES
        root = SquareRoot.latency(self._root_bits)
        inverse = Divide.latency(INVERSE_STEPS - 1)
        output = self.columns(select) + READ_STAGES + OUTPUT_STAGES
        return 1 + moments + root + inverse + output

    def elaborate(self, platform: object) -> Module:
        m = Module()
        begin, again, second = Signal(), Signal(), Signal()
        m.d.comb += begin.eq(self.start | again)
        with m.If(begin):
            m.d.sync += second.eq(again)
        column = scan(m, begin, self.final_column(m), "column")
        pipe = self.read(m, column, self.a, begin)
        x = pipe.step(self.read_data, element_shape(t.inputs[0] for t in self.tasks), "x")

        m.submodules.root = root = SquareRoot(self._root_bits)
        m.submodules.inverse = inverse = Divide(self._root_bits, INVERSE_STEPS)
        total = self._total(m, pipe, x, second)
        left, right = self._factors(m, pipe, x, total, inverse.quotient, second)
        half, amount = self._place(m, root)
        product = self._product(m, pipe, left, right, half)
        variance, ready = self._variance(m, pipe, product, second)
        m.d.comb += [
            root.start.eq(ready),
            root.radicand.eq(self._radicand(m, variance)),
            inverse.start.eq(root.done),
            inverse.divisor.eq(root.root),
            inverse.remainder.eq(root.lead),
            inverse.final.eq(INVERSE_STEPS - 1),
            again.eq(inverse.done),
        ]
        output = Pipeline(m, valid=pipe["valid"] & second, last=pipe["last"])
        gain, bias = self._constants(m, begin, output["valid"])
        normed = output.step(product >> amount, shape_of(*self._normed_reach()), "normed")
        self._affine(m, output, normed, gain, bias)
        return m

    def _total(self, m: Module, pipe: Pipeline, x: Signal, second: Signal) -> Value:
        """Sum of x in the first pass (0 for RMS)."""
        layers = [op.kind == "layer" for op in self._operations]
        if not any(layers):
            return Const(0)
        total = Signal(shape_of(*intervals.hull(self._sums)), reset_less=True)
        is_layer = self.pick(m, [int(layer) for layer in layers], "is_layer")
        with m.If(self.start):
            m.d.sync += total.eq(0)
        with m.Elif(pipe["valid"] & ~second & is_layer):
            m.d.sync += total.eq(total + x)
        return total

    @property
    def _sums(self) -> list[Interval]:
        """Interval of each task's sum of x, and 0."""
        return [
            intervals.hull([intervals.times(x, d if op.kind == "layer" else 0), (0, 0)])
            for op, x, d in zip(self._operations, self._inputs, self._sizes, strict=True)
        ]

    @property
    def _centred(self) -> Interval:
        """Interval of ``d * x - S``."""
        return intervals.hull(
            intervals.plus(intervals.times(x, d), intervals.times(s, -1))
            for x, d, s in zip(self._inputs, self._sizes, self._sums, strict=True)
        )

    def _factors(
        self, m: Module, pipe: Pipeline, x: Signal, total: Value, inverse: Value, second: Signal
    ) -> tuple[Signal, Signal]:
        """What is multiplied: in the first pass x, then the sum, by itself; in the second
        ``d * x - S`` by the inverse."""
        # Signed, and of two bits at least: it is cut in halves.
        reach = intervals.hull([self._centred, *self._sums, *self._inputs, (-2, 1)])
        centred = Signal(shape_of(*self._centred))
        size = self.pick(m, self._sizes, "size")
        m.d.comb += centred.eq(x * size - total)
        summed = Signal(shape_of(*intervals.hull([*self._sums, *self._inputs])))
        m.d.comb += summed.eq(Mux(pipe["valid"], x, total))
        right = Signal(signed(max(len(summed), INVERSE_STEPS) + 1), reset_less=True)
        m.d.sync += right.eq(Mux(second, inverse, summed))
        return pipe.step(Mux(second, centred, summed), shape_of(*reach), "left"), right

    def _place(self, m: Module, root: SquareRoot) -> tuple[Signal, Signal]:
        """Half of the place the product is rounded at (0 in the first pass), and the place.

        It is at least 4: a variance of 1 or more has a root of more than root_fraction bits, and
        one of 0 has only zeros to shift. Its half is the root's leading one, moved.
        """
        offset = INVERSE_BITS - NORMED_FRACTION
        amount = Signal(range(root.bits + offset + 1), reset_less=True)
        half = Signal(root.bits + offset)
        halves = {f: (root.lead << offset) >> f for f in sorted(set(self._fractions))}
        with m.If(self.start):
            m.d.sync += half.eq(0)
        with m.Elif(root.done):
            m.d.sync += [
                half.eq(choose(m, self.select, [halves[f] for f in self._fractions], "halves")),
                amount.eq(
                    root.length + self.pick(m, [offset - f for f in self._fractions], "offset")
                ),
            ]
        return half, amount

    def _product(
        self,
        m: Module,
        pipe: Pipeline,
        left: Signal,
        right: Signal,
        half: Signal,
    ) -> Signal:
        """``left * right + half`` in two stages: four products of halves, then their sum."""
        left_cut, right_cut = len(left) + 1 >> 1, len(right) + 1 >> 1
        left_parts = left[:left_cut], left[left_cut:].as_signed()
        right_parts = right[:right_cut], right[right_cut:].as_signed()
        parts: list[Signal] = []
        for i, a in enumerate(left_parts):
            for j, b in enumerate(right_parts):
                bits = len(a) + len(b)
                shape = signed(bits) if i or j else unsigned(bits)
                part = Signal(shape, name=f"part_{i}{j}", reset_less=True)
                m.d.sync += part.eq(a * b)
                parts.append(part)
        pipe.wait("parts")
        low, high_right, high_left, high = parts
        squares = intervals.hull(intervals.times(x, x) for x in [*self._inputs, *self._sums])
        scaled = intervals.times(self._centred, (0, 1 << INVERSE_BITS + 1))
        reach = intervals.hull([squares, intervals.plus(scaled, (0, 1 << len(half)))])
        shape = shape_of(*reach)
        terms = [
            Cat(low, high).as_signed(),
            high_right << right_cut,
            high_left << left_cut,
            half,
        ]
        total = wide_sum(m, terms, shape.width, "product_sum")
        return pipe.step(total, shape, "product")

    def _variance(
        self, m: Module, pipe: Pipeline, product: Signal, second: Signal
    ) -> tuple[Signal, Value]:
        """``d * sum(x^2) - sum(x)^2 + epsilon``, and a pulse when it is there."""
        squares = Signal(
            range(max(map(_most_squares, self._inputs, self._sizes)) + 1), reset_less=True
        )
        summing = pipe["valid"] & ~second
        with m.If(self.start):
            m.d.sync += squares.eq(0)
        with m.Elif(summing):
            m.d.sync += squares.eq(wide_sum(m, [squares, product], len(squares), "squares_sum"))
        variance = Signal(range(max(map(_most_variance, self._operations, self._inputs)) + 1))
        if len(set(self._sizes)) == 1:
            terms = multiple(squares, self._sizes[0])
        else:
            terms = [squares * self.pick(m, self._sizes, "variance_size")]
        minus = 0
        if any(op.kind == "layer" for op in self._operations):
            # Behind the last element the multiplier squares the sum; -s is ~s + 1.
            terms.append((~product).as_signed())
            minus = 1
        terms.append(self.pick(m, [op.epsilon + minus for op in self._operations], "epsilon"))
        m.d.comb += variance.eq(wide_sum(m, terms, len(variance), "variance_sum"))
        ready = Pipeline(m, valid=summing & pipe["last"])
        ready.wait("summed")
        return variance, ready["valid"]

    def _radicand(self, m: Module, variance: Signal) -> Value:
        """The variance shifted left by twice the root's fraction."""
        shifted = {f: variance << 2 * f for f in sorted(set(self._fractions))}
        return choose(m, self.select, [shifted[f] for f in self._fractions], "radicand")

    def _normed_reach(self) -> Interval:
        """Cauchy-Schwarz bounds n / sqrt(V) by sqrt(d); the root's floor adds 2^-root_fraction."""
        most = 0
        for d, f in zip(self._sizes, self._fractions, strict=True):
            bound = isqrt(d - 1) + 1 << NORMED_FRACTION
            most = max(most, bound + (bound >> f) + 2)
        return -most, most

    def _constants(self, m: Module, begin: Value, valid: Value) -> tuple[Signal, Signal]:
        """Gain, and bias with half of the last place, of the column a stage after ``valid``."""
        left = self._rounding.left
        rows, places = distinct(
            [
                np.stack([op.gain, (op.bias << left) + half])
                for op, half in zip(self._operations, self._rounding.halves(), strict=True)
            ]
        )
        table = np.zeros((2, len(rows), max(self._sizes)), np.int64)
        for index, row in enumerate(rows):
            table[:, index, : row.shape[1]] = row
        column = Signal(range(max(*self._sizes, 2)), name="gain_column")
        with m.If(begin):
            m.d.sync += column.eq(0)
        with m.Elif(valid):
            m.d.sync += column.eq(column + 1)
        address = Cat(column[: column_bits(table[0])], self.pick(m, places, "place"))
        return rom(m, address, table[0], "gain"), rom(m, address, table[1], "bias")

    def _affine(
        self, m: Module, pipe: Pipeline, normed: Signal, gain: Signal, bias: Signal
    ) -> None:
        """Gain, bias, shift and saturate, and write."""
        left = self._rounding.left
        reach = self._normed_reach()
        sums = []
        for op in self._operations:
            gained = intervals.times(
                reach, intervals.hull([(int(op.gain.min()), int(op.gain.max()))])
            )
            sums.append(intervals.plus(gained, (int(op.bias.min()), int(op.bias.max()))))
        raised = [
            intervals.plus(intervals.times(s, 1 << left), (0, half))
            for s, half in zip(sums, self._rounding.halves(), strict=True)
        ]
        shape = shape_of(*intervals.hull(raised))
        gained = pipe.step(((normed * gain) << left) + bias, shape, "gained")
        exact = [
            intervals.rounded(s, shift)
            for s, shift in zip(sums, self._rounding.shifts, strict=True)
        ]
        shifted = self._rounding.shift(m, self.select, gained, "shift")
        bits = [op.output.bits for op in self._operations]
        self.write(m, pipe, saturated_by(m, self.select, shifted, bits, exact, "result"))


def _most_squares(x: Interval, size: int) -> int:
    return max(-x[0], x[1]) ** 2 * size


def _most_variance(op: ir.Normalise, x: Interval) -> int:
    return len(op.gain) * _most_squares(x, len(op.gain)) + op.epsilon
