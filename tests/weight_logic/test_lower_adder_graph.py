"""Adder graphs as gates: exact, proven, with the adders and inverters that were promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir import adder_graph, weight_logic
from hwcompile.compiler.ir.adder_graph import AdderGraph
from hwcompile.compiler.ir.weight_logic import WeightBlock, WeightLogicError
from hwcompile.passes.cmvm_tile import SolverOptions
from hwcompile.passes.lower_adder_graph import lower_adder_graph
from hwcompile.passes.solve_cmvm import solve_cmvm

RANDOM = np.random.default_rng(5)
MATRICES: dict[str, np.ndarray] = {
    "dense": RANDOM.integers(-128, 128, (9, 11)),
    "ternary": RANDOM.choice([-1, 0, 1], (30, 70), p=[0.2, 0.6, 0.2]),
    "zero rows and columns": np.diag([0, 3, 0, -128]),
    "negative": -np.ones((4, 3), np.int64),
    "far apart": np.array([[1, 1], [1 << 14, -(1 << 14)]]),
    "zeros": np.zeros((2, 3), np.int64),
    "one": np.array([[-1]]),
}


def graph_of(matrix: np.ndarray, bits: int = 8, level: int = 1) -> AdderGraph:
    half = 1 << (bits - 1)
    return solve_cmvm(matrix, -half, half - 1, SolverOptions(level=level))


def gates(block: WeightBlock) -> dict[str, int]:
    found = dict.fromkeys(("full_adder", "half_adder", "xor", "inverter"), 0)
    for stage in block.stages:
        found[stage.kind] += stage.size
    return found


@pytest.mark.parametrize("collapse", [True, False])
@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("name", MATRICES)
def test_the_gates_are_the_matrix(name: str, level: int, bits: int, collapse: bool) -> None:
    matrix = MATRICES[name]
    block = lower_adder_graph(graph_of(matrix, bits, level), bits, collapse)
    half = 1 << (bits - 1)
    x = np.random.default_rng(6).integers(-half, half, (20, len(matrix)))
    x = np.concatenate([x, np.full((1, len(matrix)), -half), np.full((1, len(matrix)), half - 1)])
    assert np.array_equal(weight_logic.evaluate(block, x) + block.correction, x @ matrix)
    assert (block.planes, block.cycles) == (bits, 1)


def test_one_full_adder_a_bit() -> None:
    # x0 + x1: a half adder and seven full adders; the second output is the same word inverted.
    block = lower_adder_graph(graph_of(np.array([[1, -1], [1, -1]])), 8)
    assert gates(block) == {"full_adder": 7, "half_adder": 1, "xor": 0, "inverter": 9}


def test_full_adders_are_the_bits_of_the_graph() -> None:
    graph = graph_of(MATRICES["dense"])
    found = gates(lower_adder_graph(graph, 8))["full_adder"]
    assert abs(found - adder_graph.metrics(graph).full_adder_bits) <= 0.03 * found


def test_a_chain_is_merged_into_one_sum() -> None:
    operands = np.zeros((6, 5), np.int64)
    operands[:2] = [[0, 6, 7, 8, 9], [1, 2, 3, 4, 5]]
    ends = np.full(6, -128), np.full(6, 127)
    graph = adder_graph.build(operands, np.array([[10], [0], [0]]), np.array([0, 1]), *ends)
    merged, ripple = (gates(lower_adder_graph(graph, 8, c)) for c in (True, False))
    assert merged["half_adder"] < ripple["half_adder"]
    assert merged["full_adder"] == adder_graph.metrics(graph).full_adder_bits


def test_no_inverter_where_a_choice_of_signs_avoids_it() -> None:
    # All outputs take both sums with the same signs: one of them is kept complemented.
    matrix = np.array([[1, 1, 1], [1, 1, 1], [-1, -1, -1], [-1, -1, -1]]) * [1, 2, 4]
    assert gates(lower_adder_graph(graph_of(matrix), 8))["inverter"] == 0


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="more than 7 bits"):
        lower_adder_graph(graph_of(MATRICES["dense"]), 7)


def test_a_changed_gate_is_found() -> None:
    block = lower_adder_graph(graph_of(MATRICES["dense"]), 8)
    at = next(i for i, s in enumerate(block.stages) if s.kind == "full_adder")
    stage = block.stages[at]
    inputs = stage.inputs.copy()
    inputs[0, 0] = (inputs[0, 0] + 1) % 8
    stages = (*block.stages[:at], replace(stage, inputs=inputs), *block.stages[at + 1 :])
    try:
        found = weight_logic.expand(replace(block, stages=stages)).weight
    except WeightLogicError:
        return
    assert not np.array_equal(found, MATRICES["dense"])


def test_a_complement_whose_top_bit_is_always_zero() -> None:
    # 3 x0 + 3 x1 of 4 bits reaches 90 of 127; offsets of narrow inputs move it to the top half.
    matrix = np.array([[3, -3, 1], [3, -3, -1]])
    for low, high in ((4, 7), (-8, -5), (0, 3), (-8, 7)):
        graph = solve_cmvm(matrix, low, high)
        for collapse in (True, False):
            block = lower_adder_graph(graph, 4, collapse)
            x = np.array([[low, high], [high, low], [low, low], [high, high]])
            assert np.array_equal(weight_logic.evaluate(block, x) + block.correction, x @ matrix)
