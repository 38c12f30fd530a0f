"""Remove quantisers: dynamic activation quantisers of a float file become what they round.

The chip quantises activations by itself, so a quantiser that a training framework left in the graph
(BitNet: per-row absolute maximum, scale, round, clip) is taken for the identity.

1. ``Round(m)`` where every row of ``m`` has the same largest magnitude, whatever the input: ``m``.
2. A clip right after it that clips nothing of ``m``: ``m``.
3. Members of a region with equal values on probes are one (``x * s / s`` is ``x``).
4. ``(x * s) @ W`` rescaled per row by ``d`` where ``s * d`` is a constant c: ``(x @ W) * c``.

A Round of anything else stays, and is refused later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hwcompile.compiler.ir.tensor_graph import Array, Constant, Node, TensorGraph
from hwcompile.passes.regions import Evaluator, probes, row_roots, tensor_shapes
from hwcompile.passes.result import PassResult, rebuild

_SCALES = (0.1, 1.0, 10.0)
_CLOSE = 1e-5


def run(graph: TensorGraph) -> PassResult[TensorGraph]:
    """The graph without activation quantisers: values change by their rounding error."""
    roots = row_roots(graph)
    rounds = [n for n in graph.nodes if n.op == "Round" and n.output in roots]
    alias: dict[str, str] = {}
    for node in rounds:
        root = roots[node.output]
        cols = tensor_shapes(graph)[root][-1]
        m = Evaluator(graph, root, probes(cols, _SCALES))(node.inputs[0])
        top = np.abs(m).max(1)
        if np.ptp(top) <= _CLOSE * top.max() and top.min() >= 1:
            alias[node.output] = node.inputs[0]
    if not alias:
        return PassResult(graph, False)
    lines = tuple(
        f"{n.origin}: activation quantiser taken for the identity"
        for n in rounds
        if n.output in alias
    )
    result = _merge_equal(rebuild(graph, graph.nodes, alias), frozenset(alias.values()))
    return PassResult(_cancel_row_scales(result), True, lines)


def _merge_equal(graph: TensorGraph, rounded: frozenset[str]) -> TensorGraph:
    """Rules 2 and 3, for what depends on ``rounded``: a member equal to an earlier one is it."""
    roots, shapes = row_roots(graph), tensor_shapes(graph)
    members: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.output in roots:
            members.setdefault(roots[node.output], []).append(node)
    after = set(rounded)
    for node in graph.nodes:
        if any(k in after for k in node.inputs):
            after.add(node.output)
    alias: dict[str, str] = {}
    for root, nodes in members.items():
        x = probes(shapes[root][-1], _SCALES)
        evaluate = Evaluator(graph, root, x)
        seen: list[tuple[str, tuple[int, ...], Array]] = [(root, shapes[root], x)]
        for node in nodes:
            value = evaluate(node.output)
            twin = next((k for k, s, v in seen if s == node.shape and _equal(v, value)), None)
            if twin is not None and node.output in after:
                alias[node.output] = twin
            else:
                seen.append((node.output, node.shape, value))
    return rebuild(graph, graph.nodes, alias)


def _equal(a: Array, b: Array) -> bool:
    reach = np.abs(a).max(-1, keepdims=True)
    return bool((np.abs(a - b) <= _CLOSE * reach).all())


def _cancel_row_scales(graph: TensorGraph) -> TensorGraph:
    """Rule 4."""
    roots, shapes = row_roots(graph), tensor_shapes(graph)
    makers = {n.output: n for n in graph.nodes}
    users: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for key in dict.fromkeys(node.inputs):
            users.setdefault(key, []).append(node)
    constants = dict(graph.constants)
    new: dict[str, Node] = {}
    for product in graph.nodes:
        scaled = makers.get(product.inputs[0]) if product.op == "MatMul" else None
        if scaled is None or scaled.op != "Mul" or product.inputs[1] not in graph.constants:
            continue
        split = _split_scale(graph, scaled, shapes)
        after = users.get(product.output, [])
        if split is None or not after:
            continue
        x, s = split
        factors = [_factor(graph, roots, shapes, n, product.output, s) for n in after]
        if any(f is None for f in factors):
            continue
        new[product.output] = replace(product, inputs=(x, product.inputs[1]))
        for n, factor in zip(after, factors, strict=True):
            key = f"{n.output} scale"
            constants[key] = Constant(np.asarray(factor, np.float32))
            new[n.output] = replace(n, op="Mul", inputs=(product.output, key))
    nodes = tuple(new.get(n.output, n) for n in graph.nodes)
    return rebuild(replace(graph, constants=constants), nodes, {})


def _split_scale(
    graph: TensorGraph, node: Node, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, str] | None:
    """``(x, s)`` of ``x * s`` with one scale a row."""
    for x, s in (node.inputs, node.inputs[::-1]):
        wide = shapes.get(x) == node.shape
        if wide and s not in graph.constants and shapes[s] == (*node.shape[:-1], 1):
            return x, s
    return None


def _factor(
    graph: TensorGraph,
    roots: dict[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    node: Node,
    product: str,
    s: str,
) -> float | None:
    """The constant that row scale and rescale come to, when they come to one."""
    if node.op not in ("Mul", "Div") or s not in roots:
        return None
    others = [k for k in node.inputs if k != product]
    if len(others) != 1 or roots.get(others[0]) != roots[s]:
        return None
    if node.op == "Div" and node.inputs[0] != product:
        return None
    evaluate = Evaluator(graph, roots[s], probes(shapes[roots[s]][-1], _SCALES))
    d = evaluate(others[0])
    total = evaluate(s) * d if node.op == "Mul" else evaluate(s) / d
    middle = float(np.median(total))
    return middle if np.abs(total - middle).max() <= _CLOSE * abs(middle) else None
