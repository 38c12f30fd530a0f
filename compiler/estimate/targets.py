"""Targets: a cell library and the graded figures of its process, as YAML data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.cells import CellLibrary, library_from_text, load_library
from hwcompile.compiler.estimate.figures import Figure, parse_figures, read_yaml
from hwcompile.compiler.estimate.liberty import read_liberty_text, read_library

FIGURES = {
    "node_nm": "nm",
    "utilisation": "share",
    "wire_ff_per_sink": "fF",
    "sinks_per_buffer": "sinks",
    "ram_macro_um2": "um2",
    "ram_um2_per_bit": "um2",
    "ram_two_port": "ratio",
    "ram_access_ns": "ns",
    "clock_goal_ns": "ns",
}
"""What a target must say, with the units it is read in."""

_FIELDS = ("name", "description", "predictive", "cells", "figures")


@dataclass(frozen=True, slots=True)
class Target:
    """A process to map to."""

    name: str
    description: str
    predictive: bool
    library: CellLibrary
    figures: Mapping[str, Figure] = field(repr=False)

    def value(self, key: str) -> float:
        """Best value of a figure; see ``FIGURES`` for names and units."""
        return self.figures[key].value


def target_names() -> tuple[str, ...]:
    """Names of the shipped targets, in order of the alphabet."""
    folder = files("hwcompile.compiler.estimate") / "data" / "targets"
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_target(name: str, liberty: Path | None = None) -> Target:
    """A shipped target by its name, or one from a ``.yaml`` file.

    ``liberty`` replaces its cell table by those of a real liberty file (``.lib`` or ``.lib.gz``).
    Raises ``UsageError`` naming what is missing or wrong.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the target {name}: {error}") from None
        return _target(text, path.name, path.parent, liberty)
    if name not in target_names():
        known = ", ".join(target_names())
        raise UsageError(f"there is no target {name!r}", f"one of {known}, or a .yaml file")
    file = files("hwcompile.compiler.estimate") / "data" / "targets" / f"{name}.yaml"
    return _target(file.read_text("utf-8"), f"{name}.yaml", None, liberty)


def _target(text: str, origin: str, folder: Path | None, liberty: Path | None) -> Target:
    content = read_yaml(text, origin)
    missing = [name for name in _FIELDS if name not in content]
    unknown = [name for name in content if name not in _FIELDS]
    if missing or unknown:
        raise UsageError(
            f"{origin}: missing {', '.join(missing) or 'nothing'}; "
            f"unknown {', '.join(unknown) or 'nothing'}",
            f"the fields of a target are {', '.join(_FIELDS)}",
        )
    if not isinstance(content["figures"], dict):
        raise UsageError(f"{origin}: figures must be a mapping")
    figures = parse_figures(content["figures"], origin)
    _check_figures(figures, origin)
    library = (
        _from_liberty(liberty)
        if liberty is not None
        else _library(content["cells"], origin, folder)
    )
    _check_library(library, origin)
    return Target(
        str(content["name"]),
        str(content["description"]),
        content["predictive"] is True,
        library,
        figures,
    )


def _check_figures(figures: Mapping[str, Figure], origin: str) -> None:
    for key, unit in FIGURES.items():
        if key not in figures:
            raise UsageError(f"{origin}: figures: {key} ({unit}) is missing")
        if figures[key].unit != unit:
            raise UsageError(f"{origin}: figures: {key} must be in {unit}")
        if figures[key].low < 0:
            raise UsageError(f"{origin}: figures: {key} must not be negative")
    if not 0 < figures["utilisation"].low <= figures["utilisation"].high <= 1:
        raise UsageError(f"{origin}: figures: utilisation must lie in 0 .. 1, 0 excluded")
    if figures["sinks_per_buffer"].low < 2:
        raise UsageError(f"{origin}: figures: sinks_per_buffer must be at least 2")


def _check_library(library: CellLibrary, origin: str) -> None:
    """Every target must have the cells that anything can be mapped to."""
    try:
        for cell in (library.inverter, library.nand2, library.buffer, library.flip_flop):
            if cell.area_um2 <= 0:
                raise UsageError(f"cell {cell.name} has no area")
    except UsageError as error:
        raise UsageError(f"{origin}: cells: {error.message}", error.hint) from None


def _from_liberty(path: Path) -> CellLibrary:
    return read_library(read_liberty_text(path), source=path.name)


def _library(cells: Any, origin: str, folder: Path | None) -> CellLibrary:
    name = str(cells)
    if not name.endswith((".yaml", ".yml")):
        try:
            return load_library(name)
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                f"{origin}: cells: there is no table {name!r}", "a shipped name or a .yaml file"
            ) from None
    if folder is None:
        raise UsageError(f"{origin}: cells: must be a shipped table")
    try:
        return library_from_text((folder / name).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{origin}: cells: cannot read {name}: {error}") from None
