"""Regions: parts of a TensorGraph that are a function of one tensor, and their numeric values.

A node belongs to the region of its ``root`` when all its inputs are the root, members of the region
or constants. Passes decide what a region is by evaluating it on probes, never by its shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hwcompile.compiler.ir import tensor_operations
from hwcompile.compiler.ir.tensor_graph import Array, Node, TensorGraph
from hwcompile.compiler.ir.tensor_operations import ELEMENTWISE, REDUCTIONS


def is_scalar(graph: TensorGraph, key: str) -> bool:
    """Whether a constant is one number."""
    c = graph.constants.get(key)
    return c is not None and not c.timed and c.array.size == 1


def is_row(graph: TensorGraph, key: str) -> bool:
    """Whether a constant varies along the last axis only."""
    c = graph.constants.get(key)
    return c is not None and not c.timed and c.array.size == (c.array.shape or (1,))[-1]


def reduces_last(node: Node, rank: int) -> bool:
    """Whether a node reduces the last axis and keeps it as 1."""
    axes = node.attributes.get("axes")
    return (
        node.op in REDUCTIONS
        and bool(node.attributes.get("keepdims", 1))
        and axes is not None
        and len(axes) == 1
        and axes[0] % rank == rank - 1
    )


def find_roots(
    graph: TensorGraph, accepts: Callable[[Node], bool], constant_fits: Callable[[str], bool]
) -> dict[str, str]:
    """Root of every member; a tensor that is no member is absent (it is its own root)."""
    roots: dict[str, str] = {}
    for node in graph.nodes:
        if not accepts(node):
            continue
        data = [k for k in node.inputs if k not in graph.constants]
        found = {roots.get(k, k) for k in data}
        if len(found) == 1 and all(constant_fits(k) for k in node.inputs if k in graph.constants):
            roots[node.output] = found.pop()
    return roots


def row_roots(graph: TensorGraph) -> dict[str, str]:
    """Roots of regions of elementwise operations and reductions over the last axis (float only)."""
    shapes = tensor_shapes(graph)

    def accepts(node: Node) -> bool:
        if node.op == "Cast":
            return node.dtype.kind == "f"
        if node.op in ELEMENTWISE:
            widths = {shapes[k][-1:] for k in node.inputs if k not in graph.constants}
            return all(w in ((1,), node.shape[-1:]) for w in widths)
        data = next((k for k in node.inputs if k not in graph.constants), None)
        return data is not None and reduces_last(node, len(shapes[data]))

    return find_roots(graph, accepts, lambda k: is_row(graph, k))


def tensor_shapes(graph: TensorGraph) -> Mapping[str, tuple[int, ...]]:
    """Shape of every input and node output."""
    shapes = {i.key: i.shape for i in graph.inputs}
    shapes.update({n.output: n.shape for n in graph.nodes})
    return shapes


class Evaluator:
    """Values of region members for a probe ``x`` of shape ``[rows, cols]`` put in for the root."""

    def __init__(self, graph: TensorGraph, root: str, x: Array) -> None:
        self._makers = {n.output: n for n in graph.nodes}
        self._graph = graph
        self._values: dict[str, Array] = {root: np.asarray(x, np.float64)}

    def __call__(self, key: str) -> Array:
        """Float64 ``[rows, cols]`` or ``[rows, 1]`` value of a member (recursion is by depth)."""
        pending = [key]
        while pending:
            now = pending[-1]
            if now in self._values:
                pending.pop()
                continue
            if now in self._graph.constants:
                array = self._graph.constants[now].array
                self._values[now] = _probe_constant(array)
                continue
            node = self._makers[now]
            missing = [k for k in node.inputs if k not in self._values]
            if missing:
                pending.extend(missing)
                continue
            self._values[now] = self._run(node)
        return self._values[key]

    def _run(self, node: Node) -> Array:
        arrays = [self._values[k] for k in node.inputs]
        if node.op == "Cast":
            return arrays[0].astype(np.float64)
        at: dict[str, Any] = dict(node.attributes)
        if node.op in REDUCTIONS:
            at["axes"] = (-1,)
        return tensor_operations.evaluate(node.op, at, arrays)


def _probe_constant(array: Array) -> Array:
    flat = array.reshape(-1)
    return flat if flat.dtype == np.bool_ else flat.astype(np.float64)


def probes(cols: int, scales: tuple[float, ...]) -> Array:
    """Fixed pseudo-random rows ``[4 * len(scales), cols]``, four at each scale, mean 0.3."""
    generator = np.random.default_rng(cols)
    rows = generator.standard_normal((len(scales), 4, cols)) + 0.3
    return np.asarray(rows * np.asarray(scales)[:, None, None]).reshape(-1, cols)
