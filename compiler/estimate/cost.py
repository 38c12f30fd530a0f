"""What one good, packaged and tested chip costs to make, in lots."""

from __future__ import annotations

import math


def die_usd(wafer_usd: float, good_dies: float) -> float:
    """A wafer's price over its good dies."""
    return wafer_usd / good_dies if good_dies > 0 else math.inf


def unit_usd(
    die_usd: float,
    probe_usd: float,
    package_yield: float,
    package_usd: float,
    test_usd: float,
    memory_usd: float = 0.0,
) -> float:
    """``(die + probe) / package yield + package + test + memory``."""
    return (die_usd + probe_usd) / package_yield + package_usd + test_usd + memory_usd


def wafers_needed(chips: float, good_dies: float) -> int:
    """Whole wafers for a number of good chips."""
    return math.ceil(chips / good_dies) if good_dies > 0 else 0


def wafers_bought(wafers: float, lot: float = 25) -> int:
    """A foundry sells whole lots; 25 wafers, 12 in a hot lot."""
    return math.ceil(wafers / lot) * math.ceil(lot)
