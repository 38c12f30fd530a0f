"""Multi-project wafers: which carry the design, and what the first chips cost."""

from __future__ import annotations

from dataclasses import dataclass

from hwcompile.compiler.estimate import nodes
from hwcompile.compiler.estimate.facts import DesignFacts
from hwcompile.compiler.estimate.figures import Figure, Table
from hwcompile.compiler.estimate.ledger import Ledger
from hwcompile.compiler.estimate.silicon import Tables, record_silicon


@dataclass(frozen=True, slots=True)
class Route:
    """One shuttle. ``area_mm2`` is the core of this design projected to its node; prices are for
    the whole order, None when the design does not fit."""

    name: str
    node_nm: float
    area_mm2: float
    limit_mm2: float
    fits: bool
    chips: float
    months: float
    low_usd: float | None
    mid_usd: float | None
    high_usd: float | None
    grade: str


def routes(facts: DesignFacts, tables: Tables) -> tuple[Route, ...]:
    """Every shuttle of the table, those that fit first, cheapest first."""
    table = tables["shuttles"]
    found = [_route(name, facts, tables, table) for name in table.sections()]
    return tuple(sorted(found, key=lambda r: (not r.fits, r.mid_usd or 0.0, r.name)))


def cheapest(found: tuple[Route, ...]) -> Route | None:
    """The cheapest shuttle that carries the design."""
    return next((route for route in found if route.fits), None)


def _route(name: str, facts: DesignFacts, tables: Tables, table: Table) -> Route:
    node_nm = table[f"{name}.node_nm"].value
    ledger = Ledger(draws=1)
    record_silicon(ledger, facts, tables, nodes.nearest(tables["nodes"], node_nm))
    area = ledger.mid("area.core_mm2")
    limit = table[f"{name}.limit_mm2"].value
    fits = area <= limit
    extra = max(0.0, area - table[f"{name}.included_mm2"].value)
    base, rate = table[f"{name}.base_usd"], table[f"{name}.usd_per_mm2"]
    price = [b + extra * r for b, r in zip(_ends(base), _ends(rate), strict=True)]
    low, mid, high = price if fits else (None, None, None)
    return Route(
        name,
        node_nm,
        area,
        limit,
        fits,
        table[f"{name}.chips"].value,
        table[f"{name}.months"].value,
        low,
        mid,
        high,
        base.grade,
    )


def _ends(figure: Figure) -> tuple[float, float, float]:
    return figure.low, figure.value, figure.high
