"""Charts of the report as inline SVG: same input, same bytes; no script, no font, no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

INK, MUTED, LINE, ACCENT = "#1c2430", "#5d6875", "#d5dae0", "#1f5f99"
GOOD, BAD = "#2f7d4f", "#a8443c"
GROUP_COLOURS = (
    "#1f5f99", "#d08a2e", "#4f8f6b", "#8a5a96", "#b4534b", "#5b7f95", "#9a8c4a", "#7a7f87",
)  # fmt: skip


def at(value: float) -> str:
    """A coordinate: two decimals are a tenth of a device pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def text(x: float, y: float, content: str, size: int = 12, more: str = "") -> str:
    return f'<text x="{at(x)}" y="{at(y)}" font-size="{size}" {more}>{escape(content)}</text>'


def rect(x: float, y: float, w: float, h: float, fill: str, more: str = "") -> str:
    return f'<rect x="{at(x)}" y="{at(y)}" width="{at(w)}" height="{at(h)}" fill="{fill}" {more}/>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{at(x1)}" y1="{at(y1)}" x2="{at(x2)}" y2="{at(y2)}" '
        f'stroke="{colour}" stroke-width="{at(width)}"/>'
    )


def svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """A picture with an accessible title."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {at(width)} {at(height)}" '
        f'role="img" aria-label="{escape(title, quote=True)}" fill="{INK}">{"".join(parts)}</svg>'
    )


def treemap(title: str, entries: Sequence[tuple[str, float, str]]) -> str:
    """Areas as nested rectangles; an entry is (label, area, what to print below the label)."""
    width, height = 720.0, 300.0
    shown = sorted((e for e in entries if e[1] > 0), key=lambda e: (-e[1], e[0]))
    parts = []
    for index, (box, (label, _, below)) in enumerate(
        zip(_squarify([e[1] for e in shown], width, height), shown, strict=True)
    ):
        x, y, w, h = box
        colour = GROUP_COLOURS[index % len(GROUP_COLOURS)]
        hover = f"<title>{escape(f'{label}: {below}')}</title>"
        parts += ["<g>", hover, rect(x, y, w, h, colour, 'stroke="#fff" stroke-width="2"')]
        if w > 7.2 * len(label) + 14 and h > 22:
            parts.append(text(x + 8, y + 18, label, 13, 'fill="#fff" font-weight="600"'))
            if h > 40 and w > 6.4 * len(below) + 14:
                parts.append(text(x + 8, y + 34, below, 12, 'fill="#fff"'))
        parts.append("</g>")
    return svg(width, height, title, parts)


Box = tuple[float, float, float, float]


def _squarify(values: Sequence[float], width: float, height: float) -> list[Box]:
    """Squarified treemap (Bruls, Huizing, van Wijk, 2000) of values in falling order."""
    total = math.fsum(values)
    areas = [v * width * height / total for v in values] if total > 0 else []
    boxes: list[Box] = []
    x = y = 0.0
    start = 0
    while start < len(areas):
        side = min(width - x, height - y)
        end = start + 1
        while end < len(areas) and _worst(areas[start : end + 1], side) <= _worst(
            areas[start:end], side
        ):
            end += 1
        row = areas[start:end]
        depth = math.fsum(row) / side
        offset = 0.0
        for area in row:
            length = area / depth
            if width - x >= height - y:
                boxes.append((x, y + offset, depth, length))
            else:
                boxes.append((x + offset, y, length, depth))
            offset += length
        if width - x >= height - y:
            x += depth
        else:
            y += depth
        start = end
    return boxes


def _worst(row: Sequence[float], side: float) -> float:
    total = math.fsum(row)
    return max(max(side**2 * a / total**2, total**2 / (side**2 * a)) for a in row)


def ranges(title: str, rows: Sequence[tuple[str, float, float, float, str]]) -> str:
    """Bars from 0 to mid with a whisker from low to high: (label, low, mid, high, text)."""
    label, width, step = 150.0, 720.0, 26.0
    room = width - label - 215
    top = max((row[3] for row in rows), default=0.0) or 1.0
    parts = []
    for index, (name, low, mid, high, words) in enumerate(rows):
        y = index * step
        parts += [
            text(label - 10, y + 17, name, 12, 'text-anchor="end"'),
            rect(label, y + 6, room * mid / top, 14, ACCENT, 'opacity="0.85"'),
            line(label + room * low / top, y + 13, label + room * high / top, y + 13, INK, 1.4),
            *(
                line(label + room * v / top, y + 9, label + room * v / top, y + 17, INK, 1.4)
                for v in (low, high)
            ),
            text(label + room * high / top + 8, y + 17, words, 12, f'fill="{MUTED}"'),
        ]
    parts.append(line(label, 0, label, len(rows) * step, LINE))
    return svg(width, len(rows) * step, title, parts)


def tornado(title: str, middle: float, rows: Sequence[tuple[str, float, float, str, str]]) -> str:
    """Swing of a value per input: (label, value at low, value at high, low text, high text)."""
    label, width, step = 250.0, 720.0, 28.0
    ends = [value for row in rows for value in row[1:3]] + [middle, 0.0]
    low, high = min(ends), max(ends)
    room = width - label - 20
    scale = room / ((high - low) or 1.0)

    def place(value: float) -> float:
        return label + 10 + (value - low) * scale

    parts = [line(place(0.0), 0, place(0.0), len(rows) * step, INK, 1)]
    for index, (name, at_low, at_high, low_text, high_text) in enumerate(rows):
        y = index * step
        parts.append(text(label - 10, y + 17, name, 12, 'text-anchor="end"'))
        for value, words, colour in ((at_low, low_text, "#8fb3d4"), (at_high, high_text, ACCENT)):
            left, right = sorted((place(middle), place(value)))
            parts.append(rect(left, y + 5, max(right - left, 1), 15, colour))
            if right - left > 7 * len(words):
                fill = "#fff" if colour == ACCENT else INK
                parts.append(text(left + 5, y + 16.5, words, 11, f'fill="{fill}"'))
    parts.append(line(place(middle), 0, place(middle), len(rows) * step, MUTED, 1))
    foot = len(rows) * step + 14
    parts.append(text(place(0.0), foot, "0", 11, f'text-anchor="middle" fill="{MUTED}"'))
    return svg(width, foot + 4, title, parts)


def heat_map(
    title: str,
    columns: Sequence[str],
    rows: Sequence[str],
    cells: Sequence[Sequence[tuple[bool, str]]],
    axes: tuple[str, str],
) -> str:
    """A table of values coloured by sign, with a border where the sign changes."""
    left, top, w, h = 90.0, 24.0, 90.0, 28.0
    parts = [text(left - 10, 15, f"{axes[1]} ↓  {axes[0]} →", 11, 'text-anchor="end"')]
    for i, name in enumerate(columns):
        parts.append(text(left + i * w + w / 2, 15, name, 12, 'text-anchor="middle"'))
    for j, name in enumerate(rows):
        y = top + j * h
        parts.append(text(left - 10, y + 19, name, 12, 'text-anchor="end"'))
        for i, (positive, words) in enumerate(cells[j]):
            fill = "#d7eadf" if positive else "#f4dedb"
            parts.append(rect(left + i * w, y, w, h, fill, 'stroke="#fff"'))
            colour = GOOD if positive else BAD
            more = f'text-anchor="middle" fill="{colour}"'
            parts.append(text(left + i * w + w / 2, y + 19, words, 12, more))
    return svg(left + len(columns) * w, top + len(rows) * h, title, parts)


def distribution(title: str, quantiles: Sequence[tuple[float, float, str]]) -> str:
    """Cumulative distribution from (share, value, text); texts are printed at some shares."""
    width, height, left, bottom = 720.0, 220.0, 44.0, 26.0
    values = [value for _, value, _ in quantiles]
    low, high = min(*values, 0.0), max(*values, 0.0)
    pad = 0.04 * ((high - low) or 1.0)
    scale = (width - left - 20) / (high - low + 2 * pad)

    def place(share: float, value: float) -> tuple[float, float]:
        return left + (value - low + pad) * scale, (height - bottom) * (1 - share)

    points = " ".join(f"{at(x)},{at(y)}" for x, y in (place(s, v) for s, v, _ in quantiles))
    zero = place(0, 0)[0]
    parts = [
        *(
            line(left, place(s, 0)[1], width - 20, place(s, 0)[1], LINE)
            + text(left - 8, place(s, 0)[1] + 4, f"{s:.0%}", 11, 'text-anchor="end"')
            for s in (0.1, 0.5, 0.9)
        ),
        line(zero, 0, zero, height - bottom, INK),
        text(zero, height - 10, "0", 11, 'text-anchor="middle"'),
        f'<polyline points="{points}" fill="none" stroke="{ACCENT}" stroke-width="2"/>',
    ]
    for share, value, words in quantiles:
        if words:
            x, y = place(share, value)
            near_edge = x > width - 140
            anchor, dx = ("end", -8) if near_edge else ("start", 8)
            parts.append(f'<circle cx="{at(x)}" cy="{at(y)}" r="3.5" fill="{ACCENT}"/>')
            parts.append(
                text(x + dx, y + (-6 if near_edge else 14), words, 12, f'text-anchor="{anchor}"')
            )
    return svg(width, height, title, parts)


def wafer(
    title: str,
    diameter_mm: float,
    edge_mm: float,
    width_mm: float,
    height_mm: float,
    dies: Sequence[tuple[float, float]],
) -> str:
    """Dies on a wafer, to scale; lower left corners in mm from the centre."""
    radius = diameter_mm / 2
    parts = [
        f'<circle cx="0" cy="0" r="{at(radius)}" fill="#eef1f4" stroke="{MUTED}"/>',
        f'<circle cx="0" cy="0" r="{at(radius - edge_mm)}" fill="none" stroke="{LINE}"/>',
        *(rect(x, -y - height_mm, width_mm, height_mm, ACCENT, 'opacity="0.8"') for x, y in dies),
    ]
    content = f'<g transform="translate({at(radius + 2)} {at(radius + 2)})">{"".join(parts)}</g>'
    return svg(diameter_mm + 4, diameter_mm + 4, title, [content])
