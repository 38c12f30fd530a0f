"""A module of Verilog as one list of operations on bits.

Yosys reads the text (``read_verilog``, ``proc``); nothing is optimised. Every vector cell becomes
one operation a bit, except that the vectors of adders, which are recognised by what they compute
and not by their name, stay adders. A *net* is a bit of the module, net 0 is constant 0. A *literal*
is ``2 * net``, or ``2 * net + 1`` for its complement; 0 and 1 are the constants.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.errors import MismatchError, ToolError
from hwcompile.compiler.tools import pyosys_version, run_tool
from hwcompile.sim.certificate.kernels import (
    ADDER,
    ALL,
    ANY,
    CHOICE,
    PARITY,
    SELECT,
    TABLE,
    linear_forms,
    specialise,
    topological_order,
)

IntArray = NDArray[np.int64]

_READ_SECONDS = 1800
_READ_MB = 12_000
_CHILD = """\
from pyosys import libyosys as ys
design = ys.Design()
for line in open("read.ys"):
    ys.run_pass(line.strip(), design)
"""
_SCRIPT = """\
read_verilog {files}
hierarchy -check -top {top}
proc
memory_collect
{kept}flatten -noscopeinfo
write_json circuit.json
"""


class UnreadableCircuit(MismatchError):
    """The Verilog holds something that no weight block should."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """One flat module.

    ``inputs``, ``outputs``: literals by port, lowest bit first. Operation ``n`` is of ``kind[n]``,
    reads ``operands[start[n] : start[n + 1]]``, drives the nets ``out[n]`` (an adder also
    ``carry[n]``; -1: none). TABLE: bit ``k`` of its word is ``tables[table[n] + address]``.
    Registers: next value ``next_value`` (literals), nets ``state``, condition ``enable`` and
    ``clock`` (literals). Operations come after those whose results they read. ``boxes``: literals
    of the ports of the modules that were left closed; ``names``: literals of named wires.
    """

    name: str
    nets: int
    inputs: Mapping[str, IntArray]
    outputs: Mapping[str, IntArray]
    kind: IntArray
    start: IntArray
    operands: IntArray
    out: IntArray
    carry: IntArray
    table: IntArray
    tables: NDArray[np.int8]
    state: IntArray
    next_value: IntArray
    enable: IntArray
    clock: IntArray
    boxes: Mapping[str, Mapping[str, IntArray]]
    names: Mapping[str, IntArray]

    @property
    def adders(self) -> int:
        """Full and half adders."""
        return int((self.kind == ADDER).sum())

    def specialise(self, value: IntArray, maker: IntArray) -> None:
        """:func:`kernels.specialise` of all operations."""
        specialise(
            *(self.kind, self.start, self.operands, self.out, self.carry),
            *(self.table, self.tables, value, maker),
        )

    def linear_forms(
        self, value: IntArray, maker: IntArray, words: IntArray, start: IntArray, bits: IntArray
    ) -> Any:
        """:func:`kernels.linear_forms` of words, with what ``specialise`` found."""
        return linear_forms(
            *(self.start, self.operands, self.kind, self.out, self.carry),
            *(value, maker, words, start, bits),
        )


def read_circuit(
    files: Sequence[Path], top: str, boxes: Mapping[str, str] | None = None
) -> Circuit:
    """The module ``top`` of these Verilog files, flat.

    ``boxes``: headers of modules that stay closed, by name. With them every cell that is not
    understood stays closed too: its outputs are bits of which nothing is known.

    Raises:
        UnreadableCircuit: a cell or a structure that is not understood.
        ToolError: Yosys is missing or fails.
    """
    modules = _modules(files, top, boxes or {})
    adders = {
        name: arity
        for name, module in modules.items()
        if name != top and name not in (boxes or {}) and (arity := _adder_arity(name, module))
    }
    return _Builder(top, modules[top], adders, boxes).circuit()


def _modules(files: Sequence[Path], top: str, boxes: Mapping[str, str]) -> dict[str, Any]:
    """Yosys' JSON of ``top``, everything below but the modules of adders flattened into it."""
    pyosys_version()
    kept = "".join(f"setattr -mod -{word}\n" for word in _HIERARCHY)
    with tempfile.TemporaryDirectory(prefix="hwcompile-") as folder:
        work = Path(folder)
        names = []
        for number, path in enumerate(files):  # names of ours: the script is split at blanks
            names.append(f"source{number}.v")
            (work / names[-1]).symlink_to(path.resolve())
        if boxes:
            headers = [f"(* blackbox *) {header}\nendmodule\n" for header in boxes.values()]
            (work / "boxes.v").write_text("".join(headers), encoding="utf-8")
            names.append("boxes.v")
        script = _SCRIPT.format(files=" ".join(names), top=top, kept=kept)
        (work / "read.ys").write_text(script, encoding="utf-8")
        try:
            run_tool(
                [sys.executable, "-c", _CHILD],
                name=f"reading {top}",
                cwd=work,
                timeout_s=_READ_SECONDS,
                memory_mb=_READ_MB,
                environment={"YOSYS_MAX_THREADS": "1"},
                log_file=work / "read.log",
            )
        except ToolError as error:
            if "exit code 1" in error.message:  # how Yosys says that it cannot read something
                raise UnreadableCircuit(f"Yosys cannot read {top}", error.hint) from error
            raise
        document = json.loads((work / "circuit.json").read_bytes())
    modules: dict[str, Any] = document["modules"]
    return modules


_HIERARCHY = ("unset keep_hierarchy *", "set keep_hierarchy 1 *hw_full_adders* *hw_half_adders*")


# --- adders recognised ----------------------------------------------------------------------------


def _adder_arity(name: str, module: Mapping[str, Any]) -> int:
    """3 for a vector of full adders, 2 for half adders: every bit by its truth table; else error.

    Raises:
        UnreadableCircuit: the module is neither.
    """
    ports = module["ports"]
    arity = int(sum(port["direction"] == "input" for port in ports.values()))
    if set(ports) != {*"abc"[:arity], "sum", "carry"} or arity not in (2, 3):
        raise UnreadableCircuit(f"module {name} has not the ports of adders")
    circuit = _Builder(name, module, {}).circuit()
    support = _supports(circuit)
    width = len(circuit.outputs["sum"])
    operands = [circuit.inputs[port] for port in "abc"[:arity]]
    results = [circuit.outputs[port] for port in ("sum", "carry")]
    if any(len(bits) != width for bits in (*operands, *results)):
        raise UnreadableCircuit(f"the ports of module {name} differ in width")
    for k in range(width):
        mine = {int(bits[k]) >> 1 for bits in operands}
        if any(not support(int(bits[k]) >> 1) <= mine for bits in results):
            raise UnreadableCircuit(f"module {name}: bit {k} depends on another bit")
    for values in product((0, 1), repeat=arity):
        total = sum(values)
        found = _evaluate(circuit, dict(zip("abc", values, strict=False)))
        wrong = found["sum"] != total % 2, found["carry"] != total // 2
        if any(w.any() for w in wrong):
            raise UnreadableCircuit(f"module {name} does not add: inputs {values}")
    return arity


def _supports(circuit: Circuit) -> Callable[[int], frozenset[int]]:
    """Function from a net to the nets without driver that it depends on."""
    found: dict[int, frozenset[int]] = {0: frozenset()}
    for n, out in enumerate(circuit.out.tolist()):
        reads = circuit.operands[circuit.start[n] : circuit.start[n + 1]] >> 1
        found[out] = frozenset().union(*(found.get(net, {net}) for net in reads.tolist()))
    return lambda net: found.get(net, frozenset({net}))


def _evaluate(circuit: Circuit, values: Mapping[str, int]) -> dict[str, IntArray]:
    """Output bits of a circuit of gates when all bits of an input port are the same."""
    bit = np.zeros(circuit.nets, np.int64)
    for port, value in values.items():
        bit[circuit.inputs[port] >> 1] = value
    for n, kind in enumerate(circuit.kind.tolist()):
        literals = circuit.operands[circuit.start[n] : circuit.start[n + 1]]
        read = bit[literals >> 1] ^ (literals & 1)
        if kind not in (ALL, ANY, PARITY):
            raise UnreadableCircuit(f"module {circuit.name} is not made of gates")
        bit[circuit.out[n]] = (read.all(), read.any(), read.sum() % 2)[kind]
    return {port: bit[lits >> 1] ^ (lits & 1) for port, lits in circuit.outputs.items()}


# --- from cells to operations ---------------------------------------------------------------------


class _Block(NamedTuple):
    """Operations of one kind: literals ``[n, operands]``, nets and first table entries ``[n]``."""

    kind: int
    operands: IntArray
    out: IntArray
    carry: IntArray
    table: IntArray


@dataclass(slots=True)
class _Builder:
    """Collects operations in blocks of equal kind and number of operands."""

    name: str
    module: Mapping[str, Any]
    adders: Mapping[str, int]
    boxes: Mapping[str, str] | None = None
    nets: int = 0
    closed: dict[str, Mapping[str, IntArray]] = field(default_factory=dict)
    blocks: list[_Block] = field(default_factory=list)
    tables: list[NDArray[np.int8]] = field(default_factory=list)
    table_size: int = 0
    registers: list[tuple[IntArray, IntArray, IntArray, IntArray]] = field(default_factory=list)
    names: dict[str, IntArray] = field(default_factory=dict)

    def circuit(self) -> Circuit:
        ports, cells = self.module["ports"], self.module["cells"]
        vectors = [port["bits"] for port in ports.values()]
        vectors += [bits for cell in cells.values() for bits in cell["connections"].values()]
        every = (bit for bits in vectors for bit in bits if isinstance(bit, int))
        self.nets = 1 + max(every, default=1)
        for label, cell in cells.items():
            self._cell(label, cell)
        directions: dict[str, dict[str, IntArray]] = {"input": {}, "output": {}}
        for port, record in ports.items():
            if record["direction"] not in directions:
                raise UnreadableCircuit(f"module {self.name}: port {port} is no input or output")
            directions[record["direction"]][port] = _literals(record["bits"])
        if self.boxes is not None:
            for name, record in self.module["netnames"].items():
                if all(isinstance(bit, int) for bit in record["bits"]):
                    self.names[name] = _literals(record["bits"])
        return self._sorted(directions["input"], directions["output"])

    # Cells.

    def _cell(self, label: str, cell: Mapping[str, Any]) -> None:
        kind, read = cell["type"], _Ports(cell, self._unknown)
        if self.boxes is not None and kind in self.boxes:
            self.closed[kind] = {port: read(port) for port in cell["connections"]}
            return
        if kind in self.adders:
            bits = [read(port) for port in "abc"[: self.adders[kind]]]
            if len(bits) == 2:
                bits.append(np.zeros_like(bits[0]))
            self._add(ADDER, np.stack(bits, 1), read("sum"), read("carry"))
        elif kind in _BITWISE:
            operation, complement = _BITWISE[kind]
            width = read.width("Y")
            operands = [read.extended(p, width) for p in ("A", "B") if p in cell["connections"]]
            self._gate(operation, np.stack(operands, 1), read("Y"), complement)
        elif kind in _REDUCTIONS:
            operation, complement = _REDUCTIONS[kind]
            self._word(operation, read("A"), read("Y"), complement)
        elif kind in ("$logic_and", "$logic_or"):
            truths = np.array([self._truth(read("A")), self._truth(read("B"))])
            self._word(ALL if kind == "$logic_and" else ANY, truths, read("Y"))
        elif kind in ("$eq", "$ne"):
            width = max(read.width("A"), read.width("B"))
            pair = np.stack([read.extended("A", width), read.extended("B", width)], 1)
            unequal = self._fresh(width)
            self._add(PARITY, pair, unequal)
            self._word(ANY, unequal, read("Y"), kind == "$eq")
        elif kind == "$mux":
            choice = np.broadcast_to(read("S"), (read.width("Y"),))
            self._add(CHOICE, np.stack([choice, read("A"), read("B")], 1), read("Y"))
        elif kind == "$pmux":
            self._select(read)
        elif kind in ("$add", "$sub"):
            self._sum(read, kind == "$sub")
        elif kind == "$mem_v2":
            self._memory(label, cell, read)
        elif kind in ("$dff", "$dffe"):
            self._register(label, cell, read)
        elif kind in ("$shl", "$sshl", "$shr", "$sshr"):
            self._shift(kind, read)
        elif kind in ("$lt", "$le", "$gt", "$ge"):
            self._compare(kind, read)
        elif self.boxes is None:
            raise UnreadableCircuit(f"module {self.name} holds a cell of type {kind}")

    def _gate(self, kind: int, operands: IntArray, out: IntArray, complement: bool) -> None:
        if not complement:
            self._add(kind, operands, out)
        elif kind == PARITY:
            one = np.ones((len(operands), 1), np.int64)
            self._add(kind, np.concatenate([operands, one], 1), out)
        else:  # De Morgan
            self._add(ANY if kind == ALL else ALL, operands ^ 1, out)

    def _word(self, kind: int, operands: IntArray, y: IntArray, complement: bool = False) -> None:
        self._gate(kind, operands[None, :], y[:1], complement)
        if len(y) > 1:
            self._add(ANY, np.zeros((len(y) - 1, 1), np.int64), y[1:])

    def _truth(self, bits: IntArray) -> int:
        out = self._fresh(1)
        self._add(ANY, bits[None, :], out)
        return int(out[0])

    def _select(self, read: _Ports) -> None:
        width, choices = read.width("Y"), read.width("S")
        options = read("B").reshape(choices, width).T
        condition = np.broadcast_to(read("S"), (width, choices))
        pairs = np.stack([options, condition], 2).reshape(width, -1)
        self._add(SELECT, np.concatenate([read("A")[:, None], pairs], 1), read("Y"))

    def _sum(self, read: _Ports, minus: bool) -> None:
        width = read.width("Y")
        carries = self._fresh(width)
        into = np.concatenate([[int(minus)], carries[:-1]])
        operands = np.stack([read.extended("A", width), read.extended("B", width) ^ minus, into], 1)
        self._add(ADDER, operands, read("Y"), carries)

    def _shift(self, kind: str, read: _Ports) -> None:
        """By stages, one a bit of the distance."""
        width = max(read.width("Y"), read.width("A"))
        now = read.extended("A", width)
        fill = int(now[-1]) if kind == "$sshr" and _number(read.parameters["A_SIGNED"]) else 0
        for stage, choice in enumerate(read("B")):
            gap = np.full(min(1 << stage, width), fill if kind.endswith("shr") else 0, np.int64)
            kept = width - len(gap)
            moved = [now[len(gap) :], gap] if kind.endswith("shr") else [gap, now[:kept]]
            result = self._fresh(width)
            chosen = np.stack([np.full(width, choice), now, np.concatenate(moved)], 1)
            self._add(CHOICE, chosen, result)
            now = result
        self._add(ALL, now[: read.width("Y"), None], read("Y"))

    def _compare(self, kind: str, read: _Ports) -> None:
        """A < B where A - B is negative, a bit wider than both."""
        width = max(read.width("A"), read.width("B")) + 1
        a, b = read.extended("A", width), read.extended("B", width)
        a, b = (a, b) if kind in ("$lt", "$ge") else (b, a)
        total, carries = self._fresh(width), self._fresh(width)
        operands = np.stack([a, b ^ 1, np.concatenate([[1], carries[:-1]])], 1)
        self._add(ADDER, operands, total, carries)
        self._word(ALL, total[-1:], read("Y"), kind in ("$le", "$ge"))

    def _unknown(self) -> int:
        """The literal of an undefined bit: nothing is known of it."""
        if self.boxes is None:
            raise UnreadableCircuit(f"module {self.name} has an undefined bit")
        return int(self._fresh(1)[0])

    def _memory(self, label: str, cell: Mapping[str, Any], read: _Ports) -> None:
        parameters = cell["parameters"]
        number = {key: _number(parameters[key]) for key in ("WIDTH", "SIZE", "OFFSET", "ABITS")}
        if (
            _number(parameters["WR_PORTS"])
            or _number(parameters["RD_CLK_ENABLE"])
            or number["OFFSET"]
        ):
            raise UnreadableCircuit(f"module {self.name}: {label} is no table")
        width, size, address = number["WIDTH"], number["SIZE"], number["ABITS"]
        text = np.frombuffer(parameters["INIT"].encode(), np.uint8)[::-1]
        content = np.full((1 << address, width), -1, np.int8)
        known = np.where(text == ord("1"), 1, np.where(text == ord("0"), 0, -1)).astype(np.int8)
        rows = min(size, 1 << address)
        content[:rows] = known[: rows * width].reshape(rows, width)
        first = self.table_size
        self.tables.append(content.T.ravel())
        self.table_size += content.size
        data, addresses = read("RD_DATA"), read("RD_ADDR")
        for port in range(_number(parameters["RD_PORTS"])):
            bits = np.broadcast_to(addresses[port * address :][:address], (width, address))
            table = first + np.arange(width) * (1 << address)
            self._add(TABLE, bits, data[port * width :][:width], table=table)

    def _register(self, label: str, cell: Mapping[str, Any], read: _Ports) -> None:
        parameters = cell["parameters"]
        if not _number(parameters["CLK_POLARITY"]):
            raise UnreadableCircuit(f"module {self.name}: {label} has a falling clock edge")
        width = read.width("Q")
        enable = np.ones(1, np.int64)
        if cell["type"] == "$dffe":
            enable = read("EN") ^ (1 - _number(parameters["EN_POLARITY"]))
        enables, clocks = (np.broadcast_to(x, (width,)) for x in (enable, read("CLK")))
        self.registers.append((read("Q") >> 1, read("D"), enables, clocks))

    # Operations.

    def _fresh(self, count: int) -> IntArray:
        """Literals of new nets."""
        first = self.nets
        self.nets += count
        return 2 * np.arange(first, first + count, dtype=np.int64)

    def _add(
        self,
        kind: int,
        operands: IntArray,
        out: IntArray,
        carry: IntArray | None = None,
        table: IntArray | None = None,
    ) -> None:
        count = len(operands)
        if len(out) != count or (carry is not None and len(carry) != count):
            raise UnreadableCircuit(f"module {self.name}: a cell with ports of different widths")
        none = np.full(count, -1, np.int64)
        carries = none if carry is None else carry >> 1
        firsts = none if table is None else table
        self.blocks.append(_Block(kind, operands.astype(np.int64), out >> 1, carries, firsts))

    def _sorted(self, inputs: dict[str, IntArray], outputs: dict[str, IntArray]) -> Circuit:
        kind = _joined([np.full(len(b.out), b.kind, np.int64) for b in self.blocks])
        arity = _joined([np.full(len(b.out), b.operands.shape[1], np.int64) for b in self.blocks])
        out, carry, table = (
            _joined([getattr(b, name) for b in self.blocks]) for name in ("out", "carry", "table")
        )
        operands = _joined([b.operands.ravel() for b in self.blocks])
        start = np.concatenate([[0], np.cumsum(arity)])
        registers = [_joined([r[n] for r in self.registers]) for n in range(4)]
        driven = np.concatenate([out, carry[carry >= 0], registers[0], *_nets_of(inputs)])
        unique, times = np.unique(driven, return_counts=True)
        if (times > 1).any() or (unique == 0).any():
            net = int(unique[np.argmax((times > 1) | (unique == 0))])
            raise UnreadableCircuit(f"module {self.name}: bit {net} has more than one driver")
        circuit = Circuit(
            self.name,
            self.nets,
            inputs,
            outputs,
            kind,
            start,
            operands,
            out,
            carry,
            table,
            np.concatenate(self.tables) if self.tables else np.zeros(0, np.int8),
            registers[0],
            registers[1],
            registers[2],
            registers[3],
            self.closed,
            self.names,
        )
        return in_order(circuit)


def in_order(circuit: Circuit) -> Circuit:
    """The circuit with each operation after those whose results it reads.

    Raises:
        UnreadableCircuit: there is a loop of gates.
    """
    start = circuit.start
    order = topological_order(start, circuit.operands, circuit.out, circuit.carry, circuit.nets)
    if len(order) != len(circuit.kind):
        raise UnreadableCircuit(f"module {circuit.name} has a loop of gates")
    lengths = np.diff(start)[order]
    new_start = np.concatenate([[0], np.cumsum(lengths)])
    source = np.repeat(start[order] - new_start[:-1], lengths) + np.arange(new_start[-1])
    return replace(
        circuit,
        kind=circuit.kind[order],
        start=new_start,
        operands=circuit.operands[source],
        out=circuit.out[order],
        carry=circuit.carry[order],
        table=circuit.table[order],
    )


class _Ports:
    """The connections of a cell as literals."""

    def __init__(self, cell: Mapping[str, Any], unknown: Callable[[], int]) -> None:
        self.connections = cell["connections"]
        self.parameters = cell["parameters"]
        self.unknown = unknown

    def __call__(self, port: str) -> IntArray:
        bits = self.connections[port]
        known = [bit if bit != "x" else self.unknown() // 2 for bit in bits]
        return _literals(known)

    def width(self, port: str) -> int:
        return len(self.connections[port])

    def extended(self, port: str, width: int) -> IntArray:
        """A port at ``width`` bits, extended by its sign where the cell says so."""
        bits = self(port)
        if len(bits) >= width:
            return bits[:width]
        both = [self.parameters.get(f"{p}_SIGNED", "0") for p in "AB" if p in self.connections]
        signed = all(_number(s) for s in both) and len(bits)
        last = bits[-1] if signed else 0
        return np.concatenate([bits, np.full(width - len(bits), last, np.int64)]).astype(np.int64)


#: Cell type -> operation, complemented.
_BITWISE: Mapping[str, tuple[int, bool]] = {
    "$not": (ALL, True),
    "$pos": (ALL, False),
    "$buf": (ALL, False),
    "$and": (ALL, False),
    "$or": (ANY, False),
    "$xor": (PARITY, False),
    "$xnor": (PARITY, True),
}
_REDUCTIONS: Mapping[str, tuple[int, bool]] = {
    "$reduce_and": (ALL, False),
    "$reduce_or": (ANY, False),
    "$reduce_bool": (ANY, False),
    "$reduce_xor": (PARITY, False),
    "$reduce_xnor": (PARITY, True),
    "$logic_not": (ANY, True),
}
_CONSTANTS = {"0": 0, "1": 1}


def _literals(bits: Sequence[int | str]) -> IntArray:
    """Literals of a list of bits of Yosys' JSON; an undefined bit is an error."""
    try:
        return np.array([2 * b if isinstance(b, int) else _CONSTANTS[b] for b in bits], np.int64)
    except KeyError as error:
        raise UnreadableCircuit(f"a bit is {error}, neither 0 nor 1") from None


def _number(text: str) -> int:
    return int(text, 2)


def _nets_of(ports: Mapping[str, IntArray]) -> Iterator[IntArray]:
    for literals in ports.values():
        yield literals >> 1


def _joined(parts: Sequence[IntArray]) -> IntArray:
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)
