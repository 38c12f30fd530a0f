"""The tasks of a chip's units, and the loops they run in: steps 1 to 3 of :mod:`plan_chip`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Space, Unit, UnitKind
from hwcompile.compiler.ir.operations import limit, spec

UNIT_ORDER: tuple[UnitKind, ...] = get_args(UnitKind)
SPACES: tuple[Space, Space] = ("key", "value")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a key or value goes: the pair's region and which of the two memories."""

    pair: Pair
    space: Space


@dataclass(frozen=True, slots=True)
class Pair:
    """A key and value as attention reads them."""

    key: str
    value: str
    kv_heads: int


@dataclass(frozen=True, slots=True)
class Task:
    """One unit's work on a value, row by row; ``reads`` data values, of them ``whole`` ones."""

    unit: UnitKind
    select: int
    output: ir.Value
    section: int
    operation: ir.Operation | None = None
    reads: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    target: Target | None = None
    pair: Pair | None = None

    @property
    def writes_data(self) -> bool:
        return self.unit != "emit" and self.target is None


def _pair(op: ir.Attend) -> Pair:
    return Pair(op.inputs[1], op.inputs[2], op.kv_heads)


def tasks_of(program: ir.Program) -> list[Task]:
    """All tasks in order, receives, copies and emits among them."""
    targets = _targets(program)
    used = _data_uses(program)
    tasks: list[Task] = []
    counts: dict[UnitKind, int] = {}

    def add(task: Task) -> None:
        """Append a task of a new operation, then what follows its value."""
        own = targets.get(task.output.key, ())
        direct = len(own) == 1 and task.output.key not in used
        tasks.append(replace(task, target=own[0]) if direct else task)
        for target in () if direct else own:
            op = _copy(program, task.output, task.section)
            tasks.append(
                Task(
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
                tasks.append(Task("emit", index, task.output, task.section, reads=(output.value,)))

    def take(kind: UnitKind) -> int:
        counts[kind] = counts.get(kind, 0) + 1
        return counts[kind] - 1

    def receive(section: int, keys: Iterable[str]) -> None:
        for index, port in enumerate(program.inputs):
            if port.value.key in waiting and port.section == section and port.value.key in keys:
                waiting.remove(port.value.key)
                add(Task("receive", index, port.value, section))

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
    return next(k for k in UNIT_ORDER if k == kind)


def _operation_task(op: ir.Operation, kind: UnitKind, select: int) -> Task:
    if isinstance(op, ir.Attend):
        reads = (op.inputs[0], *op.inputs[3:])
        return Task(kind, select, op.output, op.section, op, reads, op.inputs[1:], pair=_pair(op))
    whole = op.inputs if not spec(op).rowwise else ()
    return Task(kind, select, op.output, op.section, op, op.inputs, whole)


def _copy(program: ir.Program, value: ir.Value, section: int) -> ir.Rescale:
    """A Rescale that changes nothing: one bit more where symmetric saturation would clip."""
    bits = value.bits + (value.low < -limit(value.bits))
    return ir.Rescale(replace(value, bits=bits), (value.key,), section, "copy", 1, 0)


def _targets(program: ir.Program) -> dict[str, tuple[Target, ...]]:
    """The key and value memory places of each value that attention reads."""
    targets: dict[str, tuple[Target, ...]] = {}
    for op in program.operations:
        if isinstance(op, ir.Attend):
            pair = _pair(op)
            for key, space in zip((pair.key, pair.value), SPACES, strict=True):
                target = Target(pair, space)
                if target not in targets.get(key, ()):
                    targets[key] = (*targets.get(key, ()), target)
    return targets


def _data_uses(program: ir.Program) -> set[str]:
    """Values that something reads from the data memory."""
    used = {output.value for output in program.outputs}
    for op in program.operations:
        used.update(op.inputs[:1] + op.inputs[3:] if isinstance(op, ir.Attend) else op.inputs)
    return used


def units_of(tasks: Sequence[Task]) -> tuple[Unit, ...]:
    return tuple(
        Unit(kind, tuple(t.operation for t in tasks if t.unit == kind and t.operation is not None))
        for kind in UNIT_ORDER
        if any(t.unit == kind for t in tasks)
    )


# --- loops ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TaskLoop:
    """Tasks of one loop; ``first`` numbers its first task in the whole program."""

    section: int
    sequence: bool
    rows: int
    first: int
    tasks: tuple[Task, ...]


def loops_of(program: ir.Program, tasks: Sequence[Task]) -> list[TaskLoop]:
    loops: list[TaskLoop] = []
    for section, kind in enumerate(program.sections):
        own = [t for t in tasks if t.section == section]
        groups = [own] if kind == "sequence" else _row_groups(own)
        for group in groups:
            first = sum(len(loop.tasks) for loop in loops)
            rows = max((t.output.rows for t in group), default=1)
            loops.append(TaskLoop(section, kind == "sequence", rows, first, tuple(group)))
    return loops


def _row_groups(tasks: Sequence[Task]) -> list[list[Task]]:
    groups: list[list[Task]] = []
    made: set[str] = set()
    for task in tasks:
        barrier = any(key in made for key in task.whole)
        if not groups or barrier or groups[-1][-1].output.rows != task.output.rows:
            groups.append([])
            made = set()
        groups[-1].append(task)
        made.add(task.output.key)
    return groups
