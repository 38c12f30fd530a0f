import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcompile.compiler.estimate import cost, economics

M = 1e6


@pytest.mark.parametrize(
    ("saving", "nre", "tera_tokens", "users"),
    [
        # $/Mtoken saved, $M once, 1e12 tokens, M users at a life of 0.5, 1, 2, 10 years
        (0.063, 0.3, 4.8, (5.2, 2.6, 1.3, 0.26)),
        (0.063, 2, 31.7, (34.8, 17.4, 8.7, 1.7)),
        (0.063, 10, 159, (174, 87, 43, 8.7)),
        (0.063, 30, 476, (522, 261, 130, 26)),
        (0.177, 30, 170, (186, 93, 46, 9.3)),
        (0.326, 30, 92, (101, 50, 25, 5.0)),
    ],
)
def test_published_break_even(
    saving: float, nre: float, tera_tokens: float, users: tuple[float, ...]
) -> None:
    tokens = economics.break_even_items(nre * M, saving)
    assert tokens / 1e12 == pytest.approx(tera_tokens, rel=0.01)
    ours = [economics.break_even_users(tokens, 5000, years) / M for years in (0.5, 1, 2, 10)]
    assert ours == pytest.approx(users, rel=0.03)


def test_nothing_saved_never_breaks_even() -> None:
    assert economics.break_even_items(1.0, 0.0) == math.inf
    assert economics.break_even_units(1.0, 2.0, 3.0) == math.inf
    assert economics.break_even_users(1.0, 1.0, 0.0) == math.inf


@pytest.mark.parametrize(
    ("hourly", "rate", "utilisation", "usd"),
    [
        (2.00, 13_348, 1.0, 0.042),
        (2.00, 13_348, 0.5, 0.083),
        (3.70, 18_400, 0.5, 0.112),
        (2.00, 2_209, 0.5, 0.50),
        (2.90, 2_587, 1.0, 0.31),
        (3.70, 6_920, 0.5, 0.30),
        (2.00, 4_685, 0.5, 0.237),
    ],
)
def test_published_gpu_prices(hourly: float, rate: float, utilisation: float, usd: float) -> None:
    ours = economics.rented_usd_per_million(hourly, rate, utilisation)
    assert ours == pytest.approx(usd, rel=0.02)


def test_published_hardware_prices() -> None:
    """$0.020 a million tokens for 8B on one card, 0.18 for 70B on a set of four."""
    eight = economics.owned_usd_per_million(2500, 0.05, 16_960, 0.5, 0.5, 250, 1.3, 0.08)
    seventy = economics.owned_usd_per_million(10_000, 0.05, 7750, 0.5, 0.5, 1000, 1.3, 0.08)
    assert eight == pytest.approx(0.020, rel=0.02)
    assert seventy == pytest.approx(0.18, rel=0.03)


def test_fleet_of_100_million_users() -> None:
    peak = economics.peak_rate(100 * M, 5000, 2)
    assert peak == pytest.approx(11.57e6, rel=1e-3)
    chips = economics.fleet_chips(peak, 16_960, 1, 0)
    assert chips == 683
    assert cost.wafers_needed(chips, 31.6) == 22
    assert cost.wafers_bought(22) == 25


def test_a_small_model_is_cheap_on_a_gpu_too() -> None:
    """The GPU's rate grows as the model shrinks, until the overhead of an item bounds it."""
    flops = 2 * 8.03e9 * 13_348
    rates = [economics.gpu_rate(n, flops, 1e-6) for n in (8.03e9, 8.03e7, 8.03e5, 8.03e3)]
    assert rates[0] == pytest.approx(13_348, rel=0.02)
    assert rates[1] / rates[0] > 40
    assert rates[3] == pytest.approx(1e6, rel=0.01)


@given(st.floats(0.01, 1), st.floats(1.01, 2))
def test_price_falls_with_use(utilisation: float, factor: float) -> None:
    def price(u: float) -> float:
        return economics.owned_usd_per_million(1000, 0.05, 1e4, u, 1, 100, 1.3, 0.1)

    assert price(min(1.0, utilisation * factor)) <= price(utilisation)


@given(st.floats(0, 3), st.floats(0, 3), st.floats(-0.5, 1))
def test_discounted_years_are_bounded_by_the_calendar(
    start: float, length: float, rate: float
) -> None:
    years = economics.discounted_years(start, start + length, rate)
    assert years >= 0
    if rate >= 0:
        assert years <= length + 1e-9
    assert economics.discounted_years(start + length, start, rate) == 0.0


def test_obsolescence_shortens_the_useful_life() -> None:
    assert economics.useful_years(2, 0) == 2
    assert economics.useful_years(2, 0.5) == pytest.approx((1 - math.exp(-1)) / 0.5)
