"""The HTML page of a report document: words, numbers and pictures for a decision maker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from hwcompile.compiler.emit import charts, plots
from hwcompile.compiler.estimate.explain import number

ADVICE = {
    "BUILD": "Make the chip.",
    "SHUTTLE": "Make a few on a multi-project wafer first, then decide.",
    "RENT": "Do not make this chip; run the model on what can be rented.",
}
LINE_NAMES = {
    "nre.tools_ip_usd": "tools and IP",
    "nre.shared_masks_usd": "masks, shared",
    "nre.variable_masks_usd": "masks, by weights",
    "nre.physical_usd": "physical design",
    "nre.bring_up_usd": "bring-up and test",
}
GROUP_NAMES = {"kv": "KV cache", "data": "data memory", "table": "table memory"}
_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def page(report: Mapping[str, Any]) -> str:
    """Render the page; all text of the document is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hwcompile.compiler.emit", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, money=money, compact=compact, percent=percent, count=count
    )
    estimate = report["estimate"]
    view = {} if estimate is None else _estimate_view(estimate)
    template = environment.get_template("report.html.j2")
    return template.render(report=report, estimate=estimate, **view)


# --- numbers ------------------------------------------------------------------------------------


def compact(value: float | None, digits: int = 3) -> str:
    """``1,370,000`` as ``1.37 M``; null and infinite as ``∞``."""
    if value is None or not math.isfinite(value):
        return number(value)
    for limit, suffix in _SUFFIXES:
        if abs(value) >= limit * (1 - 0.5 * 10**-digits):
            return f"{number(value / limit, digits)} {suffix}"
    return number(value, digits)


def money(value: float | None, digits: int = 3) -> str:
    """US dollars: whole cents from one to a hundred, ``k``, ``M`` and ``B`` from a thousand on."""
    if value is None or not math.isfinite(value):
        return number(value)
    amount = abs(value)
    text = f"{amount:.2f}" if 0.995 <= amount < 99.995 else compact(amount, digits)
    return f"\N{MINUS SIGN}${text}" if value < 0 else f"${text}"


def prefixed(value: float, unit: str) -> str:
    """A small physical quantity with the prefix of its unit: ``0.0213 W`` as ``21.3 mW``."""
    if not value:
        return f"0 {unit}"
    for factor, prefix in ((1.0, ""), (1e3, "m"), (1e6, "µ"), (1e9, "n")):
        if abs(value) * factor >= 1:
            return f"{number(value * factor, 3)} {prefix}{unit}"
    return f"{number(value * 1e12, 3)} p{unit}"


def watts(value: float) -> str:
    """A power with its prefix."""
    return prefixed(value, "W")


def count(value: float) -> str:
    """A whole number, every digit of it."""
    return f"{value:,.0f}"


def percent(value: float | None, digits: int = 3) -> str:
    """A share in percent."""
    return "not known" if value is None else f"{number(100 * value, digits)} %"


# --- pictures and tables ------------------------------------------------------------------------


def _estimate_view(estimate: Mapping[str, Any]) -> dict[str, Any]:
    numbers = estimate["quantities"]
    mids = {name: entry["mid"] for name, entry in numbers.items()}
    ordered = sorted(numbers.items(), key=lambda item: item[1]["order"])
    return {
        "n": numbers,
        "mid": mids,
        "span": lambda name, style=compact: _span(numbers[name], style),
        "area_rows": _area_rows(estimate),
        "pictures": _pictures(estimate),
        "given": [(name, entry) for name, entry in ordered if not entry["formula"]],
        "derived": [(name, entry) for name, entry in ordered if entry["formula"]],
        "alternative": alternative_name(estimate),
        "in_device": in_device(estimate),
        "advice": ADVICE[estimate["verdict"]["name"]],
        "pad_limited": _pad_limited(mids),
        "zeros_cost_um2": _zeros_cost_um2(estimate["facts"]),
        "style_watts": watts,
        "style_joules": lambda value: prefixed(value, "J"),
        "style_money": money,
        "style_percent": percent,
    }


def in_device(estimate: Mapping[str, Any]) -> bool:
    """Whether the chip replaces a part of a device, not a rented GPU."""
    return "value.silicon_usd" in estimate["quantities"]


def alternative_name(estimate: Mapping[str, Any]) -> str:
    """The GPU that the chip is compared with; for a device the one of the reference."""
    basis = str(estimate["quantities"]["gpu.usd_per_million"]["note"])
    return basis.removeprefix("basis: aggregate, ").partition(" ")[0]


def _zeros_cost_um2(facts: Mapping[str, Any]) -> float | None:
    """Area of the zero weights if each took the mean of a non-zero one; None without any."""
    area = sum(g["cell_area_um2"] for g in facts["groups"] if g["group"] == "weights")
    if not area or not facts["weights_nonzero"]:
        return None
    zeros = facts["weights_total"] - facts["weights_nonzero"]
    return float(area / facts["weights_nonzero"] * zeros)


def _pad_limited(mids: Mapping[str, float]) -> bool:
    """Whether the pads, not the core inside its ring, set the size of the die."""
    ring = 2 * mids["geometry.pad_ring_um"] / 1000
    core_side = math.sqrt(mids["area.core_mm2"] / mids["area.dies"] + mids["area.beside_mm2"])
    return math.sqrt(mids["area.die_mm2"]) > core_side + ring + 1e-3


def _span(entry: Mapping[str, Any], style: Any) -> str:
    """``mid (low to high)``, or ``mid`` alone when there is no range."""
    low, mid, high = (entry[key] for key in ("low", "mid", "high"))
    return (
        str(style(mid)) if low == mid == high else f"{style(mid)} ({style(low)} to {style(high)})"
    )


def _label(name: str) -> str:
    """A quantity's name as words: ``power.clock_w`` to ``clock``."""
    last = name.rpartition(".")[2].removesuffix("_usd").removesuffix("_w")
    return LINE_NAMES.get(name, last.replace("_", " "))


def _area_rows(estimate: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    """Parts of all dies of one copy, mm2: cells by group, memories by kind, the rest.

    Routing room is what utilisation leaves between the cells.
    """
    facts, quantities = estimate["facts"], estimate["quantities"]
    mids = {name: entry["mid"] for name, entry in quantities.items()}
    cells = mids["area.cells_mm2"]
    all_cells = sum(group["cell_area_um2"] for group in facts["groups"]) or 1.0
    rows = [
        (group["group"], cells * group["cell_area_um2"] / all_cells, "cells")
        for group in facts["groups"]
    ]
    bit_um2 = mids["node.sram_bit_um2"] / next(
        mids[f"{table}.memory_efficiency"]
        for table in ("embedding", "geometry")
        if f"{table}.memory_efficiency" in mids
    )
    scale = mids.get("area.cell_ratio", 1.0)
    kinds: dict[str, float] = {}
    for memory in facts["memories"]:
        if memory["kind"] == "rom":
            continue
        sized = memory["area_um2"]
        area = memory["bits"] * bit_um2 if sized is None else sized * scale
        kinds[memory["kind"]] = kinds.get(memory["kind"], 0.0) + area
    rows += [(GROUP_NAMES.get(kind, kind), area / 1e6, "memory") for kind, area in kinds.items()]
    rows.append(("weights in ROM", mids["area.rom_mm2"], "memory"))
    rows.append(("of the published machine", mids.get("area.logic_mm2", 0.0), "logic"))
    beside = mids["area.beside_mm2"] * mids["area.dies"]
    rows.append(("links and interfaces", beside, "links"))
    rows = [row for row in rows if row[1]]
    die = mids["area.die_mm2"] * mids["area.dies"]
    memory_mm2 = mids["area.memory_mm2"] + mids["area.rom_mm2"]
    fixed = memory_mm2 + mids.get("area.logic_mm2", 0.0)
    rows.append(("room for wires", mids["area.core_mm2"] - fixed - cells, "fill"))
    rows.append(("pads and ring", die - mids["area.core_mm2"] - beside, "pads"))
    return rows


def _pictures(estimate: Mapping[str, Any]) -> dict[str, Markup]:
    made = {
        "area": _area_picture(estimate),
        "nre": _range_picture(estimate, "What is paid once", _nre_lines(estimate)),
        "power": _range_picture(
            estimate,
            "Power of one copy of the model at full load",
            [key for _, key in estimate["quantities"]["power.chip_w"]["inputs"]],
            watts,
        ),
        "tornado": _tornado(estimate),
        "distribution": _distribution(estimate),
        "map": _map(estimate),
        "wafer": _wafer(estimate),
        "unit": _unit_cost(estimate),
        "price": _price(estimate),
        "yields": _yields(estimate),
        "anchors": _anchors(estimate),
        "cash": plots.cash_plot(
            "Cash over the life of the model, undiscounted",
            [(p["years"], p["usd"]) for p in estimate["cash"] if p["usd"] is not None],
            lambda v: money(v, 2),
        ),
    }
    return {name: Markup(text) for name, text in made.items()}  # charts escape their text


def _area_picture(estimate: Mapping[str, Any]) -> str:
    rows = [
        (name, area, f"{number(area, 3)} mm²")
        for name, area, kind in _area_rows(estimate)
        if kind != "pads"
    ]
    return charts.treemap("Area of the core by part", rows)


def _nre_lines(estimate: Mapping[str, Any]) -> list[str]:
    total = estimate["quantities"]["nre.total_usd"]
    return [key for _, key in total["inputs"]]


def _range_picture(
    estimate: Mapping[str, Any], title: str, names: Sequence[str], style: Any = money
) -> str:
    entries = [(name, estimate["quantities"][name]) for name in names]
    return charts.ranges(
        title,
        [(_label(name), e["low"], e["mid"], e["high"], _span(e, style)) for name, e in entries],
    )


def _tornado(estimate: Mapping[str, Any]) -> str:
    rows = [
        (
            _input_name(swing["name"]),
            swing["npv_at_low_usd"],
            swing["npv_at_high_usd"],
            compact(swing["low"]),
            compact(swing["high"]),
        )
        for swing in estimate["swings"]
    ]
    middle = estimate["quantities"]["value.npv_usd"]["mid"]
    return charts.tornado("What moves the net present value", middle, rows)


def _input_name(name: str) -> str:
    return name.replace("_usd", "").replace("_", " ").replace(".", ": ", 1).replace(".", " ")


def _distribution(estimate: Mapping[str, Any]) -> str:
    marked = {0.1: "P10", 0.5: "P50", 0.9: "P90"}
    return charts.distribution(
        "Distribution of the net present value",
        [
            (share, value, f"{marked[share]} {money(value)}" if share in marked else "")
            for share, value in estimate["npv_quantiles_usd"]
        ],
    )


def _map(estimate: Mapping[str, Any]) -> str:
    points = estimate["npv_map"]
    users = list(dict.fromkeys(point["users"] for point in points))
    years = list(dict.fromkeys(point["life_years"] for point in points))
    cells = [
        [
            (point["npv_usd"] > 0, money(point["npv_usd"], 2))
            for point in points
            if point["life_years"] == year
        ]
        for year in years
    ]
    return charts.heat_map(
        "Net present value over users and life of the model",
        [compact(u, 2) for u in users],
        [f"{number(year, 2)} y" for year in years],
        cells,
        ("users", "life"),
    )


def _wafer(estimate: Mapping[str, Any]) -> str:
    w = estimate["wafer"]
    if not w["dies"]:
        return ""
    size = (w["width_mm"], w["height_mm"])
    return charts.wafer("Dies on a wafer", w["diameter_mm"], w["edge_mm"], *size, w["dies"])


def _unit_cost(estimate: Mapping[str, Any]) -> str:
    """From die to a copy of the model in a server, each step's amount."""
    mids = {name: entry["mid"] for name, entry in estimate["quantities"].items()}
    if mids["cost.chip_usd"] is None:
        return ""
    die, probe = mids["cost.die_usd"], mids["cost.probe_usd"]
    steps = [
        ("good die", die, False),
        ("probe", probe, False),
        ("package|losses", (die + probe) * (1 / mids["package.yield"] - 1), False),
        ("package", mids["package.usd"], False),
        ("test", mids["cost.test_usd"], False),
        ("chip", mids["cost.chip_usd"], True),
    ]
    if mids["area.dies"] > 1:
        steps.append(("other|dies", mids["cost.copy_usd"] - mids["cost.chip_usd"], False))
    if not in_device(estimate):
        steps.append(("board,|host", mids["card.overhead_usd"], False))
        steps.append(("copy in|a server", mids["card.copy_usd"], True))
    return plots.waterfall("Cost of one chip, step by step", steps, money)


def _price(estimate: Mapping[str, Any]) -> str:
    points = estimate["price_curve"]
    curves = [
        plots.Curve(name, [(p["volume"], p[key]) for p in points if p[key] is not None], dashed)
        for name, key, dashed in (
            ("this chip, all of its NRE", "chip_usd", False),
            ("a re-spun successor", "successor_usd", True),
        )
    ]
    item = estimate["facts"]["item"]
    n = estimate["quantities"]
    if in_device(estimate):
        entry = n["edge.parts_usd"]
        part = f"{estimate['scenario']['alternative'].upper()} it replaces"
        bands = [plots.Band(part, entry["low"], entry["mid"], entry["high"])]
        axes = (plots.Axis("devices", compact), plots.Axis("USD a device", money))
        mark = (n["scenario.users"]["mid"], "this scenario")
    else:
        bands = [
            plots.Band(f"{g['name'].upper()}, rented", g["low_usd"], g["mid_usd"], g["high_usd"])
            for g in estimate["gpu_prices"]
        ]
        axes = (plots.Axis(f"{item}s a year", compact), plots.Axis(f"USD / million {item}s", money))
        mark = (n["fleet.items_per_year"]["mid"], "this scenario")
    return plots.plot("Price against volume", axes, curves, bands, mark=mark)


def _yields(estimate: Mapping[str, Any]) -> str:
    areas = estimate["yield_areas_mm2"]
    curves = [
        plots.Curve(c["model"], list(zip(areas, c["shares"], strict=True)))
        for c in sorted(estimate["yield_curves"], key=lambda c: c["model"] != "Murphy")
    ]
    axes = (
        plots.Axis("die, mm²", compact, log=False),
        plots.Axis("yield", lambda v: percent(v, 2), log=False),
    )
    die = estimate["quantities"]["area.die_mm2"]["mid"]
    return plots.plot("Yield against area of the die", axes, curves, mark=(die, "this die"))


def _anchors(estimate: Mapping[str, Any]) -> str:
    points = [
        plots.Point(
            a["name"].replace("_", " "),
            a["node_nm"],
            a["um2_per_weight"],
            a["name"].startswith("this design"),
        )
        for a in estimate["anchors"]
    ]
    axes = (plots.Axis("node, nm", compact), plots.Axis("µm² a weight", lambda v: number(v, 2)))
    return plots.plot("Silicon a weight against node", axes, points=points)
