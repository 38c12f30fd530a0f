"""One test a rule of the passes over a Graph, with the case that must not change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.expressions import VARIABLE, affine
from hwcompile.compiler.ir.graph import Expression
from hwcompile.passes import fold_affine, fold_gathers, recognise_grids
from hwcompile.sim.float_reference import evaluate

RANDOM = np.random.default_rng(11)
N, D, M = 3, 4, 6


class Draft:
    """A graph of one section written operation by operation; each method returns a key."""

    def __init__(self) -> None:
        self.values = {"v0": ir.Value("v0", N, D)}
        self.operations: list[ir.Operation] = []

    def add(self, made: Any, rows: int, cols: int, /, *inputs: str, **fields: Any) -> str:
        value = ir.Value(f"v{len(self.values)}", rows, cols)
        self.values[value.key] = value
        self.operations.append(made(value, inputs, 0, "test", **fields))
        return value.key

    def linear(self, x: str, cols: int = M) -> str:
        n = self.values[x].cols
        weight, bias = RANDOM.standard_normal((n, cols)), RANDOM.standard_normal(cols)
        return self.add(ir.Linear, self.values[x].rows, cols, x, weight=weight, bias=bias)

    def row(self, cols: int, rows: int = 1) -> str:
        return self.add(ir.Rows, rows, cols, table=RANDOM.standard_normal((rows, cols)))

    def unary(self, x: str, function: Expression) -> str:
        v = self.values[x]
        return self.add(ir.Unary, v.rows, v.cols, x, function=function)

    def binary(self, kind: Any, x: str, y: str) -> str:
        return self.add(kind, self.values[x].rows, self.values[x].cols, x, y)

    def pick(self, x: str, columns: list[int]) -> str:
        v = self.values[x]
        index = np.arange(v.rows)[:, None] * v.cols + np.asarray(columns)
        return self.add(ir.Gather, v.rows, len(columns), x, index=index)

    def graph(self, *outputs: str) -> ir.Graph:
        given = ir.Input(self.values["v0"], "tensor", 0, "x", (1, N, D))
        outs = tuple(
            ir.Output(k, "tensor", k, (1, self.values[k].rows, self.values[k].cols))
            for k in outputs
        )
        return ir.Graph(("once",), (given,), tuple(self.operations), outs)


def same(before: ir.Graph, after: ir.Graph) -> list[str]:
    """Requires equal outputs; the kinds of the operations that are left."""
    x = RANDOM.standard_normal((5, N, D))
    one, two = (evaluate(g, {"x": x})[0] for g in (before, after))
    for a, b in zip(one.values(), two.values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    return [type(op).__name__ for op in after.operations]


@pytest.mark.parametrize("kind", [ir.Add, ir.Multiply])
def test_rows_fold_into_a_product(kind: Any) -> None:
    d = Draft()
    y = d.binary(kind, d.linear("v0"), d.row(M))
    graph = d.graph(d.unary(y, affine(2.0, -1.0)))
    assert same(graph, fold_affine.run(graph).graph) == ["Linear"]


def test_affine_before_a_product_folds() -> None:
    d = Draft()
    graph = d.graph(d.linear(d.unary("v0", affine(0.5, 3.0))))
    assert same(graph, fold_affine.run(graph).graph) == ["Linear"]


def test_rows_fold_into_a_norm() -> None:
    d = Draft()
    at = {"kind": "layer", "gain": np.ones(D), "bias": np.zeros(D), "epsilon": 1e-5}
    x = d.add(ir.Normalise, N, D, "v0", **at)
    graph = d.graph(d.binary(ir.Add, d.binary(ir.Multiply, x, d.row(D)), d.row(D)))
    assert same(graph, fold_affine.run(graph).graph) == ["Normalise"]


def test_functions_compose_and_constants_fold() -> None:
    d = Draft()
    tanh = Expression("tanh", (VARIABLE,))
    y = d.unary(d.unary(d.linear("v0"), tanh), affine(2.0, 0.5))
    rows = d.binary(ir.Add, d.unary(d.row(M, N), tanh), d.row(M, N))
    graph = d.graph(d.binary(ir.Add, y, rows))
    assert sorted(same(graph, fold_affine.run(graph).graph)) == ["Add", "Linear", "Rows", "Unary"]


def test_what_something_else_reads_stays() -> None:
    d = Draft()
    x = d.linear("v0")
    graph = d.graph(d.binary(ir.Add, x, d.row(M)), x)
    result = fold_affine.run(graph)
    assert not result.changed and result.graph == graph


def test_positions_are_not_a_bias() -> None:
    d = Draft()
    graph = d.graph(d.binary(ir.Add, d.linear("v0"), d.row(M, N)))
    assert not fold_affine.run(graph).changed


def test_a_product_falls_apart_into_its_picks() -> None:
    d = Draft()
    x = d.linear("v0")
    graph = d.graph(d.pick(x, [0, 2, 4]), d.pick(x, [5, 1]))
    assert same(graph, fold_gathers.run(graph).graph) == ["Linear", "Linear"]


def test_a_permutation_before_a_product_folds() -> None:
    d = Draft()
    graph = d.graph(d.linear(d.pick("v0", [2, 0, 3, 1])))
    assert same(graph, fold_gathers.run(graph).graph) == ["Linear"]


def test_other_gathers_stay() -> None:
    d = Draft()
    x = d.linear("v0")
    moved = d.add(ir.Gather, M, N, x, index=np.arange(N * M).reshape(N, M).T)
    graph = d.graph(moved, d.linear(d.pick("v0", [2, 0, 2, 1])))
    result = fold_gathers.run(graph)
    assert not result.changed and same(graph, result.graph).count("Gather") == 2


@pytest.mark.parametrize("levels", [1, 7, 127])
@pytest.mark.parametrize("columns", [False, True])
def test_grids_are_recognised(levels: int, columns: bool) -> None:
    values = RANDOM.integers(-levels, levels + 1, (64, 8))
    values[0], values[1] = levels, levels - 1
    scale = RANDOM.uniform(0.1, 0.2, 8) if columns else np.full(8, 0.37)
    weight = (values * scale).astype(np.float32).astype(np.float64)
    found = recognise_grids.find_grid(weight)
    assert found is not None
    np.testing.assert_array_equal(found[0] * np.sign(found[1]), values)
    np.testing.assert_allclose(found[0] * found[1], weight, rtol=1e-5)


def test_float_weights_are_no_grid() -> None:
    assert recognise_grids.find_grid(RANDOM.standard_normal((64, 64))) is None
    assert recognise_grids.find_grid(RANDOM.standard_normal((16, 4))) is None
