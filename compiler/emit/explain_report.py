"""Where any number of a report comes from: its formula chain, or what it is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hwcompile.compiler.emit.report import quantities
from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.explain import explain, number

_QUANTITIES = "estimate.quantities."

# Longest prefix first wins. The second text is the quantity whose chain follows, if there is one.
_ORIGINS: Mapping[str, tuple[str, str]] = {
    "schema_version": ("version of the document", ""),
    "estimate.facts.groups": ("cells of one group, added over the modules that belong to it", ""),
    "estimate.facts.memories": ("a memory of the design: its bits, and its macro's model", ""),
    "estimate.facts": ("told to the estimator: from synthesis, the schedule and the model", ""),
    "estimate.draws": ("how often each input is drawn", ""),
    "estimate.verdict.probability_positive": ("share of the draws above zero of", "value.npv_usd"),
    "estimate.verdict.shuttle_value_usd": (
        "mean gain of building only where a trial's lessons say so, less its price; over draws of",
        "value.npv_usd",
    ),
    "estimate.verdict": ("mean or percentile of the draws of", "value.npv_usd"),
    "estimate.npv_quantiles_usd": ("share, and the value that share of the draws is below, of",
                                   "value.npv_usd"),
    "estimate.npv_map": (
        "users and life of the model as given, all else at the middle, in",
        "value.npv_usd",
    ),
    "estimate.swings": (
        "one input alone at its low, at its high, or where the value becomes zero, in",
        "value.npv_usd",
    ),
    "estimate.routes": (
        "the shuttle's figures of the table, and the core projected to its node like",
        "area.core_mm2",
    ),
    "estimate.yields": ("a yield model at the mean number of defects", "yield.defects"),
    "estimate.yield_curves": ("a yield model at an area and this density", "node.defects_per_cm2"),
    "estimate.yield_areas_mm2": ("areas at which the yield curves are drawn", ""),
    "estimate.sweep": ("the same formulas with the figures of another node, like", "cost.chip_usd"),
    "estimate.wafer": ("exact placement of whole dies of this size", "area.die_mm2"),
    "estimate.gpu_prices": (
        "rent over the rate of each GPU of the table, its figures at low, middle, high, like",
        "gpu.usd_per_million",
    ),
    "estimate.cash": (
        "undiscounted, at the middle of all inputs: NRE, then fleet, then savings, as in",
        "value.npv_usd",
    ),
    "estimate.anchors": ("published area over weights; of this design, over its weights",
                         "area.die_mm2"),
    "zeros": ("counted in the matrix; the area spared is places without a weight times the full "
              "adders of a place with one", ""),
    "quality": ("measured on the calibration samples, integer program against float model", ""),
    "modules": ("synthesis of the module, all its instances together", ""),
    "blocks": ("synthesis of the modules of a weight block", ""),
    "ports": ("width of a port of the chip", ""),
    "options": ("an option in use", ""),
    "tools": ("version of a tool", ""),
}  # fmt: skip


def numbers(report: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number of a report with its path: keys and list places joined by dots."""
    yield from _walk(report, "")


def explain_report(report: Mapping[str, Any], name: str) -> str:
    """The chain behind a quantity (``cost.chip_usd``), or where the number at a path comes from.

    A path is made of keys and places in lists (``verdict.npv_p10_usd``, ``sweep.3.die_usd``); the
    leading ``estimate.`` may be left out. Raises UsageError when there is no such number.
    """
    known = quantities(report)
    if name in known:
        return explain(known, name)
    for path in (name, f"estimate.{name}"):
        if path.startswith(_QUANTITIES):
            inner = path.removeprefix(_QUANTITIES)
            quantity, _, field = inner.rpartition(".")
            whole = inner if inner in known else quantity
            if whole in known:
                said = "" if whole == inner else f"{field} of "
                return f"{said}{explain(known, whole)}"
        found = _find(report, path)
        if found is not None:
            return _of_path(report, path, found)
    return explain(known, name)  # which says what there is


def _of_path(report: Mapping[str, Any], path: str, value: float) -> str:
    prefix = next(
        (p for p in sorted(_ORIGINS, key=len, reverse=True) if f"{path}.".startswith(f"{p}.")),
        None,
    )
    origin, quantity = _ORIGINS[prefix] if prefix else _by_context(report, path)
    lines = [f"{path} = {number(value)}", f"    {origin}{f' {quantity}' if quantity else ''}"]
    text = "\n".join(lines) + "\n"
    known = quantities(report)
    return text + explain(known, quantity) if quantity in known else text


def _by_context(report: Mapping[str, Any], path: str) -> tuple[str, str]:
    """Origins that depend on whether the chip replaces a GPU or the part of a device."""
    in_device = "value.silicon_usd" in quantities(report)
    if path.startswith("estimate.price_curve"):
        price = "cost.copy_usd" if in_device else "price.full_usd_per_million"
        return "the price at this volume, what is paid once spread over it, like", price
    if path.startswith("estimate.break_even_by_respins"):
        users = "edge.break_even_units" if in_device else "break_even.users"
        return "re-spins a year, and the break-even then, as in", users
    raise UsageError(f"{path} is no number of this report")


def _find(report: Mapping[str, Any], path: str) -> float | None:
    value: Any = report
    for key in path.split("."):
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return float(value) if isinstance(value, int | float) else None


def _walk(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, int | float):
        yield path, float(value)
        return
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, entry in pairs:
        yield from _walk(entry, f"{path}.{key}" if path else str(key))
