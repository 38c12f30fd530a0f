"""What a graph pass returns, and what tensor passes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from hwcompile.compiler.ir.tensor_graph import Node, TensorGraph

G = TypeVar("G")


@dataclass(frozen=True, slots=True)
class PassResult(Generic[G]):
    """The graph after a pass, whether it differs, and lines for the report."""

    graph: G
    changed: bool
    lines: tuple[str, ...] = ()


def rebuild(graph: TensorGraph, nodes: tuple[Node, ...], alias: Mapping[str, str]) -> TensorGraph:
    """``graph`` with other nodes, keys renamed (chains allowed) and dead nodes dropped."""

    def now(key: str) -> str:
        while key in alias:
            key = alias[key]
        return key

    renamed = [replace(n, inputs=tuple(now(k) for k in n.inputs)) for n in nodes]
    outputs = tuple(replace(o, key=now(o.key)) for o in graph.outputs)
    caches = tuple(replace(c, key=now(c.key)) for c in graph.caches)
    live = {o.key for o in outputs} | {c.key for c in caches}
    kept: list[Node] = []
    for node in reversed(renamed):
        if node.output in live:
            kept.append(node)
            live.update(node.inputs)
    constants = {k: c for k, c in graph.constants.items() if k in live}
    return replace(
        graph, nodes=tuple(reversed(kept)), outputs=outputs, caches=caches, constants=constants
    )
