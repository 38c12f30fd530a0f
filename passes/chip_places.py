"""Places of a chip's values in its memories, and the instructions that use them: step 4 of
:mod:`plan_chip`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Instruction, KeyValueRegion, Loop, Memory, Operand, Region
from hwcompile.passes.chip_tasks import SPACES, Pair, Target, Task, TaskLoop


@dataclass(frozen=True, slots=True)
class _Span:
    """A piece of memory wanted from task ``start`` to task ``end``, both included."""

    start: int
    end: int
    words: int


def _place(spans: Sequence[_Span]) -> tuple[list[int], int]:
    """First fit in order of start: base of each span, and the words in use altogether."""
    bases = [0] * len(spans)
    placed: list[int] = []
    for index in sorted(range(len(spans)), key=lambda i: (spans[i].start, -spans[i].words, i)):
        span = spans[index]
        taken = sorted(
            (bases[other], bases[other] + spans[other].words)
            for other in placed
            if spans[other].start <= span.end and span.start <= spans[other].end
        )
        base = 0
        for low, high in taken:
            if base + span.words <= low:
                break
            base = max(base, high)
        bases[index] = base
        placed.append(index)
    top = max((base + span.words for base, span in zip(bases, spans, strict=True)), default=0)
    return bases, top


class Placement:
    """Addresses of all values, and the instructions that use them."""

    def __init__(self, program: ir.Program, loops: Sequence[TaskLoop]) -> None:
        self._program = program
        self._loops = loops
        self._tasks = [task for loop in loops for task in loop.tasks]
        self._loop_of = [loop for loop in loops for _ in loop.tasks]
        self.regions = self._place_data()
        self.key_value_regions = self._place_key_values()

    # -- data memory

    def _place_data(self) -> dict[str, Region]:
        values = [
            (index, task.output) for index, task in enumerate(self._tasks) if task.writes_data
        ]
        kept = {value.key: self._rows_kept(index, value) for index, value in values}
        # A state whose rows are all kept is read a row behind: room for a row before the first.
        before = {v.key: v.cols * (kept[v.key] > 1 and self._delayed(v.key)) for _, v in values}
        spans = [self._data_span(i, v, kept[v.key] * v.cols + before[v.key]) for i, v in values]
        bases, self._data_words = _place(spans)
        return {
            value.key: Region(value.key, base + before[value.key], kept[value.key], value.cols)
            for (_, value), base in zip(values, bases, strict=True)
        }

    def _delayed(self, key: str) -> bool:
        return any(isinstance(t.operation, ir.Delay) and key in t.reads for t in self._tasks)

    def _readers(self, key: str) -> list[int]:
        return [index for index, task in enumerate(self._tasks) if key in task.reads]

    def _rows_kept(self, producer: int, value: ir.Value) -> int:
        loop = self._loop_of[producer]
        whole = any(value.key in task.whole and value.key in task.reads for task in self._tasks)
        outside = any(self._loop_of[reader] is not loop for reader in self._readers(value.key))
        if loop.sequence and outside:
            raise ModelError(f"value {value.key} leaves its sequence section")
        return value.rows if outside or (whole and not self._row_local(value)) else 1

    def _row_local(self, value: ir.Value) -> bool:
        """Whether the only whole readers are gathers of a sequence section, which stay in a row."""
        readers = [t for t in self._tasks if value.key in t.whole]
        return all(
            isinstance(t.operation, ir.Gather) and self._program.sections[t.section] == "sequence"
            for t in readers
        )

    def _data_span(self, producer: int, value: ir.Value, words: int) -> _Span:
        readers = self._readers(value.key)
        loop = self._loop_of[producer]
        outside = any(self._loop_of[reader] is not loop for reader in readers)
        if words == value.cols and not outside and min(readers, default=producer) >= producer:
            return _Span(producer, max(readers, default=producer), words)
        last = self._loop_of[max(readers, default=producer)]
        return _Span(loop.first, last.first + len(last.tasks) - 1, words)

    def _data(self, key: str, whole: bool = False) -> Operand:
        region = self.regions[key]
        stride = region.cols if region.rows > 1 and not whole else 0
        return Operand(region.base, stride)

    def gather_addresses(self, op: ir.Gather) -> tuple[int, ...]:
        """Data addresses a Gather reads, row-major; one row of them in a sequence section."""
        sources = [self._program.values[key] for key in op.inputs]
        if self._program.sections[op.section] == "sequence":
            table = _row_local_index(op, sources)
            widths, flat = [v.cols for v in sources], table
        else:
            widths, flat = [v.rows * v.cols for v in sources], op.index.ravel().tolist()
        addresses: list[int] = []
        for key, width in zip(op.inputs, widths, strict=True):
            base = self.regions[key].base
            addresses.extend(range(base, base + width))
        return tuple(addresses[i] for i in flat)

    # -- key and value memories

    def _place_key_values(self) -> dict[Pair, KeyValueRegion]:
        pairs = list(dict.fromkeys(task.pair for task in self._tasks if task.pair is not None))
        spans = [self._key_value_span(pair) for pair in pairs]
        bases, self._key_value_words = _place(spans)
        return {
            pair: KeyValueRegion(
                pair.key, pair.value, base, self._program.values[pair.key].rows, pair.kv_heads
            )
            for pair, base in zip(pairs, bases, strict=True)
        }

    def _key_value_span(self, pair: Pair) -> _Span:
        loops = [
            loop
            for task, loop in zip(self._tasks, self._loop_of, strict=True)
            if task.pair == pair or (task.target is not None and task.target.pair == pair)
        ]
        last = max(loops, key=lambda loop: loop.first)
        rows = self._program.values[pair.key].rows
        first = min(loop.first for loop in loops)
        return _Span(first, last.first + len(last.tasks) - 1, rows * pair.kv_heads)

    def _lanes(self, target: Target) -> int:
        key = target.pair.key if target.space == "key" else target.pair.value
        return self._program.values[key].cols // target.pair.kv_heads

    def load_loop(self, rows: int) -> Loop:
        """Fills the key and value memories from the cache port, a row of each in turn."""
        body = []
        for pair, region in self.key_value_regions.items():
            for space in SPACES:
                body.append(
                    Instruction(
                        unit="receive",
                        select=len(self._program.inputs),
                        output=pair.key if space == "key" else pair.value,
                        d=Operand(region.base, region.kv_heads),
                        space=space,
                        lanes=self._lanes(Target(pair, space)),
                    )
                )
        return Loop(rows, tuple(body), load=True)

    def keys_and_values(self) -> list[ir.Value]:
        """Keys and values of attention, pair by pair."""
        keys = [key for pair in self.key_value_regions for key in (pair.key, pair.value)]
        return [self._program.values[key] for key in keys]

    # -- results

    def memories(self) -> tuple[Memory, ...]:
        values = self._program.values
        stored = [values[key] for key in self.regions] + self.keys_and_values()
        bits = max((value.bits for value in stored), default=1)
        found = [Memory("data", max(2, self._data_words), bits, "data")]
        pairs = list(self.key_value_regions)
        if pairs:
            words = max(2, self._key_value_words)
            for space in ("key", "value"):
                keys = [p.key if space == "key" else p.value for p in pairs]
                lanes = [values[k].cols // p.kv_heads for k, p in zip(keys, pairs, strict=True)]
                width = max(lanes) * max(values[k].bits for k in keys)
                found.append(Memory(space, words, width, "key" if space == "key" else "value"))
        return tuple(found)

    def body(self, loop: TaskLoop) -> tuple[Instruction, ...]:
        instructions: list[Instruction] = []
        bank: str | None = None
        for task in loop.tasks:
            instructions.append(self._instruction(task, loop, bank))
            if task.unit == "linear":
                bank = task.reads[0]
        return tuple(instructions)

    def _instruction(self, task: Task, loop: TaskLoop, bank: str | None) -> Instruction:
        a, b, c = self._inputs(task, loop)
        return Instruction(
            unit=task.unit,
            select=task.select,
            output=task.output.key,
            space=task.target.space if task.target else "data",
            lanes=self._lanes(task.target) if task.target else 0,
            indexed=loop.rows == 1 or task.output.rows > 1,
            reuse=task.unit == "linear" and bank == task.reads[0],
            a=a,
            b=b,
            c=c,
            d=self._destination(task),
        )

    def _destination(self, task: Task) -> Operand:
        if task.target is not None:
            region = self.key_value_regions[task.target.pair]
            return Operand(region.base, region.kv_heads)
        return self._data(task.output.key) if task.writes_data else Operand()

    def _inputs(self, task: Task, loop: TaskLoop) -> tuple[Operand, Operand, Operand]:
        """Operands a, b, c."""
        op, none = task.operation, Operand()
        if isinstance(op, ir.Attend):
            assert task.pair is not None
            flags = self._data(op.inputs[3], whole=True) if len(op.inputs) > 3 else none
            keys = Operand(self.key_value_regions[task.pair].base)
            return self._data(op.inputs[0]), keys, flags
        if isinstance(op, ir.Gather):
            return Operand(0, 0 if loop.sequence else op.output.cols), none, none
        if isinstance(op, ir.Delay):
            now = self._data(op.inputs[0])
            return Operand(now.base - now.stride, now.stride), none, none
        if isinstance(op, ir.SumRows):
            flags = self._data(op.inputs[1], whole=True) if len(op.inputs) > 1 else none
            return self._data(op.inputs[0], whole=True), none, flags
        first, second = ([self._data(key) for key in task.reads] + [none, none])[:2]
        return first, second, none


def _row_local_index(op: ir.Gather, sources: Sequence[ir.Value]) -> list[int]:
    """Columns, counted through one row of all sources, that every row of a Gather takes.

    Raises ModelError when a row takes from another row, which a token-by-token chip cannot.
    """
    offsets, row_offsets = [0], [0]
    for value in sources:
        offsets.append(offsets[-1] + value.rows * value.cols)
        row_offsets.append(row_offsets[-1] + value.cols)
    table: list[int] | None = None
    for row, indices in enumerate(op.index.tolist()):
        columns: list[int] = []
        for index in indices:
            source = next(s for s in range(len(sources)) if index < offsets[s + 1])
            at, column = divmod(index - offsets[source], sources[source].cols)
            if at != row and sources[source].rows > 1:
                raise ModelError("a gather in a sequence section reads another row")
            columns.append(row_offsets[source] + column)
        if table is not None and table != columns:
            raise ModelError("a gather in a sequence section differs from row to row")
        table = columns
    return table or []
