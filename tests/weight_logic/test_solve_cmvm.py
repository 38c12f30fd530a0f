"""The solver: exact on every matrix, bounds honoured, never worse at a higher level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir import adder_graph
from hwcompile.passes.cmvm_tile import SolverOptions
from hwcompile.passes.solve_cmvm import solve_cmvm

DENSE = np.random.default_rng(1).integers(-128, 128, (12, 20))
TERNARY = np.random.default_rng(2).choice([-1, 0, 1], (30, 70), p=[0.2, 0.6, 0.2])
MATRICES: dict[str, np.ndarray] = {
    "dense": DENSE.astype(np.int8),
    "transposed": DENSE.astype(np.int8).T,
    "strided": DENSE.astype(np.int32)[::2, ::-3],
    "fortran": np.asfortranarray(DENSE.astype(np.int16)),
    "read-only": np.broadcast_to(np.int8(-128), (3, 4)),
    "unsigned": np.arange(24, dtype=np.uint8).reshape(4, 6) * 9,
    "wide": np.array([[65536, -65536, 43691], [1, -21845, 32767]]),
    "ternary": TERNARY,
    "zeros": np.zeros((3, 5), np.int8),
    "some zero rows and columns": np.diag([0, 3, 0, -128]),
    "row": DENSE[:1],
    "column": DENSE[:, :1],
    "one": np.array([[-7]], np.int64),
    "repeated columns": np.repeat(DENSE[:, :2], 3, axis=1) * [1, 1, -1, 1, 2, -4][:6],
    "no inputs": np.zeros((0, 3), np.int8),
    "no outputs": np.zeros((3, 0), np.int8),
}


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("name", MATRICES)
def test_exact_whatever_the_matrix(name: str, level: int) -> None:
    matrix = MATRICES[name]
    graph = solve_cmvm(matrix, options=SolverOptions(level=level, steps=3))
    assert np.array_equal(adder_graph.expand(graph), matrix.astype(np.int64))
    x = np.random.default_rng(3).integers(-128, 128, (5, len(matrix)))
    assert np.array_equal(adder_graph.evaluate(graph, x), x @ matrix.astype(np.int64))


@pytest.mark.parametrize(
    "matrix",
    [np.eye(3), np.eye(3) > 0, np.arange(3), np.array([[65537]]), np.array([[-(2**63)]])],
    ids=["float", "bool", "vector", "large", "least int64"],
)
def test_what_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(UsageError):
        solve_cmvm(matrix)


@pytest.mark.parametrize(
    "interval", [(1, 0), (0.0, 1.0), (np.zeros(3, int), 1), (0, 2**40)], ids=str
)
def test_intervals_that_are_refused(interval: tuple[Any, Any]) -> None:
    with pytest.raises(UsageError):
        solve_cmvm(DENSE, *interval)


def test_mixed_intervals_are_kept() -> None:
    low, high = -np.arange(12), np.arange(12) * 3
    graph = solve_cmvm(DENSE, low, high)
    assert np.array_equal(graph.low[:12], low)
    assert np.array_equal(graph.high[:12], high)


def cost(**options: Any) -> adder_graph.GraphMetrics:
    return adder_graph.metrics(solve_cmvm(DENSE, options=SolverOptions(**options)))


def test_a_higher_level_is_better() -> None:
    bits = [cost(level=level, steps=20).full_adder_bits for level in range(4)]
    assert bits[0] > bits[1] >= bits[2] > bits[3]


def test_objectives() -> None:
    adders = [cost(level=2, objective=o).adders for o in ("adders", "area")]
    assert adders[0] <= adders[1]


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("matrix", [DENSE, TERNARY], ids=["dense", "ternary"])
def test_the_depth_bound_holds(matrix: np.ndarray, level: int) -> None:
    least = adder_graph.metrics(solve_cmvm(matrix, options=SolverOptions(level=0))).depth
    for depth in (least, least + 1):
        options = SolverOptions(level=level, depth=depth, steps=5)
        assert adder_graph.metrics(solve_cmvm(matrix, options=options)).depth <= depth
    options = SolverOptions(level=level, objective="depth", steps=5)
    assert adder_graph.metrics(solve_cmvm(matrix, options=options)).depth == least
    with pytest.raises(UsageError, match="at least"):
        solve_cmvm(matrix, options=SolverOptions(level=level, depth=least - 1))


def same(a: adder_graph.AdderGraph, b: adder_graph.AdderGraph) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__
    )


def test_tiles_processes_and_store_give_the_same_graph() -> None:
    kept: dict[str, Any] = {}

    class Store:
        def get(self, key: str) -> Any | None:
            return kept.get(key)

        def put(self, key: str, value: Any) -> None:
            kept[key] = value

    options = SolverOptions(level=1, tile=5)
    graphs = [solve_cmvm(DENSE, options=options, store=Store())]
    assert len(kept) == 3
    del kept[next(iter(kept))]  # as if stopped on the way
    graphs.append(solve_cmvm(DENSE, options=options, store=Store()))
    graphs.append(solve_cmvm(DENSE, options=options, jobs=2))
    assert all(same(graphs[0], other) for other in graphs[1:])


@pytest.mark.parametrize("level", range(4))
def test_memory_order_does_not_change_the_graph(level: int) -> None:
    options = SolverOptions(level=level, steps=3)
    forms = [DENSE.astype(np.int64), np.asfortranarray(DENSE).astype(np.int16, order="F")]
    graphs = [solve_cmvm(form, options=options) for form in forms]
    assert same(*graphs)
