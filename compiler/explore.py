"""Design-space exploration: a model built several ways, and the ways that no other way beats.

Every point is a design of its own: quantised, planned, mapped to cells and estimated, as a
compilation would, only not simulated and not written. What points share is computed once, through
the cache of the stages; an exploration that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hwcompile.compiler import pipeline
from hwcompile.compiler.emit.report import QualityLine
from hwcompile.compiler.errors import HwcompileError, UsageError
from hwcompile.compiler.estimate.estimate import Estimate
from hwcompile.compiler.options import STYLES, WEIGHTS, Options
from hwcompile.compiler.stages import Listener

WEIGHTS_TRIED = ("auto", "int4", "ternary")


@dataclass(frozen=True, slots=True)
class Point:
    """One way to build the model.

    ``area_mm2``: core, cells with room for wires and memories. ``rate``: items a second of one
    chip. ``energy_uj``: of one item at full load. ``accuracy``: share of arg-max choices equal to
    the float model's, or 1 - relative squared error where there is no choice, on the calibration
    inputs.
    """

    weights: str
    style: str
    area_mm2: float
    rate: float
    energy_uj: float
    accuracy: float

    def beats(self, other: Point) -> bool:
        """No worse in any of the four, better in one (Pareto)."""
        mine, its = self.goods, other.goods
        return mine != its and all(a >= b for a, b in zip(mine, its, strict=True))

    @property
    def goods(self) -> tuple[float, ...]:
        """The four, each so that more is better."""
        return (-self.area_mm2, self.rate, -self.energy_uj, self.accuracy)


@dataclass(frozen=True, slots=True)
class Failure:
    """A way that cannot be built, and why."""

    weights: str
    style: str
    why: str


@dataclass(frozen=True, slots=True)
class Exploration:
    """All points in the order tried. ``item``: what ``rate`` and ``energy_uj`` count."""

    item: str
    target: str
    points: tuple[Point, ...]
    failures: tuple[Failure, ...]

    @property
    def front(self) -> tuple[Point, ...]:
        """The points that none beats, the smallest first; of equal points the first tried."""
        distinct: dict[tuple[float, ...], Point] = {}
        for point in self.points:
            distinct.setdefault(point.goods, point)
        kept = [p for p in distinct.values() if not any(q.beats(p) for q in distinct.values())]
        return tuple(sorted(kept, key=lambda p: (p.area_mm2, -p.rate)))


def explore(
    model: str | Path,
    options: Options,
    listener: Listener,
    weights: Sequence[str] = WEIGHTS_TRIED,
    styles: Sequence[str] = STYLES,
    tried: Callable[[str], None] = lambda text: None,
) -> Exploration:
    """Build ``model`` with each weight format in each style; ``tried`` hears of every point.

    Raises UsageError for a format or style that does not exist, and the error of the first point
    when no point can be built.
    """
    _known("weight format", weights, WEIGHTS)
    _known("style", styles, STYLES)
    points, failures, first, item = [], [], None, ""
    for kind in weights:
        for style in styles:
            way = replace(options, weights=kind, style=style, dry_run=True, verify="none")
            tried(f"{kind} weights, {style}")
            try:
                made = pipeline.compile_model(model, way, listener).artefacts
            except HwcompileError as error:
                first = first or error
                failures.append(Failure(kind, style, error.message))
                continue
            found: Estimate = made["estimate"]
            item = found.facts.item
            points.append(_point(kind, style, found, made["quality"]))
    if first is not None and not points:
        raise first
    return Exploration(item, options.target, tuple(points), tuple(failures))


def _known(what: str, given: Sequence[str], names: Sequence[str]) -> None:
    for name in given:
        if name not in names:
            raise UsageError(f"there is no {what} {name!r}", "one of " + ", ".join(names))


def _point(weights: str, style: str, found: Estimate, quality: tuple[QualityLine, ...]) -> Point:
    numbers = {q.name: q.mid for q in found.quantities}
    rate = numbers["performance.chip_rate"]
    return Point(
        weights,
        style,
        numbers["area.core_mm2"],
        rate,
        numbers["power.chip_w"] / rate * 1e6,
        _accuracy(quality),
    )


def _accuracy(quality: tuple[QualityLine, ...]) -> float:
    """The worst agreement, or what the worst relative error leaves of 1."""
    choices = [line.design for line in quality if line.metric == "arg-max agreement"]
    return min(choices) if choices else 1.0 - max(line.design for line in quality)
