"""Embed and Rows: the table row of an id read at ``a`` (Embed) or of ``row`` (Rows)."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Cat, Const, Module, Mux, Signal

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl.tables import choose, column_bits, distinct, rom
from hwcompile.hdl.unit import Operand, Pipeline, Task, Unit, Widths, scan

ID_CYCLES = 2


class EmbedUnit(Unit):
    """One element of the table row a cycle; an id outside the table gives zeros."""

    def __init__(self, tasks: Sequence[Task], widths: Widths) -> None:
        self._by_id = [isinstance(task.operation, ir.Embed) for task in tasks]
        operands: list[Operand] = ["d"]
        if any(self._by_id):
            operands.insert(0, "a")
        if not all(self._by_id):
            operands.append("row")
        super().__init__(tasks, widths, operands, reads=any(self._by_id))
        self._tables = []
        for task in tasks:
            assert isinstance(task.operation, ir.Embed | ir.Rows)
            self._tables.append(task.operation.table)

    def cycles(self, select: int, row: int = 0) -> int:
        """Start, the id if it is read, the columns, and two stages: table, write."""
        return 1 + (ID_CYCLES if self._by_id[select] else 0) + self.columns(select) + 2

    def elaborate(self, platform: object) -> Module:
        m = Module()
        by_id = self.pick(m, [int(x) for x in self._by_id], "by_id")
        index, known, ready = self._index(m) if self.reads else (Const(0), Const(1), Const(0))
        if "row" in self.operands:
            index = Mux(by_id, index, self.row)
        column = scan(m, Mux(by_id, ready, self.start), self.final_column(m), "column")
        tables, places = distinct(self._tables)
        words = [
            rom(m, Cat(column.index[: column_bits(t)], index), t, f"table{i}")
            for i, t in enumerate(tables)
        ]
        pipe = Pipeline(m, valid=column.active, last=column.last)
        pipe.wait("looked_up")
        word = choose(m, self.select, [words[i] for i in places], "entry")
        self.write(m, pipe, Mux(known | ~by_id, word, 0))
        return m

    def _index(self, m: Module) -> tuple[Signal, Signal, Signal]:
        """Read the id. Returns (id, id is in the table, both are valid from the next cycle on)."""
        fetch, arrived = Signal(), Signal()
        most = max(len(t) for t, by_id in zip(self._tables, self._by_id, strict=True) if by_id)
        index = Signal(range(max(most, 2)), name="id", reset_less=True)
        known = Signal(reset_less=True)
        rows = self.pick(m, [len(t) for t in self._tables], "ids")
        by_id = self.pick(m, [int(x) for x in self._by_id], "fetch_id")
        m.d.comb += [self.read_en.eq(fetch), self.read_addr.eq(self.a)]
        m.d.sync += [fetch.eq(self.start & by_id), arrived.eq(fetch)]
        with m.If(arrived):
            m.d.sync += [
                index.eq(self.read_data),
                known.eq((self.read_data >= 0) & (self.read_data < rows)),
            ]
        return index, known, arrived
