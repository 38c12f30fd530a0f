"""The estimate of one design under one scenario: all numbers, tables beside them, the verdict."""

from __future__ import annotations

from dataclasses import dataclass

from hwcompile.compiler.estimate import curves, nodes
from hwcompile.compiler.estimate.decision import Swing, Verdict, decide, learned_values, swings
from hwcompile.compiler.estimate.density import check_density
from hwcompile.compiler.estimate.die import RETICLE_MM, fits_reticle, grid_dies
from hwcompile.compiler.estimate.facts import DesignFacts
from hwcompile.compiler.estimate.ledger import Ledger, Quantity, percentile
from hwcompile.compiler.estimate.scenario import Scenario
from hwcompile.compiler.estimate.service import record_service
from hwcompile.compiler.estimate.shuttle import Route, cheapest, routes
from hwcompile.compiler.estimate.silicon import Tables, record_silicon
from hwcompile.compiler.estimate.yields import MODELS

NPV = "value.npv_usd"
SWINGS_SHOWN = 8
MAP_USERS = tuple(10.0**k for k in range(4, 11))
MAP_YEARS = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
QUANTILES = tuple(k / 20 for k in range(1, 20))
LEARNED_DRAWS = 250
DIES_DRAWN = 2000


@dataclass(frozen=True, slots=True)
class NodePoint:
    """The design projected to a node: die, cost at volume, NRE; ``total_usd`` is the NRE and the
    chips that the scenario's fleet takes at the design's own node."""

    node_nm: str
    die_mm2: float
    die_usd: float
    chip_usd: float
    nre_usd: float
    total_usd: float


@dataclass(frozen=True, slots=True)
class WaferMap:
    """Exact placement of whole dies, lower left corners in mm from the centre of the wafer.

    A die is square, or as wide as an exposure field when a square one would not fit it. ``dies``
    is empty when they are too many to draw.
    """

    width_mm: float
    height_mm: float
    diameter_mm: float
    edge_mm: float
    count: int
    formula_count: int
    dies: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class MapPoint:
    """Net present value at a number of users and a life of the model, all else at the middle."""

    users: float
    life_years: float
    npv_usd: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """``quantities`` in order of derivation; ``node`` is the key of the node table in use."""

    facts: DesignFacts
    scenario: Scenario
    node: str
    draws: int
    quantities: tuple[Quantity, ...]
    verdict: Verdict
    swings: tuple[Swing, ...]
    routes: tuple[Route, ...]
    yields: tuple[tuple[str, float], ...]
    sweep: tuple[NodePoint, ...]
    wafer: WaferMap
    npv_quantiles_usd: tuple[tuple[float, float], ...]
    npv_map: tuple[MapPoint, ...]
    price_curve: tuple[curves.PricePoint, ...]
    gpu_prices: tuple[curves.GpuPrice, ...]
    yield_curves: tuple[curves.YieldCurve, ...]
    yield_areas_mm2: tuple[float, ...]
    cash: tuple[curves.Cash, ...]
    break_even_by_respins: tuple[tuple[float, float], ...]
    anchors: tuple[curves.Anchor, ...]

    def by_name(self) -> dict[str, Quantity]:
        """Quantities by name, for :func:`hwcompile.compiler.estimate.explain.explain`."""
        return {q.name: q for q in self.quantities}


def estimate(facts: DesignFacts, scenario: Scenario, tables: Tables, draws: int = 1000) -> Estimate:
    """Estimate a design. Deterministic: the draws are seeded by the names of the inputs.

    Raises UsageError when the area cannot be: see :func:`density.check_density`.
    """
    check_density(facts, tables["nodes"])
    node = nodes.nearest(tables["nodes"], facts.node_nm)
    ledger = Ledger(draws)
    record_silicon(ledger, facts, tables, node)
    record_service(ledger, facts, scenario, tables)
    found = routes(facts, tables)
    route = cheapest(found)
    verdict = decide(
        ledger.samples(NPV),
        learned_values(ledger, NPV, LEARNED_DRAWS),
        ledger.mid("scenario.loss_cap_usd"),
        ledger.mid("scenario.required_probability"),
        route.mid_usd if route else None,
    )
    defects = ledger.mid("yield.defects")
    return Estimate(
        facts,
        scenario,
        node,
        draws,
        _used(ledger),
        verdict,
        swings(ledger, NPV, SWINGS_SHOWN),
        found,
        tuple((name, model(defects)) for name, model in MODELS.items()),
        tuple(
            _point(facts, tables, key, ledger.mid("fleet.chips"))
            for key in tables["nodes"].sections()
        ),
        _wafer_map(ledger),
        tuple((share, percentile(ledger.samples(NPV), share)) for share in QUANTILES),
        tuple(
            MapPoint(users, years, ledger.evaluate(NPV, _market(users, years)))
            for years in MAP_YEARS
            for users in MAP_USERS
        ),
        curves.price_curve(ledger),
        curves.gpu_prices(ledger, tables["gpus"]),
        curves.yield_curves(ledger),
        curves.AREAS_MM2,
        curves.cash(ledger),
        curves.break_even_by_respins(ledger),
        curves.anchors(ledger, facts, float(node), tables["anchors"]),
    )


def _market(users: float, years: float) -> dict[str, float]:
    return {"scenario.users": users, "scenario.life_years": years}


def _used(ledger: Ledger) -> tuple[Quantity, ...]:
    """All but the given numbers that nothing rests on; those of the scenario stay."""
    inputs = {key for quantity in ledger for _, key in quantity.inputs}
    return tuple(
        q for q in ledger if q.formula or q.name in inputs or q.name.startswith("scenario.")
    )


def _point(facts: DesignFacts, tables: Tables, node: str, chips: float) -> NodePoint:
    ledger = Ledger(draws=1)
    record_silicon(ledger, facts, tables, node)
    names = ("area.die_mm2", "cost.die_usd", "cost.chip_usd", "nre.total_usd")
    die_mm2, die_usd, chip_usd, nre_usd = (ledger.mid(name) for name in names)
    return NodePoint(node, die_mm2, die_usd, chip_usd, nre_usd, nre_usd + chips * chip_usd)


def _wafer_map(ledger: Ledger) -> WaferMap:
    area = ledger.mid("area.die_mm2")
    side = area**0.5
    width = side if fits_reticle(side, side) else RETICLE_MM[0]
    height = area / width
    diameter, edge = ledger.mid("geometry.wafer_mm"), ledger.mid("geometry.edge_mm")
    dies = grid_dies(width, height, diameter, ledger.mid("geometry.scribe_mm"), edge, offsets=4)
    formula = round(ledger.mid("yield.gross_dies"))
    drawn = tuple(dies) if len(dies) <= DIES_DRAWN else ()
    return WaferMap(width, height, diameter, edge, len(dies), formula, drawn)
