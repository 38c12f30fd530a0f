"""The HTML page of a report document: words, numbers and pictures for a decision maker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from hwcompile.compiler.emit import charts
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
        "alternative": estimate["scenario"]["alternative"].upper(),
        "advice": ADVICE[estimate["verdict"]["name"]],
        "pad_limited": _pad_limited(mids),
        "zeros_cost_um2": _zeros_cost_um2(estimate["facts"]),
        "style_watts": watts,
        "style_joules": lambda value: prefixed(value, "J"),
        "style_money": money,
        "style_percent": percent,
    }


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
    core_side = math.sqrt(mids["area.core_mm2"] / mids["area.dies"])
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
    bit_um2 = mids["node.sram_bit_um2"] / mids["geometry.memory_efficiency"]
    kinds: dict[str, float] = {}
    for memory in facts["memories"]:
        sized = memory["area_um2"]
        area = memory["bits"] * bit_um2 if sized is None else sized
        kinds[memory["kind"]] = kinds.get(memory["kind"], 0.0) + area
    rows += [(GROUP_NAMES.get(kind, kind), area / 1e6, "memory") for kind, area in kinds.items()]
    die = mids["area.die_mm2"] * mids["area.dies"]
    rows.append(("room for wires", mids["area.core_mm2"] - mids["area.memory_mm2"] - cells, "fill"))
    rows.append(("pads and ring", die - mids["area.core_mm2"], "pads"))
    return rows


def _pictures(estimate: Mapping[str, Any]) -> dict[str, Markup]:
    made = {
        "area": _area_picture(estimate),
        "nre": _range_picture(estimate, "What is paid once", _nre_lines(estimate)),
        "power": _range_picture(
            estimate,
            "Power of one chip at full load",
            ["power.arithmetic_w", "power.memory_w", "power.clock_w", "power.leakage_w"],
            watts,
        ),
        "tornado": _tornado(estimate),
        "distribution": _distribution(estimate),
        "map": _map(estimate),
        "wafer": _wafer(estimate),
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
    return charts.wafer("Dies on a wafer", w["diameter_mm"], w["edge_mm"], w["side_mm"], w["dies"])
