"""Fuse masked means: a sum over flagged rows divided by their number becomes one MaskedMean.

1. A quotient (or a product with a reciprocal) over ``ReduceSum(x * mask)`` that, evaluated on
   random ``x`` and masks, equals the mean of the flagged rows, however its divisor is guarded.

Anything else (weights that are no flags, a divisor that counts all rows) is left as it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwcompile.compiler.ir import tensor_operations
from hwcompile.compiler.ir.tensor_graph import Array, Node, TensorGraph
from hwcompile.passes.regions import tensor_shapes
from hwcompile.passes.result import PassResult, rebuild

_CLOSE = 1e-4


def run(graph: TensorGraph) -> PassResult[TensorGraph]:
    """The graph with its masked means fused; values unchanged up to rounding."""
    makers = {n.output: n for n in graph.nodes}
    found: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op in ("Div", "Mul") and node.dtype.kind == "f":
            mean = _masked_mean(graph, makers, node)
            if mean is not None:
                found[node.output] = mean
    if not found:
        return PassResult(graph, False)
    nodes = tuple(found.get(n.output, n) for n in graph.nodes)
    lines = tuple(f"{n.origin}: mean over flagged rows" for n in found.values())
    return PassResult(rebuild(graph, nodes, {}), True, lines)


def _masked_mean(graph: TensorGraph, makers: dict[str, Node], node: Node) -> Node | None:
    total = next((makers[k] for k in node.inputs if _is_sum(makers.get(k))), None)
    product = makers.get(total.inputs[0]) if total is not None else None
    if total is None or product is None or product.op != "Mul":
        return None
    shapes = tensor_shapes(graph)
    axis = total.attributes["axes"][0] % len(product.shape)
    for x in product.inputs:
        if shapes.get(x) != product.shape:
            continue
        part = _between(graph, node, x)
        if part is None:
            continue
        nodes, mask = part
        if _is_mean(graph, nodes, node.output, (x, shapes[x]), (mask, shapes[mask]), axis):
            at = {"axis": axis}
            return replace(node, op="MaskedMean", inputs=(x, mask), attributes=at)
    return None


def _is_sum(node: Node | None) -> bool:
    axes = node.attributes.get("axes") if node is not None and node.op == "ReduceSum" else None
    return axes is not None and len(axes) == 1


def _between(graph: TensorGraph, node: Node, x: str) -> tuple[list[Node], str] | None:
    """Nodes from ``x`` and one mask (the only tensor that is no float) to ``node``, in order."""
    needed, part = {node.output}, []
    for other in reversed(graph.nodes):
        if other.output in needed and other.output != x and other.dtype.kind == "f":
            part.append(other)
            needed.update(other.inputs)
    made = {n.output for n in part}
    ends = sorted(k for k in needed if k not in made and k != x and k not in graph.constants)
    return (part[::-1], ends[0]) if len(ends) == 1 else None


def _is_mean(
    graph: TensorGraph,
    nodes: list[Node],
    target: str,
    x: tuple[str, tuple[int, ...]],
    mask: tuple[str, tuple[int, ...]],
    axis: int,
) -> bool:
    rows = x[1][axis]
    if int(np.prod(mask[1])) != rows or rows < 2:
        return False
    generator = np.random.default_rng(rows)
    for flags in (np.arange(rows) < 1, np.arange(rows) % 2 == 0, np.ones(rows, bool)):
        value = generator.standard_normal(x[1]).astype(np.float32)
        values: dict[str, Array] = {x[0]: value, mask[0]: flags.reshape(mask[1]).astype(np.int64)}
        for node in nodes:
            arrays = [values[k] if k in values else graph.constants[k].array for k in node.inputs]
            values[node.output] = tensor_operations.evaluate(node.op, node.attributes, arrays)
        expected = np.compress(flags, value, axis=axis).mean(axis).reshape(-1)
        if np.abs(values[target].reshape(-1) - expected).max() > _CLOSE:
            return False
    return True
