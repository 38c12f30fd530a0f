"""Facts of the report that are made of a design's numbers: zeros and budgets."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from hwcompile.compiler.assessment import check_budgets, layer_zeros
from hwcompile.compiler.errors import BudgetError
from hwcompile.compiler.estimate.estimate import Estimate, estimate
from hwcompile.compiler.estimate.facts import DesignFacts, GroupArea, Memory
from hwcompile.compiler.estimate.figures import load_tables
from hwcompile.compiler.estimate.scenario import load_scenario
from hwcompile.compiler.hardware import Matrix
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.weight_logic import counts
from hwcompile.compiler.options import Options
from hwcompile.passes.lower_weights import lower_weights

ADDER_UM2 = 4.0


def matrix(weight: ir.IntArray, phases: int) -> Matrix:
    column = np.ones(weight.shape[1], np.int64)
    out = ir.Value("y", 1, weight.shape[1], 16, -1, 1, 1.0)
    op = ir.Linear(out, ("x",), 0, "layer", weight, 0 * column, column, column)
    return Matrix("hw_matrix_0", op, phases, counts(lower_weights(weight, 8, phases, share=True)))


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_what_zeros_spare_is_near_what_a_dense_matrix_takes_more(share: float) -> None:
    rng = np.random.default_rng(4)
    dense = rng.integers(1, 8, (48, 16)) * rng.choice([-1, 1], (48, 16))
    sparse = np.where(rng.random(dense.shape) < share, 0, dense)
    full, less = matrix(dense, 1), matrix(sparse, 1)
    zeros = layer_zeros(less, ADDER_UM2)
    assert (zeros.weights, zeros.zeros) == (dense.size, (sparse == 0).sum())
    more = (full.counts.full_adders - less.counts.full_adders) * ADDER_UM2
    assert zeros.saved_um2 == pytest.approx(more, rel=0.3)


def test_a_zero_that_shares_its_place_spares_nothing() -> None:
    weight = np.random.default_rng(5).integers(1, 8, (12, 8))
    weight[0, 0] = 0
    assert layer_zeros(matrix(weight, 4), ADDER_UM2).saved_um2 == 0
    weight[0] = 0
    zeros = layer_zeros(matrix(weight, 4), ADDER_UM2)
    assert zeros.zeros == 8 and zeros.saved_um2


def test_nothing_is_said_without_an_adder_to_measure_by() -> None:
    assert layer_zeros(matrix(np.eye(4, dtype=np.int64), 1), None).saved_um2 is None


@cache
def toy() -> Estimate:
    facts = DesignFacts(
        name="toy",
        item="token",
        node_nm=45,
        library="nangate45",
        predictive=True,
        weights_total=4000,
        weights_nonzero=3900,
        groups=(GroupArea("weights", 40_000.0), GroupArea("control", 40_000.0)),
        memories=(Memory("hw_ram_64x64", "kv", 4096, 3000.0),),
        area_basis="synthesised",
        critical_path_ns=2.0,
        clock_period_ns=2.0,
        cycles_per_item=1000,
        macs_per_item=4000,
        memory_bits_per_item=4000,
        io_signals=60,
    )
    return estimate(facts, load_scenario(), load_tables(), draws=20)


def test_the_area_budget_is_for_logic_not_for_pads() -> None:
    numbers = {q.name: q.mid for q in toy().quantities}
    core, die = numbers["area.core_mm2"], numbers["area.die_mm2"]
    assert core < die / 2
    check_budgets(toy(), Options(max_area_mm2=1.01 * core))
    with pytest.raises(BudgetError) as error:
        check_budgets(toy(), Options(max_area_mm2=0.99 * core))
    nearest = float(error.value.hint.split("--max-area-mm2 ")[1].split(",")[0])
    check_budgets(toy(), Options(max_area_mm2=nearest))


def test_the_rate_budget_names_the_nearest_that_fits() -> None:
    with pytest.raises(BudgetError) as error:
        check_budgets(toy(), Options(min_tokens_per_s=1e9, style="bitplane"))
    assert "--style" not in error.value.hint
    check_budgets(toy(), Options(min_tokens_per_s=float(error.value.hint.split()[-1])))
