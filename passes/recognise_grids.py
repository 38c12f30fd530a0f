"""Recognise grids: weights that are small integers times a scale are given as such, exactly.

1. A matrix (or, failing that, every column of it) whose values are multiples ``-255 .. 255`` of one
   number (8 bits less any zero point), up to float32 rounding, gets ``grid_values`` and
   ``grid_scale`` (one scale a column). Ternary and other quantised weights are found however the
   file stored them.

Not touched: weights with more levels (trained in float), matrices too small to tell, and weights
that are maps of a large file.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.graph import FloatArray, Graph, IntArray
from hwcompile.compiler.ir.mapped import is_mapped
from hwcompile.passes.result import PassResult

_MOST = 255
#: Largest error of a value, relative to the largest one: float32 arithmetic at run time.
_ROUNDING = 2e-6
_MIN_ELEMENTS = 64


def run(graph: Graph) -> PassResult[Graph]:
    """The graph with the integer grids of its Linear weights noted; weights unchanged."""
    lines: list[str] = []
    operations: list[ir.Operation] = []
    for op in graph.operations:
        found = find_grid(op.weight) if isinstance(op, ir.Linear) else None
        if found is not None and isinstance(op, ir.Linear):
            values, scale = found
            op = replace(op, grid_values=values, grid_scale=scale)
            lines.append(f"{op.origin}: weights on a grid of {len(np.unique(values))} levels")
        operations.append(op)
    result = replace(graph, operations=tuple(operations))
    return PassResult(result, bool(lines), tuple(lines))


def find_grid(weight: FloatArray) -> tuple[IntArray, FloatArray] | None:
    """``(values [n, m], scale [m])`` with ``values * scale`` equal to ``weight``, or None."""
    if weight.size < _MIN_ELEMENTS or is_mapped(weight):
        return None
    step = _step(weight)
    if step is not None:
        scale = np.full(weight.shape[1], step)
    else:
        if weight.shape[0] < _MIN_ELEMENTS // 4:
            return None
        steps = [_step(column) for column in weight.T]
        if any(s is None for s in steps):
            return None
        scale = np.asarray(steps, np.float64)
    return np.rint(weight / scale).astype(np.int64), scale


def _step(values: FloatArray) -> float | None:
    """The largest number all values are small multiples of; 1 for zeros only."""
    size = np.abs(values).reshape(-1)
    top = float(size.max(initial=0.0))
    if top == 0.0:
        return 1.0
    if not np.isfinite(top):
        return None
    near = _ROUNDING * top
    if (size[size > 0] <= 2 * near).any():
        return None
    levels = _levels(size[:4096], near)
    if levels is None or (levels := _levels(size, near)) is None:
        return None
    gaps = np.diff(np.concatenate([[0.0], levels]))
    least = float(gaps[gaps > near].min(initial=top))
    for divisor in (1, 2, 3, 4):
        guess = least / divisor
        times = np.rint(levels / guess)
        if times[-1] > _MOST:
            return None
        step = float((levels @ times) / (times @ times))
        if np.abs(levels - times * step).max() <= near:
            return step
    return None


def _levels(size: FloatArray, near: float) -> FloatArray | None:
    """Distinct magnitudes (equal up to ``near``), ascending; None when there are too many."""
    ordered = np.sort(size)
    keep = np.concatenate([[True], np.diff(ordered) > near])
    levels = ordered[keep]
    return levels if len(levels) <= _MOST + 1 else None
