"""Fold affine: constants beside a matrix product, norm or table move into it, exactly.

1. ``Linear`` then ``* row``, ``+ row`` or ``a x + b`` (rows: constants with one row), with no
   other user of the product: into its weight and bias. The same for a ``Normalise`` (gain, bias)
   and an ``Embed`` (table).
2. ``a x + b`` before ``Linear``: into its weight and bias.
3. Two functions in a row become one, when nothing else reads the first.
4. A function of constant rows, or a sum or product of two, is constant rows.

Not folded: rows that differ (positions), anything another operation still reads, and factors into
weights that are maps of a large file.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.expressions import as_affine, evaluate, substitute
from hwcompile.compiler.ir.graph import FloatArray, Graph
from hwcompile.compiler.ir.mapped import is_mapped
from hwcompile.passes.graph_tools import rename, users_of
from hwcompile.passes.result import PassResult


def run(graph: Graph) -> PassResult[Graph]:
    """The graph with constants folded until nothing more folds; same values up to rounding."""
    count = 0
    while (step := _step(graph)) is not None:
        graph, count = step, count + 1
    lines = (f"{count} rounds",) if count else ()
    return PassResult(graph, count > 0, lines)


def _step(graph: Graph) -> Graph | None:
    """One round over all operations; None when nothing folds."""
    users = users_of(graph)
    made: dict[str, ir.Operation] = {}
    touched: set[str] = set()
    for op in graph.operations:
        made[op.output.key] = op
        if any(k in touched for k in op.inputs):
            continue
        folded = _fold(op, made, users)
        if folded is None:
            continue
        source, new = folded
        touched.update((source, op.output.key))
        made[op.output.key] = new
    if not touched:
        return None
    return rename(graph, tuple(made.values()), {})


def _fold(
    op: ir.Operation, made: dict[str, ir.Operation], users: dict[str, list[ir.Operation]]
) -> tuple[str, ir.Operation] | None:
    """The operation that takes the place of ``op``, with the key of what it swallowed."""
    sources = [made.get(k) for k in op.inputs]
    if op.inputs and all(isinstance(s, ir.Rows) for s in sources):
        table = _constant(op, [s.table for s in sources if isinstance(s, ir.Rows)])
        if table is not None:
            return op.inputs[0], ir.Rows(op.output, (), op.section, op.origin, table)
    if isinstance(op, ir.Linear):
        if _stays_mapped(op):
            return None
        source = sources[0]
        line = as_affine(source.function) if isinstance(source, ir.Unary) else None
        if source is not None and line is not None:
            return source.output.key, _before(op, source.inputs[0], *line)
        return None
    step = _affine_step(op, sources)
    if step is None:
        return _compose(op, sources, users)
    source, factor, offset = step
    if len(users[source.output.key]) != 1 or source.section != op.section:
        return None
    new = _after(source, factor, offset)
    if new is None:
        return _compose(op, sources, users)
    return source.output.key, replace(new, output=op.output)


def _constant(op: ir.Operation, tables: list[FloatArray]) -> FloatArray | None:
    if isinstance(op, ir.Unary):
        return np.array(evaluate(op.function, tables[0]))
    if isinstance(op, ir.Add):
        return tables[0] + tables[1]
    if isinstance(op, ir.Multiply):
        return tables[0] * tables[1]
    return None


def _affine_step(
    op: ir.Operation, sources: list[ir.Operation | None]
) -> tuple[ir.Operation, FloatArray, FloatArray] | None:
    """``(source, factor, offset)`` when ``op`` is ``source * factor + offset`` by column."""
    one, zero = np.ones(1), np.zeros(1)
    if isinstance(op, ir.Unary) and sources[0] is not None:
        line = as_affine(op.function)
        return (sources[0], one * line[0], one * line[1]) if line is not None else None
    if isinstance(op, ir.Add | ir.Multiply):
        for x, row in ((sources[0], sources[1]), (sources[1], sources[0])):
            if x is not None and isinstance(row, ir.Rows) and row.output.rows == 1:
                if x.output.rows != op.output.rows:
                    continue
                table = row.table[0]
                return (x, one, table) if isinstance(op, ir.Add) else (x, table, zero)
    return None


def _after(source: ir.Operation, factor: FloatArray, offset: FloatArray) -> ir.Operation | None:
    if isinstance(source, ir.Linear | ir.Embed) and _stays_mapped(source):
        if isinstance(source, ir.Linear) and (factor == 1).all():
            return replace(source, bias=source.bias + offset)
        return None
    if isinstance(source, ir.Linear):
        scale = source.grid_scale
        return replace(
            source,
            weight=source.weight * factor,
            bias=source.bias * factor + offset,
            grid_scale=None if scale is None else scale * factor,
        )
    if isinstance(source, ir.Normalise):
        return replace(source, gain=source.gain * factor, bias=source.bias * factor + offset)
    if isinstance(source, ir.Embed):
        return replace(source, table=source.table * factor + offset)
    return None


def _stays_mapped(op: ir.Linear | ir.Embed) -> bool:
    return is_mapped(op.weight if isinstance(op, ir.Linear) else op.table)


def _before(op: ir.Linear, source: str, slope: float, shift: float) -> ir.Linear:
    bias = op.bias + shift * op.weight.sum(0)
    return replace(op, inputs=(source,), weight=op.weight * slope, bias=bias)


def _compose(
    op: ir.Operation, sources: list[ir.Operation | None], users: dict[str, list[ir.Operation]]
) -> tuple[str, ir.Operation] | None:
    source = sources[0] if sources else None
    if not (isinstance(op, ir.Unary) and isinstance(source, ir.Unary)):
        return None
    if len(users[source.output.key]) != 1:
        return None
    function = substitute(op.function, source.function)
    return source.output.key, replace(op, inputs=source.inputs, function=function)
