"""How hard a mapped netlist is to wire: nets, fan-out, pins a cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwcompile.compiler.estimate.cells import CellLibrary
from hwcompile.compiler.estimate.netlist import HIGH, Netlist
from hwcompile.compiler.ir.program import IntArray


@dataclass(frozen=True, slots=True)
class NetlistStatistics:
    """``nets``: those that something reads, constants and clocks left out; ``sinks``: what reads
    them (pins of cells, bits of instances and of output ports), ``fan_out_max`` on one net.
    ``cells``, ``pins``: library cells and their connected pins, clock and constants among them.
    """

    cells: int
    pins: int
    nets: int
    sinks: int
    fan_out_max: int

    def __add__(self, other: NetlistStatistics) -> NetlistStatistics:
        """Of both together; a net that goes through a port counts on either side."""
        return NetlistStatistics(
            self.cells + other.cells,
            self.pins + other.pins,
            self.nets + other.nets,
            self.sinks + other.sinks,
            max(self.fan_out_max, other.fan_out_max),
        )

    @property
    def fan_out_mean(self) -> float:
        """Sinks of a net."""
        return self.sinks / self.nets if self.nets else 0.0

    @property
    def pins_per_cell(self) -> float:
        return self.pins / self.cells if self.cells else 0.0


NO_CELLS = NetlistStatistics(0, 0, 0, 0, 0)
"""Of nothing."""


def netlist_statistics(netlist: Netlist, library: CellLibrary) -> NetlistStatistics:
    """Count one module, or a whole chip if it is flat."""
    sinks = sink_counts(netlist, library)
    return NetlistStatistics(
        cells=len(netlist.gates),
        pins=sum(len(gate.pins) for gate in netlist.gates),
        nets=int(np.count_nonzero(sinks)),
        sinks=int(sinks.sum()),
        fan_out_max=int(sinks.max(initial=0)),
    )


def sink_counts(netlist: Netlist, library: CellLibrary) -> IntArray:
    """Sinks of each net ``[nets]``; 0 for constants and clocks."""
    read: list[int] = []
    silent = list(range(HIGH + 1))
    for gate in netlist.gates:
        cell = library.cells[gate.cell]
        read += [gate.pins[pin] for pin in cell.inputs if pin in gate.pins]
        if cell.is_flip_flop:
            silent.append(gate.pins[cell.clock])
        elif not cell.inputs:
            silent += gate.pins.values()
    for box in netlist.instances:
        for name, nets in box.ports.items():
            if name not in box.outputs:
                read += nets
    for port in netlist.ports.values():
        if not port.is_input:
            read += port.nets
    counts = np.bincount(read, minlength=netlist.net_count)
    counts[silent] = 0
    return counts
