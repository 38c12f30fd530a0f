"""SumRows: a column's rows added, then rescaled. Operands a (row 0 of x), c (flags), d.

One cycle a row and column, two where rows are flagged (the flag is read first).
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Const, Module, Mux, Signal, Value

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.operations import spec
from hwcompile.hdl import intervals
from hwcompile.hdl.fixed_point import Rounding, saturated_by
from hwcompile.hdl.tables import shape_of
from hwcompile.hdl.unit import Operand, Pipeline, Task, Unit, Widths, element_shape, pointer

STAGES = 5
"""Read, element, sum, product, write."""


class SumRowsUnit(Unit):
    """See :class:`hwcompile.compiler.ir.program.SumRows`."""

    def __init__(self, tasks: Sequence[Task], widths: Widths) -> None:
        self._flagged = [len(task.inputs) > 1 for task in tasks]
        operands: tuple[Operand, ...] = ("a", "c", "d") if any(self._flagged) else ("a", "d")
        super().__init__(tasks, widths, operands)
        self._operations: list[ir.SumRows] = []
        for task in tasks:
            assert isinstance(task.operation, ir.SumRows)
            self._operations.append(task.operation)
        self._rows = [task.inputs[0].rows for task in tasks]
        self._rounding = Rounding(tuple(op.shift for op in self._operations))

    def cycles(self, select: int, row: int = 0) -> int:
        """Start, the reads, and the stages."""
        reads = self._rows[select] * (1 + self._flagged[select])
        return 1 + reads * self.columns(select) + STAGES

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pipe = self._issue(m)
        shape = element_shape(t.inputs[0] for t in self.tasks)
        x = pipe.step(Mux(self._keeps(m), self.read_data, 0), shape, "x")

        low, high = intervals.hull(
            intervals.times(intervals.hull([intervals.of(t.inputs[0]), (0, 0)]), rows)
            for t, rows in zip(self.tasks, self._rows, strict=True)
        )
        total = Signal(shape_of(low, high), name="total", reset_less=True)
        with m.If(pipe["valid"]):
            m.d.sync += total.eq(Mux(pipe["top"], 0, total) + x)
        pipe.attach(valid=pipe["valid"] & pipe["bottom"])
        pipe.wait("summed")

        left = self._rounding.left
        multipliers = [op.multiplier for op in self._operations]
        reach = intervals.times((low, high), intervals.hull((k, k) for k in multipliers))
        reach = intervals.times(reach, 1 << left)
        reach = intervals.plus(reach, (0, max(self._rounding.halves())))
        multiplier = self.pick(m, multipliers, "multiplier")
        half = self._rounding.half(m, self.select, "half")
        scaled = pipe.step(((total * multiplier) << left) + half, shape_of(*reach), "scaled")

        shifted = self._rounding.shift(m, self.select, scaled, "shift")
        bits = [op.output.bits for op in self._operations]
        exact = [spec(t.operation).interval(t.operation, t.inputs) for t in self.tasks]
        self.write(m, pipe, saturated_by(m, self.select, shifted, bits, exact, "result"))
        return m

    def _keeps(self, m: Module) -> Value:
        """Whether the element that arrives is summed: the flag arrived the cycle before."""
        if "c" not in self.operands:
            return Const(1)
        flag = Signal(name="flag", reset_less=True)
        m.d.sync += flag.eq(self.read_data.any())
        return flag | ~self.pick(m, [int(f) for f in self._flagged], "reads_flag")

    def _issue(self, m: Module) -> Pipeline:
        """Read column by column. ``valid`` with an element, of row 0 with ``top`` and of the last
        row with ``bottom``; ``last`` with the last column."""
        active, element = Signal(), Signal()
        row = Signal(range(max(*self._rows, 2)), reset_less=True)
        column = Signal(self.final_column(m).shape(), reset_less=True)
        first = Signal(self.read_addr.shape(), reset_less=True)
        source = Signal(self.read_addr.shape(), reset_less=True)
        top, bottom, last = Signal(), Signal(), Signal()
        is_flagged = self.pick(m, [int(f) for f in self._flagged], "is_flagged")
        stride = self.pick(m, [t.inputs[0].cols for t in self.tasks], "stride")
        m.d.comb += [
            top.eq(row == 0),
            bottom.eq(row == self.pick(m, [r - 1 for r in self._rows], "final_row")),
            last.eq(column == self.final_column(m)),
            self.read_en.eq(active),
        ]
        with m.If(self.start):
            m.d.sync += [
                active.eq(1),
                element.eq(~is_flagged),
                row.eq(0),
                column.eq(0),
                first.eq(self.a),
                source.eq(self.a),
            ]
        with m.Elif(active & is_flagged & ~element):
            m.d.sync += element.eq(1)
        with m.Elif(active):
            m.d.sync += [element.eq(~is_flagged), row.eq(row + 1), source.eq(source + stride)]
            with m.If(bottom):
                m.d.sync += [
                    row.eq(0),
                    column.eq(column + 1),
                    first.eq(first + 1),
                    source.eq(first + 1),
                    active.eq(~last),
                ]
        if "c" in self.operands:
            restart = self.start | (active & element & bottom)
            flag = pointer(m, restart, self.c, active & element, "flag_source")
            m.d.comb += self.read_addr.eq(Mux(element, source, flag))
        else:
            m.d.comb += self.read_addr.eq(source)
        pipe = Pipeline(m, valid=active & element, last=last, top=top, bottom=bottom)
        pipe.wait("arrived")
        return pipe
