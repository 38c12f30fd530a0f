"""What it costs to house and feed a system: facility, power, upkeep, carbon."""

from __future__ import annotations

HOURS_PER_YEAR = 8760.0


def facility_mw(it_mw: float, pue: float) -> float:
    """Power drawn from the grid for ``it_mw`` of equipment."""
    return it_mw * pue


def infrastructure_usd(facility_mw: float, usd_per_mw: float, network_usd: float = 0.0) -> float:
    """Building and network; price a megawatt of facility (not equipment) power."""
    return facility_mw * usd_per_mw + network_usd


def electricity_usd(facility_mw: float, years: float, usd_per_kwh: float) -> float:
    """Energy bill at full load."""
    return facility_mw * 1000 * years * HOURS_PER_YEAR * usd_per_kwh


def maintenance_usd(
    capex_usd: float, years: float, rate_per_year: float, units: float = 0, licence_usd: float = 0
) -> float:
    """Upkeep as a share of capital a year, and a licence a unit for the whole time."""
    return capex_usd * rate_per_year * years + units * licence_usd


def carbon_tonnes(
    facility_mw: float, years: float, kg_per_kwh: float, modules: float, module_kg: float
) -> float:
    """Operating and embodied carbon."""
    return (facility_mw * 1000 * years * HOURS_PER_YEAR * kg_per_kwh + modules * module_kg) / 1000
