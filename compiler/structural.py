"""Two mapped netlists side by side: same cells, and what of their connections differs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Change = Literal["same", "connections", "cells"]

_CELL = re.compile(r"^  (\S+) (\\?\S+)\s+\(\n(.*?)^  \);$", re.MULTILINE | re.DOTALL)
_PIN = re.compile(r"^    \.(\S+?)\((.*?)\)(?:,|\n|$)", re.MULTILINE | re.DOTALL)
_ASSIGN = re.compile(r"^  assign (.*?) = (.*?);$", re.MULTILINE | re.DOTALL)
_PORTS = re.compile(r"^  ((?:input|output|inout)\b.*?);$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Structure:
    """A module of cells. ``cells``: instance to type; ``pins``: (instance, pin) to what is
    connected; ``assigns``: what is wired without a cell; ``ports`` as declared."""

    cells: Mapping[str, str]
    pins: Mapping[tuple[str, str], str]
    assigns: Mapping[str, str]
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModuleChange:
    """One module. ``cells``: of the old and of the new; ``cells_added``, ``cells_gone`` by type,
    whatever their names; ``pins_changed``: of cells that both have, and wires between ports."""

    module: str
    change: Change
    cells: tuple[int, int]
    cells_added: int
    cells_gone: int
    pins_changed: int
    same_names: bool


def parse(text: str) -> Structure:
    """The structure of a netlist as Yosys writes it: instances, assignments, ports."""
    cells: dict[str, str] = {}
    pins: dict[tuple[str, str], str] = {}
    for kind, name, body in _CELL.findall(text):
        cells[name] = kind
        for pin, net in _PIN.findall(body):
            pins[name, pin] = " ".join(net.split())
    wires = {left: " ".join(right.split()) for left, right in _ASSIGN.findall(text)}
    return Structure(cells, pins, wires, tuple(_PORTS.findall(text)))


def compare(module: str, old: str, new: str) -> ModuleChange:
    """How the netlist of a module changed.

    ``connections``: the same ports and as many cells of each type, so that the old placement
    carries the new module and only wires differ. ``same_names``: the cells even have their names.
    """
    first, second = parse(old), parse(new)
    before, after = Counter(first.cells.values()), Counter(second.cells.values())
    added = sum((after - before).values())
    gone = sum((before - after).values())
    changed = sum(
        _differing(net, second.pins[place])
        for place, net in first.pins.items()
        if place in second.pins
    )
    changed += sum(
        _differing(right, second.assigns.get(left, "")) for left, right in first.assigns.items()
    )
    same_names = first.cells == second.cells
    kind: Change = "cells"
    if first == second:
        kind = "same"
    elif not added and not gone and first.ports == second.ports:
        kind = "connections"
    sizes = (len(first.cells), len(second.cells))
    return ModuleChange(module, kind, sizes, added, gone, changed, same_names)


def _differing(old: str, new: str) -> int:
    """Bits of a connection that differ; a concatenation has one a piece."""
    if old == new:
        return 0
    before, after = (text.strip("{} ").split(",") for text in (old, new))
    different = sum(a.strip() != b.strip() for a, b in zip(before, after, strict=False))
    return different + abs(len(before) - len(after))


def only(module: str, text: str, is_new: bool) -> ModuleChange:
    """A module that one side alone has."""
    size = len(parse(text).cells)
    sizes = (0, size) if is_new else (size, 0)
    return ModuleChange(module, "cells", sizes, sizes[1], sizes[0], 0, False)
