"""Lookup: one table read an element. Operands a, d."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from amaranth import Module, unsigned

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.program import IntArray
from hwcompile.hdl.tables import choose, distinct, rom, shape_of
from hwcompile.hdl.unit import Task, Unit, Widths, element_shape


def by_word(op: ir.Lookup, x: ir.Value) -> IntArray:
    """The table in the order of the element's own bits (two's complement), so that no subtraction
    lies before it. Words outside the interval of x take the nearest entry: they never occur, and
    the flat part costs little logic."""
    shape = shape_of(x.low, x.high)
    words = np.arange(1 << shape.width, dtype=np.int64)
    if shape.signed:
        words = np.where(words >> (shape.width - 1), words - (1 << shape.width), words)
    inside = np.clip(words, x.low, x.high) - op.first
    return np.asarray(op.table[np.clip(inside, 0, len(op.table) - 1)], np.int64)


class LookupUnit(Unit):
    """``out = table[x - first]``, one element a cycle."""

    def __init__(self, tasks: Sequence[Task], widths: Widths) -> None:
        super().__init__(tasks, widths, ("a", "d"))
        self._tables = []
        for task in tasks:
            assert isinstance(task.operation, ir.Lookup)
            self._tables.append(by_word(task.operation, task.inputs[0]))

    def cycles(self, select: int, row: int = 0) -> int:
        """Start, the columns, and four stages: read, element, table, write."""
        return 1 + self.columns(select) + 4

    def elaborate(self, platform: object) -> Module:
        m = Module()
        column = self.scan_columns(m)
        pipe = self.read(m, column, self.a, self.start)
        # Unsigned: a Verilog memory indexed by a signed register reads outside it.
        bits = element_shape(t.inputs[0] for t in self.tasks).width
        x = pipe.step(self.read_data, unsigned(bits), "element")
        tables, places = distinct(self._tables)
        words = [rom(m, x[: len(t).bit_length() - 1], t, f"table{i}") for i, t in enumerate(tables)]
        pipe.wait("looked_up")
        self.write(m, pipe, choose(m, self.select, [words[i] for i in places], "entry"))
        return m
