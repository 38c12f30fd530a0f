"""ONNX operators as primitive operations: one small function an operator.

Each takes the builder and a :class:`Call` and returns the keys of the outputs. ``OPERATORS`` is the
list of what can be compiled; an operator absent from it is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import pi, prod, sqrt
from typing import Any

import numpy as np
import onnx

from hwcompile.compiler.frontend.builder import Builder, Unsupported, check_elements
from hwcompile.compiler.ir import tensor_operations
from hwcompile.compiler.ir.tensor_graph import Array, Constant

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


def _integers(b: Builder, key: str, what: str) -> tuple[int, ...] | Constant:
    constant = b.constants.get(key)
    if constant is not None and constant.timed:
        return constant
    return tuple(int(v) for v in b.value(key, what).reshape(-1))


def _parameters(b: Builder, call: Call, names: tuple[str, ...]) -> dict[str, Any]:
    """Attributes with the constant inputs after the first one moved among them."""
    at = dict(call.attributes)
    for i, name in enumerate(names, 1):
        if call.input(i):
            at[name] = _integers(b, call.input(i), name)
    return at


def _plain(op: str) -> Operator:
    return lambda b, call: [b.emit(op, list(call.inputs), call.attributes)]


def _with_parameters(op: str, *names: str) -> Operator:
    return lambda b, call: [b.emit(op, [call.inputs[0]], _parameters(b, call, names))]


def _same(b: Builder, call: Call) -> list[str]:
    return [call.inputs[0]]


# --- scalars beside tensors ---------------------------------------------------------------------


def _scalar(b: Builder, value: float, like: str) -> str:
    return b.constant(np.asarray(value, b.types[like].dtype))


def _with(b: Builder, op: str, x: str, value: float) -> str:
    return b.emit(op, [x, _scalar(b, value, x)])


def _relu(b: Builder, call: Call) -> list[str]:
    return [_with(b, "Max", call.inputs[0], 0)]


def _gelu(b: Builder, x: str, approximate: bool) -> str:
    if approximate:
        cubic = _with(b, "Mul", b.emit("Mul", [x, b.emit("Mul", [x, x])]), 0.044715)
        inner = b.emit("Tanh", [_with(b, "Mul", b.emit("Add", [x, cubic]), sqrt(2 / pi))])
    else:
        inner = b.emit("Erf", [_with(b, "Mul", x, sqrt(0.5))])
    return b.emit("Mul", [_with(b, "Mul", x, 0.5), _with(b, "Add", inner, 1.0)])


def _gelu_call(b: Builder, call: Call) -> list[str]:
    return [_gelu(b, call.inputs[0], call.attributes.get("approximate", "none") == "tanh")]


def _bias_gelu(approximate: bool) -> Operator:
    def operator(b: Builder, call: Call) -> list[str]:
        x = b.emit("Add", list(call.inputs[:2])) if call.input(1) else call.inputs[0]
        return [_gelu(b, x, approximate)]

    return operator


def _swish(default: float) -> Operator:
    def operator(b: Builder, call: Call) -> list[str]:
        x, alpha = call.inputs[0], call.attributes.get("alpha", default)
        return [b.emit("Mul", [x, b.emit("Sigmoid", [_with(b, "Mul", x, alpha)])])]

    return operator


def _leaky(b: Builder, x: str, slope: str) -> str:
    positive, negative = _with(b, "Max", x, 0), _with(b, "Min", x, 0)
    return b.emit("Add", [positive, b.emit("Mul", [negative, slope])])


def _leaky_relu(b: Builder, call: Call) -> list[str]:
    x = call.inputs[0]
    return [_leaky(b, x, _scalar(b, call.attributes.get("alpha", 0.01), x))]


def _prelu(b: Builder, call: Call) -> list[str]:
    return [_leaky(b, call.inputs[0], call.inputs[1])]


def _elu(b: Builder, x: str, alpha: float, gamma: float, inner: float = 1.0) -> str:
    grown = _with(b, "Sub", b.emit("Exp", [_with(b, "Mul", _with(b, "Min", x, 0), inner)]), 1)
    total = b.emit("Add", [_with(b, "Max", x, 0), _with(b, "Mul", grown, alpha)])
    return total if gamma == 1.0 else _with(b, "Mul", total, gamma)


def _elu_call(b: Builder, call: Call) -> list[str]:
    return [_elu(b, call.inputs[0], call.attributes.get("alpha", 1.0), 1.0)]


def _celu(b: Builder, call: Call) -> list[str]:
    alpha = call.attributes.get("alpha", 1.0)
    return [_elu(b, call.inputs[0], alpha, 1.0, 1 / alpha)]


def _selu(b: Builder, call: Call) -> list[str]:
    alpha = call.attributes.get("alpha", 1.67326319217681884765625)
    return [_elu(b, call.inputs[0], alpha, call.attributes.get("gamma", 1.05070102214813232421875))]


def _hard_sigmoid(b: Builder, x: str, alpha: float, beta: float) -> str:
    line = _with(b, "Add", _with(b, "Mul", x, alpha), beta)
    return _with(b, "Min", _with(b, "Max", line, 0), 1)


def _hard_sigmoid_call(b: Builder, call: Call) -> list[str]:
    at = call.attributes
    return [_hard_sigmoid(b, call.inputs[0], at.get("alpha", 0.2), at.get("beta", 0.5))]


def _hard_swish(b: Builder, call: Call) -> list[str]:
    x = call.inputs[0]
    return [b.emit("Mul", [x, _hard_sigmoid(b, x, 1 / 6, 0.5)])]


def _softplus(b: Builder, x: str) -> str:
    # max(x, 0) + log(1 + exp(-|x|)) never overflows.
    small = b.emit("Exp", [b.emit("Neg", [b.emit("Abs", [x])])])
    return b.emit("Add", [_with(b, "Max", x, 0), b.emit("Log", [_with(b, "Add", small, 1)])])


def _mish(b: Builder, call: Call) -> list[str]:
    x = call.inputs[0]
    return [b.emit("Mul", [x, b.emit("Tanh", [_softplus(b, x)])])]


def _softsign(b: Builder, call: Call) -> list[str]:
    x = call.inputs[0]
    return [b.emit("Div", [x, _with(b, "Add", b.emit("Abs", [x]), 1)])]


def _clip(b: Builder, call: Call) -> list[str]:
    x, at = call.inputs[0], call.attributes
    low = call.input(1) or (_scalar(b, at["min"], x) if "min" in at else "")
    high = call.input(2) or (_scalar(b, at["max"], x) if "max" in at else "")
    for op, bound in (("Max", low), ("Min", high)):
        x = b.emit(op, [x, bound]) if bound else x
    return [x]


def _chain(op: str) -> Operator:
    def operator(b: Builder, call: Call) -> list[str]:
        x = call.inputs[0]
        for other in call.inputs[1:]:
            x = b.emit(op, [x, other])
        return [x]

    return operator


def _dtype(code: int) -> np.dtype[Any]:
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    return np.dtype(np.float32) if kind.kind == "f" or "float" in kind.name else kind


def _cast(b: Builder, call: Call) -> list[str]:
    x, to = call.inputs[0], _dtype(call.attributes["to"])
    if b.types[x].dtype == to:
        return [x]
    if not b.is_constant(x) and b.types[x].dtype.kind == "f" and to.kind in "iu":
        raise Unsupported("a float cast to integers inside the network", "keep it in float")
    return [b.emit("Cast", [x], {"to": to})]


def _cast_like(b: Builder, call: Call) -> list[str]:
    x, to = call.inputs[0], b.types[call.inputs[1]].dtype
    return [x if b.types[x].dtype == to else b.emit("Cast", [x], {"to": to})]


# --- constants and shapes -----------------------------------------------------------------------


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
    start, limit, delta = (b.value(k, "range").reshape(())[()] for k in call.inputs)
    if delta == 0:
        raise Unsupported("a range with step 0", "check the model")
    check_elements(int(abs((limit - start) / delta)))
    names = tuple(dict.fromkeys(n for k in call.inputs for n in b.open_names.get(k, ())))
    return [b.constant(np.arange(start, limit, delta), open_names=names)]


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
    at = _parameters(b, call, ("starts", "ends", "axes", "steps"))
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
    at = _parameters(b, call, ("split",))
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


def _concat(b: Builder, call: Call) -> list[str]:
    full = [k for k in call.inputs if prod(b.shape(k))]
    if len(full) == 1:
        return full
    return [b.emit("Concat", full or list(call.inputs[:1]), call.attributes)]


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
        at["pads"] = _integers(b, call.input(1), "pads")
    if call.input(2):
        at["value"] = float(b.value(call.input(2), "fill value").reshape(-1)[0])
    if call.input(3):
        at["axes"] = _integers(b, call.input(3), "axes")
    if not any(at["pads"]):
        return [call.inputs[0]]
    return [b.emit("Pad", [call.inputs[0]], at)]


# --- matrix products ----------------------------------------------------------------------------


def _swap_last(b: Builder, x: str) -> str:
    rank = len(b.shape(x))
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return b.emit("Transpose", [x], {"perm": perm})


def _gemm(b: Builder, call: Call) -> list[str]:
    at = call.attributes
    left = _swap_last(b, call.inputs[0]) if at.get("transA", 0) else call.inputs[0]
    right = _swap_last(b, call.inputs[1]) if at.get("transB", 0) else call.inputs[1]
    out = b.emit("MatMul", [left, right])
    if at.get("alpha", 1.0) != 1.0:
        out = _with(b, "Mul", out, at["alpha"])
    if call.input(2):
        bias, beta = call.inputs[2], at.get("beta", 1.0)
        out = b.emit("Add", [out, bias if beta == 1.0 else _with(b, "Mul", bias, beta)])
    return [out]


def _fused_matmul(b: Builder, call: Call) -> list[str]:
    at = call.attributes
    if at.get("transBatchA", 0) or at.get("transBatchB", 0):
        raise Unsupported("transposed batch axes", "export with plain MatMul")
    left = _swap_last(b, call.inputs[0]) if at.get("transA", 0) else call.inputs[0]
    right = _swap_last(b, call.inputs[1]) if at.get("transB", 0) else call.inputs[1]
    out = b.emit("MatMul", [left, right])
    return [out if at.get("alpha", 1.0) == 1.0 else _with(b, "Mul", out, at["alpha"])]


def _softmax(b: Builder, call: Call) -> list[str]:
    axis = call.attributes.get("axis", -1)
    if axis % len(b.shape(call.inputs[0])) != len(b.shape(call.inputs[0])) - 1:
        raise Unsupported("a softmax over another axis than the last", "transpose around it")
    return [b.emit("Softmax", [call.inputs[0]], {"axis": -1})]


def _attention(b: Builder, call: Call) -> list[str]:
    """ai.onnx Attention (opset 23, 24)."""
    q, k, v = call.inputs[:3]
    at = call.attributes
    if at.get("softcap", 0.0) or (at.get("qk_matmul_output_mode", 0) and call.outputs > 3):
        raise Unsupported("soft-capped attention scores", "export without softcap")
    flat = len(b.shape(q)) == 3
    if flat:
        q = _split_heads(b, q, at["q_num_heads"])
        k = _split_heads(b, k, at["kv_num_heads"])
        v = _split_heads(b, v, at["kv_num_heads"])
    past = b.shape(call.inputs[4])[2] if call.input(4) else 0
    if call.input(4):
        k = _concat(b, Call("Concat", (call.inputs[4], k), {"axis": 2}, 1, call.version))[0]
        v = _concat(b, Call("Concat", (call.inputs[5], v), {"axis": 2}, 1, call.version))[0]
    presents = [k, v]
    mask = call.input(3)
    if at.get("is_causal", 0):
        rows, keys = b.shape(q)[2], b.shape(k)[2]
        visible = np.arange(keys)[None, :] <= past + np.arange(rows)[:, None]
        causal = b.constant(np.where(visible, 0.0, HIDDEN).astype(np.float32))
        scores_mask = [causal]
    else:
        scores_mask = []
    scale = at.get("scale", 1 / sqrt(b.shape(q)[-1]))
    scores = _with(b, "Mul", b.emit("MatMul", [q, _swap_last(b, _repeat_heads(b, k, q))]), scale)
    for m in scores_mask:
        scores = b.emit("Add", [scores, m])
    if mask:
        scores = _mask_scores(b, scores, mask)
    out = b.emit("MatMul", [b.emit("Softmax", [scores], {"axis": -1}), _repeat_heads(b, v, q)])
    return [_join_heads(b, out) if flat else out, *presents][: max(call.outputs, 1)]


def _mask_scores(b: Builder, scores: str, mask: str) -> str:
    if b.types[mask].dtype == np.bool_:
        return b.emit("Where", [mask, scores, _scalar(b, HIDDEN, scores)])
    return b.emit("Add", [scores, mask])


def _split_heads(b: Builder, x: str, heads: int) -> str:
    batch, rows, cols = b.shape(x)
    x = b.emit("Reshape", [x], {"shape": (batch, rows, heads, cols // heads)})
    return b.emit("Transpose", [x], {"perm": (0, 2, 1, 3)})


def _join_heads(b: Builder, x: str) -> str:
    batch, heads, rows, size = b.shape(x)
    x = b.emit("Transpose", [x], {"perm": (0, 2, 1, 3)})
    return b.emit("Reshape", [x], {"shape": (batch, rows, heads * size)})


def _repeat_heads(b: Builder, x: str, q: str) -> str:
    batch, heads, rows, size = b.shape(x)
    factor = b.shape(q)[1] // heads
    if factor == 1:
        return x
    x = b.emit("Unsqueeze", [x], {"axes": (2,)})
    x = b.emit("Expand", [x], {"shape": (batch, heads, factor, rows, size)})
    return b.emit("Reshape", [x], {"shape": (batch, heads * factor, rows, size)})


# --- norms --------------------------------------------------------------------------------------


def _norm(b: Builder, x: str, kind: str, gain: Array, bias: Array | None, epsilon: float) -> str:
    size = b.shape(x)[-1]
    zero = np.zeros(size) if bias is None else bias
    at = {
        "kind": kind,
        "gain": np.broadcast_to(np.asarray(gain, np.float64), size),
        "bias": np.broadcast_to(np.asarray(zero, np.float64), size),
        "epsilon": float(epsilon),
    }
    return b.emit("Norm", [x], at)


def _norm_call(kind: str) -> Operator:
    def operator(b: Builder, call: Call) -> list[str]:
        x, rank = call.inputs[0], len(b.shape(call.inputs[0]))
        if call.attributes.get("axis", -1) % rank != rank - 1:
            raise Unsupported("a norm over several axes", "normalise the last axis only")
        bias = b.value(call.inputs[2], "bias") if call.input(2) else None
        epsilon = call.attributes.get("epsilon", 1e-5)
        return [_norm(b, x, kind, b.value(call.inputs[1], "gain"), bias, epsilon)]

    return operator


def _skip_norm(kind: str) -> Operator:
    """com.microsoft Skip(Simplified)LayerNormalization: the sum is the last output."""

    def operator(b: Builder, call: Call) -> list[str]:
        shift = 1 if kind == "layer" else 0
        x, offset = call.inputs[0], call.input(3 + shift)
        total = b.emit("Add", [b.emit("Add", [x, offset]) if offset else x, call.inputs[1]])
        bias = b.value(call.inputs[3], "bias") if shift and call.input(3) else None
        epsilon = call.attributes.get("epsilon", 1e-12)
        out = _norm(b, total, kind, b.value(call.inputs[2], "gain"), bias, epsilon)
        return [out, "", "", total][: call.outputs]

    return operator


def _batch_norm(b: Builder, call: Call) -> list[str]:
    gain, bias, mean, variance = (
        b.value(k, "statistics").astype(np.float64) for k in call.inputs[1:5]
    )
    scale = gain / np.sqrt(variance + call.attributes.get("epsilon", 1e-5))
    shape = (-1, *[1] * (len(b.shape(call.inputs[0])) - 2))
    factor = b.constant(scale.reshape(shape).astype(np.float32))
    offset = b.constant((bias - mean * scale).reshape(shape).astype(np.float32))
    return [b.emit("Add", [b.emit("Mul", [call.inputs[0], factor]), offset])]


def _rotary(b: Builder, call: Call) -> list[str]:
    """ai.onnx RotaryEmbedding (opset 23) on [batch, heads, rows, size] or [batch, rows, cols]."""
    x, cosine, sine = call.inputs[:3]
    at, flat = call.attributes, len(b.shape(call.inputs[0])) == 3
    if flat:
        x = _split_heads(b, x, at["num_heads"])
    rows, size = b.shape(x)[2:]
    if call.input(3):
        cosine, sine = (b.emit("Gather", [t, call.inputs[3]], {"axis": 0}) for t in (cosine, sine))
    cosine, sine = (b.emit("Unsqueeze", [t], {"axes": (1,)}) for t in (cosine, sine))
    width = at.get("rotary_embedding_dim", 0) or size

    def part(start: int, end: int, step: int = 1) -> str:
        return b.emit(
            "Slice", [x], {"starts": (start,), "ends": (end,), "axes": (3,), "steps": (step,)}
        )

    even = bool(at.get("interleaved", 0))
    one = part(0, width, 2) if even else part(0, width // 2)
    two = part(1, width, 2) if even else part(width // 2, width)
    real = b.emit("Sub", [b.emit("Mul", [one, cosine]), b.emit("Mul", [two, sine])])
    imag = b.emit("Add", [b.emit("Mul", [one, sine]), b.emit("Mul", [two, cosine])])
    if even:
        pair = [b.emit("Unsqueeze", [t], {"axes": (4,)}) for t in (real, imag)]
        shape = (*b.shape(x)[:3], width)
        turned = b.emit("Reshape", [b.emit("Concat", pair, {"axis": 4})], {"shape": shape})
    else:
        turned = b.emit("Concat", [real, imag], {"axis": 3})
    if width != size:
        turned = b.emit("Concat", [turned, part(width, size)], {"axis": 3})
    return [_join_heads(b, turned) if flat else turned]


# --- convolutions and pools ---------------------------------------------------------------------


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


# --- quantised files ----------------------------------------------------------------------------


def _dequantize(b: Builder, call: Call) -> list[str]:
    x = call.inputs[0]
    scale = b.value(call.inputs[1], "scale").astype(np.float32)
    zero = b.value(call.inputs[2], "zero point") if call.input(2) else np.zeros_like(scale)
    if not b.is_constant(x):
        raise Unsupported("integer activations that no QuantizeLinear made", "export QDQ pairs")
    q = b.value(x, "weight").astype(np.float32)
    axis, block = call.attributes.get("axis", 1), call.attributes.get("block_size", 0)
    if block:
        scale, zero = (
            np.repeat(t, block, axis).take(range(q.shape[axis]), axis) for t in (scale, zero)
        )
    elif scale.ndim:
        shape = [-1 if i == axis % q.ndim else 1 for i in range(q.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return [b.constant((q - zero.astype(np.float32)) * scale)]


def _quantize(b: Builder, call: Call) -> list[str]:
    if b.is_constant(call.inputs[0]):
        raise Unsupported("weights quantised at run time", "store them quantised")
    return [b.emit("Quantised", [call.inputs[0]])]


# --- the table ----------------------------------------------------------------------------------

OPERATORS: Mapping[tuple[str, str], Operator] = {
    **{("", op): _plain(op) for op in tensor_operations.ELEMENTWISE},
    **{("", op): _with_parameters(op, "axes") for op in tensor_operations.REDUCTIONS},
    **{("", op): _chain(op) for op in ("Min", "Max")},
    ("", "Sum"): _chain("Add"),
    ("", "Identity"): _same,
    ("", "Dropout"): _same,
    ("", "Cast"): _cast,
    ("", "CastLike"): _cast_like,
    ("", "Relu"): _relu,
    ("", "Gelu"): _gelu_call,
    ("", "Swish"): _swish(1.0),
    ("", "LeakyRelu"): _leaky_relu,
    ("", "PRelu"): _prelu,
    ("", "Elu"): _elu_call,
    ("", "Celu"): _celu,
    ("", "Selu"): _selu,
    ("", "HardSigmoid"): _hard_sigmoid_call,
    ("", "HardSwish"): _hard_swish,
    ("", "Softplus"): lambda b, call: [_softplus(b, call.inputs[0])],
    ("", "Softsign"): _softsign,
    ("", "Mish"): _mish,
    ("", "Clip"): _clip,
    ("", "Constant"): _constant,
    ("", "Shape"): _shape,
    ("", "Size"): _size,
    ("", "ConstantOfShape"): _constant_of_shape,
    ("", "Range"): _range,
    ("", "Reshape"): _with_parameters("Reshape", "shape"),
    ("", "Expand"): _with_parameters("Expand", "shape"),
    ("", "Tile"): _with_parameters("Tile", "repeats"),
    ("", "Unsqueeze"): _with_parameters("Unsqueeze", "axes"),
    ("", "Squeeze"): _with_parameters("Squeeze", "axes"),
    ("", "Flatten"): _plain("Flatten"),
    ("", "Transpose"): _plain("Transpose"),
    ("", "Slice"): _slice,
    ("", "Split"): _split,
    ("", "Gather"): _gather,
    ("", "GatherElements"): _gather_elements,
    ("", "GatherND"): _gather_nd,
    ("", "ScatterND"): _plain("ScatterND"),
    ("", "ScatterElements"): _plain("ScatterElements"),
    ("", "TensorScatter"): _plain("TensorScatter"),
    ("", "Concat"): _concat,
    ("", "Trilu"): _trilu,
    ("", "CumSum"): _cumsum,
    ("", "Pad"): _pad,
    ("", "MatMul"): _plain("MatMul"),
    ("", "Gemm"): _gemm,
    ("", "Softmax"): _softmax,
    ("", "Attention"): _attention,
    ("", "RotaryEmbedding"): _rotary,
    ("", "LayerNormalization"): _norm_call("layer"),
    ("", "RMSNormalization"): _norm_call("rms"),
    ("", "SimplifiedLayerNormalization"): _norm_call("rms"),
    ("", "BatchNormalization"): _batch_norm,
    ("", "Conv"): _conv,
    ("", "MaxPool"): _max_pool,
    ("", "AveragePool"): _average_pool,
    ("", "GlobalAveragePool"): _global_pool("ReduceMean"),
    ("", "GlobalMaxPool"): _global_pool("ReduceMax"),
    ("", "DequantizeLinear"): _dequantize,
    ("com.microsoft", "FusedMatMul"): _fused_matmul,
    ("com.microsoft", "Gelu"): _gelu_call,
    ("com.microsoft", "FastGelu"): _bias_gelu(True),
    ("com.microsoft", "BiasGelu"): _bias_gelu(False),
    ("com.microsoft", "QuickGelu"): _swish(1.702),
    ("com.microsoft", "SkipLayerNormalization"): _skip_norm("layer"),
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): _skip_norm("rms"),
}
