"""The verifiers of a TensorGraph and of a Graph: what every pass of the front-end must leave true.

Checked: every tensor is made once and before it is used; shapes of all operands; indices in range;
sections ascend; operations of a sequence section act on rows one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.tensor_graph import TensorGraph

Faults = Iterator[str]
Values = Mapping[str, ir.Value]


class InvalidGraph(Exception):
    """A pass made a graph that breaks a rule: a defect of ours. Lists every broken rule."""


def verify_tensor_graph(graph: TensorGraph) -> None:
    """Raises InvalidGraph unless every tensor is made once, before it is used."""
    faults = []
    known = {*graph.constants, *(i.key for i in graph.inputs)}
    for node in graph.nodes:
        faults += [f"{node.output} reads {k} before it is made" for k in node.inputs
                   if k not in known]  # fmt: skip
        if node.output in known:
            faults.append(f"{node.output} is made twice")
        known.add(node.output)
    ends = [*(o.key for o in graph.outputs), *(c.key for c in graph.caches)]
    faults += [f"{key} is never made" for key in ends if key not in known]
    if faults:
        raise InvalidGraph("; ".join(faults))


def verify_graph(graph: ir.Graph) -> None:
    """Raises InvalidGraph, with all faults, unless the graph keeps every rule."""
    faults = [*_order(graph)]
    if not faults:
        values = {i.value.key: i.value for i in graph.inputs}
        values.update({op.output.key: op.output for op in graph.operations})
        for op in graph.operations:
            inputs = tuple(values[k] for k in op.inputs)
            found = [*_operation(op, inputs)]
            if not found and graph.sections[op.section] == "sequence":
                found = [*_rowwise(op, inputs)]
            faults += [f"{op.output.key} ({type(op).__name__}): {f}" for f in found]
    if faults:
        raise InvalidGraph("; ".join(faults))


def _order(graph: ir.Graph) -> Faults:
    sections = {i.value.key: i.section for i in graph.inputs}
    for op in graph.operations:
        for key in op.reads:
            if sections.get(key, op.section + 1) > op.section:
                yield f"{op.output.key} reads {key} before it is made"
        if op.output.key in sections:
            yield f"{op.output.key} is made twice"
        if not 0 <= op.section < len(graph.sections):
            yield f"{op.output.key} is in section {op.section}"
        sections[op.output.key] = op.section
    for op in graph.operations:
        if any(sections.get(key) != op.section for key in op.inputs if key not in op.reads):
            yield f"{op.output.key} is the state of nothing in its section"
    if any(a.section > b.section for a, b in pairwise(graph.operations)):
        yield "sections are not ascending"
    made = {op.output.key for op in graph.operations}
    yield from (f"output {o.value} is never made" for o in graph.outputs if o.value not in made)
    yield from (f"cache of {c.operation}" for c in graph.caches if c.operation not in made)


def _operation(op: ir.Operation, inputs: tuple[ir.Value, ...]) -> Faults:
    """Shapes of operands, output and constants."""
    rows, cols = op.output.rows, op.output.cols
    shape = (rows, cols)
    counts = {
        ir.Rows: (0,),
        ir.Attend: (3, 4),
        ir.Add: (2,),
        ir.Multiply: (2,),
        ir.MeanRows: (1, 2),
    }
    if not isinstance(op, ir.Gather) and len(inputs) not in counts.get(type(op), (1,)):
        yield f"{len(inputs)} inputs"
        return
    given = [(v.rows, v.cols) for v in inputs]
    fits: bool
    match op:
        case ir.Embed():
            fits = given == [(rows, 1)] and op.table.shape[1] == cols
        case ir.Rows():
            fits = op.table.shape == shape
        case ir.Linear():
            fits = given == [(rows, op.weight.shape[0])] and op.weight.shape[1] == cols
            fits = fits and op.bias.shape == (cols,) and _grid_fits(op)
        case ir.Unary() | ir.Flag():
            fits = given == [shape]
        case ir.Add() | ir.Multiply():
            fits = all(g in (shape, (1, cols)) for g in given) and shape in given
        case ir.Normalise():
            fits = given == [shape] and op.gain.shape == op.bias.shape == (cols,)
        case ir.Rotate():
            fits = given == [shape] and op.cosine.shape == op.sine.shape == shape
            fits = fits and op.partner.shape == (cols,) and int(op.partner.max()) < cols
        case ir.Attend():
            fits = _attend_fits(op, inputs)
        case ir.Gather():
            size = sum(v.rows * v.cols for v in inputs)
            fits = op.index.shape == shape
            fits = fits and int(op.index.min()) >= 0 and int(op.index.max()) < size
        case ir.Delay():
            fits = given == [shape] and op.initial.shape == (cols,)
        case ir.MeanRows():
            fits = rows == 1 and given[0][1] == cols
            fits = fits and given[1:] in ([], [(given[0][0], 1)])
        case _:
            fits = False
    if not fits:
        yield f"{shape} from {given}"


def _grid_fits(op: ir.Linear) -> bool:
    if op.grid_values is None or op.grid_scale is None:
        return op.grid_values is None and op.grid_scale is None
    return bool(np.allclose(op.grid_values * op.grid_scale, op.weight, rtol=1e-3, atol=1e-5))


def _attend_fits(op: ir.Attend, inputs: tuple[ir.Value, ...]) -> bool:
    q, k, v = inputs[:3]
    even = op.heads % op.kv_heads == 0 and q.cols % op.heads == 0
    even = even and k.cols % op.kv_heads == 0 and v.cols % op.kv_heads == 0
    sizes = q.cols // op.heads == k.cols // op.kv_heads
    out = op.output.cols == v.cols // op.kv_heads * op.heads and op.output.rows == q.rows
    keys = k.rows == v.rows and all(f.rows == k.rows and f.cols == 1 for f in inputs[3:])
    bias = op.bias.shape in ((0, 0, 0), *((n, q.rows, k.rows) for n in (1, op.heads)))
    return even and sizes and out and keys and bias and (not op.causal or q.rows == k.rows)


def _rowwise(op: ir.Operation, inputs: tuple[ir.Value, ...]) -> Faults:
    """No row of a sequence sees another one, except through causal attention."""
    if isinstance(op, ir.MeanRows):
        yield "a mean in a sequence"
    if isinstance(op, ir.Gather) and gathered_columns(op, inputs) is None:
        yield "rows move in a sequence"


def gathered_columns(op: ir.Gather, inputs: tuple[ir.Value, ...]) -> ir.IntArray | None:
    """What a Gather that keeps every row in its place picks, or None if it moves rows.

    Columns ``[cols]`` are counted through one row of all inputs side by side.
    """
    if any(v.rows != op.output.rows for v in inputs):
        return None
    starts = np.cumsum([0, *(v.rows * v.cols for v in inputs)])
    widths = np.array([v.cols for v in inputs])
    sides = np.cumsum([0, *widths])
    source = np.searchsorted(starts, op.index, side="right") - 1
    local = op.index - starts[source] - np.arange(op.output.rows)[:, None] * widths[source]
    columns = local + sides[source]
    inside = ((local >= 0) & (local < widths[source])).all()
    return np.asarray(columns[0]) if inside and (columns == columns[:1]).all() else None
