"""Gather: elements from anywhere. Operands a (index of the row's first element in the table), d.

The table keeps ``address - index``, which is constant over a run of neighbours: a plain range needs
no table, and rows of patches little logic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from amaranth import Module

from hwcompile.compiler.ir.program import IntArray
from hwcompile.hdl.tables import choose, distinct, rom
from hwcompile.hdl.unit import Pipeline, Task, Unit, Widths, pointer

STAGES = 4
"""Table, address, read, write."""


def offsets(addresses: IntArray, bits: int) -> IntArray:
    """``address - index`` modulo ``2^bits``, padded to a power of two with the last."""
    flat = np.asarray(addresses, np.int64).ravel()
    moved = (flat - np.arange(len(flat))) % (1 << bits)
    return np.pad(moved, (0, (1 << (len(flat) - 1).bit_length()) - len(flat)), mode="edge")


class GatherUnit(Unit):
    """One element a cycle. ``Task.addresses``: the data memory address of each output element."""

    def __init__(self, tasks: Sequence[Task], widths: Widths) -> None:
        self._offsets = []
        for task in tasks:
            assert task.addresses is not None
            self._offsets.append(offsets(task.addresses, widths.address))
        index_bits = max((len(table) - 1).bit_length() for table in self._offsets)
        super().__init__(tasks, widths, ("a", "d"), operand_bits={"a": max(index_bits, 1)})

    def cycles(self, select: int, row: int = 0) -> int:
        """Start, the columns, and the stages."""
        return 1 + self.columns(select) + STAGES

    def elaborate(self, platform: object) -> Module:
        m = Module()
        column = self.scan_columns(m)
        index = pointer(m, self.start, self.a, column.active, "index")
        pipe = Pipeline(m, valid=column.active, last=column.last)
        tables, places = distinct(self._offsets)
        words = [rom(m, index, table, f"table_{i}") for i, table in enumerate(tables)]
        at = pipe.step(index, index.shape(), "at")
        offset = choose(m, self.select, [words[i] for i in places], "offset")
        address = pipe.step(offset + at, self.read_addr.shape(), "address")
        m.d.comb += [self.read_en.eq(pipe["valid"]), self.read_addr.eq(address)]
        pipe.wait("arrived")
        self.write(m, pipe, self.read_data)
        return m
