"""Does it pay? Money a million items, break-even, fleet, present value.

An item is a token, or an inference of a model that makes no tokens. The alternative is what the
user would pay otherwise, usually a named GPU; "avoided cost" is what the chip saves against it.
"""

from __future__ import annotations

import math

from hwcompile.compiler.estimate.datacentre import HOURS_PER_YEAR

SECONDS_PER_YEAR = HOURS_PER_YEAR * 3600
DAYS_PER_YEAR = 365.0


# --- prices a million items --------------------------------------------------------------------


def gpu_rate(macs: float, flops_per_s: float, overhead_s: float) -> float:
    """Items a second of a well-batched GPU: ``1 / (2 macs / flops + overhead)``.

    ``flops_per_s`` is the achieved rate (from a published serving result); ``overhead_s`` is host,
    sampling and network time an item, which bounds how cheap a tiny model can become.
    """
    return 1 / (2 * macs / flops_per_s + overhead_s)


def gpu_per_user_rate(weights: float, bytes_per_s: float, floor_s: float) -> float:
    """Items a second of one sequence alone: all weights (one byte each) are read for each."""
    return 1 / (weights / bytes_per_s + floor_s)


def rented_usd_per_million(usd_per_hour: float, rate: float, utilisation: float) -> float:
    """Price of a million items on a rented machine."""
    return usd_per_hour / (rate * 3600 * utilisation) * 1e6


def owned_usd_per_million(
    capex_usd: float,
    upkeep_per_year: float,
    rate: float,
    utilisation: float,
    years: float,
    power_w: float,
    pue: float,
    usd_per_kwh: float,
) -> float:
    """Price of a million items on a machine of one's own, kept ``years``; NRE apart."""
    if years <= 0:
        return math.inf
    millions = rate * utilisation * years * SECONDS_PER_YEAR / 1e6
    capital = capex_usd * (1 + upkeep_per_year * years) / millions
    return capital + energy_usd_per_million(power_w, rate, utilisation, pue, usd_per_kwh)


def energy_usd_per_million(
    power_w: float, rate: float, utilisation: float, pue: float, usd_per_kwh: float
) -> float:
    """Energy bill of a million items, at full power whatever the use."""
    return power_w * pue / 1000 * usd_per_kwh / (rate * utilisation * 3600) * 1e6


def building_usd_per_million(
    power_w: float,
    rate: float,
    utilisation: float,
    pue: float,
    usd_per_w: float,
    building_years: float,
) -> float:
    """Share of the building of a million items, written off evenly over its life."""
    millions_per_year = rate * utilisation * SECONDS_PER_YEAR / 1e6
    return power_w * pue * usd_per_w / building_years / millions_per_year


# --- tests ----------------------------------------------------------------------------------------


def revenue_share(nre_usd: float, users: float, usd_per_month: float, months: float) -> float:
    """NRE as a share of what the users pay. Small is necessary, never sufficient."""
    return nre_usd / (users * usd_per_month * months)


def break_even_items(once_usd: float, saving_usd_per_million: float) -> float:
    """Items that repay ``once_usd``; infinite when nothing is saved."""
    if saving_usd_per_million <= 0:
        return math.inf
    return once_usd / saving_usd_per_million * 1e6


def break_even_users(items: float, items_per_user_day: float, years: float) -> float:
    """Users who ask for ``items`` in ``years``."""
    if years <= 0:
        return math.inf
    return items / (items_per_user_day * DAYS_PER_YEAR * years)


def break_even_units(once_usd: float, alternative_usd: float, unit_usd: float) -> float:
    """Devices sold that repay ``once_usd`` when the chip replaces a dearer part."""
    saving = alternative_usd - unit_usd
    return once_usd / saving if saving > 0 else math.inf


# --- fleet and value ------------------------------------------------------------------------------


def peak_rate(users: float, items_per_user_day: float, peak: float) -> float:
    """Items a second at the busiest time."""
    return users * items_per_user_day / 86400 * peak


def fleet_chips(peak_rate: float, chip_rate: float, dies_per_set: float, spare: float) -> int:
    """Chips for the peak, in whole sets, with spares."""
    return math.ceil(math.ceil(peak_rate / chip_rate) * dies_per_set * (1 + spare))


def discounted_years(start: float, end: float, rate: float) -> float:
    """Integral of ``exp(-rate t)`` from ``start`` to ``end``; 0 when they cross."""
    if end <= start:
        return 0.0
    if abs(rate) < 1e-12:
        return end - start
    return (math.exp(-rate * start) - math.exp(-rate * end)) / rate


def share_sold(start: float, end: float, rate: float) -> float:
    """Present value of 1 a unit, units sold evenly from ``start`` to ``end``; 0 if they cross."""
    return discounted_years(start, end, rate) / (end - start) if end > start else 0.0


def full_usd_per_million(
    once_usd: float, capex_usd: float, upkeep_per_year: float, years: float, items_per_year: float
) -> float:
    """All that is paid but for running it, over the items of the useful life."""
    if years <= 0 or items_per_year <= 0:
        return math.inf
    paid = once_usd + capex_usd * (1 + upkeep_per_year * years)
    return paid / (items_per_year * years) * 1e6


def useful_years(years: float, hazard: float) -> float:
    """Expected life when the model becomes obsolete at ``hazard`` a year."""
    return discounted_years(0.0, years, hazard)
