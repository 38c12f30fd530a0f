"""ONNX norms."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from hwcompile.compiler.frontend.builder import Builder, Unsupported
from hwcompile.compiler.frontend.call import Call, Operator, with_scalar
from hwcompile.compiler.ir.tensor_graph import Array


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
    """Over the last axes, as one; gain and bias that are not constant are applied afterwards."""

    def operator(b: Builder, call: Call) -> list[str]:
        x, shape = call.inputs[0], b.shape(call.inputs[0])
        axis = call.attributes.get("axis", -1) % len(shape)
        epsilon = call.attributes.get("epsilon", 1e-5)
        flat = x
        if axis != len(shape) - 1:
            flat = b.emit("Reshape", [x], {"shape": (*shape[:axis], prod(shape[axis:]))})
        fixed = all(b.is_constant(k) for k in call.inputs[1:3] if k)
        gain, bias = np.ones(1), None
        if fixed:
            gain = _flat(b, call.inputs[1], "gain", shape[axis:])
            bias = _flat(b, call.inputs[2], "bias", shape[axis:]) if call.input(2) else None
        y = _norm(b, flat, kind, gain, bias, epsilon)
        if flat != x:
            y = b.emit("Reshape", [y], {"shape": shape})
        if not fixed:
            y = b.emit("Mul", [y, call.inputs[1]])
            y = b.emit("Add", [y, call.inputs[2]]) if call.input(2) else y
        return [y, *_statistics(b, call, axis, epsilon)]

    return operator


def _flat(b: Builder, key: str, what: str, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(b.value(key, what), shape).reshape(-1)


def _statistics(b: Builder, call: Call, axis: int, epsilon: float) -> list[str]:
    """Mean and inverse deviation, which a norm of the standard returns on request."""
    if call.outputs < 2:
        return []
    x = call.inputs[0]
    at = {"axes": tuple(range(axis, len(b.shape(x)))), "keepdims": 1}
    mean = b.emit("ReduceMean", [x], at)
    centred = b.emit("Sub", [x, mean])
    power = b.emit("ReduceMean", [b.emit("Mul", [centred, centred])], at)
    deviation = b.emit("Sqrt", [with_scalar(b, "Add", power, epsilon)])
    return [mean, b.emit("Reciprocal", [deviation])][: call.outputs - 1]


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
    if call.attributes.get("training_mode", 0):
        raise Unsupported("a norm over the batch", "export the model for inference")
    gain, bias, mean, variance = (
        b.value(k, "statistics").astype(np.float64) for k in call.inputs[1:5]
    )
    scale = gain / np.sqrt(variance + call.attributes.get("epsilon", 1e-5))
    shape = (-1, *[1] * (len(b.shape(call.inputs[0])) - 2))
    factor = b.constant(scale.reshape(shape).astype(np.float32))
    offset = b.constant((bias - mean * scale).reshape(shape).astype(np.float32))
    return [b.emit("Add", [b.emit("Mul", [call.inputs[0], factor]), offset])]


NORM_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "LayerNormalization"): _norm_call("layer"),
    ("", "RMSNormalization"): _norm_call("rms"),
    ("", "SimplifiedLayerNormalization"): _norm_call("rms"),
    ("", "BatchNormalization"): _batch_norm,
    ("com.microsoft", "SkipLayerNormalization"): _skip_norm("layer"),
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): _skip_norm("rms"),
}
