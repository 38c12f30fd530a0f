"""What must hold for every design and every figure: monotone costs, shares, units."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwcompile.compiler.estimate.die import dies_per_wafer, grid_dies, stepped_area_mm2
from hwcompile.compiler.estimate.economics import rented_usd_per_million
from hwcompile.compiler.estimate.estimate import estimate
from hwcompile.compiler.estimate.facts import DesignFacts, GroupArea, Memory
from hwcompile.compiler.estimate.figures import load_tables
from hwcompile.compiler.estimate.ledger import Ledger
from hwcompile.compiler.estimate.scenario import load_scenario, shipped_scenarios
from hwcompile.compiler.estimate.silicon import record_silicon
from hwcompile.compiler.estimate.yields import MODELS, tolerant
from tests.facts import TOY

TABLES = load_tables()
AREAS = st.floats(0.01, 800)
DEFECTS = st.floats(0.001, 2)
UNITS = (
    *("mm2", "um2", "mm", "um", "nm", "ns", "Hz", "s", "1/s", "h", "years", "weeks", "months"),
    *("W", "W/mm2", "pJ", "MW", "t", "kg", "kg/kWh", "USD", "USD/h", "USD/s", "USD/kWh", "USD/W"),
    *("USD/copy", "USD/month", "USD/Mtoken", "1/day", "1/year", "1/cm2", "M/mm2", "Gb/s"),
    *("Gb/s/mm2", "dies", "dies/wafer", "defects/die", "wafers", "masks", "DUV masks", "chips"),
    *("devices", "hops", "cycles", "sequences", "weights", "bit", "MAC", "signals", "users"),
    *("re-spins", "share", "ratio", "1", "token", "token/s", "token/year", "J/token", "copies"),
)


def silicon(facts: DesignFacts, node: str) -> Ledger:
    ledger = Ledger(draws=1)
    record_silicon(ledger, facts, TABLES, node)
    return ledger


@given(AREAS, AREAS, st.sampled_from(TABLES["nodes"].sections()))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_more_area_costs_more(first: float, second: float, node: str) -> None:
    small, large = (
        silicon(replace(TOY, groups=(GroupArea("weights", mm2 * 1e6),), memories=()), node)
        for mm2 in sorted((first, second))
    )
    for name in ("area.core_mm2", "power.leakage_w", "cost.copy_usd", "nre.total_usd"):
        assert small.mid(name) <= large.mid(name) * (1 + 1e-9), name
    if small.mid("area.dies") == large.mid("area.dies"):
        assert small.mid("cost.die_usd") <= large.mid("cost.die_usd") * (1 + 1e-9)


@given(AREAS, DEFECTS, DEFECTS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_yields_are_shares_and_fall_with_defects(area: float, one: float, two: float) -> None:
    low, high = sorted((one, two))
    for name, model in MODELS.items():
        few, many = model(area * low / 100), model(area * high / 100)
        assert 0 < many <= few <= 1, name


@given(st.floats(0.01, 1), st.floats(0, 20), st.integers(0, 40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_bearing_more_never_yields_less(critical: float, spare: float, limit: int) -> None:
    strict, lax = tolerant(critical, spare, limit), tolerant(critical, spare, limit + 1)
    assert 0 <= strict <= lax <= critical


@given(st.floats(1, 800))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_dies_never_exceed_the_wafer(area: float) -> None:
    wafer = math.pi * 150**2
    assert dies_per_wafer(area, scribe_mm=0.1) * stepped_area_mm2(area, 0.1) <= wafer
    side = math.sqrt(max(area, 20))
    assert len(grid_dies(side, side, offsets=2)) * side**2 <= wafer


@given(st.floats(0.05, 1), st.floats(0.05, 1))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_million_costs_less_when_used_more(one: float, two: float) -> None:
    low, high = sorted((one, two))
    assert rented_usd_per_million(2, 1e4, high) <= rented_usd_per_million(2, 1e4, low)


@pytest.mark.parametrize("scenario", shipped_scenarios())
def test_every_number_has_a_unit_that_is_known(scenario: str) -> None:
    made = estimate(TOY, load_scenario(scenario), TABLES, 4)
    strange = {q.name: q.unit for q in made.quantities if q.unit not in UNITS}
    assert not strange
    shares = [q for q in made.quantities if q.unit == "share" and q.name.startswith("yield.")]
    assert shares and all(0 < q.low <= q.high <= 1 for q in shares)


def test_each_input_has_source_date_grade_and_range() -> None:
    for table in TABLES.values():
        for key, figure in table.figures.items():
            assert figure.source and figure.date and figure.grade, key
            if figure.grade == "assumed" and figure.unit not in ("USD", "share", "wafers"):
                exact = key.endswith(("weights_limit", "euv_masks", "included_mm2", "limit_mm2"))
                wide = figure.low < figure.value or figure.value < figure.high
                assert exact or wide or table.name == "shuttles", key


def test_memories_of_any_kind_take_area() -> None:
    for kind in ("kv", "data", "table", "rom"):
        more = replace(TOY, memories=(*TOY.memories, Memory("more", kind, 10_000_000)))
        assert silicon(more, "45").mid("area.core_mm2") > silicon(TOY, "45").mid("area.core_mm2")
