"""Rotary positions are two terms over one base, whatever the order of halves and pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hwcompile.compiler.ir import graph as ir

T, H, S = 5, 2, 8
D = H * S
ANGLES = np.arange(T)[:, None] / 10 ** np.linspace(0, 2, S // 2)[None]
IDS = np.random.default_rng(4).integers(0, 11, (1, T))


def _cut(n: Any, x: str, start: int, end: int, step: int = 1) -> str:
    return n.op("Slice", x, n.ints(start), n.ints(end), n.ints(3), n.ints(step))


def _halves(n: Any, x: str) -> str:
    turned = n.op("Concat", n.op("Neg", _cut(n, x, S // 2, S)), _cut(n, x, 0, S // 2), axis=3)
    table = np.concatenate([ANGLES, ANGLES], 1)
    return n.op(
        "Add",
        n.op("Mul", x, n.const(np.cos(table))),
        n.op("Mul", turned, n.const(np.sin(table))),
    )


def _parts(n: Any, x: str) -> str:
    one, two = n.op("Split", x, n.ints(S // 2, S // 2), axis=3, outputs=2)
    c, s = n.const(np.cos(ANGLES)), n.const(np.sin(ANGLES))
    real = n.op("Sub", n.op("Mul", one, c), n.op("Mul", two, s))
    imag = n.op("Add", n.op("Mul", one, s), n.op("Mul", two, c))
    return n.op("Concat", real, imag, axis=3)


def _pairs(n: Any, x: str) -> str:
    one, two = _cut(n, x, 0, S, 2), _cut(n, x, 1, S, 2)
    c, s = n.const(np.cos(ANGLES)), n.const(np.sin(ANGLES))
    real = n.op("Sub", n.op("Mul", one, c), n.op("Mul", two, s))
    imag = n.op("Add", n.op("Mul", two, c), n.op("Mul", one, s))
    pair = [n.op("Unsqueeze", t, n.ints(4)) for t in (real, imag)]
    return n.op("Reshape", n.op("Concat", *pair, axis=4), n.ints(1, H, T, S))


def _partial(n: Any, x: str) -> str:
    front, back = _cut(n, x, 0, 4), _cut(n, x, 4, S)
    table = np.concatenate([ANGLES[:, :2], ANGLES[:, :2]], 1)
    turned = n.op("Concat", n.op("Neg", _cut(n, front, 2, 4)), _cut(n, front, 0, 2), axis=3)
    both = n.op(
        "Add",
        n.op("Mul", front, n.const(np.cos(table))),
        n.op("Mul", turned, n.const(np.sin(table))),
    )
    return n.op("Concat", both, back, axis=3)


def _operator(n: Any, x: str) -> str:
    c, s = (n.const(f(ANGLES)[None]) for f in (np.cos, np.sin))
    return n.op("RotaryEmbedding", x, c, s)


def _operator_pairs(n: Any, x: str) -> str:
    c, s = (n.const(f(ANGLES)[None]) for f in (np.cos, np.sin))
    return n.op("RotaryEmbedding", x, c, s, interleaved=1)


@pytest.mark.parametrize("rotate", [_halves, _parts, _pairs, _partial, _operator, _operator_pairs])
@pytest.mark.parametrize("fused", [False, True])
def test_rotary_variants(
    net: Any, agree: Any, rotate: Callable[[Any, str], str], fused: bool
) -> None:
    n = net(23)
    n.input("ids", [1, T], "i")
    x = n.op("Gather", n.weight(11, D, scale=1.0), "ids")
    if fused:
        y = n.op("MatMul", x, n.weight(D, 3 * D))
        parts = n.op("Split", y, n.ints(D, D, D), axis=2, outputs=3)
    else:
        parts = [n.op("MatMul", x, n.weight(D, D)) for _ in range(3)]
    q, k, v = (
        n.op("Transpose", n.op("Reshape", p, n.ints(1, T, H, S)), perm=[0, 2, 1, 3]) for p in parts
    )
    q, k = rotate(n, q), rotate(n, k)
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 1, 3, 2]))
    hidden = np.where(np.tril(np.ones((T, T))) > 0, 0.0, -1e9)
    p = n.op("Softmax", n.op("Add", scores, n.const(hidden)), axis=-1)
    out = n.op("Transpose", n.op("MatMul", p, v), perm=[0, 2, 1, 3])
    out = n.op("Reshape", out, n.ints(1, T, D))
    n.output(n.op("MatMul", out, n.weight(D, 11)), "logits", [1, T, 11])
    graph = agree(n, {"ids": IDS})
    kinds = [type(op) for op in graph.operations]
    assert kinds.count(ir.Rotate) == 2 and ir.Multiply not in kinds and ir.Gather not in kinds
    assert graph.sections == ("sequence",)
