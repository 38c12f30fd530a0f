"""Plots over axes as inline SVG: curves, bands, points; the same input gives the same bytes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from hwcompile.compiler.emit.charts import (
    ACCENT,
    BAD,
    GOOD,
    GROUP_COLOURS,
    INK,
    LINE,
    MUTED,
    at,
    line,
    rect,
    svg,
    text,
)

Format = Callable[[float], str]

WIDTH, HEIGHT = 720.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 20.0, 12.0, 44.0
LEGEND_STEP = 17.0


@dataclass(frozen=True, slots=True)
class Axis:
    """``label`` of an axis and how its ticks read."""

    label: str
    style: Format
    log: bool = True


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve; points that are not finite, or not positive on a log axis, are left out."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """A horizontal band with its middle."""

    name: str
    low: float
    mid: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """A labelled point; ``own`` ones are this design's. ``colour``: of its own; ``hollow``: drawn
    as a ring; ``hover``: what is said of it under the mouse."""

    name: str
    x: float
    y: float
    own: bool = False
    colour: str = ""
    hollow: bool = False
    hover: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to coordinates along one axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        low, high, v = (self._inner(x) for x in (self.low, self.high, value))
        share = min(1.0, max(0.0, (v - low) / ((high - low) or 1.0)))
        return self.start + share * (self.end - self.start)

    def _inner(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value

    def ticks(self) -> list[float]:
        """Decades, every few of them when there are many, or parts of one; else round steps."""
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            decades = range(first, last + 1, max(1, math.ceil((last - first) / 8)))
            return [10.0**k for k in decades] if len(decades) > 1 else self._parts(first)
        span = (self.high - self.low) or 1.0
        step = 10 ** math.floor(math.log10(span))
        step = next(s for s in (step / 5, step / 2, step, step * 2) if span / s <= 7)
        return [step * k for k in range(math.ceil(self.low / step), int(self.high // step) + 1)]

    def _parts(self, decade: int) -> list[float]:
        """Round values around a decade, when the axis holds no two decades."""
        for digits in ((1, 2, 5), range(1, 10), [n / 10 for n in range(10, 100)]):
            marks = [d * 10.0**k for k in (decade - 1, decade) for d in digits]
            inside = [m for m in marks if self.low <= m <= self.high]
            if len(inside) >= 3:
                break
        return inside[:: math.ceil(len(inside) / 8)]


def plot(
    title: str,
    axes: tuple[Axis, Axis],
    curves: Sequence[Curve] = (),
    bands: Sequence[Band] = (),
    points: Sequence[Point] = (),
    mark: tuple[float, str] | None = None,
    keys: Sequence[tuple[str, str]] = (),
) -> str:
    """Curves, bands and points over two axes; ``mark``: a vertical line with its name; ``keys``:
    colours of points and what they mean."""
    shown = [Curve(c.name, _sound(c.points, axes), c.dashed) for c in curves]
    dots = [p for p in points if _sound([(p.x, p.y)], axes)]
    xs = [x for c in shown for x, _ in c.points] + [p.x for p in dots]
    ys = [y for c in shown for _, y in c.points] + [p.y for p in dots]
    ys += [v for b in bands for v in (b.low, b.high) if math.isfinite(v)]
    if not xs or not ys:
        return ""
    entries = len(shown) + len(bands) + len(keys)
    height = HEIGHT + LEGEND_STEP * math.ceil(entries / 2) + 8
    across = _scale(xs, LEFT, WIDTH - RIGHT, axes[0].log, bool(dots))
    up = _scale(ys, HEIGHT - BOTTOM, TOP, axes[1].log, bool(dots))
    parts = _grid(across, up, axes)
    legend: list[tuple[str, str]] = [*keys]
    for i, band in enumerate(bands):
        colour = GROUP_COLOURS[(i + 1) % len(GROUP_COLOURS)]
        top, bottom = up(band.high), up(band.low)
        room = WIDTH - RIGHT - LEFT
        parts.append(rect(LEFT, top, room, max(1.0, bottom - top), colour, 'opacity="0.14"'))
        parts.append(line(LEFT, up(band.mid), WIDTH - RIGHT, up(band.mid), colour, 1.2))
        legend.append((colour, band.name))
    first = len(bands) + 1 if bands else 0
    for i, curve in enumerate(shown):
        colour = ACCENT if i == 0 else GROUP_COLOURS[(first + i) % len(GROUP_COLOURS)]
        where = " ".join(f"{at(across(x))},{at(up(y))}" for x, y in curve.points)
        dash = 'stroke-dasharray="6 4"' if curve.dashed else ""
        parts.append(
            f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="2" {dash}/>'
        )
        legend.append((colour, curve.name))
    for i, dot in enumerate(dots):
        crowded = any(
            abs(across(o.x) - across(dot.x)) < 90 and abs(up(o.y) - up(dot.y)) < 12
            for o in dots[:i]
        )
        parts += _dot(across(dot.x), up(dot.y), dot, crowded)
    if mark is not None and across.low <= mark[0] <= across.high:
        x = across(mark[0])
        parts.append(line(x, TOP, x, HEIGHT - BOTTOM, INK, 1))
        near = x > WIDTH - 200
        anchor = "end" if near else "start"
        parts.append(
            text(x + (-6 if near else 6), TOP + 12, mark[1], 12, f'text-anchor="{anchor}"')
        )
    for i, (colour, name) in enumerate(legend):
        x, y = LEFT + (i % 2) * (WIDTH - LEFT) / 2, HEIGHT + 8 + LEGEND_STEP * (i // 2)
        parts.append(rect(x, y - 9, 16, 9, colour))
        parts.append(text(x + 22, y, name, 12))
    return svg(WIDTH, height, title, parts)


def cash_plot(title: str, points: Sequence[tuple[float, float]], style: Format) -> str:
    """Money over years, with the zero line; red below it, green above."""
    if not points:
        return ""
    axes = (Axis("years", lambda v: f"{v:g}", log=False), Axis("", style, log=False))
    across = _scale([x for x, _ in points], LEFT, WIDTH - RIGHT, False, False)
    up = _scale([y for _, y in points] + [0.0], HEIGHT - BOTTOM, TOP, False, False)
    parts = _grid(across, up, axes)
    parts.append(line(LEFT, up(0), WIDTH - RIGHT, up(0), INK))
    for (x1, y1), (x2, y2) in itertools.pairwise(points):
        colour = GOOD if min(y1, y2) >= 0 else BAD
        parts.append(line(across(x1), up(y1), across(x2), up(y2), colour, 2.5))
    return svg(WIDTH, HEIGHT, title, parts)


def waterfall(title: str, steps: Sequence[tuple[str, float, bool]], style: Format) -> str:
    """Amounts that add up, from left to right: (label, amount, whether it is a sum so far)."""
    height, base, top = 250.0, 200.0, 24.0
    total, highest = 0.0, 0.0
    for _, amount, is_sum in steps:
        total = amount if is_sum else total + amount
        highest = max(highest, total)
    if not highest:
        return ""
    scale, width = (base - top) / highest, WIDTH / len(steps)
    parts, level = [line(0, base, WIDTH, base, LINE)], 0.0
    for i, (label, amount, is_sum) in enumerate(steps):
        low, high = (0.0, amount) if is_sum else (level, level + amount)
        level = high
        y, tall = base - high * scale, max(1.0, (high - low) * scale)
        colour = INK if is_sum else ACCENT
        parts.append(rect(i * width + 8, y, width - 16, tall, colour, 'opacity="0.85"'))
        middle = i * width + width / 2
        centred = 'text-anchor="middle"'
        parts.append(text(middle, y - 6, style(amount), 12, centred))
        for j, word in enumerate(label.split("|")):
            parts.append(text(middle, base + 16 + 14 * j, word, 12, centred))
    return svg(WIDTH, height, title, parts)


def _sound(
    points: Sequence[tuple[float, float]], axes: tuple[Axis, Axis]
) -> list[tuple[float, float]]:
    return [
        point
        for point in points
        if all(
            math.isfinite(v) and (v > 0 or not axis.log)
            for v, axis in zip(point, axes, strict=True)
        )
    ]


def _scale(values: Sequence[float], start: float, end: float, log: bool, room: bool) -> Scale:
    low, high = min(values), max(values)
    if not log:
        return Scale(low, high, start, end, False)
    if high < low * 10:
        low, high = low / 2, high * 2
    return (
        Scale(low / 1.6, high * 1.6, start, end, True)
        if room
        else Scale(low, high, start, end, True)
    )


def _grid(across: Scale, up: Scale, axes: tuple[Axis, Axis]) -> list[str]:
    parts = []
    for value in up.ticks():
        y = up(value)
        parts.append(line(LEFT, y, WIDTH - RIGHT, y, LINE))
        parts.append(text(LEFT - 7, y + 4, axes[1].style(value), 11, 'text-anchor="end"'))
    for value in across.ticks():
        x = across(value)
        parts.append(line(x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 4, MUTED))
        label = axes[0].style(value)
        parts.append(text(x, HEIGHT - BOTTOM + 16, label, 11, 'text-anchor="middle"'))
    parts.append(line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, MUTED))
    foot = f'text-anchor="middle" fill="{MUTED}"'
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, axes[0].label, 12, foot))
    if axes[1].label:
        parts.append(text(LEFT + 6, TOP + 2, axes[1].label, 12, f'fill="{MUTED}"'))
    return parts


def _dot(x: float, y: float, dot: Point, crowded: bool) -> list[str]:
    colour = dot.colour or (BAD if dot.own else ACCENT)
    near = crowded or x > WIDTH - 170
    anchor, dx = ("end", -8) if near else ("start", 8)
    weight = ' font-weight="600"' if dot.own else ""
    radius = 5 if dot.own or dot.colour else 4
    fill = f'fill="#fff" stroke="{colour}" stroke-width="1.5"' if dot.hollow else f'fill="{colour}"'
    hover = f"<title>{escape(dot.hover)}</title>" if dot.hover else ""
    end = f">{hover}</circle>" if hover else "/>"
    parts = [f'<circle cx="{at(x)}" cy="{at(y)}" r="{radius}" {fill}{end}']
    if dot.name:
        parts.append(text(x + dx, y + 4, dot.name, 11, f'text-anchor="{anchor}"{weight}'))
    return parts
