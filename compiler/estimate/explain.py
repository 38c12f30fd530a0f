"""The chain of formulas and inputs behind a number, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.figures import Figure
from hwcompile.compiler.estimate.ledger import Quantity


def number(value: float | None, digits: int = 4) -> str:
    """A number for reading: ``digits`` significant, thousands apart, no needless exponent."""
    if value is None or math.isinf(value):
        return "∞" if value is None or value > 0 else "-∞"
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    if abs(value) >= 1e15 or places > 8:
        return f"{value:.{digits - 1}e}"
    text = f"{round(value, digits - 1 - math.floor(math.log10(abs(value)))):,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def line(quantity: Quantity) -> str:
    """``name = mid unit [low .. high]``."""
    return f"{quantity.name} = {number(quantity.mid)} {quantity.unit}{_range(quantity)}"


def figure_text(name: str, figure: Figure) -> str:
    """``name = value unit [low .. high]``, then grade, date and source."""
    low, high = number(figure.low), number(figure.high)
    span = "" if low == high else f" [{low} .. {high}]"
    return (
        f"{name} = {number(figure.value)} {figure.unit}{span}\n"
        f"    {figure.grade}, {figure.date}: {figure.source}"
    )


def explain(quantities: Mapping[str, Quantity], name: str) -> str:
    """``name``, its formula, and in turn everything it rests on, one line each, indented.

    A number that was already explained is not explained again. Unknown names raise
    :class:`UsageError` with the nearest ones.
    """
    if name not in quantities:
        parts = [part for part in name.lower().replace("_", ".").split(".") if len(part) > 2]
        near = [key for key in quantities if any(part in key for part in parts)] or list(quantities)
        raise UsageError(f"no number is called {name!r}", "some that are: " + ", ".join(near[:8]))
    lines: list[str] = []
    done: dict[str, None] = {}

    def walk(key: str, depth: int) -> None:
        quantity = quantities[key]
        indent = "  " * depth
        known = key in done
        done[key] = None
        lines.append(f"{indent}{line(quantity)}" + (" (above)" if known and depth else ""))
        if known:
            return
        if quantity.note:
            lines.append(f"{indent}    {quantity.note}")
        if not quantity.formula:
            lines.append(
                f"{indent}    {quantity.grade}: {quantity.source.rstrip('.')} ({quantity.date})"
            )
            return
        lines.append(f"{indent}    = {quantity.formula}")
        aliases = [f"{s} = {k}" for s, k in quantity.inputs if s != k.rpartition(".")[2]]
        if aliases:
            lines.append(f"{indent}    where {', '.join(aliases)}")
        for _, child in quantity.inputs:
            walk(child, depth + 1)

    walk(name, 0)
    return "\n".join(lines) + "\n"


def _range(quantity: Quantity) -> str:
    if quantity.low == quantity.mid == quantity.high:
        return ""
    return f"  [{number(quantity.low)} .. {number(quantity.high)}]"
