"""Fold gathers: columns that are only picked or permuted are a matter of weights, not of hardware.

1. ``Linear`` whose every user picks columns of it (each row in its place): each becomes a Linear
   with those columns of weight and bias. A fused query-key-value product falls apart into three.
2. A permutation of columns before ``Linear`` becomes a permutation of the rows of its weight.

Not folded: picks that move rows, products something else reads as a whole, and weights that are
maps of a large file, but for picks of neighbouring columns.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.graph import Graph, IntArray
from hwcompile.compiler.ir.mapped import is_mapped
from hwcompile.compiler.ir.verify_graph import gathered_columns
from hwcompile.passes.graph_tools import rename, users_of
from hwcompile.passes.result import PassResult


def picked_columns(op: ir.Operation, source: ir.Value) -> IntArray | None:
    """Source column of each output column when a Gather keeps every row in its place, else None."""
    if not isinstance(op, ir.Gather) or len(op.inputs) != 1:
        return None
    return gathered_columns(op, (source,))


def run(graph: Graph) -> PassResult[Graph]:
    """The graph with column picks folded into matrix products; same values."""
    users = users_of(graph)
    values = {op.output.key: op.output for op in graph.operations}
    values.update({i.value.key: i.value for i in graph.inputs})
    made: dict[str, ir.Operation] = {}
    count = 0
    for op in graph.operations:
        new = _after_linear(op, made, users) or _before_linear(op, made, values)
        count += new is not None
        made[op.output.key] = op if new is None else new
    result = rename(graph, tuple(made.values()), {})
    return PassResult(result, count > 0, (f"{count} column picks",) if count else ())


def _after_linear(
    op: ir.Operation, made: dict[str, ir.Operation], users: dict[str, list[ir.Operation]]
) -> ir.Operation | None:
    source = made.get(op.inputs[0]) if isinstance(op, ir.Gather) else None
    if not isinstance(source, ir.Linear):
        return None
    columns = picked_columns(op, source.output)
    every = [picked_columns(u, source.output) for u in users[source.output.key]]
    if columns is None or any(c is None for c in every):
        return None
    weight = source.weight
    if is_mapped(weight):
        if not all(c is not None and _neighbours(c) for c in every):
            return None
        weight = weight[:, columns[0] : columns[-1] + 1]
    else:
        weight = weight[:, columns]
    bias = source.bias[columns]
    return replace(source, output=op.output, origin=op.origin, weight=weight, bias=bias)


def _neighbours(columns: IntArray) -> bool:
    return bool((np.diff(columns) == 1).all())


def _before_linear(
    op: ir.Operation, made: dict[str, ir.Operation], values: dict[str, ir.Value]
) -> ir.Operation | None:
    source = made.get(op.inputs[0]) if isinstance(op, ir.Linear) else None
    if not isinstance(op, ir.Linear) or source is None or is_mapped(op.weight):
        return None
    before = values.get(source.inputs[0]) if source.inputs else None
    columns = picked_columns(source, before) if before is not None else None
    if columns is None or before is None or len(np.unique(columns)) != before.cols:
        return None
    if len(columns) != before.cols:
        return None
    weight = np.empty_like(op.weight)
    weight[columns] = op.weight
    return replace(op, inputs=source.inputs, weight=weight)
