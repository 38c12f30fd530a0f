import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.decision import decide, trial_value_usd
from hwcompile.compiler.estimate.estimate import Estimate, estimate
from hwcompile.compiler.estimate.facts import DesignFacts, GroupArea, Memory
from hwcompile.compiler.estimate.figures import load_tables
from hwcompile.compiler.estimate.scenario import load_scenario, shipped_scenarios
from tests.facts import TOY

TABLES = load_tables()

LARGE = DesignFacts(
    name="8B in ROM",
    item="token",
    node_nm=7,
    library="a 7 nm library",
    predictive=False,
    weights_total=8_030_000_000,
    weights_nonzero=8_030_000_000,
    groups=(GroupArea("logic", 110e6),),
    memories=(
        Memory("weights", "weights", 24_350_000_000, 421e6),
        Memory("kv", "kv", 2_088_000_000, 91e6),
    ),
    area_basis="modelled",
    critical_path_ns=1.0,
    clock_period_ns=1.0,
    cycles_per_item=1e9 / 16_960,
    macs_per_item=7.5e9,
    memory_bits_per_item=134e6 * 8,
    io_signals=200,
    respin_scope="via",
)


@cache
def of(facts: DesignFacts, scenario: str = "chip-per-model", draws: int = 60) -> Estimate:
    return estimate(facts, load_scenario(scenario), TABLES, draws)


def mid(made: Estimate, name: str) -> float:
    return made.by_name()[name].mid


@pytest.mark.parametrize("facts", [TOY, LARGE], ids=["toy", "large"])
@pytest.mark.parametrize("scenario", shipped_scenarios())
def test_every_estimate_has_low_mid_high_and_a_verdict(facts: DesignFacts, scenario: str) -> None:
    made = of(facts, scenario)
    assert all(q.low <= q.mid <= q.high for q in made.quantities)
    assert made.verdict.name in ("BUILD", "SHUTTLE", "RENT")
    assert 0 <= made.verdict.probability_positive <= 1


def test_every_number_rests_on_graded_inputs() -> None:
    numbers = of(TOY).by_name()
    for q in numbers.values():
        assert q.formula or (q.source and q.grade and q.date)
        assert all(name in numbers for _, name in q.inputs)


def test_each_rate_and_price_names_its_basis() -> None:
    numbers = of(TOY).by_name()
    for name in (
        "performance.per_user_rate",
        "performance.chip_rate",
        "gpu.rate",
        "gpu.per_user_rate",
        "gpu.usd_per_million",
        "price.usd_per_million",
    ):
        assert numbers[name].note.startswith("basis: "), name


def test_same_facts_same_numbers() -> None:
    again = estimate(TOY, load_scenario(), load_tables(), 60)
    assert again.quantities == of(TOY).quantities and again.swings == of(TOY).swings


def test_facts_survive_json() -> None:
    assert DesignFacts.from_json(TOY.to_json()) == TOY


def test_a_published_8b_chip_comes_out() -> None:
    """Size, power, die cost and price a million of HC1, within what was published of it."""
    made = of(LARGE)
    assert mid(made, "area.die_mm2") == pytest.approx(815, rel=0.2)
    assert mid(made, "area.dies") == 1
    assert 225 / 2 < mid(made, "power.chip_w") < 225 * 2
    assert 295 * 0.7 < mid(made, "cost.die_usd") < 341 * 1.3
    assert mid(made, "gpu.usd_per_million") == pytest.approx(0.083, rel=0.05)
    assert 0.005 < mid(made, "price.usd_per_million") < 0.08
    assert mid(made, "performance.per_user_rate") == pytest.approx(16_960)


def test_a_via_re_spin_costs_a_fraction_of_a_new_chip() -> None:
    made = of(LARGE)
    assert mid(made, "nre.respin_usd") < 0.15 * mid(made, "nre.total_usd")
    whole = of(replace(LARGE, respin_scope="all"))
    assert mid(whole, "nre.total_usd") == pytest.approx(mid(made, "nre.total_usd"))
    assert mid(whole, "nre.respin_usd") > 5 * mid(made, "nre.respin_usd")


def test_a_toy_is_rented() -> None:
    """A tiny model is nearly free on a GPU, so nothing pays for its masks."""
    made = of(TOY)
    assert made.verdict.name == "RENT"
    assert mid(made, "gpu.usd_per_million") < 0.01
    assert mid(made, "value.avoided_usd") < mid(made, "nre.total_usd")


@pytest.mark.parametrize("factor", [1.5, 4.0])
def test_cost_rises_with_area_and_defects(factor: float, tmp_path: Path) -> None:
    grown = replace(LARGE, memories=(), groups=(GroupArea("logic", 110e6 * factor),))
    assert mid(of(grown), "cost.die_usd") > mid(
        of(replace(grown, groups=LARGE.groups)), "cost.die_usd"
    )
    overlay = tmp_path / "mine.yaml"
    cell = f"{{value: {0.09 * factor}, low: 0.09, high: 1, unit: 1/cm2, source: us, date: now"
    overlay.write_text(f'nodes: {{"7": {{defects_per_cm2: {cell}, grade: assumed}}}}}}')
    worse = estimate(LARGE, load_scenario(), load_tables(overlay), 20)
    assert mid(worse, "cost.die_usd") > mid(of(LARGE), "cost.die_usd")


def test_more_than_a_reticle_takes_more_dies() -> None:
    made = of(replace(LARGE, groups=(GroupArea("logic", 900e6),)))
    assert mid(made, "area.dies") > 1
    assert mid(made, "area.die_mm2") <= 858
    assert mid(made, "cost.copy_usd") == pytest.approx(
        mid(made, "area.dies") * mid(made, "cost.chip_usd")
    )


def test_a_slow_path_slows_the_clock() -> None:
    assert mid(of(TOY), "performance.clock_hz") == pytest.approx(400e6)
    assert mid(of(replace(TOY, critical_path_ns=5.0)), "performance.clock_hz") == pytest.approx(
        200e6
    )


def test_slots_raise_the_aggregate_not_the_rate_of_a_user() -> None:
    one, four = of(TOY), of(replace(TOY, slots=4))
    assert mid(four, "performance.per_user_rate") == mid(one, "performance.per_user_rate")
    assert mid(four, "performance.chip_rate") == 4 * mid(one, "performance.chip_rate")


def test_shuttles_that_fit_come_first_and_cost_less_than_masks() -> None:
    routes = of(TOY).routes
    assert [r.fits for r in routes] == sorted((r.fits for r in routes), reverse=True)
    assert routes[0].mid_usd is not None and routes[0].mid_usd < mid(of(TOY), "nre.total_usd")
    assert not any(r.fits for r in of(LARGE).routes)


def test_sweep_agrees_with_the_estimate_at_its_node() -> None:
    made = of(TOY)
    (point,) = [p for p in made.sweep if p.node_nm == made.node]
    assert point.die_usd == pytest.approx(mid(made, "cost.die_usd"))
    assert point.nre_usd == pytest.approx(mid(made, "nre.total_usd"))


def test_a_flip_value_flips() -> None:
    made = of(LARGE, "data-centre-two-years")
    flips = [s for s in made.swings if s.flip is not None]
    assert flips
    for swing in flips:
        assert swing.flip is not None and swing.flip > 0


def test_too_large_for_an_edge_part_has_no_edge_line() -> None:
    assert "edge.break_even_units" in of(TOY).by_name()
    assert "edge.break_even_units" not in of(replace(LARGE, weights_total=70 * 10**9)).by_name()


def test_a_device_replaces_its_part_and_rents_nothing() -> None:
    made = of(TOY, "edge-toy")
    numbers = made.by_name()
    assert "value.silicon_usd" in numbers and "price.full_usd_per_million" not in numbers
    assert mid(made, "fleet.chips") == mid(made, "scenario.users")
    dear = replace(load_scenario("edge-toy"), alternative="soc")
    assert estimate(TOY, dear, TABLES, 20).by_name()["value.npv_usd"].mid > mid(
        made, "value.npv_usd"
    )


def test_links_between_dies_bound_the_rate_and_take_area_and_power() -> None:
    wide = replace(LARGE, groups=(GroupArea("logic", 900e6),), slots=64)
    free, cut = of(wide), of(replace(wide, cut_bits_per_item=4e6))
    assert mid(cut, "area.hops") >= 1 and mid(of(LARGE), "area.beside_mm2") == 0
    assert mid(free, "area.beside_mm2") > 0 and mid(free, "power.link_w") == 0
    assert mid(cut, "power.link_w") > 0
    assert mid(cut, "performance.chip_rate") == pytest.approx(1600e9 / 4e6)
    assert mid(cut, "performance.per_user_rate") < mid(free, "performance.per_user_rate")


def test_masks_are_shared_between_dies_but_for_those_of_the_weights() -> None:
    one, many = of(LARGE), of(replace(LARGE, groups=(GroupArea("logic", 900e6),)))
    assert mid(many, "nre.shared_masks_usd") == pytest.approx(mid(one, "nre.shared_masks_usd"))
    assert mid(many, "nre.variable_masks_usd") == pytest.approx(
        mid(many, "area.dies") * mid(one, "nre.variable_masks_usd")
    )


def test_wrong_weights_that_a_rom_bears_raise_the_yield_and_those_of_logic_do_not() -> None:
    rom = replace(LARGE, memories=(Memory("weights", "rom", 24_350_000_000),))
    bears = of(replace(rom, bearable_defects=20))
    assert mid(of(rom), "yield.murphy") < mid(bears, "yield.graded") <= 1
    assert mid(bears, "cost.die_usd") < mid(of(rom), "cost.die_usd")
    assert "yield.graded" not in of(replace(TOY, bearable_defects=20)).by_name()


@pytest.mark.parametrize("scenario", ["chip-per-model", "automotive"])
def test_curves_fall_with_volume_and_area(scenario: str) -> None:
    made = of(LARGE, scenario)
    chip = [p.chip_usd for p in made.price_curve]
    assert chip == sorted(chip, reverse=True)
    assert all(p.successor_usd <= p.chip_usd for p in made.price_curve)
    for curve in made.yield_curves:
        assert list(curve.shares) == sorted(curve.shares, reverse=True)
        assert all(0 < share <= 1 for share in curve.shares)
    assert made.cash[0].usd == 0 and min(c.usd for c in made.cash) < 0
    users = [u for _, u in made.break_even_by_respins]
    assert users == sorted(users)


def test_a_design_of_nothing_is_priced_without_a_fault() -> None:
    nothing = replace(
        TOY,
        weights_total=0,
        weights_nonzero=0,
        groups=(),
        memories=(),
        macs_per_item=0,
        memory_bits_per_item=0,
    )
    made = of(nothing)
    assert mid(made, "area.core_mm2") == 0
    assert mid(made, "area.die_mm2") > 0
    assert made.verdict.name == "RENT"


def test_an_unknown_gpu_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="abacus"):
        estimate(TOY, replace(load_scenario(), alternative="abacus"), TABLES, 10)


SURE, LOSS, MIXED = [5.0] * 10, [-5.0] * 10, [-10.0] * 6 + [14.0] * 4


@pytest.mark.parametrize(
    ("npv", "learned", "shuttle", "verdict"),
    [
        (SURE, SURE, 1.0, "BUILD"),
        (SURE, SURE, None, "BUILD"),
        (LOSS, LOSS, 1.0, "RENT"),
        (MIXED, MIXED, 1.0, "SHUTTLE"),
        (MIXED, MIXED, 6.0, "RENT"),
        (MIXED, MIXED, None, "RENT"),
        (MIXED, [0.0] * 10, 0.1, "RENT"),
    ],
)
def test_rule(npv: list[float], learned: list[float], shuttle: float | None, verdict: str) -> None:
    made = decide(npv, learned, 30.0, 0.7, shuttle)
    assert made.name == verdict
    assert "BUILD if" in made.rule and len(made.reasons) == 4


def test_loss_beyond_the_cap_forbids_building() -> None:
    npv = [-50.0] * 2 + [100.0] * 8
    assert decide(npv, npv, 60.0, 0.7, None).name == "BUILD"
    assert decide(npv, npv, 40.0, 0.7, None).name == "RENT"


def test_a_trial_that_teaches_nothing_is_worth_minus_its_price() -> None:
    assert trial_value_usd([3.0, 3.0], -2.0, 1.0) == -1.0
    assert math.isclose(trial_value_usd([-10.0, 10.0], 0.0, 1.0), 4.0)
