"""Fan-out bounded in a mapped netlist: balanced buffer trees in front of many sinks.

The netlist is a module of Yosys JSON. A net with more sinks than ``bound`` gets layers of buffers,
each net of which has at most ``bound`` sinks; the cell of a constant is repeated instead. Clocks
stay as they are: their tree is made after placement. Sinks are pins of cells, bits of ports of
instances, and output bits of the module, one each.

The sinks of one buffer are neighbours: they come in the order in which a walk from the outputs of
the module backwards meets their cells, so that those of one cone of logic share a buffer.

This file stands alone (standard library only): it runs inside the child process of a synthesis.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

Module = Mapping[str, Any]
"""An entry of ``modules`` of a Yosys JSON file."""

Sink = tuple[str, str, int]
"""Cell, port and bit of it; the cell is empty for an output of the module."""

PREFIX = "hw_tree_"
"""How the names of the cells put in begin."""


@dataclass(frozen=True, slots=True)
class TreeRules:
    """``buffer``: cell, input and output pin. ``bound``: sinks of a net. ``ties``: cell and pin of
    the constants that the library has, 0 first. ``clocks``: cell or module to its clock pins.
    ``spares``: put in what the worst connection of these cells would need, so that the number of
    buffers does not depend on what is connected; those not used are fed a constant.
    """

    buffer: tuple[str, str, str]
    bound: int
    ties: Sequence[tuple[str, str]]
    clocks: Mapping[str, Sequence[str]]
    spares: bool = False


def layers(sinks: int, bound: int) -> list[int]:
    """Buffers in each layer of the tree of a net, nearest to the sinks first."""
    found: list[int] = []
    while sinks > bound:
        sinks = -(-sinks // bound)
        found.append(sinks)
    return found


def most_buffers(module: Module, bound: int) -> int:
    """Buffers that no connection of the cells and ports of a module can need more than."""
    nets = sum(len(p["bits"]) for p in module["ports"].values() if p["direction"] != "output")
    sinks = sum(len(p["bits"]) for p in module["ports"].values() if p["direction"] == "output")
    for cell in module["cells"].values():
        nets += sum(len(bits) for _, bits in _outputs(cell))
        sinks += sum(len(bits) for _, bits in _inputs(cell))
    total = 0
    while sinks > bound:
        # Each of the nets that are too wide may waste all but one sink of a buffer.
        sinks = (sinks + (bound - 1) * min(nets, sinks // (bound + 1))) // bound
        total += sinks
    return total


def bounded(module: Module, rules: TreeRules) -> tuple[dict[str, Any], dict[str, int]]:
    """The module with buffer trees, and how many cells of each type were put in.

    The same module gives the same cells and names.
    """
    wide = _wide_nets(module, rules)
    if not wide and not rules.spares:
        return dict(module), {}
    trees = _Trees(module, rules)
    sinks = _sinks(module, wide)
    for net in sorted(wide):
        driver = wide[net]
        if driver is None:
            trees.buffer(net, sinks[net])
        else:
            trees.repeat(net, sinks[net], driver)
    if rules.spares:
        trees.spare(most_buffers(module, rules.bound) - trees.added.get(rules.buffer[0], 0))
    return trees.module(), dict(sorted(trees.added.items()))


def rewrite(source: Path, out: Path, name: str, rules: TreeRules) -> dict[str, int]:
    """Bound the fan-out of module ``name`` of a Yosys JSON file; the cells put in, by type."""
    content = json.loads(source.read_bytes())
    module, added = bounded(content["modules"][name], rules)
    modules = {**content["modules"], name: module}
    text = json.dumps({**content, "modules": modules}, separators=(",", ":"))
    out.write_text(text, encoding="utf-8")
    return added


def _inputs(cell: Module) -> Iterator[tuple[str, list[int | str]]]:
    directions = cell["port_directions"]
    for port, bits in cell["connections"].items():
        if directions[port] != "output":
            yield port, bits


def _outputs(cell: Module) -> Iterator[tuple[str, list[int | str]]]:
    directions = cell["port_directions"]
    for port, bits in cell["connections"].items():
        if directions[port] == "output":
            yield port, bits


def _wide_nets(module: Module, rules: TreeRules) -> dict[int, str | None]:
    """Nets with too many sinks, clocks left out; with the cell that drives it if a constant."""
    count: dict[int | str, int] = {}
    clocks: set[int | str] = set()
    ties: dict[int | str, str] = {}
    constants = [cell for cell, _ in rules.ties]
    for name, cell in module["cells"].items():
        own = rules.clocks.get(cell["type"], ())
        for port, bits in _inputs(cell):
            if port in own:
                clocks.update(bits)
            for bit in bits:
                count[bit] = count.get(bit, 0) + 1
        if cell["type"] in constants:
            for _, bits in _outputs(cell):
                ties |= dict.fromkeys(bits, name)
    for port in module["ports"].values():
        if port["direction"] == "output":
            for bit in port["bits"]:
                count[bit] = count.get(bit, 0) + 1
    return {
        bit: ties.get(bit)
        for bit, sinks in count.items()
        if sinks > rules.bound and isinstance(bit, int) and bit not in clocks
    }


def _sinks(module: Module, wide: Mapping[int, str | None]) -> dict[int, list[Sink]]:
    """The sinks of the wide nets, neighbours together."""
    found: dict[int, list[Sink]] = {net: [] for net in wide}
    for name, port in module["ports"].items():
        if port["direction"] == "output":
            for index, bit in enumerate(port["bits"]):
                if bit in found:
                    found[bit].append(("", name, index))
    for name in _walk(module):
        for port, bits in _inputs(module["cells"][name]):
            for index, bit in enumerate(bits):
                if bit in found:
                    found[bit].append((name, port, index))
    return found


def _walk(module: Module) -> Iterator[str]:
    """Cells, backwards from the outputs, depth first; then those that no output needs."""
    cells = module["cells"]
    driver = {
        bit: name for name, cell in cells.items() for _, bits in _outputs(cell) for bit in bits
    }
    starts = [
        driver[bit]
        for port in module["ports"].values()
        if port["direction"] == "output"
        for bit in port["bits"]
        if bit in driver
    ]
    seen: set[str] = set()
    for start in (*starts, *cells):
        stack = [start]
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            yield name
            before = [bit for _, bits in _inputs(cells[name]) for bit in bits if bit in driver]
            stack += (driver[bit] for bit in reversed(before))


class _Trees:
    """A copy of a module that grows."""

    def __init__(self, module: Module, rules: TreeRules) -> None:
        self._rules = rules
        self._module = module
        self._new_cells: dict[str, dict[str, Any]] = {}
        self._moved: dict[tuple[str, str], list[int | str]] = {}
        self._next_net = 1 + max(
            bit
            for entry in module["netnames"].values()
            for bit in entry["bits"]
            if isinstance(bit, int)
        )
        self.added: dict[str, int] = {}

    def module(self) -> dict[str, Any]:
        """The module as it is now."""
        cells, ports = dict(self._module["cells"]), dict(self._module["ports"])
        names = dict(self._module["netnames"])
        for (cell, port), bits in self._moved.items():
            if cell:
                pins = {**cells[cell]["connections"], port: bits}
                cells[cell] = {**cells[cell], "connections": pins}
            else:
                ports[port] = {**ports[port], "bits": bits}
                names[port] = {**names[port], "bits": bits}
        cells |= self._new_cells
        return {**self._module, "cells": cells, "ports": ports, "netnames": names}

    def buffer(self, net: int, sinks: Sequence[Sink]) -> None:
        """Layers of buffers between ``net`` and its sinks."""
        cell, pin, out = self._rules.buffer
        while len(sinks) > self._rules.bound:
            above: list[Sink] = []
            for group in _groups(sinks, self._rules.bound):
                directions = {pin: "input", out: "output"}
                name = self._add(cell, net, directions, {pin: net, out: self._next_net})
                self._move(group, self._next_net)
                self._next_net += 1
                above.append((name, pin, 0))
            sinks = above

    def repeat(self, net: int, sinks: Sequence[Sink], driver: str) -> None:
        """The cell of a constant once for each group of sinks but the first, which it keeps."""
        model = self._module["cells"][driver]
        for group in _groups(sinks, self._rules.bound)[1:]:
            pins = dict.fromkeys(model["connections"], self._next_net)
            self._add(model["type"], net, model["port_directions"], pins)
            self._move(group, self._next_net)
            self._next_net += 1

    def spare(self, count: int) -> None:
        """Buffers of which nothing is used, in a tree behind a constant 0."""
        cell, pin, out = self._rules.buffer
        nets: list[int | str] = ["0"]
        if self._rules.ties:
            tie, tie_pin = self._rules.ties[0]
            nets = [self._next_net]
            self._add(tie, 0, {tie_pin: "output"}, {tie_pin: self._next_net})
            self._next_net += 1
        for n in range(count):
            directions = {pin: "input", out: "output"}
            pins = {pin: nets[n // self._rules.bound], out: self._next_net}
            nets.append(self._next_net)
            self._add(cell, 0, directions, pins)
            self._next_net += 1

    def _add(
        self, kind: str, net: int, directions: Mapping[str, str], pins: Mapping[str, int | str]
    ) -> str:
        name = f"{PREFIX}{net}_{self._next_net}"
        self.added[kind] = self.added.get(kind, 0) + 1
        self._new_cells[name] = {
            "hide_name": 0,
            "type": kind,
            "parameters": {},
            "attributes": {},
            "port_directions": dict(directions),
            "connections": {pin: [bit] for pin, bit in pins.items()},
        }
        return name

    def _move(self, sinks: Sequence[Sink], net: int) -> None:
        for cell, port, index in sinks:
            if cell in self._new_cells:
                self._new_cells[cell]["connections"][port][index] = net
                continue
            if (cell, port) not in self._moved:
                owner = self._module["cells"][cell]["connections"][port] if cell else None
                self._moved[cell, port] = list(owner or self._module["ports"][port]["bits"])
            self._moved[cell, port][index] = net


def _groups(sinks: Sequence[Sink], bound: int) -> list[Sequence[Sink]]:
    """As few groups as hold the sinks, of equal size but for one."""
    count = -(-len(sinks) // bound)
    edges = [len(sinks) * n // count for n in range(count + 1)]
    return [sinks[a:b] for a, b in pairwise(edges)]
