"""Sections, caches and kinds: what turns lowered operations into a Graph.

1. Inputs that a causal attention's queries or a state depend on are sequences; operations that
   depend on a sequence are in the ``sequence`` section, all others in ``once``.
2. A sequence section in which a row sees another row except through attention or a state is no
   sequence: then everything is ``once``.
3. A cache belongs to the attention whose keys or values it is, seen through what only moves
   elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.frontend.lower import Lowered
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.order import live
from hwcompile.compiler.ir.tensor_graph import TensorGraph
from hwcompile.compiler.ir.tensor_operations import STRUCTURAL
from hwcompile.compiler.ir.verify_graph import gathered_columns


def finish(tensors: TensorGraph, lowered: Lowered) -> tuple[ir.Graph, tuple[str, ...]]:
    """The Graph and lines for the report."""
    operations = live(lowered.operations, [o.value for o in lowered.outputs])
    if not any(op.inputs for op in operations):
        raise ModelError("the outputs do not depend on the inputs", "there is nothing to build")
    sequential = _sequential(lowered, operations)
    lines: list[str] = []
    if sequential:
        why = _breaks_sequence(operations, sequential, lowered.values)
        if why:
            lines.append(f"not compiled as a token sequence: {why}")
            sequential = frozenset()
    if not sequential and tensors.form in ("kv", "step"):
        reason = (lines or ["no causal attention"])[0]
        raise ModelError(f"caches, but no token sequence: {reason}", "export the prefill form")
    once = any(op.output.key not in sequential and op.inputs for op in operations) or not sequential
    kinds: tuple[ir.SectionKind, ...] = (
        ("once", "sequence") if once and sequential else ("sequence",) if sequential else ("once",)
    )
    last = len(kinds) - 1

    def section(key: str) -> int:
        return last if key in sequential else 0

    placed = _place(operations, section)
    inputs = tuple(replace(i, section=section(i.value.key)) for i in lowered.inputs)
    outputs = _with_kinds(lowered, inputs, sequential)
    caches, notes = _caches(tensors, lowered)
    form = tensors.form if tensors.form != "call" else "prefill" if sequential else "call"
    graph = ir.Graph(kinds, inputs, placed, outputs, caches, form)
    return graph, (*lowered.lines, *lines, *notes)


def _with_kinds(
    lowered: Lowered, inputs: tuple[ir.Input, ...], sequential: frozenset[str]
) -> tuple[ir.Output, ...]:
    """Outputs over the vocabulary of the sequence, or the only one of it, are logits."""
    counts = {i.id_count for i in inputs if i.value.key in sequential and i.kind == "ids"}
    rows = [o.value for o in lowered.outputs if o.value in sequential]

    def is_logits(output: ir.Output) -> bool:
        fits = lowered.values[output.value].cols in counts or len(rows) == 1
        return output.value in sequential and bool(counts) and fits

    return tuple(replace(o, kind="logits") if is_logits(o) else o for o in lowered.outputs)


def _sequential(lowered: Lowered, operations: tuple[ir.Operation, ...]) -> frozenset[str]:
    """Keys of the inputs and values that belong to a sequence."""
    none: frozenset[str] = frozenset()
    sources = {i.value.key: frozenset((i.value.key,)) for i in lowered.inputs}
    #: Inputs whose rows become the rows of a value: not those seen through attention.
    rows = dict(sources)
    starts = none
    # A state is read before it is made: what it depends on is known the second time.
    for op in (*operations, *operations):
        seen = op.inputs[:1] if isinstance(op, ir.Attend) else op.inputs
        rows[op.output.key] = none.union(*(rows.get(k, none) for k in seen))
        sources[op.output.key] = none.union(*(sources.get(k, none) for k in op.inputs))
        if isinstance(op, ir.Delay) or (isinstance(op, ir.Attend) and op.causal):
            starts |= rows.get(op.inputs[0], none)
    return frozenset(k for k, own in sources.items() if own & starts)


def _breaks_sequence(
    operations: tuple[ir.Operation, ...],
    sequential: frozenset[str],
    values: Mapping[str, ir.Value],
) -> str:
    """Why the operations are not rowwise, or ""."""
    rows = {op.output.key: op.output.rows for op in operations}
    lengths = {rows[op.output.key] for op in operations if op.output.key in sequential}
    for op in operations:
        inside = [k for k in op.inputs if k in sequential]
        if not inside or op.output.key not in sequential:
            continue
        if len(lengths) > 1:
            return f"rows of different lengths ({', '.join(map(str, sorted(lengths)))})"
        if isinstance(op, ir.MeanRows):
            return "a mean over all rows"
        if isinstance(op, ir.Attend) and not op.causal and set(inside) & set(op.inputs[1:]):
            return "an attention that sees later rows"
        if isinstance(op, ir.Gather) and (
            gathered_columns(op, tuple(values[k] for k in op.inputs)) is None
        ):
            return "rows that are rearranged"
    return ""


def _place(
    operations: tuple[ir.Operation, ...], section: Callable[[str], int]
) -> tuple[ir.Operation, ...]:
    """Operations with their sections, ascending; constant rows beside each of their users."""
    own = {op.output.key: section(op.output.key) for op in operations}
    users: dict[str, list[int]] = {}
    for op in operations:
        for key in op.inputs:
            users.setdefault(key, []).append(own[op.output.key])
    copies: dict[tuple[str, int], ir.Value] = {}
    placed: list[ir.Operation] = []
    count = len(operations)
    for op in operations:
        if op.inputs:
            now = own[op.output.key]
            inputs = tuple(copies[k, now].key if (k, now) in copies else k for k in op.inputs)
            placed.append(replace(op, inputs=inputs, section=now))
            continue
        for i, now in enumerate(sorted(dict.fromkeys(users.get(op.output.key, [0])))):
            value = op.output if i == 0 else replace(op.output, key=f"{op.output.key}c{count}")
            copies[op.output.key, now] = value
            placed.append(replace(op, output=value, section=now))
    return tuple(sorted(placed, key=lambda op: op.section))


def _caches(
    tensors: TensorGraph, lowered: Lowered
) -> tuple[tuple[ir.CacheTensor, ...], tuple[str, ...]]:
    makers = {n.output: n for n in tensors.nodes}
    pairs = {c.key: c for c in tensors.caches}
    found: list[ir.CacheTensor] = []
    for attend, keys, values in lowered.attends:
        for role, key in (("key", keys), ("value", values)):
            while key not in pairs and key in makers and makers[key].op in STRUCTURAL:
                key = makers[key].inputs[0]
            if key in pairs:
                pair = pairs.pop(key)
                found.append(
                    ir.CacheTensor(
                        attend,
                        "key" if role == "key" else "value",
                        pair.input_name,
                        pair.output_name,
                    )
                )
    lost = tuple(
        f"cache {c.output_name!a} is not what an attention reads: it cannot be loaded"
        for c in pairs.values()
    )
    return tuple(found), lost
