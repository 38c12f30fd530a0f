"""Prune: the weights of least magnitude of every matrix become zero.

``0.5``: that share of each matrix. ``2:4``: the 2 least of every 4 consecutive inputs of an output.
Matrices whose integers the file gives, and the one that makes the logits, stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir import graph
from hwcompile.compiler.ir.graph import FloatArray, Graph
from hwcompile.passes.result import PassResult


def run(net: Graph, sparsity: str) -> PassResult[Graph]:
    """The graph with pruned matrices. Raises UsageError for a sparsity that is none."""
    outputs = {output.value for output in net.outputs}
    operations: list[graph.Operation] = []
    lines: list[str] = []
    for op in net.operations:
        free = isinstance(op, graph.Linear) and op.grid_values is None
        if isinstance(op, graph.Linear) and free and op.output.key not in outputs:
            weight = prune(op.weight, sparsity)
            lines.append(f"{op.origin}: {np.mean(weight == 0):.0%} of the weights are zero")
            operations.append(replace(op, weight=weight))
        else:
            operations.append(op)
    return PassResult(replace(net, operations=tuple(operations)), bool(lines), tuple(lines))


def prune(weight: FloatArray, sparsity: str) -> FloatArray:
    """``weight`` ``[n, m]`` with zeros by ``sparsity``: a share such as ``0.5``, or ``2:4``."""
    if ":" in sparsity:
        kept, group = _pattern(sparsity)
        return _prune_groups(weight, kept, group)
    try:
        share = float(sparsity)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UsageError(f"sparsity {sparsity!r}", "give a share such as 0.5, or 2:4")
    count = int(share * weight.size)
    zero = np.argsort(np.abs(weight), axis=None, kind="stable")[:count]
    pruned = weight.copy()
    pruned.ravel()[zero] = 0.0
    return pruned


def _pattern(sparsity: str) -> tuple[int, int]:
    kept, _, group = sparsity.partition(":")
    if not (kept.isdigit() and group.isdigit() and 0 < int(kept) <= int(group)):
        raise UsageError(f"sparsity {sparsity!r}", "give a share such as 0.5, or 2:4")
    return int(kept), int(group)


def _prune_groups(weight: FloatArray, kept: int, group: int) -> FloatArray:
    pruned = weight.copy()
    for start in range(0, len(weight), group):
        part = pruned[start : start + group]  # a view
        least = np.argsort(-np.abs(part), axis=0, kind="stable")[kept:]
        np.put_along_axis(part, least, 0.0, axis=0)
    return pruned
