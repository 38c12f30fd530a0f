"""The picture of an exploration: area against rate, a dot a design, the front in full colour."""

from __future__ import annotations

import math
from html import escape

from hwcompile.compiler.emit.charts import GROUP_COLOURS, INK, LINE, MUTED, svg
from hwcompile.compiler.explore import Exploration, Point

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720.0, 420.0, 84.0, 200.0, 20.0, 52.0


def front_chart(found: Exploration) -> str:
    """A standalone SVG document; both axes are logarithmic."""
    xs = _Axis([p.area_mm2 for p in found.points], _LEFT, _WIDTH - _RIGHT)
    ys = _Axis([p.rate for p in found.points], _HEIGHT - _BOTTOM, _TOP)
    front = set(found.front)
    weights = list(dict.fromkeys(p.weights for p in found.points))
    parts = [
        *(_grid(xs.at(t), _TOP, xs.at(t), _HEIGHT - _BOTTOM) for t in xs.ticks),
        *(_grid(_LEFT, ys.at(t), _WIDTH - _RIGHT, ys.at(t)) for t in ys.ticks),
        *(_text(xs.at(t), _HEIGHT - _BOTTOM + 18, f"{t:g}", "middle") for t in xs.ticks),
        *(_text(_LEFT - 8, ys.at(t) + 4, f"{t:g}", "end") for t in ys.ticks),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, "core area, mm2", "middle"),
        _text(8, 12, f"{found.item}s/s of one chip", "start"),
    ]
    for point in sorted(found.points, key=lambda p: p in front):
        colour = GROUP_COLOURS[weights.index(point.weights) % len(GROUP_COLOURS)]
        parts.append(_dot(xs.at(point.area_mm2), ys.at(point.rate), colour, point, point in front))
    for n, name in enumerate(weights):
        y = _TOP + 16 + 22 * n
        x = _WIDTH - _RIGHT + 24
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="5" fill="{GROUP_COLOURS[n % 8]}"/>')
        parts.append(_text(x + 12, y, f"{name} weights", "start"))
    parts.append(_text(_WIDTH - _RIGHT + 19, _TOP + 22 + 22 * len(weights), "hollow: beaten"))
    return svg(_WIDTH, _HEIGHT, f"Designs of one model on {found.target}", parts)


class _Axis:
    """A logarithmic scale from values to positions ``start .. end``."""

    def __init__(self, values: list[float], start: float, end: float) -> None:
        low, high = math.log10(min(values)), math.log10(max(values))
        margin = max(0.08 * (high - low), 0.05)
        self._low, self._span = low - margin, high - low + 2 * margin
        self._start, self._size = start, end - start

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / self._span
        return self._start + share * self._size

    @property
    def ticks(self) -> list[float]:
        """Round values within the axis: the coarsest set of digits that gives three or more."""
        decades = range(math.floor(self._low), math.ceil(self._low + self._span) + 1)
        for digits in ((1, 10), (1, 2, 5, 10), range(1, 11), [n / 10 for n in range(10, 101)]):
            marks = dict.fromkeys(digit * 10.0**decade for decade in decades for digit in digits)
            inside = [m for m in marks if 0 <= math.log10(m) - self._low <= self._span]
            if len(inside) >= 3:
                break
        return inside[:: -(-len(inside) // 8)]


def _grid(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{LINE}"/>'


def _text(x: float, y: float, content: str, anchor: str = "start") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" font-size="12" font-family="sans-serif"'
    return f'<text {where} fill="{MUTED}" text-anchor="{anchor}">{escape(content)}</text>'


def _dot(x: float, y: float, colour: str, point: Point, best: bool) -> str:
    fill = colour if best else "#fff"
    title = (
        f"{point.weights} weights, {point.style}: {point.area_mm2:.4g} mm2, {point.rate:.4g}/s, "
        f"{point.energy_uj:.4g} uJ, accuracy {point.accuracy:.4g}"
    )
    name = _text(x + 9, y + 4, point.style) if best else ""
    return (
        f'<g><title>{escape(title)}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" '
        f'stroke="{colour if best else INK}" stroke-width="1.5"/>{name}</g>'
    )
