import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcompile.compiler.estimate import yields

PUBLISHED = (
    "Poisson",
    "Murphy",
    "Seeds",
    "negative binomial, alpha 2",
    "negative binomial, alpha 3",
    "negative binomial, alpha 10",
)
VECTORS = [
    # area mm2, defects /cm2: Poisson, Murphy, Seeds, alpha 2, 3, 10
    (100, 0.10, (0.9048, 0.9056, 0.9091, 0.9070, 0.9063, 0.9053)),
    (400, 0.09, (0.6977, 0.7052, 0.7353, 0.7182, 0.7118, 0.7021)),
    (815, 0.09, (0.4802, 0.5021, 0.5769, 0.5353, 0.5188, 0.4927)),
    (827.08, 0.11, (0.4026, 0.4312, 0.5236, 0.4724, 0.4518, 0.4186)),
    (815 * 0.4, 0.09, (0.7457, 0.7511, 0.7732, 0.7605, 0.7558, 0.7489)),
]


@pytest.mark.parametrize(("area", "density", "expected"), VECTORS)
def test_published_vectors(area: float, density: float, expected: tuple[float, ...]) -> None:
    x = yields.mean_defects(area, density)
    assert [yields.MODELS[name](x) for name in PUBLISHED] == pytest.approx(expected, abs=6e-5)


ALL = [*yields.MODELS.values(), yields.rectangular, yields.moore]


@given(st.floats(1e-6, 50), st.sampled_from(ALL))
def test_a_yield_lies_in_zero_to_one_and_falls_with_defects(x: float, model) -> None:
    assert 0 < model(x) <= 1
    assert model(x * 1.1) <= model(x)


def test_no_defects_no_loss() -> None:
    assert [model(0.0) for model in ALL] == [1.0] * len(ALL)


def test_negative_binomial_runs_from_seeds_to_poisson() -> None:
    assert yields.negative_binomial(0.7, 1) == pytest.approx(yields.seeds(0.7))
    assert yields.negative_binomial(0.7, 1e9) == pytest.approx(yields.poisson(0.7))


def test_harmless_defects_add_yield() -> None:
    strict = yields.tolerant(0.75, 0.44, 0)
    assert strict == pytest.approx(0.75 * math.exp(-0.44))
    assert strict < yields.tolerant(0.75, 0.44, 2) < 0.75


def test_bose_einstein_of_one_layer_is_seeds() -> None:
    assert yields.bose_einstein(0.3, 1) == pytest.approx(yields.seeds(0.3))
