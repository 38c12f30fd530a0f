"""Small helpers of passes over a Graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hwcompile.compiler.ir.graph import Graph, Operation
from hwcompile.compiler.ir.order import live


def users_of(graph: Graph) -> dict[str, list[Operation]]:
    """Operations that read each value. A graph output counts as read by its own operation."""
    users: dict[str, list[Operation]] = {op.output.key: [] for op in graph.operations}
    for op in graph.operations:
        for key in dict.fromkeys(op.inputs):
            users.setdefault(key, []).append(op)
    made = {op.output.key: op for op in graph.operations}
    for output in graph.outputs:
        if output.value in made:
            users[output.value].append(made[output.value])
    return users


def rename(graph: Graph, operations: tuple[Operation, ...], alias: Mapping[str, str]) -> Graph:
    """``graph`` with other operations, keys renamed (chains allowed), dead operations dropped."""

    def now(key: str) -> str:
        while key in alias:
            key = alias[key]
        return key

    renamed = [replace(op, inputs=tuple(now(k) for k in op.inputs)) for op in operations]
    outputs = tuple(replace(o, value=now(o.value)) for o in graph.outputs)
    caches = tuple(replace(c, operation=now(c.operation)) for c in graph.caches)
    kept = live(renamed, [o.value for o in outputs])
    return replace(graph, operations=kept, outputs=outputs, caches=caches)
