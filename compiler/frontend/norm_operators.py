"""ONNX norms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwcompile.compiler.frontend.builder import Builder, Unsupported
from hwcompile.compiler.frontend.call import Call, Operator
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


NORM_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "LayerNormalization"): _norm_call("layer"),
    ("", "RMSNormalization"): _norm_call("rms"),
    ("", "SimplifiedLayerNormalization"): _norm_call("rms"),
    ("", "BatchNormalization"): _batch_norm,
    ("com.microsoft", "SkipLayerNormalization"): _skip_norm("layer"),
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): _skip_norm("rms"),
}
