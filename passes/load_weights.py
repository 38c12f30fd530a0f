"""Load weights: the maps of a large file become arrays, where few enough weights are left of it.

1. Matrices and tables that are maps become float64 arrays when all of them together have no more
   than ``MOST`` elements.

Not loaded: more than that. No pass computes with a map; such a graph can be looked at, not built.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.graph import Graph
from hwcompile.compiler.ir.mapped import is_mapped
from hwcompile.passes.result import PassResult

MOST = 1 << 27
"""Weights whose float64 arrays fit a gigabyte, and several times what one die holds as logic."""


def mapped_weights(graph: Graph) -> int:
    """Elements of all matrices and tables of a graph that are maps."""
    arrays = [weights_of(op) for op in graph.operations]
    return sum(a.size for a in arrays if a is not None and is_mapped(a))


def weights_of(op: ir.Operation) -> ir.FloatArray | None:
    """The matrix or table of an operation, or None."""
    if isinstance(op, ir.Linear):
        return op.weight
    return op.table if isinstance(op, ir.Embed) else None


def run(graph: Graph) -> PassResult[Graph]:
    """The graph with its maps loaded, or as it is; same values."""
    count = mapped_weights(graph)
    if not count or count > MOST:
        lines = (f"{count:,} weights stay in their file",) if count else ()
        return PassResult(graph, False, lines)
    operations = tuple(_loaded(op) for op in graph.operations)
    return PassResult(replace(graph, operations=operations), True, (f"{count:,} weights",))


def _loaded(op: ir.Operation) -> ir.Operation:
    weights = weights_of(op)
    if weights is None or not is_mapped(weights):
        return op
    array = np.array(weights, np.float64, order="C", subok=False)
    return replace(op, weight=array) if isinstance(op, ir.Linear) else replace(op, table=array)  # type: ignore[call-arg]
