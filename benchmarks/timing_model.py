"""The linear delay model against table look-up with slews, on the same mapped netlists.

    python -m benchmarks.timing_model LIB --target nangate45 --verilog FILE.v ... --top MODULE ...

For each top: critical path by the linear model (as the estimator reports it) and by the liberty
file's own tables (rise and fall apart, slews propagated, the worst of all conditions). Wire loads
and fan-out buffers are left out of both, so that the difference is that of the delay models.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwcompile.compiler.estimate.cells import CellLibrary
from hwcompile.compiler.estimate.figures import measured
from hwcompile.compiler.estimate.liberty import (
    DelayTable,
    Group,
    Units,
    delay_tables,
    parse_liberty,
    read_liberty_text,
)
from hwcompile.compiler.estimate.netlist import Gate, Netlist, read_netlist
from hwcompile.compiler.estimate.synthesis import synthesise
from hwcompile.compiler.estimate.targets import Target, load_target
from hwcompile.compiler.estimate.timing import module_timing

RISE, FALL = 0, 1
_NAMES = (("cell_rise", "rise_transition"), ("cell_fall", "fall_transition"))


@dataclass(frozen=True, slots=True)
class _Arc:
    source: str
    edges: tuple[tuple[int, int], ...]
    delays: tuple[tuple[DelayTable, ...], tuple[DelayTable, ...]]
    slews: tuple[tuple[DelayTable, ...], tuple[DelayTable, ...]]


class TableTiming:
    """Worst arrival and slew of both edges of every net, from a liberty file's tables."""

    def __init__(self, root: Group, library: CellLibrary) -> None:
        units = Units.of(root)
        self._library = library
        self._arcs = {
            (cell.args[0], pin.args[0]): list(_arcs(pin, units))
            for cell in root.of("cell")
            if cell.args and cell.args[0] in library.cells
            for pin in cell.of("pin")
        }

    def critical_ns(self, netlist: Netlist) -> float:
        """Slowest path to a flip-flop (setup as in the cell table) or an output."""
        loads = self._loads(netlist)
        start = dict.fromkeys(range(netlist.net_count), (0.0, self._library.typical_slew_ns))
        times: list[dict[int, tuple[float, float]]] = [{}, {}]
        for port in netlist.ports.values():
            if port.is_input:
                for net in port.nets:
                    times[RISE][net] = times[FALL][net] = start[net]
        ends = [
            (net, 0.0) for port in netlist.ports.values() if not port.is_input for net in port.nets
        ]
        flops = [gate for gate in netlist.gates if self._library.cells[gate.cell].is_flip_flop]
        for gate in flops:
            cell = self._library.cells[gate.cell]
            times[RISE][gate.pins[cell.clock]] = start[0]
            self._evaluate(gate, times, loads)
            data = next(pin for pin in cell.inputs if pin != cell.clock)
            ends.append((gate.pins[data], cell.setup_ns))
        for gate in _in_order(netlist, self._library):
            self._evaluate(gate, times, loads)
        return max(
            (edge[net][0] + setup for net, setup in ends for edge in times if net in edge),
            default=0.0,
        )

    def _loads(self, netlist: Netlist) -> list[float]:
        loads = [0.0] * netlist.net_count
        for gate in netlist.gates:
            for pin, capacitance in self._library.cells[gate.cell].inputs.items():
                loads[gate.pins.get(pin, 0)] += capacitance
        return loads

    def _evaluate(
        self, gate: Gate, times: list[dict[int, tuple[float, float]]], loads: Sequence[float]
    ) -> None:
        for out in self._library.cells[gate.cell].outputs:
            net = gate.pins.get(out.name)
            if net is None:
                continue
            load = np.array([loads[net]])
            for arc in self._arcs[gate.cell, out.name]:
                for before, after in arc.edges:
                    known = times[before].get(gate.pins.get(arc.source, -1))
                    if known is None or not arc.delays[after]:
                        continue
                    arrival, slew = known
                    delay = max(float(t.at(slew, load)[0]) for t in arc.delays[after])
                    new = max(float(t.at(slew, load)[0]) for t in arc.slews[after])
                    old = times[after].get(net, (-1.0, 0.0))
                    times[after][net] = (max(old[0], arrival + delay), max(old[1], new))


def _arcs(pin: Group, units: Units) -> Iterator[_Arc]:
    senses = {
        "positive_unate": ((RISE, RISE), (FALL, FALL)),
        "negative_unate": ((RISE, FALL), (FALL, RISE)),
    }
    both = ((RISE, RISE), (RISE, FALL), (FALL, RISE), (FALL, FALL))
    for timing in pin.of("timing"):
        kind = timing.attributes.get("timing_type", "combinational")
        if kind not in ("combinational", "rising_edge"):
            continue
        edges = senses.get(timing.attributes.get("timing_sense", ""), both)
        if kind == "rising_edge":
            edges = ((RISE, RISE), (RISE, FALL))
        delays, slews = (
            tuple(tuple(delay_tables(timing, names[index], units)) for names in _NAMES)
            for index in (0, 1)
        )
        source = timing.attributes.get("related_pin", "").strip()
        yield _Arc(source, edges, (delays[0], delays[1]), (slews[0], slews[1]))


def _in_order(netlist: Netlist, library: CellLibrary) -> Iterator[Gate]:
    """Gates that are no flip-flops, inputs first."""
    driver: dict[int, Gate] = {}
    for gate in netlist.gates:
        cell = library.cells[gate.cell]
        if not cell.is_flip_flop:
            driver |= {gate.pins[o.name]: gate for o in cell.outputs if o.name in gate.pins}
    done: set[str] = set()
    for root in driver.values():
        stack = [root]
        while stack:
            gate = stack[-1]
            if gate.name in done:
                stack.pop()
                continue
            nets = (gate.pins.get(pin, 0) for pin in library.cells[gate.cell].inputs)
            waiting = [
                driver[net] for net in nets if net in driver and driver[net].name not in done
            ]
            if waiting:
                stack += waiting
            else:
                stack.pop()
                done.add(gate.name)
                yield gate


def unloaded(target: Target) -> Target:
    """The target without wires and without fan-out buffers."""
    figures: Mapping[str, object] = {
        **target.figures,
        "wire_ff_per_sink": measured(0.0, "fF", "left out"),
        "sinks_per_buffer": measured(1e9, "sinks", "left out"),
    }
    return dataclasses.replace(target, figures=figures)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("liberty", type=Path)
    parser.add_argument("--target", default="nangate45")
    parser.add_argument("--verilog", type=Path, nargs="+", required=True)
    parser.add_argument("--top", nargs="+", required=True)
    options = parser.parse_args(arguments)
    target = load_target(options.target)
    tables = TableTiming(parse_liberty(read_liberty_text(options.liberty)), target.library)
    ratios = []
    print(f"{'module':<28} {'linear ns':>10} {'tables ns':>10} {'ratio':>6}")
    for top in options.top:
        result = synthesise(options.verilog, top, target)
        netlist = read_netlist(result.modules[top].netlist_json, top, target.library)
        if netlist.instances:
            print(f"{top:<28} has instances of other modules: left out")
            continue
        linear = module_timing(netlist, unloaded(target), {}).critical_ns
        exact = tables.critical_ns(netlist)
        ratios.append(linear / exact)
        print(f"{top:<28} {linear:10.3f} {exact:10.3f} {ratios[-1]:6.2f}")
    if ratios:
        print(f"{'geometric mean':<50} {float(np.exp(np.mean(np.log(ratios)))):6.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
