"""Static timing of a mapped hierarchy, with a stated simple model.

* Delay of an arc: ``intrinsic + resistance * load`` (see ``cells``); one value for both edges, one
  typical slew.
* Load of a net: input capacitance of its sinks plus ``wire_ff_per_sink`` each.
* Nets with many sinks have buffer trees in the netlist (``buffer_trees``), and are timed like any
  other. The clock has none: the buffers that its tree will need are counted.
* Paths start at clock-to-output of flip-flops, at input ports (time 0) and at memories
  (``ram_access_ns``); they end at flip-flops (setup included), output ports and memories. The clock
  is ideal: no skew, no insertion delay, no margin.
* Children are seen through an abstract: setup of each input port, clock-to-output of each output
  port, and the delays of combinational paths between them, per port.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hwcompile.compiler.estimate.buffer_trees import layers
from hwcompile.compiler.estimate.cells import CellLibrary
from hwcompile.compiler.estimate.memory_macro import memory_macro
from hwcompile.compiler.estimate.netlist import HIGH, Instance, Netlist, Port, read_netlist
from hwcompile.compiler.estimate.netlist_statistics import NetlistStatistics, netlist_statistics
from hwcompile.compiler.estimate.synthesis import SynthesisResult
from hwcompile.compiler.estimate.synthesis_job import tree_buffer
from hwcompile.compiler.estimate.targets import Target

_NEVER = -math.inf


@dataclass(frozen=True, slots=True)
class InputTiming:
    """An input port: load of its heaviest bit and time from it to the next flip-flop."""

    capacitance_ff: float
    setup_ns: float


@dataclass(frozen=True, slots=True)
class OutputTiming:
    """An output port: time from the clock edge, and from input ports through gates alone."""

    clock_to_out_ns: float
    resistance_ns_per_ff: float
    from_input_ns: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ModuleTiming:
    """Slowest path of one module (children seen through their abstracts) and its totals.

    ``clock_buffers`` and ``clock_buffer_area_um2``: what nets with more sinks than a buffer drives
    will need, which after synthesis is the clock alone; estimated, not in the netlist.
    ``clock_capacitance_ff``: of flip-flop clock pins; ``leakage_nw``: of all gates.
    """

    name: str
    critical_ns: float
    start: str
    end: str
    path: tuple[str, ...] = field(repr=False)
    clock_buffers: int
    clock_buffer_area_um2: float
    clock_capacitance_ff: float
    leakage_nw: float
    statistics: NetlistStatistics
    inputs: Mapping[str, InputTiming] = field(repr=False)
    outputs: Mapping[str, OutputTiming] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TimingReport:
    """Timing of every module of a hierarchy."""

    modules: Mapping[str, ModuleTiming]

    @property
    def slowest(self) -> ModuleTiming:
        """The module with the critical path of the whole."""
        return max(self.modules.values(), key=lambda module: module.critical_ns)

    @property
    def critical_ns(self) -> float:
        return self.slowest.critical_ns


def analyse_timing(
    synthesis: SynthesisResult,
    target: Target,
    earlier: tuple[SynthesisResult, TimingReport] | None = None,
) -> TimingReport:
    """Timing of all modules of a synthesis, children before their parents.

    From an ``earlier`` analysis for the same target it takes what has not changed since.
    """
    done: dict[str, ModuleTiming] = {}
    for name in _children_first(synthesis):
        known = _unchanged(synthesis, name, done, earlier) if earlier is not None else None
        if known is None:
            path = synthesis.modules[name].netlist_json
            known = module_timing(read_netlist(path, name, target.library), target, done)
        done[name] = known
    return TimingReport({name: done[name] for name in synthesis.modules})


def _unchanged(
    synthesis: SynthesisResult,
    name: str,
    done: Mapping[str, ModuleTiming],
    earlier: tuple[SynthesisResult, TimingReport],
) -> ModuleTiming | None:
    """The earlier timing of a module whose netlist and children are still the same."""
    before, report = earlier
    module = synthesis.modules[name]
    if name not in before.modules or before.modules[name].folder != module.folder:
        return None
    if any(done.get(child) is not report.modules.get(child) for child in module.children):
        return None
    return report.modules[name]


def _children_first(synthesis: SynthesisResult) -> list[str]:
    order: dict[str, None] = {}
    stack = [(synthesis.top, False)]
    while stack:
        name, finished = stack.pop()
        if finished:
            order[name] = None
        elif name not in order and name in synthesis.modules:
            stack.append((name, True))
            stack += [(child, False) for child in synthesis.modules[name].children]
    return list(order)


# --- the graph ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Node:
    """What computes some nets from others: ``outputs`` are ready at the latest arrival plus arc
    delay, plus ``resistance * load``. ``launch_ns`` is the time from the clock edge, if any."""

    name: str
    arcs: tuple[tuple[int, float], ...]
    outputs: tuple[int, ...]
    resistance: float
    launch_ns: float


@dataclass(frozen=True, slots=True)
class _End:
    """A net that must be stable ``setup_ns`` before the clock edge."""

    net: int
    setup_ns: float
    name: str


@dataclass(slots=True)
class _Graph:
    nodes: list[_Node]
    ends: list[_End]
    loads: list[float]
    sinks: list[int]


def _graph(netlist: Netlist, target: Target, children: Mapping[str, ModuleTiming]) -> _Graph:
    graph = _Graph([], [], [0.0] * netlist.net_count, [0] * netlist.net_count)
    library = target.library
    for gate in netlist.gates:
        cell = library.cells[gate.cell]
        for pin, capacitance in cell.inputs.items():
            net = gate.pins.get(pin, 0)
            graph.loads[net] += capacitance
            graph.sinks[net] += 1
        if cell.is_flip_flop:
            data = next(pin for pin in cell.inputs if pin != cell.clock)
            state = next((gate.pins[out.name] for out in cell.outputs if out.name in gate.pins), 0)
            name = netlist.net_name(state)
            graph.ends.append(_End(gate.pins[data], cell.setup_ns, name))
        for out in cell.outputs:
            if out.name not in gate.pins:
                continue
            arcs: tuple[tuple[int, float], ...] = ()
            launch = _NEVER
            if cell.is_flip_flop:
                launch = out.intrinsic_ns.get(cell.clock, 0.0)
            else:
                arcs = tuple((gate.pins[pin], delay) for pin, delay in out.intrinsic_ns.items())
            net = gate.pins[out.name]
            graph.nodes.append(_Node(gate.cell, arcs, (net,), out.resistance_ns_per_ff, launch))
    for instance in netlist.instances:
        _add_instance(graph, instance, target, children)
    wire = target.value("wire_ff_per_sink")
    for net, sinks in enumerate(graph.sinks):
        graph.loads[net] += wire * sinks
    return graph


def _add_instance(
    graph: _Graph, instance: Instance, target: Target, children: Mapping[str, ModuleTiming]
) -> None:
    child = children.get(instance.module)
    if child is None:
        _add_black_box(graph, instance, target)
        return
    for port, timing in child.inputs.items():
        for net in instance.ports.get(port, ()):
            graph.loads[net] += timing.capacitance_ff
            graph.sinks[net] += 1
            if timing.setup_ns > _NEVER:
                graph.ends.append(_End(net, timing.setup_ns, f"{instance.module}.{port}"))
    for port, out in child.outputs.items():
        arcs = tuple(
            (net, delay)
            for source, delay in out.from_input_ns.items()
            for net in instance.ports.get(source, ())
        )
        nets = instance.ports.get(port, ())
        name = f"{instance.module}.{port}"
        graph.nodes.append(_Node(name, arcs, nets, out.resistance_ns_per_ff, out.clock_to_out_ns))


def _add_black_box(graph: _Graph, instance: Instance, target: Target) -> None:
    """A memory: its outputs follow the clock, its inputs end a path. Other boxes likewise."""
    reference = target.library.flip_flop
    access = target.value("ram_access_ns") if memory_macro(instance.module) is not None else 0.0
    for port, nets in instance.ports.items():
        name = f"{instance.module}.{port}"
        if port in instance.outputs:
            graph.nodes.append(_Node(name, (), nets, 0.0, access))
            continue
        for net in nets:
            graph.loads[net] += max(reference.inputs.values())
            graph.sinks[net] += 1
            graph.ends.append(_End(net, reference.setup_ns, name))


def _topological(graph: _Graph, net_count: int) -> list[int]:
    """Nodes in an order in which inputs come first.

    A loop (possible only through the per-port abstracts of children) is broken at its first node.
    """
    readers: list[list[int]] = [[] for _ in range(net_count)]
    drivers = [0] * net_count
    for node in graph.nodes:
        for net in node.outputs:
            drivers[net] += 1
    waiting = [0] * len(graph.nodes)
    for index, node in enumerate(graph.nodes):
        for net, _ in node.arcs:
            if drivers[net]:
                readers[net].append(index)
                waiting[index] += drivers[net]
    order: list[int] = []
    placed = [False] * len(graph.nodes)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    next_unplaced = 0
    while True:
        while ready:
            index = ready.pop()
            if placed[index]:
                continue
            placed[index] = True
            order.append(index)
            for net in graph.nodes[index].outputs:
                for reader in readers[net]:
                    waiting[reader] -= 1
                    if waiting[reader] == 0:
                        ready.append(reader)
        while next_unplaced < len(placed) and placed[next_unplaced]:
            next_unplaced += 1
        if next_unplaced == len(placed):
            return order
        ready.append(next_unplaced)


# --- analysis ----------------------------------------------------------------------------------


def module_timing(
    netlist: Netlist, target: Target, children: Mapping[str, ModuleTiming]
) -> ModuleTiming:
    """Timing of one module whose children's timing is known."""
    graph = _graph(netlist, target, children)
    order = _topological(graph, netlist.net_count)

    def propagate(
        arrival: list[float], with_clock: bool, trace: list[int] | None = None
    ) -> list[float]:
        for index in order:
            node = graph.nodes[index]
            best = node.launch_ns if with_clock else _NEVER
            source = -1
            for net, delay in node.arcs:
                time = arrival[net] + delay
                if time > best:
                    best, source = time, net
            if best == _NEVER:
                continue
            for net in node.outputs:
                time = best + node.resistance * graph.loads[net]
                if time > arrival[net]:
                    arrival[net] = time
                    if trace is not None:
                        trace[net] = (index << 32) | (source + 1)
        return arrival

    input_ports = [port for port in netlist.ports.values() if port.is_input]
    output_ports = [port for port in netlist.ports.values() if not port.is_input]
    clocked = propagate([_NEVER] * netlist.net_count, True)
    from_port: dict[str, list[float]] = {}
    for port in input_ports:
        start = [_NEVER] * netlist.net_count
        for net in port.nets:
            start[net] = 0.0
        from_port[port.name] = propagate(start, False)
    trace = [-1] * netlist.net_count
    start = [_NEVER] * netlist.net_count
    for port in input_ports:
        for net in port.nets:
            start[net] = 0.0
    latest = propagate(start, True, trace)

    critical, end_net, end = _slowest(graph, latest, output_ports)
    path = _path(netlist, graph, trace, end_net)
    library = target.library
    bound = int(target.value("sinks_per_buffer"))
    clock_buffers = sum(sum(layers(sinks, bound)) for sinks in graph.sinks[HIGH + 1 :])
    drive = {net: node.resistance for node in graph.nodes for net in node.outputs}
    return ModuleTiming(
        name=netlist.name,
        critical_ns=critical,
        start=path[0] if path else "",
        end=end,
        path=path,
        clock_buffers=clock_buffers,
        clock_buffer_area_um2=clock_buffers * tree_buffer(target).area_um2,
        clock_capacitance_ff=_clock_capacitance(netlist, library),
        leakage_nw=sum(library.cells[gate.cell].leakage_nw for gate in netlist.gates),
        statistics=netlist_statistics(netlist, library),
        inputs={
            port.name: InputTiming(
                max((graph.loads[net] for net in port.nets), default=0.0),
                max((from_port[port.name][e.net] + e.setup_ns for e in graph.ends), default=_NEVER),
            )
            for port in input_ports
        },
        outputs={
            port.name: OutputTiming(
                max((clocked[net] for net in port.nets), default=_NEVER),
                max((drive.get(net, 0.0) for net in port.nets), default=0.0),
                {
                    source: worst
                    for source, times in from_port.items()
                    if (worst := max((times[net] for net in port.nets), default=_NEVER)) > _NEVER
                },
            )
            for port in output_ports
        },
    )


def _clock_capacitance(netlist: Netlist, library: CellLibrary) -> float:
    cells = (library.cells[gate.cell] for gate in netlist.gates)
    return sum(cell.inputs[cell.clock] for cell in cells if cell.is_flip_flop)


def _slowest(
    graph: _Graph, latest: Sequence[float], outputs: Sequence[Port]
) -> tuple[float, int, str]:
    """Time, net and name of the end point of the slowest path; zero when there is none."""
    best = (0.0, -1, "")
    for end in graph.ends:
        time = latest[end.net] + end.setup_ns
        if time > best[0]:
            best = (time, end.net, end.name)
    for port in outputs:
        for net in port.nets:
            if latest[net] > best[0]:
                best = (latest[net], net, port.name)
    return best


def _path(netlist: Netlist, graph: _Graph, trace: Sequence[int], net: int) -> tuple[str, ...]:
    """Cells along the slowest path, from its start to its end."""
    steps: list[str] = []
    while net >= 0 and len(steps) <= len(graph.nodes):
        if trace[net] < 0:
            steps.append(netlist.net_name(net))
            break
        index, source = trace[net] >> 32, (trace[net] & 0xFFFFFFFF) - 1
        steps.append(f"{graph.nodes[index].name} -> {netlist.net_name(net)}")
        net = source
    return tuple(reversed(steps))
