"""Rotary positions. Operands a, row, d.

Two reads an element: the element by its cosine, then its partner by its sine. Coefficient columns
that are equal up to their sign are stored once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from amaranth import Cat, Module, Mux, Signal, Value

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.operations import spec
from hwcompile.compiler.ir.program import IntArray
from hwcompile.hdl import intervals
from hwcompile.hdl.fixed_point import Rounding, saturated_by
from hwcompile.hdl.tables import choose, column_bits, distinct, rom, shape_of
from hwcompile.hdl.unit import Pipeline, Task, Unit, Widths, element_shape, scan

STAGES = 7
"""Partner, address, read, element, product, sum, write."""


def coefficient_columns(op: ir.Rotate) -> tuple[IntArray, IntArray, IntArray]:
    """Cosine and sine columns by turns (``2 * p``), stored once up to sign.

    Returns the stored columns ``[rows, kept]``, and of each column its place and whether it is to
    be negated ``[2 * p]``.
    """
    columns = np.stack([op.cosine, op.sine], axis=2).reshape(len(op.cosine), -1)
    kept: dict[bytes, int] = {}
    stored: list[IntArray] = []
    places: list[int] = []
    negated: list[int] = []
    for column in columns.T:
        nonzero = column[column != 0]
        negative = bool(len(nonzero) and nonzero[0] < 0)
        canonical = np.ascontiguousarray(-column if negative else column)
        if canonical.tobytes() not in kept:
            kept[canonical.tobytes()] = len(stored)
            stored.append(canonical)
        places.append(kept[canonical.tobytes()])
        negated.append(int(negative))
    return np.stack(stored, axis=1), np.asarray(places), np.asarray(negated)


class RotateUnit(Unit):
    """See :class:`hwcompile.compiler.ir.program.Rotate`."""

    def __init__(self, tasks: Sequence[Task], widths: Widths) -> None:
        super().__init__(tasks, widths, ("a", "row", "d"))
        self._operations: list[ir.Rotate] = []
        for task in tasks:
            assert isinstance(task.operation, ir.Rotate)
            self._operations.append(task.operation)
        self._rounding = Rounding(tuple(op.shift for op in self._operations))

    def cycles(self, select: int, row: int = 0) -> int:
        """Start, two reads an element, and the stages."""
        return 1 + 2 * self.columns(select) + STAGES

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pipe = self._issue(m)
        negate, coefficient = self._coefficient(m, pipe)
        pipe.wait("arrived")
        pipe.attach(negate=negate)
        x = pipe.step(self.read_data, element_shape(t.inputs[0] for t in self.tasks), "x")
        total = self._sum(m, pipe, x, coefficient)
        shifted = self._rounding.shift(m, self.select, total, "shift")
        bits = [op.output.bits for op in self._operations]
        exact = [spec(t.operation).interval(t.operation, t.inputs) for t in self.tasks]
        self.write(m, pipe, saturated_by(m, self.select, shifted, bits, exact, "result"))
        return m

    def _issue(self, m: Module) -> Pipeline:
        """Read each element, then its partner (``second``); ``valid`` with both until the sum."""
        final = self.pick(m, [2 * self.columns(s) - 1 for s in range(len(self.tasks))], "final")
        read = scan(m, self.start, final, "read")
        column = Signal(range(max(self.columns(s) for s in range(len(self.tasks))) + 1))
        m.d.comb += column.eq(read.index[1:])
        pipe = Pipeline(m, valid=read.active, last=read.last, second=read.index[0])
        tables, places = distinct([op.partner for op in self._operations])
        partners = [rom(m, column, table, f"partner_{i}") for i, table in enumerate(tables)]
        own = pipe.step(column, column.shape(), "own")
        partner = choose(m, self.select, [partners[i] for i in places], "partner")
        address = pipe.step(
            self.a + Mux(pipe["second"], partner, own), self.read_addr.shape(), "source"
        )
        m.d.comb += [self.read_en.eq(pipe["valid"]), self.read_addr.eq(address)]
        return pipe

    def _coefficient(self, m: Module, pipe: Pipeline) -> tuple[Value, Value]:
        """Of the read now issued: its sign in the next cycle, its coefficient in the one after."""
        stored = [coefficient_columns(op) for op in self._operations]
        periods = [op.cosine.shape[1] for op in self._operations]
        turn = Signal(range(max(*periods, 2)), reset_less=True)
        with m.If(self.start):
            m.d.sync += turn.eq(0)
        with m.Elif(pipe["valid"] & pipe["second"]):
            m.d.sync += turn.eq(turn + 1)
            with m.If(turn == self.pick(m, [p - 1 for p in periods], "final_turn")):
                m.d.sync += turn.eq(0)
        codes, code_places = distinct([places * 2 + signs for _, places, signs in stored])
        address = Cat(pipe["second"], turn)
        words = [rom(m, address, table, f"code_{i}") for i, table in enumerate(codes)]
        code = choose(m, self.select, [words[i] for i in code_places], "code")
        tables, places = distinct([table for table, _, _ in stored])
        coefficients = [
            rom(m, Cat(code[1:][: column_bits(table)], self.row), table, f"coefficient_{i}")
            for i, table in enumerate(tables)
        ]
        return code[0], choose(m, self.select, [coefficients[i] for i in places], "coefficient")

    def _sum(self, m: Module, pipe: Pipeline, x: Signal, coefficient: Value) -> Signal:
        """Both terms and half of the last place."""
        left = self._rounding.left
        low, high = intervals.hull(intervals.of(t.inputs[0]) for t in self.tasks)
        most = max(int(np.abs([op.cosine, op.sine]).max()) for op in self._operations)
        product_reach = intervals.times((low, high), (-most, most))
        product = pipe.step(coefficient * x, shape_of(*product_reach), "product")
        term = Signal(shape_of(*product_reach), name="term")
        m.d.comb += term.eq(Mux(pipe["negate"], -product, product))
        half = self._rounding.half(m, self.select, "half")
        reach = intervals.times(intervals.plus(product_reach, product_reach), 1 << left)
        reach = intervals.plus(reach, (0, max(self._rounding.halves())))
        total = Signal(shape_of(*reach), name="total", reset_less=True)
        m.d.sync += total.eq((term << left) + Mux(pipe["second"], total, half))
        pipe.attach(valid=pipe["valid"] & pipe["second"])
        pipe.wait("summed")
        return total
