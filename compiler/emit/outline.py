"""Outline: a Graph as a reader sees a network, layers folded where they repeat.

1. Every operation is named by what it was recognised as: norms, attentions and tables by their
   numbers, a scalar function by comparing its values with those of known ones.
2. A run of operations that comes again right behind itself, alike in names and sizes, becomes one
   block with a count; blocks may hold blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import erf, expit

from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.expressions import as_affine, evaluate
from hwcompile.compiler.names import label

#: Shortest and longest run of operations taken for a layer; most operations of a graph for that.
_SHORTEST, _LONGEST, _MOST = 2, 120, 3000
_PROBES = np.linspace(-6.0, 6.0, 241)
_KNOWN: Mapping[str, Callable[[ir.FloatArray], ir.FloatArray]] = {
    "GELU": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "GELU (tanh)": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "quick GELU": lambda x: x * expit(1.702 * x),
    "SiLU": lambda x: x * expit(x),
    "ReLU": lambda x: np.maximum(x, 0),
    "squared ReLU": lambda x: np.maximum(x, 0) ** 2,
    "square": lambda x: x * x,
    "tanh": np.tanh,
    "sigmoid": expit,
    "exponential": np.exp,
    "sine": np.sin,
    "cosine": np.cos,
    "absolute value": np.abs,
    "softplus": lambda x: np.logaddexp(x, 0),
}


@dataclass(frozen=True, slots=True)
class Region:
    """One operation: what it is, its size, the layer it came from, its value and what it reads."""

    kind: str
    recognised: str
    rows: int
    cols: int
    weights: int
    origin: str
    value: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """``count`` times the same run of operations; ``body`` is the first of them."""

    count: int
    body: tuple[Region | Block, ...]


@dataclass(frozen=True, slots=True)
class Outline:
    """A whole graph: a list of regions and blocks for each section."""

    form: str
    sections: tuple[tuple[str, tuple[Region | Block, ...]], ...]


def outline(graph: ir.Graph) -> Outline:
    """The outline of a graph."""
    sections = []
    for i, kind in enumerate(graph.sections):
        regions = tuple(_region(op) for op in graph.operations if op.section == i)
        sections.append((kind, _fold(regions)))
    return Outline(graph.form, tuple(sections))


def as_json(found: Outline) -> dict[str, Any]:
    """Plain values of an outline."""
    return {
        "form": found.form,
        "sections": [
            {"kind": kind, "body": [_plain(x) for x in body]} for kind, body in found.sections
        ],
    }


def _plain(x: Region | Block) -> dict[str, Any]:
    if isinstance(x, Block):
        return {"repeat": x.count, "body": [_plain(inner) for inner in x.body]}
    return {
        "operation": x.kind,
        "recognised": x.recognised,
        "rows": x.rows,
        "cols": x.cols,
        "weights": x.weights,
        "origin": x.origin,
        "value": x.value,
        "inputs": list(x.inputs),
    }


# --- what an operation is -------------------------------------------------------------------------


def _region(op: ir.Operation) -> Region:
    weights = op.weight.size if isinstance(op, ir.Linear) else 0
    if isinstance(op, ir.Embed | ir.Rows):
        weights = op.table.size
    return Region(
        type(op).__name__,
        _name(op),
        op.output.rows,
        op.output.cols,
        weights,
        label(op.origin),
        op.output.key,
        op.inputs,
    )


def _name(op: ir.Operation) -> str:
    match op:
        case ir.Embed():
            return f"embedding of {op.table.shape[0]} words in {op.table.shape[1]}"
        case ir.Rows():
            return "constant rows (positions)"
        case ir.Linear():
            grid = "" if op.grid_values is None else ", integers of the file"
            return f"matrix {op.weight.shape[0]} x {op.weight.shape[1]}{grid}"
        case ir.Normalise():
            kind = "layer norm" if op.kind == "layer" else "RMS norm"
            return f"{kind}, epsilon {op.epsilon:.3g}"
        case ir.Attend():
            return _attention(op)
        case ir.Unary():
            return _function(op.function)
        case ir.Rotate():
            return "rotary positions"
        case ir.Multiply():
            return "product (gate)" if len(set(op.inputs)) > 1 else "square"
        case ir.Add():
            return "sum (residual)"
        case ir.Gather():
            return "moved elements"
        case ir.Delay():
            return "state of the row before"
        case ir.MeanRows():
            return "mean over rows" + (" without padding" if len(op.inputs) > 1 else "")
        case ir.Flag():
            return f"padding: is the token {op.absent}"
        case _:
            return type(op).__name__.lower()


def _attention(op: ir.Attend) -> str:
    shared = f" on {op.kv_heads}" if op.kv_heads != op.heads else ""
    seen = "earlier rows" if op.causal else "all rows"
    more = ", biased" if op.bias.size else ""
    padding = ", padding left out" if len(op.inputs) > 3 else ""
    return f"attention of {op.heads} heads{shared} over {seen}{more}{padding}"


def _function(function: ir.Expression) -> str:
    line = as_affine(function)
    if line is not None:
        return f"{line[0]:.4g} x + {line[1]:.4g}"
    y = evaluate(function, _PROBES)
    for name, known in _KNOWN.items():
        if np.allclose(y, known(_PROBES), rtol=1e-6, atol=1e-9):
            return name
    return "a function of one number (a table)"


# --- folding --------------------------------------------------------------------------------------


def _fold(regions: tuple[Region, ...]) -> tuple[Region | Block, ...]:
    """The regions with runs that repeat folded, those that cover most first."""
    if len(regions) > _MOST:
        return regions
    signs = [(r.kind, r.recognised, r.rows, r.cols) for r in regions]
    return tuple(_folded(list(regions), signs))


def _folded(items: Sequence[Region], signs: Sequence[Any]) -> list[Region | Block]:
    best = _longest_repeat(signs)
    if best is None:
        return list(items)
    start, period, count = best
    end = start + period * count
    inner = _folded(items[start : start + period], signs[start : start + period])
    return [
        *_folded(items[:start], signs[:start]),
        Block(count, tuple(inner)),
        *_folded(items[end:], signs[end:]),
    ]


def _longest_repeat(signs: Sequence[Any]) -> tuple[int, int, int] | None:
    """Start, length and number of the runs that cover most; of equals the shortest."""
    best: tuple[int, int, int] | None = None
    covered = 0
    for period in range(_SHORTEST, min(len(signs) // 2, _LONGEST) + 1):
        run = 0
        for i in range(len(signs) - period):
            run = run + 1 if signs[i] == signs[i + period] else 0
            count = run // period + 1
            size = count * period
            if run >= period and size > covered:
                covered, best = (
                    size,
                    (i + period + 1 - (run // period * period + period), period, count),
                )
    return best
