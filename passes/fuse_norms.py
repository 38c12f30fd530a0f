"""Fuse norms: regions that compute a layer norm or RMS norm become one Norm.

1. For each region with a reduction over the last axis, members are tried from the last to the
   first.
2. A member is a norm when its values on probes over nine decades of scale equal those of the norm
   whose gain, bias and epsilon are read off the same values. A region with any other constant
   (another exponent, a wrong divisor that no gain explains) is left as it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwcompile.compiler.ir.graph import FloatArray
from hwcompile.compiler.ir.tensor_graph import Node, TensorGraph
from hwcompile.compiler.ir.tensor_operations import REDUCTIONS
from hwcompile.passes.regions import Evaluator, probes, row_roots, tensor_shapes
from hwcompile.passes.result import PassResult, rebuild

_SCALES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 1e3)
_TOLERANCE = 1e-5


def run(graph: TensorGraph) -> PassResult[TensorGraph]:
    """The graph with its norms fused; values unchanged up to rounding."""
    roots, shapes = row_roots(graph), tensor_shapes(graph)
    members: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.output in roots:
            members.setdefault(roots[node.output], []).append(node)
    found: dict[str, Node] = {}
    for root, nodes in members.items():
        if any(n.op in REDUCTIONS for n in nodes) and shapes[root][-1] > 1:
            norm = _last_norm(graph, root, nodes, shapes[root])
            if norm is not None:
                found[norm.output] = norm
    if not found:
        return PassResult(graph, False)
    nodes_now = tuple(found.get(n.output, n) for n in graph.nodes)
    lines = tuple(
        f"{n.origin}: {n.attributes['kind']} norm, epsilon {n.attributes['epsilon']:.3g}"
        for n in found.values()
    )
    rest = run(rebuild(graph, nodes_now, {}))
    return PassResult(rest.graph, True, lines + rest.lines)


def _last_norm(
    graph: TensorGraph, root: str, nodes: list[Node], shape: tuple[int, ...]
) -> Node | None:
    evaluate = Evaluator(graph, root, np.vstack([np.zeros((1, shape[-1])), _probe_rows(shape[-1])]))
    for node in reversed(nodes):
        if node.shape == shape:
            fit = _fit(evaluate(node.output))
            if fit is not None:
                kind, gain, bias, epsilon = fit
                at = {"kind": kind, "gain": gain, "bias": bias, "epsilon": epsilon}
                return replace(node, op="Norm", inputs=(root,), attributes=at)
    return None


def _probe_rows(cols: int) -> FloatArray:
    return probes(cols, _SCALES)


def _fit(y: FloatArray) -> tuple[str, FloatArray, FloatArray, float] | None:
    """``(kind, gain, bias, epsilon)`` of the norm with values ``y`` on a zero row and probes."""
    if not np.isfinite(y).all():
        return None
    bias, y = y[0], y[1:]
    x = _probe_rows(y.shape[1])
    for kind in ("layer", "rms"):
        centred = x - x.mean(1, keepdims=True) if kind == "layer" else x
        power = (centred * centred).mean(1)
        unit = centred / np.sqrt(power)[:, None]
        gain = ((y[-4:] - bias) * unit[-4:]).sum(0) / (unit[-4:] ** 2).sum(0)
        epsilon = _epsilon(y[:4] - bias, unit[:4] * gain, power[:4])
        if epsilon is None:
            continue
        expected = centred / np.sqrt(power + epsilon)[:, None] * gain + bias
        reach = np.abs(gain).max(initial=0) + np.abs(bias).max(initial=0)
        if np.abs(expected - y).max() <= _TOLERANCE * max(reach, 1e-12):
            return kind, gain, bias, epsilon
    return None


def _epsilon(y: FloatArray, full: FloatArray, power: FloatArray) -> float | None:
    """Epsilon from rows so small that it damps them: ``y = full * sqrt(power / (power + eps))``."""
    weight = (full * full).sum(1)
    if not (weight > 0).all():
        return None
    ratio = (y * full).sum(1) / weight
    if not (ratio > 1e-12).all():
        return None
    return float(max(np.median(power / ratio**2 - power), 0.0))
