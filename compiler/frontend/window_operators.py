"""ONNX convolutions and pools, as products and reductions over gathered windows."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from hwcompile.compiler.frontend.builder import Builder, Unsupported
from hwcompile.compiler.frontend.call import Call, Operator
from hwcompile.compiler.ir.tensor_graph import Array


def _pads(call: Call, space: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Elements to add before and behind every axis, ``ceil_mode`` and ``auto_pad`` resolved."""
    at, rank = call.attributes, len(kernel)
    steps, dilations = at.get("strides", (1,) * rank), at.get("dilations", (1,) * rank)
    given = tuple(at.get("pads", (0,) * 2 * rank))
    auto = at.get("auto_pad", "NOTSET")
    before, behind = [], []
    for i in range(rank):
        reach, low, high = dilations[i] * (kernel[i] - 1) + 1, given[i], given[i + rank]
        if auto.startswith("SAME"):
            total = max((-(-space[i] // steps[i]) - 1) * steps[i] + reach - space[i], 0)
            low = total // 2 if auto == "SAME_UPPER" else -(-total // 2)
            high = total - low
        elif auto == "VALID":
            low = high = 0
        elif at.get("ceil_mode", 0):
            count = -(-(space[i] + low + high - reach) // steps[i]) + 1
            # A window that starts in the padding behind is none.
            count -= (count - 1) * steps[i] >= space[i] + low
            high = max((count - 1) * steps[i] + reach - space[i] - low, high)
        before.append(low)
        behind.append(high)
    return (*before, *behind)


def _windows(b: Builder, call: Call, kernel: tuple[int, ...], fill: float | None) -> str:
    """[batch, channels, *out, *kernel] from [batch, channels, *space].

    ``fill``: what the padding holds; None: the window's own nearest element, for maxima.
    """
    x, at = call.inputs[0], call.attributes
    rank = len(kernel)
    pads = _pads(call, b.shape(x)[2:], kernel)
    steps, dilations = at.get("strides", (1,) * rank), at.get("dilations", (1,) * rank)
    if any(pads) and fill is not None:
        full = (0, 0, *pads[:rank], 0, 0, *pads[rank:])
        x = b.emit("Pad", [x], {"pads": full, "value": fill})
    for i in range(rank):
        axis, length = 2 + i, b.shape(x)[2 + i]
        padded = length + (pads[i] + pads[i + rank] if fill is None else 0)
        size = (padded - dilations[i] * (kernel[i] - 1) - 1) // steps[i] + 1
        index = np.arange(size)[:, None] * steps[i] + np.arange(kernel[i])[None] * dilations[i]
        if fill is None:
            index = _inside(index - pads[i], length)
        x = b.emit("Take", [x], {"indices": index, "axis": axis})
        # Keep the window axis behind all space axes not yet cut.
        order = [a for a in range(len(b.shape(x))) if a != axis + 1] + [axis + 1]
        x = b.emit("Transpose", [x], {"perm": tuple(order)})
    return x


def _inside(index: Array, length: int) -> Array:
    """Windows ``[windows, kernel]`` with what lies outside replaced by an element inside."""
    fits = (index >= 0) & (index < length)
    if not fits.any(1).all():
        raise Unsupported("a window that lies in the padding", "smaller pads")
    some = index[np.arange(len(index)), fits.argmax(1)]
    return np.where(fits, index, some[:, None])


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
    x = _windows(b, call, kernel, None)
    shape = b.shape(x)[: 2 + len(kernel)]
    x = b.emit("Reshape", [x], {"shape": (*shape, prod(kernel))})
    largest = b.emit("ReduceMax", [x], {"axes": (-1,), "keepdims": 0})
    return [largest, *_places(b, call, kernel, x)]


def _places(b: Builder, call: Call, kernel: tuple[int, ...], windows: str) -> list[str]:
    """Flat index of every maximum in the input, which the standard returns on request."""
    if call.outputs < 2:
        return []
    shape = b.shape(call.inputs[0])
    order: Array = np.arange(prod(shape)).reshape(shape)
    if call.attributes.get("storage_order", 0):
        order = np.arange(prod(shape)).reshape(*shape[:2], *shape[:1:-1])
        order = order.transpose(0, 1, *range(len(shape) - 1, 1, -1))
    numbers = Call("MaxPool", (b.constant(order),), call.attributes, 1, call.version)
    index = b.emit("Reshape", [_windows(b, numbers, kernel, None)], {"shape": b.shape(windows)})
    at = {"axis": -1, "keepdims": 1}
    found = b.emit("GatherElements", [index, b.emit("ArgMax", [windows], at)], {"axis": -1})
    return [b.emit("Squeeze", [found], {"axes": (-1,)})]


def _average_pool(b: Builder, call: Call) -> list[str]:
    """The mean of each window; pads count when the attribute says so, what ceil_mode adds never."""
    kernel, at = tuple(call.attributes["kernel_shape"]), dict(call.attributes)
    x = _windows(b, call, kernel, 0.0)
    shape = b.shape(x)[: 2 + len(kernel)]
    x = b.emit("Reshape", [x], {"shape": (*shape, prod(kernel))})
    rank, space = len(kernel), b.shape(call.inputs[0])[2:]
    ones = np.ones(space, np.float32)
    given = at.get("pads", (0,) * 2 * rank)
    if at.get("count_include_pad", 0):
        ones = np.pad(ones, list(zip(given[:rank], given[rank:], strict=True)), constant_values=1)
        full = _pads(call, space, kernel)
        at |= {"pads": [f - g for f, g in zip(full, given, strict=True)], "ceil_mode": 0}
        at["auto_pad"] = "NOTSET"
    counted = Call("AveragePool", (b.constant(ones[None, None]),), at, 1, call.version)
    counts = b.constants[_windows(b, counted, kernel, 0.0)].array.reshape(*shape[2:], -1).sum(-1)
    if (counts == prod(kernel)).all():
        return [b.emit("ReduceMean", [x], {"axes": (-1,), "keepdims": 0})]
    total = b.emit("ReduceSum", [x], {"axes": (-1,), "keepdims": 0})
    return [b.emit("Mul", [total, b.constant((1 / counts).astype(np.float32))])]


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
