"""ONNX operators that make constants, look at shapes or move elements."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import onnx

from hwcompile.compiler.frontend.builder import Builder, Unsupported, check_elements
from hwcompile.compiler.frontend.call import (
    Call,
    Operator,
    concat,
    integers,
    parameters,
    plain,
    same,
    with_parameters,
)
from hwcompile.compiler.frontend.narrow_types import NARROW_TYPES, round_to_type


def _dtype(code: int) -> np.dtype[Any]:
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    if "int4" in kind.name or "int2" in kind.name:
        return np.dtype(np.int8)
    return np.dtype(np.float32) if kind.kind == "f" or "float" in kind.name else kind


def _cast(b: Builder, call: Call) -> list[str]:
    x, code = call.inputs[0], call.attributes["to"]
    to = _dtype(code)
    if code in NARROW_TYPES and b.is_constant(x) and not b.constants[x].timed:
        saturate = bool(call.attributes.get("saturate", 1))
        return [b.constant(round_to_type(b.value(x, "value"), code, saturate))]
    if b.types[x].dtype == to:
        return [x]
    if not b.is_constant(x) and b.types[x].dtype.kind == "f" and to.kind in "iu":
        raise Unsupported("a float cast to integers inside the network", "keep it in float")
    return [b.emit("Cast", [x], {"to": to})]


def _cast_like(b: Builder, call: Call) -> list[str]:
    x, to, code = call.inputs[0], b.types[call.inputs[1]].dtype, call.attributes["like"]
    if code:
        attributes = {k: v for k, v in call.attributes.items() if k != "like"} | {"to": code}
        return _cast(b, Call("Cast", (x,), attributes, 1, call.version))
    return [x if b.types[x].dtype == to else b.emit("Cast", [x], {"to": to})]


def _dropout(b: Builder, call: Call) -> list[str]:
    x, ratio = call.inputs[0], call.input(1)
    trains = bool(call.input(2)) and bool(b.value(call.inputs[2], "mode").any())
    if trains and not (ratio and (b.value(ratio, "ratio") == 0).all()):
        raise Unsupported("a random result cannot be proven", "export the model for inference")
    return [x, b.constant(np.ones(b.shape(x), np.bool_))][: call.outputs]


def _constant(b: Builder, call: Call) -> list[str]:
    for name, value in call.attributes.items():
        if name == "value":
            return [b.constant(value)]
        if name in ("value_float", "value_floats"):
            return [b.constant(np.asarray(value, np.float32))]
        if name in ("value_int", "value_ints"):
            return [b.constant(np.asarray(value, np.int64))]
    raise Unsupported("a constant that is no number", "remove it")


def _shape(b: Builder, call: Call) -> list[str]:
    shape, at = b.shape(call.inputs[0]), call.attributes
    part = shape[slice(at.get("start", 0), at.get("end"))]
    names = tuple(n for n, size in b.open_sizes.items() if size in part)
    return [b.constant(np.asarray(part, np.int64), open_names=names)]


def _size(b: Builder, call: Call) -> list[str]:
    return [b.constant(np.int64(prod(b.shape(call.inputs[0]))))]


def _constant_of_shape(b: Builder, call: Call) -> list[str]:
    shape = tuple(int(d) for d in b.value(call.inputs[0], "shape").reshape(-1))
    if any(d < 0 for d in shape):
        raise Unsupported("a negative dimension", "check the model")
    check_elements(prod(shape))
    fill = np.asarray(call.attributes.get("value", np.zeros(1, np.float32))).reshape(-1)[0]
    return [b.constant(np.full(shape, fill), open_names=b.open_names.get(call.inputs[0], ()))]


def _range(b: Builder, call: Call) -> list[str]:
    ends = [b.value(k, "range").reshape(()) for k in call.inputs]
    start, limit, delta = (e.item() for e in ends)
    if delta == 0:
        raise Unsupported("a range with step 0", "check the model")
    check_elements(int(abs((limit - start) / delta)))
    names = tuple(dict.fromkeys(n for k in call.inputs for n in b.open_names.get(k, ())))
    return [b.constant(np.arange(start, limit, delta, dtype=ends[0].dtype), open_names=names)]


def _note_limit(b: Builder, data: str, sizes: list[int], parameters: tuple[str, ...]) -> None:
    """A table cut or indexed by an open dimension says how long that dimension can be."""
    if b.is_constant(data) and not b.open_names.get(data):
        for name in dict.fromkeys(n for p in parameters if p for n in b.open_names.get(p, ())):
            b.limits.setdefault(name, []).extend(sizes)


def _counts_up(b: Builder, index: str) -> bool:
    """Whether an index runs as far as an open dimension on trial does."""
    if not b.is_constant(index) or not b.constants[index].array.size:
        return False
    last = int(b.constants[index].array.max())
    return any(last == b.open_sizes.get(n, 0) - 1 for n in b.open_names.get(index, ()))


def _slice(b: Builder, call: Call) -> list[str]:
    at = parameters(b, call, ("starts", "ends", "axes", "steps"))
    shape = b.shape(call.inputs[0])
    if isinstance(at["starts"], tuple):
        axes = at.get("axes") or tuple(range(len(at["starts"])))
        _note_limit(b, call.inputs[0], [shape[a] for a in axes], call.inputs[1:])
        whole = all(
            s == 0 and e >= shape[a] and t == 1
            for s, e, a, t in zip(
                at["starts"],
                at["ends"] if isinstance(at["ends"], tuple) else (-1,),
                axes,
                at.get("steps") or (1,) * len(axes),
                strict=False,
            )
        )
        if whole and not b.open_names.get(call.input(2)):
            return [call.inputs[0]]
    return [b.emit("Slice", [call.inputs[0]], at)]


def _split(b: Builder, call: Call) -> list[str]:
    at = parameters(b, call, ("split",))
    axis = at.get("axis", 0)
    size = b.shape(call.inputs[0])[axis]
    sizes = at.get("split")
    if sizes is None:
        each = -(-size // call.outputs)
        sizes = [min(each, size - i * each) for i in range(call.outputs)]
    ends = np.cumsum(sizes).tolist()
    return [
        b.emit("Slice", [call.inputs[0]], {"starts": (e - s,), "ends": (e,), "axes": (axis,)})
        for s, e in zip(sizes, ends, strict=True)
    ]


def _gather(b: Builder, call: Call) -> list[str]:
    data, index = call.inputs[:2]
    axis = call.attributes.get("axis", 0)
    if _counts_up(b, index):
        _note_limit(b, data, [b.shape(data)[axis]], (index,))
    if not b.is_constant(data) and b.is_constant(index):
        at = {"indices": b.value(index, "index"), "axis": axis}
        return [b.emit("Take", [data], at)]
    return [b.emit("Gather", [data, index], {"axis": axis})]


def _gather_elements(b: Builder, call: Call) -> list[str]:
    data, index = call.inputs[:2]
    axis = call.attributes.get("axis", 0)
    if not b.is_constant(data) and b.is_constant(index):
        return [b.emit("TakeElements", [data], {"indices": b.value(index, "index"), "axis": axis})]
    return [b.emit("GatherElements", [data, index], {"axis": axis})]


def _gather_nd(b: Builder, call: Call) -> list[str]:
    data, index = call.inputs[:2]
    if b.shape(index)[-1:] == (1,) and not call.attributes.get("batch_dims", 0):
        inner = b.emit("Squeeze", [index], {"axes": (-1,)})
        return _gather(b, Call("Gather", (data, inner), {}, 1, call.version))
    return [b.emit("GatherND", [data, index], call.attributes)]


def _trilu(b: Builder, call: Call) -> list[str]:
    at = dict(call.attributes)
    if call.input(1):
        at["k"] = int(b.value(call.input(1), "diagonal").reshape(-1)[0])
    return [b.emit("Trilu", [call.inputs[0]], at)]


def _cumsum(b: Builder, call: Call) -> list[str]:
    axis = int(b.value(call.inputs[1], "axis").reshape(-1)[0])
    return [b.emit("CumSum", [call.inputs[0]], {**call.attributes, "axis": axis})]


def _pad(b: Builder, call: Call) -> list[str]:
    at = {"value": 0.0, **call.attributes}
    if call.input(1):
        at["pads"] = integers(b, call.input(1), "pads")
    if call.input(2):
        at["value"] = float(b.value(call.input(2), "fill value").reshape(-1)[0])
    if call.input(3):
        at["axes"] = integers(b, call.input(3), "axes")
    if not any(at["pads"]):
        return [call.inputs[0]]
    if at.get("mode", "constant") == "constant":
        return [b.emit("Pad", [call.inputs[0]], at)]
    return [_pad_with_itself(b, call.inputs[0], at)]


def _pad_with_itself(b: Builder, x: str, at: dict[str, Any]) -> str:
    """Pads that repeat elements of the tensor: a choice of elements along every axis."""
    if not isinstance(at["pads"], tuple):
        raise Unsupported("its pads depend on the position", "use fixed pads")
    axes = at.get("axes") or tuple(range(len(b.shape(x))))
    for i, axis in enumerate(axes):
        size, widths = b.shape(x)[axis], (at["pads"][i], at["pads"][i + len(axes)])
        check_elements(size + sum(abs(w) for w in widths))
        kept = np.arange(size)[max(-widths[0], 0) : size - max(-widths[1], 0)]
        index = np.pad(kept, [max(w, 0) for w in widths], mode=at["mode"])
        if not np.array_equal(index, np.arange(size)):
            x = b.emit("Take", [x], {"indices": index, "axis": axis})
    return x


SHAPE_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "Identity"): same,
    ("", "Dropout"): _dropout,
    ("", "Cast"): _cast,
    ("", "CastLike"): _cast_like,
    ("", "Constant"): _constant,
    ("", "Shape"): _shape,
    ("", "Size"): _size,
    ("", "ConstantOfShape"): _constant_of_shape,
    ("", "Range"): _range,
    ("", "Reshape"): with_parameters("Reshape", "shape"),
    ("", "Expand"): with_parameters("Expand", "shape"),
    ("", "Tile"): with_parameters("Tile", "repeats"),
    ("", "Unsqueeze"): with_parameters("Unsqueeze", "axes"),
    ("", "Squeeze"): with_parameters("Squeeze", "axes"),
    ("", "Flatten"): plain("Flatten"),
    ("", "Transpose"): plain("Transpose"),
    ("", "Slice"): _slice,
    ("", "Split"): _split,
    ("", "Gather"): _gather,
    ("", "GatherElements"): _gather_elements,
    ("", "GatherND"): _gather_nd,
    ("", "ScatterND"): plain("ScatterND"),
    ("", "ScatterElements"): plain("ScatterElements"),
    ("", "TensorScatter"): plain("TensorScatter"),
    ("", "Concat"): concat,
    ("", "Trilu"): _trilu,
    ("", "CumSum"): _cumsum,
    ("", "Pad"): _pad,
}
