"""States that a recurrent file takes and gives back: the chip keeps them itself, from zero on."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

_RECURRENT = ("LSTM", "GRU")
_INITIAL = (5, 6)
_MOVES = (
    "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather",
    "Concat", "Cast",
)  # fmt: skip


def state_inputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Inputs of the graph that are the initial state of a layer, seen through what only moves."""
    makers = {name: node for node in model.graph.node for name in node.output}
    front = [
        node.input[place]
        for node in model.graph.node
        if node.op_type in _RECURRENT
        for place in _INITIAL
        if place < len(node.input)
    ]
    reached = _reached(front, {n: tuple(m.input) for n, m in makers.items() if _moves(m)})
    return tuple(v.name for v in model.graph.input if v.name in reached)


def state_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """Outputs of the graph that are last states, when the file takes states too."""
    if not state_inputs(model):
        return frozenset()
    users: dict[str, tuple[str, ...]] = {}
    for node in model.graph.node:
        for name in node.input if _moves(node) else ():
            users[name] = (*users.get(name, ()), *node.output)
    last = [name for n in model.graph.node if n.op_type in _RECURRENT for name in n.output[1:]]
    reached = _reached(last, users)
    return frozenset(v.name for v in model.graph.output if v.name in reached)


def _moves(node: onnx.NodeProto) -> bool:
    return node.op_type in _MOVES


def _reached(front: list[str], following: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    found = {name for name in front if name}
    while front:
        front = [n for name in front for n in following.get(name, ()) if n and n not in found]
        found.update(front)
    return frozenset(found)
