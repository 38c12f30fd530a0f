"""Eliminate dead code: nodes whose result reaches no output and no cache are dropped.

1. Walking back from the outputs, what is never read goes. Nothing else changes.
"""

from __future__ import annotations

from hwcompile.compiler.ir.tensor_graph import TensorGraph
from hwcompile.passes.result import PassResult, rebuild


def run(graph: TensorGraph) -> PassResult[TensorGraph]:
    """The graph without nodes that nothing reads; same values."""
    result = rebuild(graph, graph.nodes, {})
    dropped = len(graph.nodes) - len(result.nodes)
    return PassResult(result, dropped > 0, (f"{dropped} nodes dropped",) if dropped else ())
