"""Other published chips: Taalas HC1 (T), H100, B200 and Chiplet Actuary (X)."""

import math
from dataclasses import replace

import pytest

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate import cost, die, economics, nre, performance, power, yields
from hwcompile.compiler.estimate.density import check_density
from hwcompile.compiler.estimate.facts import DesignFacts, GroupArea
from hwcompile.compiler.estimate.figures import load_tables

HC1_RATE = 16_960


def test_t1_area() -> None:
    """Calibrated through one free factor, the fill of 0.85; a third party's transistor budget."""
    rom, sram, logic = 24_350 / 57.8, 261 * 8 * 1.048576 / 24.07, 14_690 / (114.2 * 0.70)
    assert (rom + sram + logic) / 0.85 == pytest.approx(815, rel=0.05)


def test_t2_transistors() -> None:
    assert math.fsum([24.54, 7.60, 1.10, 0.80, 15.77, 5.19]) == pytest.approx(53, rel=0.05)


@pytest.mark.parametrize(("bits", "mm2"), [(3.0, 417), (3.5, 486), (4.0, 556)])
def test_t3_rom_share(bits: float, mm2: float) -> None:
    assert 8.03e3 * bits / 57.8 == pytest.approx(mm2, rel=0.01)


def test_t4_gross_and_yield() -> None:
    gross = die.dies_per_wafer(815)
    murphy = yields.murphy(yields.mean_defects(815, 0.09))
    assert gross == 63
    assert murphy == pytest.approx(0.502, rel=0.02)
    assert [cost.die_usd(w, gross * murphy) for w in (9346, 10_800)] == pytest.approx(
        [295, 341], rel=0.02
    )


def test_t5_latency() -> None:
    assert pytest.approx(58.96, rel=1e-3) == 1e6 / HC1_RATE
    assert pytest.approx(1843, rel=1e-3) == 1e9 / HC1_RATE / 32


def test_t6_energy() -> None:
    energies = [performance.energy_j(w, HC1_RATE) for w in (200, 250)]
    assert energies == pytest.approx([11.8e-3, 14.7e-3], rel=0.01)


def test_t6_power_model_is_of_the_right_order() -> None:
    """The power model on HC1's published size, against its published 200 to 250 W a card."""
    macs, clock = 7.5e9, 1e9
    mac_pj = power.scaled_pj(0.3, 7, 45, 0.59)
    total = (
        power.arithmetic_j(macs, mac_pj, 10) * HC1_RATE
        + power.memory_j(134e6 * 8, power.scaled_pj(0.16, 7, 45, 0.59)) * HC1_RATE
        + power.clock_w(300, 500, 85, 0.15, clock)
        + power.leakage_w(300, 500, 0.06, 0.006)
    )
    assert 225 / 2 < total < 225 * 2


@pytest.mark.parametrize(
    ("card", "years", "usd"),
    [(1500, 1, 0.0067), (3000, 1, 0.0126), (5000, 1, 0.0205), (5000, 0.5, 0.039)],
)
def test_t7_price_a_million(card: float, years: float, usd: float) -> None:
    ours = economics.owned_usd_per_million(card, 0.05, HC1_RATE, 0.5, years, 250, 1.3, 0.08)
    assert ours == pytest.approx(usd, rel=0.01)


def test_t7_claim_implies_card_hour() -> None:
    """The claim of $0.0075 a million tokens is of the right order for a card of $1,500."""
    assert pytest.approx(0.458, rel=0.001) == 0.0075 * HC1_RATE * 3600 / 1e6
    ours = economics.owned_usd_per_million(1500, 0.05, HC1_RATE, 0.5, 1, 250, 1.3, 0.08)
    assert 0.5 < ours / 0.0075 < 2


def test_t8_claim_for_r1_needs_users_in_flight() -> None:
    chip_hour = 0.076 * 12_000 * 3600 / 1e6 / 30
    assert chip_hour == pytest.approx(0.109, rel=0.01)
    assert 0.458 / chip_hour > 4


def test_t9_per_user_and_aggregate_are_different_comparisons() -> None:
    assert pytest.approx(0.92, abs=0.01) == HC1_RATE / (147_000 / 8)
    assert pytest.approx(48, abs=0.1) == HC1_RATE / 353


def test_x1_h100_good_dies() -> None:
    good = die.dies_per_wafer(814) * yields.murphy(yields.mean_defects(814, 0.11))
    assert good == pytest.approx(27.5, abs=0.1)
    assert good == pytest.approx(28, abs=1)


def test_x2_h100_die_cost_with_and_without_harvest() -> None:
    assert cost.die_usd(16_988, 27.5) == pytest.approx(618, rel=0.01)
    assert cost.die_usd(16_988, 63 * 0.86) == pytest.approx(313, rel=0.01)


def test_x3_b200_bill_of_materials() -> None:
    """Two 800 mm2 dies: logic and the whole fall inside the published ranges."""
    murphy = yields.murphy(yields.mean_defects(800, 0.11))
    logic = 2 * cost.die_usd(16_988, die.dies_per_wafer(800) * murphy)
    assert 720 <= logic <= 1270
    total = cost.unit_usd(900, 0, 1, 1100, 480, 2950) + 1000
    assert 5700 <= total <= 7300
    assert total == pytest.approx(6400, rel=0.02)


def test_x4_chiplet_actuary() -> None:
    gross = die.dies_per_wafer_real(800, 300, 0.2, 5)
    good = yields.negative_binomial(yields.mean_defects(800, 0.11), 10)
    assert gross == pytest.approx(58.79, abs=0.01)
    assert good == pytest.approx(0.4302, abs=1e-4)
    assert cost.die_usd(16_988, gross) == pytest.approx(288.9, rel=1e-3)
    assert cost.die_usd(16_988, gross * good) == pytest.approx(671.6, rel=1e-3)
    assert nre.actuary_nre_usd(800, 542e6) == pytest.approx(542e6)


ITA = DesignFacts(
    name="ITA, TinyLlama in INT4",
    item="token",
    node_nm=28,
    library="analytical",
    predictive=True,
    weights_total=1_100_000_000,
    weights_nonzero=1_100_000_000,
    groups=(GroupArea("weights", 520e6),),
    memories=(),
    area_basis="modelled",
    critical_path_ns=1.0,
    clock_period_ns=1.0,
    cycles_per_item=1.0,
    macs_per_item=1.1e9,
    memory_bits_per_item=0.0,
    io_signals=100,
)


def test_x6_logic_below_a_gate_a_weight_is_infeasible() -> None:
    """ITA's analytical 520 mm2 for 1.1 billion weights at 28 nm: 0.47 um2 a weight."""
    with pytest.raises(UsageError, match=r"infeasible density: 0\.473 um2"):
        check_density(ITA, load_tables()["nodes"])


@pytest.mark.parametrize(
    "change",
    [
        {"weights_nonzero": 900_000_000},
        {"weights_per_place": 2.0},
        {"groups": (GroupArea("weights", 700e6),)},
        {"groups": (GroupArea("logic", 520e6),)},
        {"area_basis": "synthesised"},
        {"node_nm": 22},
    ],
    ids=str,
)
def test_x6_what_can_be_is_left_alone(change: dict[str, object]) -> None:
    check_density(replace(ITA, **change), load_tables()["nodes"])  # type: ignore[arg-type]
