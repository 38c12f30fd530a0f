"""A norm is what computes one, whatever it is written with; anything else is never one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.ir import graph as ir
from hwcompile.sim.float_reference import evaluate

D = 12
X = np.random.default_rng(1).standard_normal((1, 5, D)).astype(np.float32) * 2


def _centre(n: Any, x: str) -> str:
    return n.op("Sub", x, n.op("ReduceMean", x, n.ints(-1)))


def _layer_pow(n: Any, x: str) -> str:
    c = _centre(n, x)
    variance = n.op("ReduceMean", n.op("Pow", c, n.const(2.0)), n.ints(-1))
    y = n.op("Div", c, n.op("Sqrt", n.op("Add", variance, n.const(1e-5))))
    return n.op("Add", n.op("Mul", y, n.weight(D)), n.weight(D))


def _layer_reciprocal(n: Any, x: str) -> str:
    c = _centre(n, x)
    variance = n.op("ReduceMean", n.op("Mul", c, c), n.ints(-1))
    root = n.op("Reciprocal", n.op("Sqrt", n.op("Add", n.const(1e-3), variance)))
    return n.op("Mul", n.weight(D), n.op("Mul", root, c))


def _layer_sum(n: Any, x: str) -> str:
    c = n.op("Sub", x, n.op("Div", n.op("ReduceSum", x, n.ints(-1)), n.const(float(D))))
    total = n.op("ReduceSumSquare", c, n.ints(-1))
    unbiased = n.op("Div", total, n.const(D - 1.0))
    return n.op("Div", c, n.op("Sqrt", n.op("Add", unbiased, n.const(1e-5))))


def _layer_op(n: Any, x: str) -> str:
    return n.op("LayerNormalization", x, n.weight(D), n.weight(D), axis=-1, epsilon=1e-5)


def _rms_pow(n: Any, x: str) -> str:
    mean = n.op("ReduceMean", n.op("Pow", x, n.const(2.0)), n.ints(-1))
    root = n.op("Reciprocal", n.op("Sqrt", n.op("Add", mean, n.const(1e-6))))
    return n.op("Mul", n.op("Mul", x, root), n.weight(D))


def _rms_l2(n: Any, x: str) -> str:
    length = n.op("ReduceL2", x, n.ints(-1))
    return n.op("Div", x, n.op("Max", length, n.const(1e-12)))


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (_layer_pow, "layer"),
        (_layer_reciprocal, "layer"),
        (_layer_sum, "layer"),
        (_layer_op, "layer"),
        (_rms_pow, "rms"),
        (_rms_l2, "rms"),
    ],
)
def test_norm_variants(net: Any, agree: Any, write: Callable[..., str], kind: str) -> None:
    n = net()
    x = n.input("x", [1, 5, D])
    n.output(n.op("MatMul", write(n, x), n.weight(D, 3)), "y", [1, 5, 3])
    graph = agree(n, {"x": X})
    norms = [op for op in graph.operations if isinstance(op, ir.Normalise)]
    assert [op.kind for op in norms] == [kind]
    assert len(graph.operations) == 2


def _cubed(n: Any, x: str) -> str:
    c = _centre(n, x)
    mean = n.op("ReduceMean", n.op("Pow", c, n.const(4.0)), n.ints(-1))
    return n.op("Div", c, n.op("Sqrt", n.op("Add", mean, n.const(1e-5))))


def _no_root(n: Any, x: str) -> str:
    c = _centre(n, x)
    mean = n.op("ReduceMean", n.op("Mul", c, c), n.ints(-1))
    return n.op("Div", c, n.op("Add", mean, n.const(1e-5)))


def _half_centred(n: Any, x: str) -> str:
    mean = n.op("Mul", n.op("ReduceMean", x, n.ints(-1)), n.const(0.5))
    c = n.op("Sub", x, mean)
    variance = n.op("ReduceMean", n.op("Mul", c, c), n.ints(-1))
    return n.op("Div", c, n.op("Sqrt", n.op("Add", variance, n.const(1e-5))))


def _absolute(n: Any, x: str) -> str:
    mean = n.op("ReduceMean", n.op("Abs", x), n.ints(-1))
    return n.op("Div", x, n.op("Add", mean, n.const(1e-5)))


@pytest.mark.parametrize("write", [_cubed, _no_root, _half_centred, _absolute])
def test_what_is_no_norm_does_not_become_one(
    net: Any, agree: Any, write: Callable[..., str]
) -> None:
    n = net()
    x = n.input("x", [1, 5, D])
    n.output(n.op("MatMul", write(n, x), n.weight(D, 3)), "y", [1, 5, 3])
    try:
        graph = agree(n, {"x": X})
    except ModelError:
        return
    assert not [op for op in graph.operations if isinstance(op, ir.Normalise)]


def test_epsilon_is_read_off_the_values(net: Any, agree: Any) -> None:
    n = net()
    x = n.input("x", [1, 5, D])
    n.output(_layer_reciprocal(n, x), "y", [1, 5, D])
    graph = agree(n, {"x": X * 0.01})
    norm = next(op for op in graph.operations if isinstance(op, ir.Normalise))
    assert norm.epsilon == pytest.approx(1e-3, rel=1e-4)


def test_a_norm_of_every_head(net: Any, agree: Any) -> None:
    """Queries and keys normalised head by head stay rows of a token sequence."""
    n, rows, heads, size = net(23), 5, 3, 4
    n.input("ids", [1, rows], "i")
    x = n.op("Gather", n.weight(9, D), "ids")
    q, k, v = (
        n.op("Reshape", n.op("MatMul", x, n.weight(D, D)), n.ints(1, rows, heads, size))
        for _ in range(3)
    )
    q, k = (n.op("RMSNormalization", t, n.weight(size), epsilon=1e-5) for t in (q, k))
    q, k, v = (n.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, k, v))
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 1, 3, 2]))
    hidden = np.where(np.tril(np.ones((rows, rows))) > 0, 0.0, -1e9)
    p = n.op("Softmax", n.op("Add", scores, n.const(hidden)), axis=-1)
    y = n.op("Transpose", n.op("MatMul", p, v), perm=[0, 2, 1, 3])
    y = n.op("MatMul", n.op("Reshape", y, n.ints(1, rows, D)), n.weight(D, 9))
    n.output(y, "logits", [1, rows, 9])
    ids = np.array([[1, 2, 3, 4, 8]])
    graph = agree(n, {"ids": ids})
    assert graph.sections == ("sequence",)
    assert [type(op) for op in graph.operations].count(ir.Normalise) == 2 * heads
    part = evaluate(graph, {"ids": ids[:, :3]})[0]["logits"]
    whole = evaluate(graph, {"ids": ids})[0]["logits"]
    np.testing.assert_allclose(part, whole[:, :3])
