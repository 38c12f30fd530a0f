"""An outline as text and as a picture."""

from __future__ import annotations

from hwcompile.compiler.emit.charts import ACCENT, GROUP_COLOURS, INK, LINE, MUTED, rect, svg, text
from hwcompile.compiler.emit.outline import Block, Outline, Region
from hwcompile.compiler.ir.graph import Graph
from hwcompile.compiler.names import label

_SECTIONS = {"once": "once for a sample, all rows at a time", "sequence": "row by row (tokens)"}
_KINDS = {"ids": "token ids", "flags": "padding mask", "tensor": "numbers", "logits": "logits"}
_COLOURS = {
    "Linear": GROUP_COLOURS[0],
    "Embed": GROUP_COLOURS[0],
    "Rows": GROUP_COLOURS[0],
    "Attend": GROUP_COLOURS[1],
    "Normalise": GROUP_COLOURS[2],
    "Unary": GROUP_COLOURS[3],
}
_WIDTH, _STEP, _INDENT, _TOP = 760.0, 26.0, 22.0, 40.0


def as_text(found: Outline, graph: Graph, title: str) -> str:
    """Lines: inputs, then each section with its operations, indented in repeated blocks."""
    lines = [f"{label(title)}: {_summary(found, graph)}"]
    for given in graph.inputs:
        lines.append(
            f"  input {given.value.key}: {_interface(given.kind, given.model_name)}, "
            f"{_shape(given.model_shape)}"
        )
    for kind, body in found.sections:
        lines.append(f"{_SECTIONS[kind]}:")
        for item in body:
            lines += _lines(item, 1)
    for output in graph.outputs:
        name = _interface(output.kind, output.model_name)
        lines.append(f"  output {output.value}: {name}, {_shape(output.model_shape)}")
    return "\n".join(lines)


def _summary(found: Outline, graph: Graph) -> str:
    weights = sum(_weights(x) for _, body in found.sections for x in body)
    return f"{found.form} form, {len(graph.operations)} operations, {weights} weights"


def _weights(x: Region | Block) -> int:
    if isinstance(x, Block):
        return x.count * sum(_weights(inner) for inner in x.body)
    return x.weights


def _interface(kind: str, name: str) -> str:
    return f"{_KINDS.get(kind, kind)} {label(name)!r}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _lines(x: Region | Block, depth: int) -> list[str]:
    space = "  " * depth
    if isinstance(x, Block):
        inner = [line for item in x.body for line in _lines(item, depth + 1)]
        return [f"{space}{x.count} times:", *inner]
    reads = ", ".join(x.inputs)
    origin = f"  # {x.origin}" if x.origin else ""
    return [f"{space}{x.value} [{x.rows},{x.cols}] = {x.recognised} of ({reads}){origin}"]


def as_svg(found: Outline, graph: Graph, title: str) -> str:
    """A column of boxes from input to output; a frame round what repeats, with its count."""
    parts: list[str] = [text(16, 24, f"{label(title)}: {_summary(found, graph)}", 14)]
    y = _TOP
    for given in graph.inputs:
        y = _box(parts, y, 0, f"input {_interface(given.kind, given.model_name)}", "", LINE)
    for kind, body in found.sections:
        parts.append(text(16, y + 18, _SECTIONS[kind], 12, f'fill="{MUTED}"'))
        y += _STEP
        for item in body:
            y = _draw(parts, item, y, 0)
    for output in graph.outputs:
        y = _box(parts, y, 0, f"output {_interface(output.kind, output.model_name)}", "", LINE)
    return svg(_WIDTH, y + 16, title, parts)


def _draw(parts: list[str], x: Region | Block, y: float, depth: int) -> float:
    if isinstance(x, Region):
        return _box(
            parts, y, depth, x.recognised, f"{x.rows} x {x.cols}", _COLOURS.get(x.kind, MUTED)
        )
    top, left = y, 16 + depth * _INDENT
    y += 22
    place = len(parts)
    for item in x.body:
        y = _draw(parts, item, y, depth + 1)
    frame = rect(left, top, _WIDTH - 2 * left, y - top + 2, "none", f'stroke="{ACCENT}" rx="4"')
    parts.insert(place, frame)
    parts.append(text(left + 8, top + 16, f"{x.count} times", 12, f'fill="{ACCENT}"'))
    return y + 8


def _box(parts: list[str], y: float, depth: int, words: str, size: str, colour: str) -> float:
    left = 16 + depth * _INDENT
    width = _WIDTH - 2 * left
    parts += [
        rect(left, y, width, _STEP - 5, "#fff", f'stroke="{LINE}" rx="3"'),
        rect(left, y, 5, _STEP - 5, colour),
        text(left + 14, y + 15, words, 12, f'fill="{INK}"'),
        text(left + width - 10, y + 15, size, 11, f'fill="{MUTED}" text-anchor="end"'),
    ]
    return y + _STEP
