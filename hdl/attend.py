"""Attention of one row over the stored keys.

Operands a (q), b (key and value words), c (flags), d, row.

For each head: load the query; stream the keys through one multiplier a lane for the greatest score;
stream them again, each score's distance from it through the exponential table, beside the value
words, and add up; invert the sum bit by bit; scale and write the head. Scores are computed twice
because their memory would cost more. While a head is written, the next query is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl import intervals
from hwcompile.hdl.divide import Divide
from hwcompile.hdl.fixed_point import Rounding, saturated_by
from hwcompile.hdl.intervals import Interval
from hwcompile.hdl.tables import choose, distinct, rom, shape_of
from hwcompile.hdl.unit import (
    Operand,
    Pipeline,
    Scan,
    Task,
    Unit,
    Widths,
    element_shape,
    pointer,
    scan,
)

FAN_IN = 4
"""Terms an adder tree adds between two registers."""
SCORE_STAGES = 3
"""Memory, key word, product; then the adder tree."""
WEIGH_STAGES = 5
"""Distance, capped, index, weight, sum of weights; and the scaled distance if it is multiplied."""
OUTPUT_STAGES = 2
"""Product, write."""


@dataclass(frozen=True, slots=True)
class _Task:
    """What one Attend asks of the unit."""

    op: ir.Attend
    q: ir.Value
    k: ir.Value
    v: ir.Value
    flagged: bool

    @property
    def size(self) -> int:
        return self.q.cols // self.op.heads

    @property
    def value_size(self) -> int:
        return self.v.cols // self.op.kv_heads

    @property
    def group(self) -> int:
        return self.op.heads // self.op.kv_heads

    @property
    def bias(self) -> Interval:
        return int(self.op.bias.min(initial=0)), int(self.op.bias.max(initial=0))

    @property
    def score(self) -> Interval:
        product = intervals.times(intervals.of(self.q), intervals.of(self.k))
        return _with_zero(intervals.plus(intervals.times(product, self.size), self.bias))

    @property
    def cap(self) -> int:
        """A distance from which on every weight is the table's last (or the greatest distance)."""
        op, most = self.op, self.score[1] - self.score[0]
        last = len(op.exp_table) - 1
        wanted = (last << op.shift) - (1 << op.shift >> 1) if op.shift > 0 else last
        step = op.multiplier if op.shift > 0 else op.multiplier << -op.shift
        return min(most, max(-(-wanted // step), 0)) if step > 0 else most

    @property
    def weight_sum(self) -> int:
        return self.k.rows * int(self.op.exp_table[0])

    @property
    def accumulator(self) -> Interval:
        return _with_zero(intervals.times(intervals.of(self.v), self.weight_sum))

    @property
    def known_bits(self) -> int:
        """2^known_bits <= D, as the top key has the table's first weight."""
        return min(int(self.op.exp_table[0]).bit_length() - 1, self.op.reciprocal_bits)

    @property
    def final_bit(self) -> int:
        """Quotient bits of the reciprocal, less one."""
        return self.op.reciprocal_bits - self.known_bits


class AttendUnit(Unit):
    """See :class:`hwcompile.compiler.ir.program.Attend`.

    ``key_data``/``value_data`` hold ``lanes`` elements of ``key_bits``/``value_bits`` side by side.
    """

    if TYPE_CHECKING:
        key_addr: Signal
        key_data: Signal
        value_addr: Signal
        value_data: Signal

    def __init__(self, tasks: Sequence[Task], widths: Widths) -> None:
        self._tasks = [_task(task) for task in tasks]
        self.lanes = max(t.size for t in self._tasks)
        self.value_lanes = max(t.value_size for t in self._tasks)
        self.key_bits = max(t.k.bits for t in self._tasks)
        self.value_bits = max(t.v.bits for t in self._tasks)
        self.key_rows = max(*(t.k.rows for t in self._tasks), 2)
        operands: list[Operand] = ["a", "b", "d"]
        if any(t.flagged for t in self._tasks):
            operands.insert(2, "c")
        self._biased = any(t.op.bias.size for t in self._tasks)
        if self._biased or any(t.op.causal for t in self._tasks):
            operands.append("row")
        super().__init__(
            tasks,
            widths,
            operands,
            operand_bits={"b": widths.key_address},
            extra={
                "key_addr": Out(widths.key_address),
                "key_data": In(self.lanes * self.key_bits),
                "value_addr": Out(widths.key_address),
                "value_data": In(self.value_lanes * self.value_bits),
            },
        )

    def cycles(self, select: int, row: int = 0) -> int:
        """Start; for each head query, keys, scores, weights and reciprocal; the last output."""
        t = self._tasks[select]
        keys = row + 1 if t.op.causal else t.k.rows
        head = t.size + 2 * keys + self._key_stages + Divide.latency(t.final_bit)
        waits = 0 if self._overlaps else (t.op.heads - 1) * t.value_size
        return 1 + t.op.heads * head + waits + t.value_size + OUTPUT_STAGES

    @property
    def _score(self) -> Interval:
        """Interval of a score."""
        return intervals.hull(t.score for t in self._tasks)

    @property
    def _scales(self) -> bool:
        """Whether distances are multiplied."""
        return any(t.op.multiplier != 1 for t in self._tasks)

    @property
    def _key_stages(self) -> int:
        """From a key's address to its part in the sum of weights."""
        return SCORE_STAGES + _tree_stages(self._terms) + WEIGH_STAGES + self._scales

    @property
    def _terms(self) -> int:
        """Terms of a score: a product a lane, and the bias."""
        return self.lanes + self._biased

    @property
    def _overlaps(self) -> bool:
        """Whether a head is always written before the next head's sums begin."""
        return all(t.value_size <= t.size + self._key_stages for t in self._tasks)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        begin, closed = Signal(name="head_begin"), Signal(name="head_closed")
        output = scan(
            m, closed, self._pick(m, "final_column", lambda t: t.value_size - 1), "output"
        )
        base, head, final_head = self._heads(m, begin, closed, output.last)

        query_read = scan(m, begin, self._pick(m, "final_query", lambda t: t.size - 1), "query")
        again, weighing = Signal(), Signal()
        key_read = scan(m, query_read.last | again, self._final_key(m), "key")
        m.d.comb += again.eq(key_read.last & ~weighing)
        with m.If(query_read.last | again):
            m.d.sync += weighing.eq(again)
        self._read_ports(m, query_read, key_read, query_read.last | again, base)
        query = self._query(m, begin, query_read)
        keys = Pipeline(m, valid=key_read.active, last=key_read.last, weighing=weighing)
        bias = self._bias(m, query_read.last | again, key_read, head) if self._biased else None
        score = self._scores(m, keys, query, bias)
        top = self._top(m, query_read.last, keys, score)

        pipe = Pipeline(
            m,
            valid=keys["valid"] & keys["weighing"],
            last=keys["last"],
            visible=keys["visible"],
        )
        index = self._indices(m, pipe, top, score)
        weight = self._weights(m, pipe, index, query_read.last, base)
        total, sums = self._accumulate(m, pipe, weight, query_read.last, output.active)

        m.submodules.reciprocal = reciprocal = Divide(
            len(total), max(t.final_bit for t in self._tasks) + 1
        )
        m.d.comb += [
            reciprocal.start.eq(pipe["valid"] & pipe["last"]),
            reciprocal.divisor.eq(total),
            reciprocal.remainder.eq(self._pick(m, "first", lambda t: 1 << t.known_bits)),
            reciprocal.final.eq(self._pick(m, "final_bit", lambda t: t.final_bit)),
            closed.eq(reciprocal.done),
        ]
        self._output(m, output, final_head, sums[0], reciprocal.quotient)
        return m

    def _pick(self, m: Module, name: str, of: Callable[[_Task], int]) -> Value:
        return self.pick(m, [of(t) for t in self._tasks], name)

    def _final_key(self, m: Module) -> Value:
        """Index of the last key the row may see."""
        final = self._pick(m, "final_key", lambda t: t.k.rows - 1)
        if "row" not in self.operands:
            return final
        is_causal = self._pick(m, "is_causal", lambda t: int(t.op.causal))
        return Mux(is_causal, self.row, final)[: (self.key_rows - 1).bit_length()]

    def _heads(
        self, m: Module, begin: Signal, closed: Signal, written: Signal
    ) -> tuple[Signal, Signal, Signal]:
        """Drive ``begin``. Returns the head's first word, the head, and whether the head in output
        is the row's last."""
        final = self._pick(m, "final_head", lambda t: t.op.heads - 1)
        head = Signal(range(max(*(t.op.heads for t in self._tasks), 2)))
        member = Signal(range(max(*(t.group for t in self._tasks), 2)))
        base = Signal(self.b.shape(), name="word_base", reset_less=True)
        is_final, outputs_final = Signal(), Signal()
        more = Signal()
        m.d.comb += [
            is_final.eq(head == final),
            more.eq(closed & ~is_final if self._overlaps else written & ~outputs_final),
            begin.eq(self.start | more),
        ]
        with m.If(closed):
            m.d.sync += outputs_final.eq(is_final)
        with m.If(self.start):
            m.d.sync += [head.eq(0), member.eq(0), base.eq(self.b)]
        with m.Elif(more):
            m.d.sync += [head.eq(head + 1), member.eq(member + 1)]
            with m.If(member == self._pick(m, "final_member", lambda t: t.group - 1)):
                m.d.sync += [member.eq(0), base.eq(base + 1)]
        return base, head, outputs_final

    def _bias(self, m: Module, restart: Value, key: Scan, head: Signal) -> Signal:
        """What is added to the score of the key read two cycles ago.

        A table by distance is read downwards as the keys go up, a full one by row and key.
        """
        tables, places = distinct([t.op.bias for t in self._tasks])
        words: list[Value] = []
        for i, table in enumerate(tables):
            if table.size == 0:
                words.append(Const(0, 1))
                continue
            task = self._tasks[places.index(i)]
            if table.ndim == 2:
                first = self.row + (table.shape[1] - task.op.output.rows)
                bits = (table.shape[1] - 1).bit_length() or 1
                at = pointer(m, restart, first[:bits], key.active, f"distance_{i}", by=-1)
                flat = table
            else:
                bits = (table.shape[2] - 1).bit_length() or 1
                rows = (table.shape[1] - 1).bit_length() or 1
                at = Cat(key.index[:bits], self.row[:rows])
                spare = (
                    (0, 0),
                    (0, (1 << rows) - table.shape[1]),
                    (0, (1 << bits) - table.shape[2]),
                )
                flat = np.pad(table, spare).reshape(len(table), -1)
            address = at if len(flat) == 1 else Cat(at, head)
            words.append(rom(m, address, flat if len(flat) > 1 else flat[0], f"bias_{i}"))
        word = choose(m, self.select, [words[i] for i in places], "bias_word")
        shape = shape_of(*intervals.hull(t.bias for t in self._tasks))
        held = Signal(shape, name="bias", reset_less=True)
        m.d.sync += held.eq(word)
        return held

    def _read_ports(self, m: Module, query: Scan, key: Scan, restart: Value, base: Signal) -> None:
        """Addresses of the query's elements, then of the key words and the key flags."""
        stride = self._pick(m, "key_stride", lambda t: t.op.kv_heads)
        m.d.comb += self.key_addr.eq(pointer(m, restart, base, key.active, "key_source", stride))
        element = pointer(m, self.start, self.a, query.active, "query_source")
        if "c" not in self.operands:
            m.d.comb += [self.read_en.eq(query.active), self.read_addr.eq(element)]
            return
        flag = pointer(m, restart, self.c, key.active, "flag_source")
        is_flagged = self._pick(m, "reads_flags", lambda t: int(t.flagged))
        m.d.comb += [
            self.read_en.eq(query.active | (key.active & is_flagged)),
            self.read_addr.eq(Mux(query.active, element, flag)),
        ]

    def _query(self, m: Module, begin: Signal, read: Scan) -> list[Signal]:
        """The query's elements, a register a lane; lanes past the head's size are 0."""
        shape = element_shape(t.q for t in self._tasks)
        arrived = Signal(name="query_arrived")
        lane = Signal(read.index.shape(), name="query_lane", reset_less=True)
        m.d.sync += [arrived.eq(read.active), lane.eq(read.index)]
        query = [Signal(shape, name=f"query_{i}", reset_less=True) for i in range(self.lanes)]
        for i, element in enumerate(query):
            if any(i >= t.size for t in self._tasks):
                with m.If(begin):
                    m.d.sync += element.eq(0)
            with m.If(arrived & (lane == i)):
                m.d.sync += element.eq(self.read_data)
        return query

    def _scores(
        self, m: Module, pipe: Pipeline, query: list[Signal], bias: Signal | None
    ) -> Signal:
        """``q . k + bias`` of each key, and whether the key is ``visible``."""
        pipe.wait("key_arrived")
        if "c" in self.operands:
            is_flagged = self._pick(m, "is_flagged", lambda t: int(t.flagged))
            pipe.attach(visible=~is_flagged | self.read_data.any())
        else:
            pipe.attach(visible=Const(1))
        word = pipe.step(self.key_data, self.key_data.shape(), "key_word")
        key_shape = element_shape(t.k for t in self._tasks)
        product = intervals.times(
            intervals.hull(intervals.of(t.q) for t in self._tasks),
            intervals.hull(intervals.of(t.k) for t in self._tasks),
        )
        products = []
        for i, element in enumerate(query):
            key = Signal(key_shape, name=f"key_{i}")
            scaled = Signal(shape_of(*product), name=f"key_product_{i}", reset_less=True)
            m.d.comb += key.eq(word[i * self.key_bits : (i + 1) * self.key_bits])
            m.d.sync += scaled.eq(element * key)
            products.append(scaled)
        added = intervals.hull(t.bias for t in self._tasks)
        if bias is not None:
            moved = Signal(bias.shape(), name="bias_term", reset_less=True)
            m.d.sync += moved.eq(bias)
            products.append(moved)
        pipe.wait("key_product")
        for stage in range(_tree_stages(self._terms)):
            reach = intervals.times(product, min(FAN_IN ** (stage + 1), self.lanes))
            reach = intervals.plus(_with_zero(reach), added)
            groups = [products[i : i + FAN_IN] for i in range(0, len(products), FAN_IN)]
            products = []
            for i, group in enumerate(groups):
                name = f"part_{stage}_{i}"
                part = Signal(shape_of(*_with_zero(reach)), name=name, reset_less=True)
                m.d.sync += part.eq(sum(group[1:], group[0]))
                products.append(part)
            pipe.wait(f"part_{stage}")
        score = Signal(shape_of(*self._score), name="score")
        m.d.comb += score.eq(products[0])
        return score

    def _top(self, m: Module, clear: Signal, pipe: Pipeline, score: Signal) -> Signal:
        """The greatest score of a visible key."""
        least = min(t.score[0] for t in self._tasks)
        top = Signal(shape_of(*self._score), name="top", reset_less=True)
        with m.If(clear):
            m.d.sync += top.eq(least)
        with m.Elif(pipe["valid"] & ~pipe["weighing"] & pipe["visible"] & (score > top)):
            m.d.sync += top.eq(score)
        return top

    def _indices(self, m: Module, pipe: Pipeline, top: Signal, score: Signal) -> Signal:
        """``min(round_shift((top - score) * multiplier, shift), len(exp_table) - 1)``."""
        rounding = Rounding(tuple(t.op.shift for t in self._tasks))
        low, high = self._score
        distance = pipe.step(top - score, shape_of(0, high - low), "distance")
        # From the cap on every index is the last: the distance needs no more bits.
        caps = [t.cap for t in self._tasks]
        cap = self.pick(m, caps, "cap")
        capped = pipe.step(Mux(distance > cap, cap, distance), shape_of(0, max(caps)), "capped")
        most = [
            (t.cap * t.op.multiplier << rounding.left) + half
            for t, half in zip(self._tasks, rounding.halves(), strict=True)
        ]
        multiplier = self._pick(m, "multiplier", lambda t: t.op.multiplier)
        half = rounding.half(m, self.select, "distance_half")
        scaled = Signal(shape_of(0, max(most)), name="scaled_distance")
        raised = ((capped * multiplier) << rounding.left) + half
        if self._scales:
            m.d.comb += scaled.eq(pipe.step(raised, scaled.shape(), "product"))
        else:
            m.d.comb += scaled.eq(raised)
        reached = [x >> s + rounding.left for x, s in zip(most, rounding.shifts, strict=True)]
        exact = Signal(shape_of(0, max(reached)), name="exact_index")
        m.d.comb += exact.eq(rounding.shift(m, self.select, scaled, "distance_shift"))
        lasts = [len(t.op.exp_table) - 1 for t in self._tasks]
        last = self.pick(m, lasts, "last_index")
        over = any(r > k for r, k in zip(reached, lasts, strict=True))
        index = Signal(shape_of(0, max(lasts)), name="bounded_index")
        m.d.comb += index.eq(Mux(exact > last, last, exact) if over else exact)
        return index

    def _weights(
        self, m: Module, pipe: Pipeline, index: Value, clear: Signal, base: Signal
    ) -> Value:
        """``exp_table[index]``; and address the value word that is to meet it."""
        stride = self._pick(m, "value_stride", lambda t: t.op.kv_heads)
        m.d.comb += self.value_addr.eq(
            pointer(m, clear, base, pipe["valid"], "value_source", stride)
        )
        index = pipe.step(index, index.shape(), "index")
        tables, places = distinct([t.op.exp_table for t in self._tasks])
        words = [rom(m, index, table, f"exp_{i}") for i, table in enumerate(tables)]
        pipe.wait("weight")
        return choose(m, self.select, [words[i] for i in places], "weight")

    def _accumulate(
        self, m: Module, pipe: Pipeline, weight: Value, clear: Signal, shift: Signal
    ) -> tuple[Signal, list[Signal]]:
        """Sum of weights, and of weights times values for each lane.

        The lanes are a shift register towards lane 0 while a head is written, which also clears
        them for the next.
        """
        total = Signal(range(max(t.weight_sum for t in self._tasks) + 1), reset_less=True)
        with m.If(clear):
            m.d.sync += total.eq(0)
        with m.Elif(pipe["valid"] & pipe["visible"]):
            m.d.sync += total.eq(total + weight)
        shape = element_shape(t.v for t in self._tasks)
        low, high = intervals.hull(intervals.of(t.v) for t in self._tasks)
        product = intervals.times((low, high), (0, (1 << len(weight)) - 1))
        reach = intervals.hull(t.accumulator for t in self._tasks)
        pipe.wait("weighted")
        sums = [Signal(shape_of(*reach), name=f"sum_{i}") for i in range(self.value_lanes)]
        for i, part in enumerate(sums):
            value = Signal(shape, name=f"value_{i}", reset_less=True)
            used = self.pick(m, [int(i < t.value_size) for t in self._tasks], f"uses_{i}")
            word = self.value_data[i * self.value_bits : (i + 1) * self.value_bits]
            weighted = Signal(shape_of(*product), name=f"weighted_{i}", reset_less=True)
            m.d.sync += [value.eq(Mux(used, word, 0)), weighted.eq(value * weight)]
            with m.If(shift):
                m.d.sync += part.eq(sums[i + 1] if i + 1 < len(sums) else 0)
            with m.Elif(pipe["valid"] & pipe["visible"]):
                m.d.sync += part.eq(part + weighted)
        return total, sums

    def _output(
        self, m: Module, output: Scan, final_head: Signal, part: Signal, reciprocal: Signal
    ) -> None:
        """``saturate(round_shift(A_j * reciprocal, output_shift), bits)``."""
        rounding = Rounding(tuple(t.op.output_shift for t in self._tasks))
        pipe = Pipeline(m, valid=output.active, last=output.last & final_head)
        # A_j <= D * max|v| and D * reciprocal <= 2^reciprocal_bits.
        exact = [
            intervals.times(_with_zero(intervals.of(t.v)), 1 << t.op.reciprocal_bits)
            for t in self._tasks
        ]
        raised = [
            intervals.plus(intervals.times(x, 1 << rounding.left), (0, half))
            for x, half in zip(exact, rounding.halves(), strict=True)
        ]
        half = rounding.half(m, self.select, "output_half")
        scaled = pipe.step(
            ((part * reciprocal) << rounding.left) + half,
            shape_of(*intervals.hull(raised)),
            "scaled",
        )
        shifted = rounding.shift(m, self.select, scaled, "output_shift")
        bits = [t.op.output.bits for t in self._tasks]
        results = [intervals.rounded(x, s) for x, s in zip(exact, rounding.shifts, strict=True)]
        self.write(m, pipe, saturated_by(m, self.select, shifted, bits, results, "result"))


def _task(task: Task) -> _Task:
    op = task.operation
    assert isinstance(op, ir.Attend)
    q, k, v = task.inputs[:3]
    return _Task(op, q, k, v, len(task.inputs) > 3)


def _with_zero(x: Interval) -> Interval:
    return min(x[0], 0), max(x[1], 0)


def _tree_stages(terms: int) -> int:
    """Registers of an adder tree."""
    stages = 0
    while terms > 1:
        terms, stages = -(-terms // FAN_IN), stages + 1
    return stages
