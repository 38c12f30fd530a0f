"""Figures: graded input numbers, and the tables of them that ship as YAML.

A figure is one number with its range, unit, source, date and grade. ``low`` and ``high`` are the
tenth and ninetieth percentile of what the number may be. Tables are mappings of mappings whose
leaves are figures; a user's own file may overlay any of them.

Grades: ``published`` (a primary or secondary source was read), ``measured`` (by us, on this design
or on the cell library), ``derived`` (arithmetic on published figures), ``assumed`` (unchecked or
our judgement: the range is wide).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from hwcompile.compiler.errors import UsageError

Grade = Literal["published", "measured", "derived", "assumed"]

TABLES = (
    "nodes",
    "masks",
    "packaging",
    "energy",
    "gpus",
    "datacentre",
    "edge",
    "shuttles",
    "geometry",
    "links",
    "anchors",
    "embedding",
)
_FIELDS = ("value", "low", "high", "unit", "source", "date", "grade")


@dataclass(frozen=True, slots=True)
class Figure:
    """One input number. ``source`` is the citation in full, ``date`` that of the source."""

    value: float
    low: float
    high: float
    unit: str
    source: str
    date: str
    grade: Grade

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.value, self.low, self.high))):
            raise ValueError("a figure must be finite")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low <= value <= high is violated: {self.low, self.value, self.high}")
        if self.grade not in get_args(Grade):
            raise ValueError(f"grade {self.grade!r} is none of {', '.join(get_args(Grade))}")
        if not (self.unit and self.source and self.date):
            raise ValueError("unit, source and date must be given")


def measured(value: float, unit: str, source: str, spread: float = 0.0) -> Figure:
    """A number of this design: ``value`` within ``±spread`` (a fraction of it)."""
    margin = abs(value) * spread
    return Figure(value, value - margin, value + margin, unit, source, "this run", "measured")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of figures, addressed by dotted keys (``"45.wafer_usd"``)."""

    name: str
    figures: Mapping[str, Figure]

    def __getitem__(self, key: str) -> Figure:
        try:
            return self.figures[key]
        except KeyError:
            raise UsageError(f"table {self.name} has no figure {key!r}") from None

    def __contains__(self, key: str) -> bool:
        return key in self.figures

    def sections(self) -> tuple[str, ...]:
        """First parts of the keys, in the order of the file."""
        return tuple(dict.fromkeys(key.partition(".")[0] for key in self.figures))


def read_yaml(text: str, origin: str) -> dict[str, Any]:
    """Parse a YAML mapping; anything else is a :class:`UsageError` naming ``origin``."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{origin} is no YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{origin} must be a mapping")
    return {str(key): value for key, value in content.items()}


def shipped(name: str) -> str:
    """Text of a data file of this package."""
    return files("hwcompile.compiler.estimate").joinpath("data", name).read_text("utf-8")


def shipped_sources() -> dict[str, str]:
    """Citations by their short key, which figures may use as ``source``."""
    return {k: str(v) for k, v in read_yaml(shipped("sources.yaml"), "sources.yaml").items()}


def parse_figures(content: Mapping[str, Any], origin: str) -> dict[str, Figure]:
    """Flatten nested mappings into figures by dotted key. A leaf is a mapping with ``value``."""
    sources = shipped_sources()
    return {key: _figure(leaf, sources, f"{origin}: {key}") for key, leaf in _leaves(content, "")}


def load_tables(overlay: Path | None = None) -> dict[str, Table]:
    """The shipped tables by name; ``overlay`` is a YAML file ``{table: {key: {...: figure}}}``.

    Columns (nodes, GPUs, ...) may be added; their figures are those of the shipped columns. Raises
    :class:`UsageError` naming file and key of the first bad cell.
    """
    tables = {
        name: parse_figures(read_yaml(shipped(f"{name}.yaml"), f"{name}.yaml"), f"{name}.yaml")
        for name in TABLES
    }
    if overlay is not None:
        for name, content in read_figures_file(overlay).items():
            if name not in tables or not isinstance(content, dict):
                raise UsageError(
                    f"{overlay.name}: no table {name!r}", f"one of {', '.join(TABLES)}"
                )
            figures = parse_figures(content, f"{overlay.name}: {name}")
            _check_known(figures, tables[name], f"{overlay.name}: {name}")
            tables[name].update(figures)
    return {name: Table(name, figures) for name, figures in tables.items()}


def read_figures_file(path: Path) -> dict[str, Any]:
    """The mapping in a user's YAML file. Raises :class:`UsageError`."""
    try:
        return read_yaml(path.read_text("utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def _check_known(own: Mapping[str, Figure], table: Mapping[str, Figure], origin: str) -> None:
    """Each of a user's figures must have a name that the table knows, and its unit."""
    units = {key.rpartition(".")[2]: figure.unit for key, figure in table.items()}
    for key, figure in own.items():
        name = key.rpartition(".")[2]
        unit = table[key].unit if key in table else units.get(name)
        if unit is None:
            raise UsageError(f"{origin}: {key}: there is no figure {name!r}")
        if unit != figure.unit:
            raise UsageError(f"{origin}: {key} must be in {unit}, not {figure.unit}")


def _leaves(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, entry in content.items():
        if isinstance(entry, dict):
            if "value" in entry:
                yield f"{prefix}{key}", entry
            else:
                yield from _leaves(entry, f"{prefix}{key}.")


def _figure(leaf: Mapping[str, Any], sources: Mapping[str, str], where: str) -> Figure:
    missing = [name for name in _FIELDS if name not in leaf]
    unknown = [str(name) for name in leaf if name not in _FIELDS]
    if missing or unknown:
        raise UsageError(f"{where}: missing {missing}, unknown {unknown}", "see docs/estimate.md")
    try:
        source = str(leaf["source"])
        return Figure(
            float(leaf["value"]),
            float(leaf["low"]),
            float(leaf["high"]),
            str(leaf["unit"]),
            sources.get(source, source),
            str(leaf["date"]),
            cast(Grade, leaf["grade"]),
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from None
