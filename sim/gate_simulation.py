"""Gate-level simulation of a mapped netlist, 64 independent vectors in each word.

Zero delay, two values, one clock: between two rising edges all gates settle once, in topological
order; flip-flops and memories start at zero. Memories are the ``hw_ram_<words>x<bits>`` black
boxes: one write port, one read port with one cycle of latency, old data on a collision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.cells import CellLibrary, Expression, evaluate, parse_function
from hwcompile.compiler.estimate.memory_macro import memory_macro
from hwcompile.compiler.estimate.netlist import HIGH, Gate, Instance, Netlist

Words = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.intp]
Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Step:
    """All gates of one kind at one level, one output pin: nets of the inputs and of the output."""

    function: Expression
    inputs: dict[str, Indices]
    output: Indices


@dataclass(frozen=True, slots=True)
class _State:
    """Output and data nets of flip-flops; the outputs are the data exclusive-or ``inversion``."""

    outputs: Indices
    data: Indices
    inversion: np.uint64


class GateSimulator:
    """Simulates ``vectors`` independent copies of a flat netlist at once.

    Raises ``UsageError`` for a combinational loop, for more than one clock and for a black box that
    is no memory.
    """

    def __init__(self, netlist: Netlist, library: CellLibrary, vectors: int = 64) -> None:
        if vectors < 1:
            raise UsageError("gate simulation needs at least one vector")
        self.netlist = netlist
        self.vectors = vectors
        self._values: Words = np.zeros((netlist.net_count, -(-vectors // 64)), np.uint64)
        self._values[HIGH] = np.uint64(0xFFFFFFFFFFFFFFFF)
        flops = [gate for gate in netlist.gates if library.cells[gate.cell].is_flip_flop]
        self._steps = _schedule(netlist, library)
        self._flops = _flip_flops(flops, library)
        self._memories = [_Memory(box, vectors) for box in netlist.instances]
        self._check_clocks(flops, library)
        for state in self._flops:
            self._values[state.outputs] = state.inversion
        self._settled = False

    def _check_clocks(self, flops: Sequence[Gate], library: CellLibrary) -> None:
        clocks = {gate.pins[library.cells[gate.cell].clock] for gate in flops}
        if len(clocks) > 1:
            names = ", ".join(self.netlist.net_name(net) for net in sorted(clocks))
            raise UsageError(f"gate simulation of {self.netlist.name}: several clocks: {names}")

    def set(self, port: str, values: Sequence[int]) -> None:
        """Drive an input port: one value a vector, as unsigned bits (negative ones wrap)."""
        nets = self.netlist.ports[port].nets
        if len(values) != self.vectors:
            raise UsageError(f"port {port}: {len(values)} values for {self.vectors} vectors")
        size = -(-len(nets) // 8)
        mask = (1 << len(nets)) - 1
        data = b"".join((int(value) & mask).to_bytes(size, "little") for value in values)
        rows = np.frombuffer(data, np.uint8).reshape(self.vectors, size)
        bits = np.unpackbits(rows, axis=1, bitorder="little")[:, : len(nets)]
        self._values[list(nets)] = _pack(bits)
        self._settled = False

    def get(self, port: str) -> list[int]:
        """Value of a port after all gates settled: one unsigned number a vector."""
        self._settle()
        bits = self._read(self.netlist.ports[port].nets)
        rows = np.packbits(bits, axis=1, bitorder="little")
        return [int.from_bytes(row.tobytes(), "little") for row in rows]

    def settled(self) -> Words:
        """The values of all nets before the next edge, ``[nets, ceil(vectors / 64)]``."""
        self._settle()
        return self._values

    def clock(self) -> None:
        """One rising edge."""
        self._settle()
        updates = [
            (state.outputs, self._values[state.data] ^ state.inversion) for state in self._flops
        ]
        for memory in self._memories:
            memory.edge({port: self._read(nets) for port, nets in memory.inputs.items()})
        for output, value in updates:
            self._values[output] = value
        for memory in self._memories:
            self._values[memory.read_nets] = _pack(memory.read_data)
        self._settled = False

    def _read(self, nets: Sequence[int]) -> Bits:
        """Bits ``[vectors, nets]``."""
        words = self._values[list(nets)]
        octets = words.astype("<u8").view(np.uint8)
        bits = np.unpackbits(octets, axis=1, bitorder="little")
        return np.ascontiguousarray(bits[:, : self.vectors].T)

    def _settle(self) -> None:
        if self._settled:
            return
        values = self._values
        for step in self._steps:
            pins = {pin: values[nets] for pin, nets in step.inputs.items()}
            values[step.output] = evaluate(step.function, pins)
        self._settled = True


def _pack(bits: Bits) -> Words:
    """Bits ``[vectors, nets]`` as words ``[nets, ceil(vectors / 64)]``."""
    octets = np.packbits(bits.T, axis=1, bitorder="little")
    padded = np.zeros((octets.shape[0], -(-octets.shape[1] // 8) * 8), np.uint8)
    padded[:, : octets.shape[1]] = octets
    return padded.view("<u8").astype(np.uint64)


def _flip_flops(flops: Sequence[Gate], library: CellLibrary) -> list[_State]:
    """The state nets, plain and inverted outputs apart."""
    nets: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
    for gate in flops:
        cell = library.cells[gate.cell]
        data = gate.pins[next(pin for pin in cell.inputs if pin != cell.clock)]
        for out in cell.outputs:
            if out.name in gate.pins:
                inverted = parse_function(out.function)[0] == "not"
                nets[inverted].append((gate.pins[out.name], data))
    return [
        _State(
            np.array([output for output, _ in pairs], np.intp),
            np.array([data for _, data in pairs], np.intp),
            np.uint64(0xFFFFFFFFFFFFFFFF if inverted else 0),
        )
        for inverted, pairs in nets.items()
        if pairs
    ]


def _schedule(netlist: Netlist, library: CellLibrary) -> list[_Step]:
    gates = [gate for gate in netlist.gates if not library.cells[gate.cell].is_flip_flop]
    levels = _levels(netlist, gates, library)
    groups: dict[tuple[int, str], list[Gate]] = {}
    for gate, level in zip(gates, levels, strict=True):
        groups.setdefault((level, gate.cell), []).append(gate)
    steps: list[_Step] = []
    for (_, name), members in sorted(groups.items(), key=lambda entry: entry[0]):
        cell = library.cells[name]
        for out in cell.outputs:
            used = [gate for gate in members if out.name in gate.pins]
            if not used:
                continue
            inputs = {
                pin: np.array([gate.pins.get(pin, 0) for gate in used], np.intp)
                for pin in cell.inputs
            }
            nets = np.array([gate.pins[out.name] for gate in used], np.intp)
            steps.append(_Step(parse_function(out.function), inputs, nets))
    return steps


def _levels(netlist: Netlist, gates: Sequence[Gate], library: CellLibrary) -> list[int]:
    """Longest distance of each gate from a source, by a walk in topological order."""
    readers: dict[int, list[int]] = {}
    driven: set[int] = set()
    for gate in gates:
        for out in library.cells[gate.cell].outputs:
            driven.add(gate.pins.get(out.name, -1))
    waiting = [0] * len(gates)
    for index, gate in enumerate(gates):
        for pin in library.cells[gate.cell].inputs:
            net = gate.pins.get(pin, 0)
            if net in driven:
                readers.setdefault(net, []).append(index)
                waiting[index] += 1
    levels = [0] * len(gates)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    done = 0
    while ready:
        index = ready.pop()
        done += 1
        gate = gates[index]
        for out in library.cells[gate.cell].outputs:
            for reader in readers.get(gate.pins.get(out.name, -1), ()):
                levels[reader] = max(levels[reader], levels[index] + 1)
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    ready.append(reader)
    if done != len(gates):
        raise UsageError(f"gate simulation of {netlist.name}: the gates form a loop")
    return levels


class _Memory:
    """Contents of one memory in every vector: bits ``[vectors, words, bits]``."""

    def __init__(self, box: Instance, vectors: int) -> None:
        macro = memory_macro(box.module)
        if macro is None:
            raise UsageError(f"gate simulation: no model of the black box {box.module}")
        self._vectors = np.arange(vectors)
        self._content: Bits = np.zeros((vectors, macro.words, macro.bits), np.uint8)
        self.read_data: Bits = np.zeros((vectors, macro.bits), np.uint8)
        self.read_nets = np.array(box.ports["rdata"], np.intp)
        self.inputs = {port: box.ports[port] for port in ("we", "waddr", "wdata", "re", "raddr")}

    def edge(self, inputs: dict[str, Bits]) -> None:
        """A rising clock edge with these input bits ``[vectors, width]``."""
        words = self._content.shape[1]
        read = np.minimum(_numbers(inputs["raddr"]), words - 1)
        enabled = inputs["re"].astype(bool)
        self.read_data = np.where(enabled, self._content[self._vectors, read], self.read_data)
        write = _numbers(inputs["waddr"])
        chosen = inputs["we"][:, 0].astype(bool) & (write < words)
        self._content[self._vectors[chosen], write[chosen]] = inputs["wdata"][chosen]


def _numbers(bits: Bits) -> Indices:
    weights = np.left_shift(1, np.arange(bits.shape[1]))
    return np.asarray(bits.astype(np.intp) @ weights, np.intp)
