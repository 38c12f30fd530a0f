"""ONNX convolutions and pools, as products and reductions over gathered windows."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from hwcompile.compiler.frontend.builder import Builder, Unsupported
from hwcompile.compiler.frontend.call import HIDDEN, Call, Operator


def _windows(b: Builder, call: Call, kernel: tuple[int, ...], fill: float) -> str:
    """[batch, channels, *out, *kernel] from [batch, channels, *space]."""
    x, at = call.inputs[0], call.attributes
    rank = len(kernel)
    if at.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or at.get("ceil_mode", 0):
        raise Unsupported("automatic padding", "export with explicit pads")
    pads = tuple(at.get("pads", (0,) * 2 * rank))
    steps, dilations = at.get("strides", (1,) * rank), at.get("dilations", (1,) * rank)
    if any(pads):
        full = (0, 0, *pads[:rank], 0, 0, *pads[rank:])
        x = b.emit("Pad", [x], {"pads": full, "value": fill})
    for i in range(rank):
        axis = 2 + i
        size = (b.shape(x)[axis] - dilations[i] * (kernel[i] - 1) - 1) // steps[i] + 1
        index = np.arange(size)[:, None] * steps[i] + np.arange(kernel[i])[None] * dilations[i]
        x = b.emit("Take", [x], {"indices": index, "axis": axis})
        # Keep the window axis behind all space axes not yet cut.
        order = [a for a in range(len(b.shape(x))) if a != axis + 1] + [axis + 1]
        x = b.emit("Transpose", [x], {"perm": tuple(order)})
    return x


def _conv(b: Builder, call: Call) -> list[str]:
    weight = b.value(call.inputs[1], "weight")
    out_channels, in_channels, *kernel = weight.shape
    groups = call.attributes.get("group", 1)
    x = _windows(b, call, tuple(kernel), 0.0)
    batch, channels, *rest = b.shape(x)
    space = rest[: len(kernel)]
    rank = len(rest)
    # [batch, *out, channels, *kernel] -> rows of one window each.
    order = (0, *range(2, 2 + len(kernel)), 1, *range(2 + len(kernel), 2 + rank))
    x = b.emit("Transpose", [x], {"perm": order})
    x = b.emit("Reshape", [x], {"shape": (batch, prod(space), channels * prod(kernel))})
    dense = np.zeros((out_channels, channels, prod(kernel)), weight.dtype)
    each_in, each_out = channels // groups, out_channels // groups
    for g in range(groups):
        rows = slice(g * each_out, (g + 1) * each_out)
        dense[rows, g * each_in : (g + 1) * each_in] = weight[rows].reshape(
            each_out, in_channels, -1
        )
    matrix = b.constant(np.ascontiguousarray(dense.reshape(out_channels, -1).T))
    y = b.emit("MatMul", [x, matrix])
    if call.input(2):
        y = b.emit("Add", [y, call.inputs[2]])
    y = b.emit("Transpose", [y], {"perm": (0, 2, 1)})
    return [b.emit("Reshape", [y], {"shape": (batch, out_channels, *space)})]


def _max_pool(b: Builder, call: Call) -> list[str]:
    kernel = tuple(call.attributes["kernel_shape"])
    x = _windows(b, call, kernel, HIDDEN)
    shape = b.shape(x)[: 2 + len(kernel)]
    x = b.emit("Reshape", [x], {"shape": (*shape, prod(kernel))})
    return [b.emit("ReduceMax", [x], {"axes": (-1,), "keepdims": 0})]


def _average_pool(b: Builder, call: Call) -> list[str]:
    if any(call.attributes.get("pads", ())) and not call.attributes.get("count_include_pad", 0):
        raise Unsupported("an average pool with pads left out of the mean", "pool without pads")
    kernel = tuple(call.attributes["kernel_shape"])
    x = _windows(b, call, kernel, 0.0)
    shape = b.shape(x)[: 2 + len(kernel)]
    x = b.emit("Reshape", [x], {"shape": (*shape, prod(kernel))})
    return [b.emit("ReduceMean", [x], {"axes": (-1,), "keepdims": 0})]


def _global_pool(op: str) -> Operator:
    def operator(b: Builder, call: Call) -> list[str]:
        rank = len(b.shape(call.inputs[0]))
        return [b.emit(op, [call.inputs[0]], {"axes": tuple(range(2, rank)), "keepdims": 1})]

    return operator


WINDOW_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "Conv"): _conv,
    ("", "MaxPool"): _max_pool,
    ("", "AveragePool"): _average_pool,
    ("", "GlobalAveragePool"): _global_pool("ReduceMean"),
    ("", "GlobalMaxPool"): _global_pool("ReduceMax"),
}
