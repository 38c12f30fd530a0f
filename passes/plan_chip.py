"""Plan the chip: place a Program on the machine.

1. Operations become tasks of units; inputs are received just before their first use, outputs
emitted
   just after they are made.
2. A ``sequence`` section is one loop over the position. In a ``once`` section consecutive tasks
with
   the same number of rows share a row loop, until one needs all rows of a value made in that loop
   (keys, values and flags of attention, gather, sums of rows): there a new loop starts.
3. Keys and values of attention go straight to their memories when nothing else reads them;
otherwise
   a copy does.
4. A value that lives in one loop keeps one row in memory, any other all of its rows; places are
   shared by values that do not live at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hwcompile.compiler.errors import ModelError, UsageError
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import (
    Chip,
    Instruction,
    KeyValueRegion,
    Loop,
    MatrixPlan,
    Memory,
    Operand,
    Port,
    Region,
    Section,
    Space,
    Unit,
    UnitKind,
)
from hwcompile.compiler.ir.operations import limit, spec

_UNIT_ORDER: tuple[UnitKind, ...] = (
    "receive",
    "emit",
    "embed",
    "linear",
    "elementwise",
    "lookup",
    "normalise",
    "rotate",
    "attend",
    "gather",
    "sum_rows",
)


CACHE_PORT = "s_axis_cache"
_SPACES: tuple[Space, Space] = ("key", "value")


def plan_chip(
    program: ir.Program,
    matrices: Iterable[MatrixPlan] = (),
    logits_port: bool = True,
    cache_port: bool = False,
) -> Chip:
    """The Chip of a Program; ``matrices`` gives every Linear its plan (default: 1 phase).

    Raises ModelError for a program whose sequence section needs all rows of a value at once, and
    UsageError for a ``cache_port`` on anything but a decoder.
    """
    if cache_port and program.sections != ("sequence",):
        raise UsageError("only a decoder has a cache port", "compile without --cache-port")
    tasks = _tasks(program)
    loops = _loops(program, tasks)
    placement = _Placement(program, loops)
    plans = {m.operation: m for m in matrices}
    units = _units(tasks)
    return Chip(
        program=program,
        sections=tuple(
            Section(
                kind,
                ((placement.load_loop(loops[0].rows),) if cache_port else ())
                + tuple(
                    Loop(loop.rows, placement.body(loop)) for loop in loops if loop.section == index
                ),
            )
            for index, kind in enumerate(program.sections)
        ),
        units=units,
        matrices=tuple(
            plans.get(op.output.key, MatrixPlan(op.output.key, "bitplane", 1))
            for unit in units
            if unit.kind == "linear"
            for op in unit.operations
        ),
        gathers=tuple(
            placement.gather_addresses(op)
            for unit in units
            for op in unit.operations
            if isinstance(op, ir.Gather)
        ),
        ports=_input_ports(program)
        + ((placement.cache_port(),) if cache_port else ())
        + _output_ports(program, logits_port),
        memories=placement.memories(),
        regions=tuple(placement.regions.values()),
        key_value_regions=tuple(placement.key_value_regions.values()),
    )


# --- tasks ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a key or value goes: the pair's region and which of the two memories."""

    pair: _Pair
    space: Space


@dataclass(frozen=True, slots=True)
class _Pair:
    """A key and value as attention reads them."""

    key: str
    value: str
    kv_heads: int


@dataclass(frozen=True, slots=True)
class _Task:
    """One unit's work on a value, row by row. ``reads``: data values; ``whole``: those read
    whole.
    """

    unit: UnitKind
    select: int
    output: ir.Value
    section: int
    operation: ir.Operation | None = None
    reads: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    target: _Target | None = None
    pair: _Pair | None = None

    @property
    def writes_data(self) -> bool:
        return self.unit != "emit" and self.target is None


def _pair(op: ir.Attend) -> _Pair:
    return _Pair(op.inputs[1], op.inputs[2], op.kv_heads)


def _tasks(program: ir.Program) -> list[_Task]:
    """All tasks in order, receives, copies and emits among them."""
    targets = _targets(program)
    used = _data_uses(program)
    tasks: list[_Task] = []
    counts: dict[UnitKind, int] = {}

    def add(task: _Task) -> None:
        """Append a task of a new operation, then what follows its value."""
        own = targets.get(task.output.key, ())
        direct = len(own) == 1 and task.output.key not in used
        tasks.append(replace(task, target=own[0]) if direct else task)
        for target in () if direct else own:
            op = _copy(program, task.output, task.section)
            tasks.append(
                _Task(
                    "elementwise",
                    take("elementwise"),
                    task.output,
                    task.section,
                    op,
                    (task.output.key,),
                    target=target,
                )
            )
        for index, output in enumerate(program.outputs):
            if output.value == task.output.key:
                tasks.append(_Task("emit", index, task.output, task.section, reads=(output.value,)))

    def take(kind: UnitKind) -> int:
        counts[kind] = counts.get(kind, 0) + 1
        return counts[kind] - 1

    def receive(section: int, keys: Iterable[str]) -> None:
        for index, port in enumerate(program.inputs):
            if port.value.key in waiting and port.section == section and port.value.key in keys:
                waiting.remove(port.value.key)
                add(_Task("receive", index, port.value, section))

    waiting = [port.value.key for port in program.inputs]
    for section in range(len(program.sections)):
        for op in program.operations:
            if op.section == section:
                receive(section, op.inputs)
                kind = _block(op)
                add(_operation_task(op, kind, take(kind)))
        receive(section, list(waiting))
    return tasks


def _block(op: ir.Operation) -> UnitKind:
    kind = spec(op).block
    return next(k for k in _UNIT_ORDER if k == kind)


def _operation_task(op: ir.Operation, kind: UnitKind, select: int) -> _Task:
    if isinstance(op, ir.Attend):
        reads = (op.inputs[0], *op.inputs[3:])
        return _Task(kind, select, op.output, op.section, op, reads, op.inputs[1:], pair=_pair(op))
    whole = op.inputs if not spec(op).rowwise else ()
    return _Task(kind, select, op.output, op.section, op, op.inputs, whole)


def _copy(program: ir.Program, value: ir.Value, section: int) -> ir.Rescale:
    """A Rescale that changes nothing: one bit more where symmetric saturation would clip."""
    bits = value.bits + (value.low < -limit(value.bits))
    return ir.Rescale(replace(value, bits=bits), (value.key,), section, "copy", 1, 0)


def _targets(program: ir.Program) -> dict[str, tuple[_Target, ...]]:
    """The key and value memory places of each value that attention reads."""
    targets: dict[str, tuple[_Target, ...]] = {}
    for op in program.operations:
        if isinstance(op, ir.Attend):
            pair = _pair(op)
            for key, space in zip((pair.key, pair.value), _SPACES, strict=True):
                target = _Target(pair, space)
                if target not in targets.get(key, ()):
                    targets[key] = (*targets.get(key, ()), target)
    return targets


def _data_uses(program: ir.Program) -> set[str]:
    """Values that something reads from the data memory."""
    used = {output.value for output in program.outputs}
    for op in program.operations:
        used.update(op.inputs[:1] + op.inputs[3:] if isinstance(op, ir.Attend) else op.inputs)
    return used


def _units(tasks: Sequence[_Task]) -> tuple[Unit, ...]:
    return tuple(
        Unit(kind, tuple(t.operation for t in tasks if t.unit == kind and t.operation is not None))
        for kind in _UNIT_ORDER
        if any(t.unit == kind for t in tasks)
    )


# --- loops ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _TaskLoop:
    """Tasks of one loop; ``first`` numbers its first task in the whole program."""

    section: int
    sequence: bool
    rows: int
    first: int
    tasks: tuple[_Task, ...]


def _loops(program: ir.Program, tasks: Sequence[_Task]) -> list[_TaskLoop]:
    loops: list[_TaskLoop] = []
    for section, kind in enumerate(program.sections):
        own = [t for t in tasks if t.section == section]
        groups = [own] if kind == "sequence" else _row_groups(own)
        for group in groups:
            first = sum(len(loop.tasks) for loop in loops)
            rows = max((t.output.rows for t in group), default=1)
            loops.append(_TaskLoop(section, kind == "sequence", rows, first, tuple(group)))
    return loops


def _row_groups(tasks: Sequence[_Task]) -> list[list[_Task]]:
    groups: list[list[_Task]] = []
    made: set[str] = set()
    for task in tasks:
        barrier = any(key in made for key in task.whole)
        if not groups or barrier or groups[-1][-1].output.rows != task.output.rows:
            groups.append([])
            made = set()
        groups[-1].append(task)
        made.add(task.output.key)
    return groups


# --- places ---------------------------------------------------------------------------------------


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


class _Placement:
    """Addresses of all values, and the instructions that use them."""

    def __init__(self, program: ir.Program, loops: Sequence[_TaskLoop]) -> None:
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
        spans = [self._data_span(i, v, kept[v.key] * v.cols) for i, v in values]
        bases, self._data_words = _place(spans)
        return {
            value.key: Region(value.key, base, kept[value.key], value.cols)
            for (_, value), base in zip(values, bases, strict=True)
        }

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
        if words == value.cols and not outside:
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

    def _place_key_values(self) -> dict[_Pair, KeyValueRegion]:
        pairs = list(dict.fromkeys(task.pair for task in self._tasks if task.pair is not None))
        spans = [self._key_value_span(pair) for pair in pairs]
        bases, self._key_value_words = _place(spans)
        return {
            pair: KeyValueRegion(
                pair.key, pair.value, base, self._program.values[pair.key].rows, pair.kv_heads
            )
            for pair, base in zip(pairs, bases, strict=True)
        }

    def _key_value_span(self, pair: _Pair) -> _Span:
        loops = [
            loop
            for task, loop in zip(self._tasks, self._loop_of, strict=True)
            if task.pair == pair or (task.target is not None and task.target.pair == pair)
        ]
        last = max(loops, key=lambda loop: loop.first)
        rows = self._program.values[pair.key].rows
        first = min(loop.first for loop in loops)
        return _Span(first, last.first + len(last.tasks) - 1, rows * pair.kv_heads)

    def _lanes(self, target: _Target) -> int:
        key = target.pair.key if target.space == "key" else target.pair.value
        return self._program.values[key].cols // target.pair.kv_heads

    def load_loop(self, rows: int) -> Loop:
        """Fills the key and value memories from the cache port, a row of each in turn."""
        body = []
        for pair, region in self.key_value_regions.items():
            for space in _SPACES:
                body.append(
                    Instruction(
                        unit="receive",
                        select=len(self._program.inputs),
                        output=pair.key if space == "key" else pair.value,
                        d=Operand(region.base, region.kv_heads),
                        space=space,
                        lanes=self._lanes(_Target(pair, space)),
                    )
                )
        return Loop(rows, tuple(body), load=True)

    def cache_port(self) -> Port:
        """The port of the load loop. Raises UsageError for keys and values of different widths."""
        values = self._keys_and_values()
        if len({value.cols for value in values}) != 1:
            raise UsageError("keys and values of different widths have no common cache port")
        return Port(
            name=CACHE_PORT,
            direction="in",
            kind="cache",
            value="",
            section=0,
            rows=values[0].rows * len(values),
            cols=values[0].cols,
            bits=max(value.bits for value in values),
            signed=True,
        )

    def _keys_and_values(self) -> list[ir.Value]:
        keys = [key for pair in self.key_value_regions for key in (pair.key, pair.value)]
        return [self._program.values[key] for key in keys]

    # -- results

    def memories(self) -> tuple[Memory, ...]:
        values = self._program.values
        stored = [values[key] for key in self.regions] + self._keys_and_values()
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

    def body(self, loop: _TaskLoop) -> tuple[Instruction, ...]:
        instructions: list[Instruction] = []
        bank: str | None = None
        for task in loop.tasks:
            instructions.append(self._instruction(task, loop, bank))
            if task.unit == "linear":
                bank = task.reads[0]
        return tuple(instructions)

    def _instruction(self, task: _Task, loop: _TaskLoop, bank: str | None) -> Instruction:
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

    def _destination(self, task: _Task) -> Operand:
        if task.target is not None:
            region = self.key_value_regions[task.target.pair]
            return Operand(region.base, region.kv_heads)
        return self._data(task.output.key) if task.writes_data else Operand()

    def _inputs(self, task: _Task, loop: _TaskLoop) -> tuple[Operand, Operand, Operand]:
        """Operands a, b, c."""
        op, none = task.operation, Operand()
        if isinstance(op, ir.Attend):
            assert task.pair is not None
            flags = self._data(op.inputs[3], whole=True) if len(op.inputs) > 3 else none
            keys = Operand(self.key_value_regions[task.pair].base)
            return self._data(op.inputs[0]), keys, flags
        if isinstance(op, ir.Gather):
            return Operand(0, 0 if loop.sequence else op.output.cols), none, none
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


# --- ports ----------------------------------------------------------------------------------------


def _input_ports(program: ir.Program) -> tuple[Port, ...]:
    two = len(program.sections) == 2
    ports: list[Port] = []
    for index, port in enumerate(program.inputs):
        peers = [i for i, p in enumerate(program.inputs) if p.section == port.section or not two]
        stem = "s_axis_src" if two and port.section == 0 else "s_axis"
        name = stem if len(peers) == 1 else f"{stem}_{peers.index(index)}"
        value = port.value
        unsigned = port.kind != "tensor"
        bits = max(1, value.high.bit_length()) if unsigned else value.bits
        ports.append(
            Port(
                name=name,
                direction="in",
                kind=port.kind,
                value=value.key,
                section=port.section,
                rows=value.rows,
                cols=value.cols,
                bits=bits,
                signed=not unsigned,
                pad=_padding(program, value.key) if port.kind == "ids" else 0,
                tlast="matrix",
            )
        )
    return tuple(ports)


def _padding(program: ir.Program, ids: str) -> int:
    """The id whose row a flag table of these ids switches off; 0 when there is no such table."""
    flags = {
        key
        for op in program.operations
        for key in (op.inputs[3:] if isinstance(op, ir.Attend) else ())
        + (op.inputs[1:] if isinstance(op, ir.SumRows) else ())
    }
    for op in program.operations:
        if isinstance(op, ir.Lookup) and op.inputs == (ids,) and op.output.key in flags:
            absent = [i for i, flag in enumerate(op.table.tolist()) if flag == 0]
            return op.first + absent[0] if absent else 0
    return 0


def _output_ports(program: ir.Program, logits_port: bool) -> tuple[Port, ...]:
    ports: list[Port] = []
    producers = {o.output.key: o.section for o in program.operations}
    for index, output in enumerate(program.outputs):
        name = "m_axis" if len(program.outputs) == 1 else f"m_axis_{index}"
        value = program.values[output.value]
        section = producers.get(value.key, 0)
        sequence = program.sections[section] == "sequence"
        tensor = Port(
            name=name,
            direction="out",
            kind="tensor",
            value=value.key,
            section=section,
            rows=value.rows,
            cols=value.cols,
            bits=value.bits,
            signed=True,
            tlast="row" if sequence else "matrix",
        )
        if output.kind == "tensor" or not sequence:
            ports.append(tensor)
            continue
        bits = max(1, (value.cols - 1).bit_length())
        ports.append(replace(tensor, kind="token", cols=1, bits=bits, signed=False, tlast="matrix"))
        if logits_port:
            ports.append(replace(tensor, name=f"{name}_logits", kind="logits", tlast="row"))
    return tuple(ports)
