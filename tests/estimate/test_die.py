import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcompile.compiler.estimate import die


@pytest.mark.parametrize(
    ("area", "diameter", "gross"),
    [
        (100, 300, 640),
        (400, 300, 143),
        (520, 300, 106),
        (814, 300, 63),
        (815, 300, 63),
        (827.08, 300, 62),
        (100, 200, 269),
    ],
)
def test_published_gross_dies(area: float, diameter: float, gross: int) -> None:
    assert die.dies_per_wafer(area, diameter) == gross


def test_actuary_gross_dies_with_scribe_and_edge() -> None:
    assert die.dies_per_wafer_real(800, 300, 0.2, 5) == pytest.approx(58.79, abs=0.005)


@pytest.mark.parametrize(("edge", "count"), [(2, 68), (3, 65), (5, 62)])
def test_exact_placement_of_a_reticle_size_die(edge: float, count: int) -> None:
    """A finer search of the offset may place one die more than the published count."""
    placed = len(die.grid_dies(28.76, 28.76, 300, 0.1, edge, offsets=40))
    assert count <= placed <= count + 1


@given(st.floats(2, 40), st.floats(2, 40), st.floats(0, 6))
def test_placed_dies_lie_on_the_wafer(width: float, height: float, edge: float) -> None:
    radius = 150 - edge
    placed = die.grid_dies(width, height, 300, 0.1, edge, offsets=3)
    assert len(placed) * width * height <= math.pi * radius**2
    for x, y in placed:
        assert (
            max(abs(x), abs(x + width)) ** 2 + max(abs(y), abs(y + height)) ** 2
            <= (radius + 1e-9) ** 2
        )


@given(st.floats(0.1, 2000), st.floats(0, 0.3), st.floats(0, 6))
def test_gross_dies_fit_the_wafer_and_fall_with_area(area: float, kerf: float, edge: float) -> None:
    gross = die.dies_per_wafer(area, 300, kerf, edge)
    assert gross * area <= math.pi * 150**2
    assert die.dies_per_wafer(area * 1.01, 300, kerf, edge) <= gross


def test_reticle_takes_either_orientation() -> None:
    assert die.fits_reticle(33, 26) and die.fits_reticle(26, 33)
    assert not die.fits_reticle(27, 27)


def test_a_small_core_is_limited_by_its_pads() -> None:
    assert die.die_area_mm2(0.01, 80, 60, 120) == pytest.approx((20 * 0.06 + 0.24) ** 2)
    assert die.die_area_mm2(100, 80, 60, 120) == pytest.approx(10.24**2)
