"""ONNX matrix products and softmax."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

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


def _einsum(b: Builder, call: Call) -> list[str]:
    """Two operands without repeated or summed-away labels: a batched matrix product."""
    equation = call.attributes["equation"].replace(" ", "")
    given, _, out = equation.partition("->")
    terms = given.split(",")
    if len(terms) != 2 or not out or "." in equation:
        raise Unsupported("an einsum that is no product of two tensors", "use MatMul")
    left, right = terms
    shared = [c for c in left if c in right]
    batch, summed = [c for c in shared if c in out], [c for c in shared if c not in out]
    rows, cols = [c for c in left if c not in right], [c for c in right if c not in left]
    if any(c not in out for c in rows + cols) or len(set(left)) + len(set(right)) != len(given) - 1:
        raise Unsupported("an einsum that sums or repeats a label", "use MatMul")
    sizes = {
        c: n
        for t, k in zip(terms, call.inputs, strict=True)
        for c, n in zip(t, b.shape(k), strict=True)
    }

    def lay(x: str, labels: str, *groups: list[str]) -> str:
        order = tuple(labels.index(c) for group in groups for c in group)
        x = b.emit("Transpose", [x], {"perm": order})
        whole = [prod(sizes[c] for c in group) for group in groups[1:]]
        return b.emit("Reshape", [x], {"shape": (*(sizes[c] for c in batch), *whole)})

    product = b.emit(
        "MatMul",
        [
            lay(call.inputs[0], left, batch, rows, summed),
            lay(call.inputs[1], right, batch, summed, cols),
        ],
    )
    made = batch + rows + cols
    product = b.emit("Reshape", [product], {"shape": tuple(sizes[c] for c in made)})
    return [b.emit("Transpose", [product], {"perm": tuple(made.index(c) for c in out)})]


PRODUCT_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "MatMul"): plain("MatMul"),
    ("", "Gemm"): _gemm,
    ("", "Einsum"): _einsum,
    ("", "Softmax"): _softmax,
    ("com.microsoft", "FusedMatMul"): _fused_matmul,
}
