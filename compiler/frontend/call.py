"""Call: one ONNX node as its operator function sees it, and what those functions share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from hwcompile.compiler.frontend.builder import Builder
from hwcompile.compiler.ir.tensor_graph import Constant

#: A finite stand-in for minus infinity in masks, below every limit that hides a key.
HIDDEN = -1e30


@dataclass(frozen=True, slots=True)
class Call:
    """One node: keys of its inputs (``""`` where absent), decoded attributes, number of outputs."""

    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    outputs: int
    version: int

    def input(self, index: int) -> str:
        """Key of an input, or "" when absent."""
        return self.inputs[index] if index < len(self.inputs) else ""


Operator = Callable[[Builder, Call], list[str]]


def integers(b: Builder, key: str, what: str) -> tuple[int, ...] | Constant:
    constant = b.constants.get(key)
    if constant is not None and constant.timed:
        return constant
    return tuple(int(v) for v in b.value(key, what).reshape(-1))


def parameters(b: Builder, call: Call, names: tuple[str, ...]) -> dict[str, Any]:
    """Attributes with the constant inputs after the first one moved among them."""
    at = dict(call.attributes)
    for i, name in enumerate(names, 1):
        if call.input(i):
            at[name] = integers(b, call.input(i), name)
    return at


def plain(op: str) -> Operator:
    return lambda b, call: [b.emit(op, list(call.inputs), call.attributes)]


def with_parameters(op: str, *names: str) -> Operator:
    return lambda b, call: [b.emit(op, [call.inputs[0]], parameters(b, call, names))]


def same(b: Builder, call: Call) -> list[str]:
    return [call.inputs[0]]


def scalar(b: Builder, value: float, like: str) -> str:
    return b.constant(np.asarray(value, b.types[like].dtype))


def with_scalar(b: Builder, op: str, x: str, value: float) -> str:
    return b.emit(op, [x, scalar(b, value, x)])


def swap_last(b: Builder, x: str) -> str:
    rank = len(b.shape(x))
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return b.emit("Transpose", [x], {"perm": perm})


def split_heads(b: Builder, x: str, heads: int) -> str:
    batch, rows, cols = b.shape(x)
    x = b.emit("Reshape", [x], {"shape": (batch, rows, heads, cols // heads)})
    return b.emit("Transpose", [x], {"perm": (0, 2, 1, 3)})


def join_heads(b: Builder, x: str) -> str:
    batch, heads, rows, size = b.shape(x)
    x = b.emit("Transpose", [x], {"perm": (0, 2, 1, 3)})
    return b.emit("Reshape", [x], {"shape": (batch, rows, heads * size)})


def concat(b: Builder, call: Call) -> list[str]:
    full = [k for k in call.inputs if prod(b.shape(k))]
    if len(full) == 1:
        return full
    return [b.emit("Concat", full or list(call.inputs[:1]), call.attributes)]
