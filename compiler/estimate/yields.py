"""Yield of a die from its area and the density of killing defects.

``x = area * defects`` is the mean number of defects a die; area in mm2, defects in 1/cm2.
"""

from __future__ import annotations

import math
from collections.abc import Callable


def mean_defects(area_mm2: float, defects_per_cm2: float) -> float:
    """Mean number of killing defects on a die."""
    return area_mm2 * defects_per_cm2 / 100


def poisson(x: float) -> float:
    """Defects fall independently and evenly."""
    return math.exp(-x)


def murphy(x: float) -> float:
    """Defect density spread as a triangle (Murphy, 1964)."""
    return (-math.expm1(-x) / x) ** 2 if x > 0 else 1.0


def seeds(x: float) -> float:
    """Exponential spread (Seeds, 1967): the most hopeful for large dies."""
    return 1 / (1 + x)


def rectangular(x: float) -> float:
    """Uniform spread from none to twice the mean."""
    return -math.expm1(-2 * x) / (2 * x) if x > 0 else 1.0


def moore(x: float) -> float:
    """``exp(-sqrt(x))``: early, pessimistic for small dies."""
    return math.exp(-math.sqrt(x))


def bose_einstein(x: float, layers: float) -> float:
    """``layers`` critical layers, ``x`` defects on each."""
    return float((1 + x) ** -layers)


def negative_binomial(x: float, alpha: float) -> float:
    """Clustered defects; ``alpha`` to infinity is Poisson, ``alpha = 1`` is Seeds."""
    return float((1 + x / alpha) ** -alpha)


MODELS: dict[str, Callable[[float], float]] = {
    "Poisson": poisson,
    "Murphy": murphy,
    "Seeds": seeds,
    "rectangular": rectangular,
    "Moore": moore,
    "Bose-Einstein, 10 layers": lambda x: bose_einstein(x / 10, 10),
    "negative binomial, alpha 2": lambda x: negative_binomial(x, 2),
    "negative binomial, alpha 3": lambda x: negative_binomial(x, 3),
    "negative binomial, alpha 10": lambda x: negative_binomial(x, 10),
}


def tolerant(critical: float, spare_mean: float, spare_limit: float) -> float:
    """Yield when up to ``spare_limit`` defects in the non-critical area do no harm.

    ``critical``: yield of the critical area; ``spare_mean``: mean defects in the rest (Poisson).
    Holds for ROM and via weights only, where a defect costs one weight.
    """
    term = total = math.exp(-spare_mean)
    for k in range(1, math.floor(spare_limit) + 1):
        term *= spare_mean / k
        total += term
    return critical * min(1.0, total)
