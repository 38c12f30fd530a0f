"""Expand softmax: one that weighs nothing becomes exponentials over their sum.

Weights of an attention are left to it: a softmax whose result reaches, through elementwise
operations and what only moves elements, the left side of a product with data.
"""

from __future__ import annotations

from collections.abc import Iterator

from hwcompile.compiler.ir.tensor_graph import Node, TensorGraph
from hwcompile.compiler.ir.tensor_operations import ELEMENTWISE, STRUCTURAL
from hwcompile.passes.result import PassResult, rebuild

_THROUGH = (*ELEMENTWISE, *STRUCTURAL, "Cast", "Function")


def run(graph: TensorGraph) -> PassResult[TensorGraph]:
    """The graph with free-standing softmaxes expanded; same values."""
    weights = _weights(graph)
    nodes: list[Node] = []
    lines: list[str] = []
    for node in graph.nodes:
        if node.op == "Softmax" and node.output not in weights:
            nodes += _expanded(node)
            lines.append(f"{node.origin}: a softmax by itself")
        else:
            nodes.append(node)
    if not lines:
        return PassResult(graph, False)
    return PassResult(rebuild(graph, tuple(nodes), {}), True, tuple(lines))


def _weights(graph: TensorGraph) -> frozenset[str]:
    """Tensors that reach the left side of a product with data."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op == "MatMul" and node.inputs[1] not in graph.constants:
            found.add(node.inputs[0])
        elif node.op in _THROUGH and node.output in found:
            found.update(node.inputs)
    return frozenset(found)


def _expanded(node: Node) -> Iterator[Node]:
    x, y, shape = node.inputs[0], node.output, node.shape
    row = (*shape[:-1], 1)
    over = {"axes": (-1,), "keepdims": 1}

    def make(op: str, inputs: tuple[str, ...], name: str, wide: bool) -> Node:
        at = over if op.startswith("Reduce") else {}
        key = name and f"{y} {name}"
        return Node(
            op, inputs, key or y, shape if wide else row, node.timed, node.dtype, at, node.origin
        )

    yield make("ReduceMax", (x,), "most", False)
    yield make("Sub", (x, f"{y} most"), "less", True)
    yield make("Exp", (f"{y} less",), "power", True)
    yield make("ReduceSum", (f"{y} power",), "sum", False)
    yield make("Div", (f"{y} power", f"{y} sum"), "", True)
