"""Curves of an estimate: price against volume, yield against area, cash against time, anchors."""

from __future__ import annotations

from dataclasses import dataclass

from hwcompile.compiler.estimate.economics import DAYS_PER_YEAR, rented_usd_per_million
from hwcompile.compiler.estimate.facts import DesignFacts
from hwcompile.compiler.estimate.figures import Table
from hwcompile.compiler.estimate.ledger import Ledger
from hwcompile.compiler.estimate.yields import MODELS, mean_defects

VOLUMES = tuple(10 ** (k / 2) for k in range(18, 34))
"""Items a year."""
UNITS = tuple(10 ** (k / 2) for k in range(6, 17))
"""Devices."""
AREAS_MM2 = (1, 2, 5, 10, 20, 50, 100, 150, 200, 300, 400, 500, 600, 700, 858)
RESPINS_PER_YEAR = (0, 0.5, 1, 2, 4)
CASH_POINTS = 24


@dataclass(frozen=True, slots=True)
class PricePoint:
    """Price at a volume: of a million items (volume in items a year), or of one device (devices).

    ``chip_usd`` carries the whole NRE, ``successor_usd`` that of a re-spin alone."""

    volume: float
    chip_usd: float
    successor_usd: float


@dataclass(frozen=True, slots=True)
class GpuPrice:
    """Rent of a million items on a GPU of the table: P10, middle and P90 of its figures."""

    name: str
    low_usd: float
    mid_usd: float
    high_usd: float


@dataclass(frozen=True, slots=True)
class YieldCurve:
    """Yield of one model at ``AREAS_MM2``."""

    model: str
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Cash:
    """Money spent and saved up to a time, undiscounted, at the middle of all inputs."""

    years: float
    usd: float


@dataclass(frozen=True, slots=True)
class Anchor:
    """Silicon a weight of a published system, or of this design."""

    name: str
    node_nm: float
    um2_per_weight: float


def price_curve(ledger: Ledger) -> tuple[PricePoint, ...]:
    """Price against volume, fleet and lots as each volume needs them."""
    if "price.full_usd_per_million" not in ledger:
        once, again = ledger.mid("nre.total_usd"), ledger.mid("nre.respin_usd")
        unit = ledger.mid("cost.copy_usd")
        return tuple(PricePoint(n, unit + once / n, unit + again / n) for n in UNITS)
    per_user = ledger.mid("scenario.items_per_user_day") * DAYS_PER_YEAR
    names = ("price.full_usd_per_million", "price.successor_usd_per_million")
    return tuple(
        PricePoint(
            volume, *(ledger.evaluate(n, {"scenario.users": volume / per_user}) for n in names)
        )
        for volume in VOLUMES
    )


def gpu_prices(ledger: Ledger, table: Table) -> tuple[GpuPrice, ...]:
    """What each GPU of the table asks for this model, well batched; see ``gpu.rate``."""
    macs = ledger.mid("design.macs_per_item")
    common = {k: table[f"common.{k}"] for k in ("overhead_s", "utilisation")}
    found = []
    for name in table.sections():
        if name == "common":
            continue
        rent, weights, rate = (
            table[f"{name}.{key}"] for key in ("usd_per_hour", "anchor_weights", "anchor_rate")
        )
        prices = []
        for end, other in (("low", "high"), ("value", "value"), ("high", "low")):
            seconds = macs / (weights.value * getattr(rate, other))
            seconds += getattr(common["overhead_s"], end)
            use = common["utilisation"].value
            prices.append(rented_usd_per_million(getattr(rent, end), 1 / seconds, use))
        found.append(GpuPrice(name, *prices))
    return tuple(found)


def yield_curves(ledger: Ledger) -> tuple[YieldCurve, ...]:
    """Yield against area at this node's defect density, by every model."""
    density = ledger.mid("node.defects_per_cm2")
    return tuple(
        YieldCurve(name, tuple(model(mean_defects(area, density)) for area in AREAS_MM2))
        for name, model in MODELS.items()
    )


def cash(ledger: Ledger) -> tuple[Cash, ...]:
    """NRE while the silicon is made, the fleet on its arrival, then what each year saves."""
    lag, life = ledger.mid("scenario.lag_years"), ledger.mid("scenario.life_years")
    once = ledger.mid("nre.total_usd")
    device = "value.silicon_usd" in ledger
    fleet, respins = ledger.mid("fleet.capex_usd"), ledger.mid("value.respins_usd")
    if device:
        saved = ledger.mid("scenario.users") * ledger.mid("edge.parts_usd") - fleet
    else:
        millions = ledger.mid("fleet.items_per_year") / 1e6
        price = ledger.mid("gpu.usd_per_million") - ledger.mid("price.running_usd_per_million")
        upkeep = fleet * ledger.mid("datacentre.upkeep_per_year")
        saved = (millions * price - upkeep) * max(0.0, life - lag)
    saved -= respins
    points = []
    for step in range(CASH_POINTS + 1):
        years = life * step / CASH_POINTS
        usd = -once * min(1.0, years / lag if lag else 1.0)
        if years >= lag and life > lag:
            usd += saved * (years - lag) / (life - lag) - (0.0 if device else fleet)
        points.append(Cash(years, usd))
    return tuple(points)


def break_even_by_respins(ledger: Ledger) -> tuple[tuple[float, float], ...]:
    """Re-spins a year, and the users (devices) that then repay NRE and re-spins."""
    name = "break_even.users" if "fleet.peak_rate" in ledger else "edge.break_even_units"
    life = ledger.mid("scenario.life_years")
    return tuple(
        (rate, ledger.evaluate(name, {"scenario.respins": rate * life}))
        for rate in RESPINS_PER_YEAR
    )


def anchors(ledger: Ledger, facts: DesignFacts, node_nm: float, table: Table) -> tuple[Anchor, ...]:
    """Published systems, and this design: its weights alone, and its die."""
    found = [
        Anchor(name, table[f"{name}.node_nm"].value, table[f"{name}.um2_per_weight"].value)
        for name in table.sections()
    ]
    if facts.weights_total:
        cells = sum(g.cell_area_um2 for g in facts.groups if g.group == "weights")
        all_cells = facts.cell_area_um2 or 1.0
        logic = (
            ledger.mid("area.cells_mm2") * cells / all_cells / ledger.mid("geometry.utilisation")
        )
        array = (logic + ledger.mid("area.rom_mm2")) * 1e6
        die = ledger.mid("area.die_mm2") * ledger.mid("area.dies") * 1e6
        own = (("this design, weights", array), ("this design, die", die))
        found += [Anchor(n, node_nm, area / facts.weights_total) for n, area in own if area]
    return tuple(found)
