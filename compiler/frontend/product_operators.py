"""ONNX matrix products and softmax."""

from __future__ import annotations

from collections.abc import Mapping

from hwcompile.compiler.frontend.builder import Builder, Unsupported
from hwcompile.compiler.frontend.call import Call, Operator, plain, swap_last, with_scalar


def _gemm(b: Builder, call: Call) -> list[str]:
    at = call.attributes
    left = swap_last(b, call.inputs[0]) if at.get("transA", 0) else call.inputs[0]
    right = swap_last(b, call.inputs[1]) if at.get("transB", 0) else call.inputs[1]
    out = b.emit("MatMul", [left, right])
    if at.get("alpha", 1.0) != 1.0:
        out = with_scalar(b, "Mul", out, at["alpha"])
    if call.input(2):
        bias, beta = call.inputs[2], at.get("beta", 1.0)
        out = b.emit("Add", [out, bias if beta == 1.0 else with_scalar(b, "Mul", bias, beta)])
    return [out]


def _fused_matmul(b: Builder, call: Call) -> list[str]:
    at = call.attributes
    if at.get("transBatchA", 0) or at.get("transBatchB", 0):
        raise Unsupported("transposed batch axes", "export with plain MatMul")
    left = swap_last(b, call.inputs[0]) if at.get("transA", 0) else call.inputs[0]
    right = swap_last(b, call.inputs[1]) if at.get("transB", 0) else call.inputs[1]
    out = b.emit("MatMul", [left, right])
    return [out if at.get("alpha", 1.0) == 1.0 else with_scalar(b, "Mul", out, at["alpha"])]


def _softmax(b: Builder, call: Call) -> list[str]:
    axis = call.attributes.get("axis", -1)
    if axis % len(b.shape(call.inputs[0])) != len(b.shape(call.inputs[0])) - 1:
        raise Unsupported("a softmax over another axis than the last", "transpose around it")
    return [b.emit("Softmax", [call.inputs[0]], {"axis": -1})]


PRODUCT_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "MatMul"): plain("MatMul"),
    ("", "Gemm"): _gemm,
    ("", "Softmax"): _softmax,
    ("com.microsoft", "FusedMatMul"): _fused_matmul,
}
