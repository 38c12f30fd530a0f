"""Delay: the row before, of a state. Operands a (the row before), row, d.

In row 0 the initial state is written instead, whatever the memory holds: nothing is ever cleared.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Module, Mux

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl.tables import choose, distinct, rom
from hwcompile.hdl.unit import Task, Unit, Widths, element_shape


class DelayUnit(Unit):
    """``out = x`` of the row before, one element a cycle."""

    def __init__(self, tasks: Sequence[Task], widths: Widths) -> None:
        super().__init__(tasks, widths, ("a", "row", "d"))
        self._starts = []
        for task in tasks:
            assert isinstance(task.operation, ir.Delay)
            self._starts.append(task.operation.initial)

    def cycles(self, select: int, row: int = 0) -> int:
        """Start, the columns, and three stages: read, element, write."""
        return 1 + self.columns(select) + 3

    def elaborate(self, platform: object) -> Module:
        m = Module()
        column = self.scan_columns(m)
        pipe = self.read(m, column, self.a, self.start)
        tables, places = distinct(self._starts)
        words = [rom(m, column.index, table, f"start_{i}") for i, table in enumerate(tables)]
        start = choose(m, self.select, [words[i] for i in places], "start_element")
        shape = element_shape(task.operation.output for task in self.tasks)
        state = pipe.step(Mux(self.row == 0, start, self.read_data), shape, "state")
        self.write(m, pipe, state)
        return m
