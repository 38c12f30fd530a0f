"""Fuse elementwise: maximal one-variable elementwise regions become one Function of a scalar.

1. The exits of a region (members used outside it) become ``Function(root)`` with one expression:
   every variant of GELU, SiLU, squared ReLU is one table later, with no pattern for any of them.
2. An exit that equals its root on probes (NaN guards of a softmax) is the root.
3. Affine exits stay as they are: they fold into a neighbouring matrix product instead.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwcompile.compiler.ir.expressions import VARIABLE, as_affine, constant, evaluate, substitute
from hwcompile.compiler.ir.graph import Expression
from hwcompile.compiler.ir.tensor_graph import Node, TensorGraph
from hwcompile.compiler.ir.tensor_operations import ELEMENTWISE
from hwcompile.passes.regions import find_roots, is_scalar, tensor_shapes
from hwcompile.passes.result import PassResult, rebuild

_PROBES = np.concatenate([np.linspace(-9.97, 9.97, 101), [1e-3, -1e-3, 0.0, 1.0]])


def run(graph: TensorGraph) -> PassResult[TensorGraph]:
    """The graph with its elementwise regions fused; same values."""
    roots = _roots(graph)
    if not roots:
        return PassResult(graph, False)
    exits = _exits(graph, roots)
    expressions: dict[str, Expression] = {}
    alias: dict[str, str] = {}
    weights = frozenset(n.output for n in graph.nodes if n.op == "Softmax")
    nodes: list[Node] = []
    lines: list[str] = []
    for node in graph.nodes:
        if node.output in roots:
            root = roots[node.output]
            expressions[node.output] = _expression(graph, node, root, expressions)
            if node.output in exits:
                node, same = _exit(node, root, expressions[node.output], root in weights)
                if same:
                    alias[node.output] = root
                elif node.op == "Function":
                    lines.append(f"{node.origin}: one function")
        nodes.append(node)
    result = rebuild(graph, tuple(nodes), alias)
    return PassResult(result, result.nodes != graph.nodes, tuple(lines))


def _roots(graph: TensorGraph) -> dict[str, str]:
    shapes = tensor_shapes(graph)
    dtypes = {i.key: i.dtype for i in graph.inputs} | {n.output: n.dtype for n in graph.nodes}

    def accepts(node: Node) -> bool:
        data = [k for k in node.inputs if k not in graph.constants]
        return (node.op in ELEMENTWISE or node.op == "Function") and all(
            shapes[k] == node.shape for k in data
        )

    roots = find_roots(graph, accepts, lambda k: is_scalar(graph, k))
    return {k: r for k, r in roots.items() if dtypes[r].kind == "f"}


def _exits(graph: TensorGraph, roots: dict[str, str]) -> frozenset[str]:
    used = [o.key for o in graph.outputs] + [c.key for c in graph.caches]
    for node in graph.nodes:
        inside = roots.get(node.output)
        used.extend(k for k in node.inputs if k in roots and roots[k] != inside)
    return frozenset(used)


def _expression(
    graph: TensorGraph, node: Node, root: str, known: dict[str, Expression]
) -> Expression:
    def argument(key: str) -> Expression:
        if key == root:
            return VARIABLE
        if key in graph.constants:
            return constant(float(graph.constants[key].array.reshape(-1)[0]))
        return known[key]

    arguments = tuple(argument(k) for k in node.inputs)
    if node.op == "Function":
        inner: Expression = node.attributes["expression"]
        return substitute(inner, arguments[0])
    return Expression(ELEMENTWISE[node.op][1], arguments)


def _exit(node: Node, root: str, expression: Expression, is_weight: bool) -> tuple[Node, bool]:
    if node.dtype.kind != "f":
        return node, False
    # Attention weights lie between 0 and 1: a guard that does nothing there is nothing.
    x = np.linspace(0.0, 1.0, 65) if is_weight else _PROBES
    if np.allclose(evaluate(expression, x), x, rtol=1e-12, atol=0):
        return node, True
    if as_affine(expression) is not None:
        return node, False
    at = {"expression": expression}
    return replace(node, op="Function", inputs=(root,), attributes=at), False
