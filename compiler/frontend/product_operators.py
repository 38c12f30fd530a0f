"""ONNX matrix products and softmax."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from string import ascii_letters

import numpy as np

from hwcompile.compiler.frontend.builder import Builder, Unsupported, check_elements
from hwcompile.compiler.frontend.call import Call, Operator, swap_last, with_scalar


def _matmul(b: Builder, call: Call) -> list[str]:
    """A vector is a matrix of one row on the left, of one column on the right."""
    left, right = call.inputs
    flat_left, flat_right = len(b.shape(left)) == 1, len(b.shape(right)) == 1
    left = b.emit("Unsqueeze", [left], {"axes": (0,)}) if flat_left else left
    right = b.emit("Unsqueeze", [right], {"axes": (1,)}) if flat_right else right
    out = b.emit("MatMul", [left, right])
    dropped = tuple(axis for axis, flat in ((-2, flat_left), (-1, flat_right)) if flat)
    return [b.emit("Squeeze", [out], {"axes": dropped}) if dropped else out]


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
    x, rank = call.inputs[0], len(b.shape(call.inputs[0]))
    axis = call.attributes.get("axis", -1) % rank
    if axis == rank - 1:
        return [b.emit("Softmax", [x], {"axis": -1})]
    perm = tuple(rank - 1 if i == axis else axis if i == rank - 1 else i for i in range(rank))
    turned = b.emit("Softmax", [b.emit("Transpose", [x], {"perm": perm})], {"axis": -1})
    return [b.emit("Transpose", [turned], {"perm": perm})]


def _log_softmax(b: Builder, call: Call) -> list[str]:
    x, at = call.inputs[0], {"axes": (call.attributes.get("axis", -1),), "keepdims": 1}
    shifted = b.emit("Sub", [x, b.emit("ReduceMax", [x], at)])
    total = b.emit("ReduceSum", [b.emit("Exp", [shifted])], at)
    return [b.emit("Sub", [shifted, b.emit("Log", [total])])]


def _einsum(b: Builder, call: Call) -> list[str]:
    """Any equation on constants; on data a sum, a turn or a batched product of two tensors."""
    terms, out = _equation(b, call)
    if all(b.is_constant(k) for k in call.inputs):
        arrays = [b.value(k, "operand") for k in call.inputs]
        check_elements(
            prod(
                {
                    c: n
                    for t, x in zip(terms, arrays, strict=True)
                    for c, n in zip(t, x.shape, strict=True)
                }.values()
            )
        )
        return [b.constant(np.einsum(",".join(terms) + "->" + out, *arrays))]
    if any(len(set(t)) != len(t) for t in terms) or len(terms) > 2:
        raise Unsupported("an einsum of a diagonal or of many tensors", "use MatMul")
    used = [[t for t in (*terms, out) if c in t] for c in "".join(terms)]
    alone = {c for c, t in zip("".join(terms), used, strict=True) if len(t) == 1}
    parts = [_sum_labels(b, k, t, alone) for k, t in zip(call.inputs, terms, strict=True)]
    keys, terms = [k for k, _ in parts], [t for _, t in parts]
    if len(terms) == 1:
        return [b.emit("Transpose", keys, {"perm": tuple(terms[0].index(c) for c in out)})]
    return _einsum_product(b, keys, terms, out)


def _equation(b: Builder, call: Call) -> tuple[list[str], str]:
    """Labels of every operand and of the result, the dots and the result written out."""
    given, arrow, out = call.attributes["equation"].replace(" ", "").partition("->")
    terms = given.split(",")
    ranks = [len(b.shape(k)) for k in call.inputs]
    free = [c for c in ascii_letters if c not in given]
    wide = max((r - len(t) + 3 for t, r in zip(terms, ranks, strict=True) if "..." in t), default=0)
    dots = free[:wide]

    def spell(term: str, rank: int) -> str:
        return term.replace("...", "".join(dots[wide - (rank - len(term) + 3) :]))

    spelt = [spell(t, r) if "..." in t else t for t, r in zip(terms, ranks, strict=True)]
    named = sorted(c for c in set("".join(spelt)) if c not in dots and given.count(c) == 1)
    implied = "".join(dots) + "".join(named)
    return spelt, out.replace("...", "".join(dots)) if arrow else implied


def _sum_labels(b: Builder, x: str, labels: str, alone: set[str]) -> tuple[str, str]:
    """The operand with the axes that nothing else has summed away."""
    axes = tuple(i for i, c in enumerate(labels) if c in alone)
    if not axes:
        return x, labels
    return (
        b.emit("ReduceSum", [x], {"axes": axes, "keepdims": 0}),
        "".join(c for c in labels if c not in alone),
    )


def _einsum_product(b: Builder, keys: list[str], terms: list[str], out: str) -> list[str]:
    left, right = terms
    shared = [c for c in left if c in right]
    batch, summed = [c for c in shared if c in out], [c for c in shared if c not in out]
    rows, cols = [c for c in left if c not in right], [c for c in right if c not in left]
    sizes = {
        c: n for t, k in zip(terms, keys, strict=True) for c, n in zip(t, b.shape(k), strict=True)
    }

    def lay(x: str, labels: str, *groups: list[str]) -> str:
        order = tuple(labels.index(c) for group in groups for c in group)
        x = b.emit("Transpose", [x], {"perm": order})
        whole = [prod(sizes[c] for c in group) for group in groups[1:]]
        return b.emit("Reshape", [x], {"shape": (*(sizes[c] for c in batch), *whole)})

    product = b.emit(
        "MatMul",
        [
            lay(keys[0], left, batch, rows, summed),
            lay(keys[1], right, batch, summed, cols),
        ],
    )
    made = batch + rows + cols
    product = b.emit("Reshape", [product], {"shape": tuple(sizes[c] for c in made)})
    return [b.emit("Transpose", [product], {"perm": tuple(made.index(c) for c in out)})]


PRODUCT_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "MatMul"): _matmul,
    ("", "Gemm"): _gemm,
    ("", "Einsum"): _einsum,
    ("", "Softmax"): _softmax,
    ("", "LogSoftmax"): _log_softmax,
    ("com.microsoft", "FusedMatMul"): _fused_matmul,
}
