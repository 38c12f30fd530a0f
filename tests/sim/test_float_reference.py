"""The float reference computes what the Graph's docstrings say."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwcompile.compiler.ir import graph as ir
from hwcompile.sim.float_reference import evaluate

T, D = 4, 6
X = np.random.default_rng(0).standard_normal((3, T, D))


def _graph(op: type[ir.Operation], extra: tuple[ir.Input, ...] = (), **fields: Any) -> ir.Graph:
    given = ir.Input(ir.Value("x", T, D), "tensor", 0, "x", (1, T, D))
    inputs = ("x", "x", "x", *(i.value.key for i in extra)) if op is ir.Attend else ("x",)
    made = op(ir.Value("y", T, D), inputs, 0, "", **fields)
    return ir.Graph(
        ("once",), (given, *extra), (made,), (ir.Output("y", "tensor", "y", (1, T, D)),)
    )


def test_a_row_that_sees_no_key_is_zero() -> None:
    flags = ir.Input(ir.Value("f", T, 1), "flags", 0, "f", (1, T))
    graph = _graph(ir.Attend, (flags,), heads=2, kv_heads=2, scale=1.0, causal=True)
    seen = np.array([[0, 0, 1, 1]] * 3)
    y = evaluate(graph, {"x": X, "f": seen})[0]["y"]
    assert (y[:, :2] == 0).all()
    np.testing.assert_allclose(y[:, 2], X[:, 2])


def test_samples_are_independent() -> None:
    graph = _graph(ir.Attend, heads=3, kv_heads=3, scale=0.5, causal=False)
    together = evaluate(graph, {"x": X})[0]["y"]
    alone = np.concatenate([evaluate(graph, {"x": X[i : i + 1]})[0]["y"] for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_rotation_keeps_length() -> None:
    angle = np.arange(T)[:, None] * np.ones(D)
    sign = np.array([-1, -1, -1, 1, 1, 1])
    partner = np.array([3, 4, 5, 0, 1, 2])
    graph = _graph(ir.Rotate, cosine=np.cos(angle), sine=np.sin(angle) * sign, partner=partner)
    y = evaluate(graph, {"x": X})[0]["y"]
    np.testing.assert_allclose((y**2).sum(-1), (X**2).sum(-1))


def test_collected_values_hold_every_operation() -> None:
    graph = _graph(ir.Normalise, kind="layer", gain=np.ones(D), bias=np.zeros(D), epsilon=0.0)
    outputs, values = evaluate(graph, {"x": X}, collect=True)
    assert set(values) == {"x", "y"} and values["y"].shape == (3, T, D)
    np.testing.assert_allclose(outputs["y"].mean(-1), 0, atol=1e-12)
    assert evaluate(graph, {"x": X})[1] == {}
