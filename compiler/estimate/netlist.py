"""A mapped netlist in memory: cells as pin-to-net lists, nets as small integers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwcompile.compiler.errors import ToolError
from hwcompile.compiler.estimate.cells import CellLibrary

LOW, HIGH = 0, 1
"""Nets that are constant; an undefined bit counts as low."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port: its nets, least significant bit first."""

    name: str
    is_input: bool
    nets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Gate:
    """A library cell: one net a pin (an unconnected output is missing)."""

    name: str
    cell: str
    pins: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance of another module: the nets of each of its ports, and which are outputs."""

    name: str
    module: str
    ports: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Netlist:
    """One mapped module. Nets are ``0 .. net_count - 1``; 0 and 1 are the constants."""

    name: str
    ports: Mapping[str, Port]
    gates: tuple[Gate, ...]
    instances: tuple[Instance, ...]
    net_count: int
    names: Mapping[int, str] = field(repr=False)

    def net_name(self, net: int) -> str:
        """Name of a net in the sources, else ``net<number>``."""
        return self.names.get(net, f"net{net}")


def read_netlist(path: Path, module: str, library: CellLibrary) -> Netlist:
    """Read the Yosys JSON (``.json`` or ``.json.gz``) of a mapped module."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = json.load(file)["modules"][module]
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise ToolError(f"the netlist {path} of {module} is damaged: {error!r}") from None
    return _netlist(module, content, library)


def _netlist(module: str, content: Mapping[str, Any], library: CellLibrary) -> Netlist:
    gates: list[Gate] = []
    instances: list[Instance] = []
    top = HIGH
    for name, cell in content["cells"].items():
        kind = cell["type"]
        pins = {pin: tuple(map(_net, bits)) for pin, bits in cell["connections"].items()}
        top = max(top, *(net for nets in pins.values() for net in nets), HIGH)
        if kind in library.cells:
            gates.append(Gate(name, kind, {pin: nets[0] for pin, nets in pins.items() if nets}))
        else:
            directions = cell.get("port_directions", {})
            outputs = tuple(port for port in pins if directions.get(port) == "output")
            instances.append(Instance(name, kind, pins, outputs))
    ports = {}
    for name, port in content["ports"].items():
        nets = tuple(map(_net, port["bits"]))
        top = max(top, *nets, HIGH)
        ports[name] = Port(name, port["direction"] == "input", nets)
    names: dict[int, str] = {}
    for name, entry in content["netnames"].items():
        if entry.get("hide_name"):
            continue
        bits = entry["bits"]
        for index, bit in enumerate(bits):
            text = f"{name}[{index}]" if len(bits) > 1 else name
            names.setdefault(_net(bit), text)
    return Netlist(module, ports, tuple(gates), tuple(instances), top + 1, names)


def _net(bit: int | str) -> int:
    if isinstance(bit, int):
        return bit
    return HIGH if bit == "1" else LOW


def flatten(top: str, modules: Mapping[str, Netlist]) -> Netlist:
    """One netlist of a whole hierarchy; modules that are not in ``modules`` stay instances."""
    work = _Flattening(modules)
    root = modules[top]
    nets = work.place(root, "")
    merged = work.find
    ports = {
        name: Port(name, port.is_input, tuple(merged(nets[net]) for net in port.nets))
        for name, port in root.ports.items()
    }
    gates = tuple(
        Gate(gate.name, gate.cell, {pin: merged(net) for pin, net in gate.pins.items()})
        for gate in work.gates
    )
    instances = tuple(
        Instance(
            box.name,
            box.module,
            {port: tuple(map(merged, bits)) for port, bits in box.ports.items()},
            box.outputs,
        )
        for box in work.instances
    )
    names: dict[int, str] = {}
    for net, name in root.names.items():
        names.setdefault(merged(nets[net]), name)
    return Netlist(top, ports, gates, instances, len(work.parents), names)


class _Flattening:
    """Copies modules into one number space of nets and joins what ports connect."""

    def __init__(self, modules: Mapping[str, Netlist]) -> None:
        self._modules = modules
        self.parents = [LOW, HIGH]
        self.gates: list[Gate] = []
        self.instances: list[Instance] = []

    def find(self, net: int) -> int:
        while self.parents[net] != net:
            self.parents[net] = self.parents[self.parents[net]]
            net = self.parents[net]
        return net

    def _join(self, one: int, other: int) -> None:
        # The smaller number stays, so that constants and the nets of the top do.
        low, high = sorted((self.find(one), self.find(other)))
        self.parents[high] = low

    def place(self, module: Netlist, prefix: str) -> list[int]:
        """Copy a module and all below it; its nets in the common numbers."""
        base = len(self.parents) - 2
        self.parents += range(base + 2, base + module.net_count)
        nets = [LOW, HIGH, *range(base + 2, base + module.net_count)]
        for gate in module.gates:
            pins = {pin: nets[net] for pin, net in gate.pins.items()}
            self.gates.append(Gate(prefix + gate.name, gate.cell, pins))
        for box in module.instances:
            ports = {port: tuple(nets[net] for net in bits) for port, bits in box.ports.items()}
            child = self._modules.get(box.module)
            if child is None:
                name = prefix + box.name
                self.instances.append(Instance(name, box.module, ports, box.outputs))
                continue
            inner = self.place(child, f"{prefix}{box.name}/")
            for port, outer in ports.items():
                for net, joined in zip(child.ports[port].nets, outer, strict=True):
                    self._join(inner[net], joined)
        return nets
