"""Standard cells as data: function, area, pin capacitance and a linear delay model.

A library is a small YAML table, extracted from a liberty file by ``benchmarks.cells --extract``.
Delay of an arc from input ``i`` to output ``o`` at load ``C``: ``intrinsic_ns[i] +
resistance_ns_per_ff * C``, fitted at one typical input slew (see ``liberty.read_library``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from hwcompile.compiler.errors import UsageError

Words = npt.NDArray[np.uint64]
Expression = tuple[Any, ...]
"""``("pin", name)``, ``("const", bool)``, ``("not", e)`` or ``("and"|"or"|"xor", e, e)``."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*|[01]|[()!'&*|+^])")
_ALL_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


# --- cell functions ----------------------------------------------------------------------------


def parse_function(text: str) -> Expression:
    """Expression tree of a liberty ``function`` string.

    Operators from tightest: ``!x`` and ``x'``, ``^``, ``&`` ``*`` or a blank, ``|`` ``+``.
    Raises ``UsageError`` on anything else.
    """
    tokens: list[str] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise UsageError(f"cell function {text!r}: cannot read {stripped[position:]!r}")
        tokens.append(match[1])
        position = match.end()
    parser = _FunctionParser(text, tokens)
    tree = parser.disjunction()
    if parser.index != len(tokens):
        raise UsageError(f"cell function {text!r}: unexpected {tokens[parser.index]!r}")
    return tree


@dataclass(slots=True)
class _FunctionParser:
    text: str
    tokens: list[str]
    index: int = 0

    def _peek(self) -> str:
        return self.tokens[self.index] if self.index < len(self.tokens) else ""

    def disjunction(self) -> Expression:
        left = self.conjunction()
        while self._peek() in ("|", "+"):
            self.index += 1
            left = ("or", left, self.conjunction())
        return left

    def conjunction(self) -> Expression:
        left = self.exclusive()
        while (token := self._peek()) and token not in ("|", "+", ")"):
            if token in ("&", "*"):
                self.index += 1
            left = ("and", left, self.exclusive())
        return left

    def exclusive(self) -> Expression:
        left = self.unary()
        while self._peek() == "^":
            self.index += 1
            left = ("xor", left, self.unary())
        return left

    def unary(self) -> Expression:
        token = self._peek()
        self.index += 1
        if token == "!":
            return ("not", self.unary())
        if token == "(":
            tree = self.disjunction()
            if self._peek() != ")":
                raise UsageError(f"cell function {self.text!r}: missing ')'")
            self.index += 1
        elif token in ("0", "1"):
            tree = ("const", token == "1")
        elif _NAME.fullmatch(token):
            tree = ("pin", token)
        else:
            raise UsageError(f"cell function {self.text!r}: unexpected {token or 'end'!r}")
        while self._peek() == "'":
            self.index += 1
            tree = ("not", tree)
        return tree


def evaluate(tree: Expression, pins: Mapping[str, Words]) -> Words:
    """Value of a function, 64 cases in each word of each array."""
    kind = tree[0]
    if kind == "pin":
        return pins[tree[1]]
    if kind == "const":
        return np.array(_ALL_ONES if tree[1] else np.uint64(0))
    if kind == "not":
        return np.bitwise_not(evaluate(tree[1], pins))
    left, right = evaluate(tree[1], pins), evaluate(tree[2], pins)
    if kind == "and":
        return np.bitwise_and(left, right)
    if kind == "or":
        return np.bitwise_or(left, right)
    return np.bitwise_xor(left, right)


def function_pins(tree: Expression) -> tuple[str, ...]:
    """Pins a function reads, in order of first use."""
    if tree[0] == "pin":
        return (tree[1],)
    inner = (pin for part in tree[1:] if isinstance(part, tuple) for pin in function_pins(part))
    return tuple(dict.fromkeys(inner))


def truth_table(tree: Expression, pins: tuple[str, ...]) -> int:
    """Output bits over all assignments; bit ``i`` of the index is the value of ``pins[i]``.

    At most six pins.
    """
    if len(pins) > 6:
        raise UsageError(f"a cell with {len(pins)} inputs has no truth table here (at most 6)")
    cases = 1 << len(pins)
    values = {
        pin: np.uint64(sum(1 << case for case in range(cases) if case >> bit & 1))
        for bit, pin in enumerate(pins)
    }
    word = evaluate(tree, {pin: np.array(value) for pin, value in values.items()})
    return int(word) & ((1 << cases) - 1)


# --- the table ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Output:
    """One output pin: its function of the input pins and its delay arcs.

    For a flip-flop the function is that of the state (the data pin) and the one arc is from the
    clock pin.
    """

    name: str
    function: str
    resistance_ns_per_ff: float
    intrinsic_ns: Mapping[str, float]

    def slowest_ns(self, load_ff: float) -> float:
        """Delay of the slowest arc at a load."""
        return max(self.intrinsic_ns.values()) + self.resistance_ns_per_ff * load_ff


@dataclass(frozen=True, slots=True)
class Cell:
    """One library cell. ``inputs``: capacitance in fF a pin. ``clock`` names a flip-flop's pin."""

    name: str
    area_um2: float
    leakage_nw: float
    inputs: Mapping[str, float]
    outputs: tuple[Output, ...]
    clock: str = ""
    setup_ns: float = 0.0

    @property
    def is_flip_flop(self) -> bool:
        return bool(self.clock)


@dataclass(frozen=True, slots=True)
class Adder:
    """A full- or half-adder cell and what its pins mean (``inputs`` in any order)."""

    cell: str
    inputs: tuple[str, ...]
    sum: str
    carry: str


@dataclass(frozen=True)
class CellLibrary:
    """Cells of one process corner, with where the figures come from."""

    name: str
    version: str
    source: str
    licence: str
    corner: str
    voltage_v: float
    typical_slew_ns: float
    cells: Mapping[str, Cell] = field(repr=False)

    def cell(self, name: str) -> Cell:
        try:
            return self.cells[name]
        except KeyError:
            raise UsageError(
                f"cell {name!r} is not in the library {self.name!r}",
                "give the liberty file that the netlist was mapped with",
            ) from None

    @cached_property
    def flip_flop(self) -> Cell:
        """Smallest plain rising-edge D flip-flop."""
        flops = [cell for cell in self.cells.values() if cell.is_flip_flop]
        if not flops:
            raise UsageError(f"the library {self.name!r} has no plain D flip-flop")
        return _smallest(flops)

    @cached_property
    def full_adder(self) -> Adder | None:
        """Smallest cell with sum and carry of three inputs, if there is one."""
        return self._adder(3, sums=0b10010110, carries=0b11101000)

    @cached_property
    def half_adder(self) -> Adder | None:
        """Smallest cell with sum and carry of two inputs, if there is one."""
        return self._adder(2, sums=0b0110, carries=0b1000)

    @cached_property
    def inverter(self) -> Cell:
        return self._single("inverter", 1, 0b01)

    @cached_property
    def buffer(self) -> Cell:
        return self._single("buffer", 1, 0b10)

    @cached_property
    def buffers(self) -> tuple[Cell, ...]:
        """Buffers of every strength with known delay."""
        return tuple(
            cell
            for cell in self._with_table(1, 0b10)
            if all(output.intrinsic_ns for output in cell.outputs)
        )

    @cached_property
    def nand2(self) -> Cell:
        """The gate of one gate equivalent."""
        return self._single("two-input NAND", 2, 0b0111)

    @cached_property
    def tie_low(self) -> tuple[str, str] | None:
        """Cell and pin that give constant 0."""
        return self._tie(False)

    @cached_property
    def tie_high(self) -> tuple[str, str] | None:
        """Cell and pin that give constant 1."""
        return self._tie(True)

    def smallest_gate(self, arity: int, table: int) -> float:
        """Area in um2 of the smallest gate with a truth table; infinite when there is none."""
        try:
            return self._single("gate", arity, table).area_um2
        except UsageError:
            return float("inf")

    def _tie(self, value: bool) -> tuple[str, str] | None:
        found = [
            (cell.area_um2, cell.name, output.name)
            for cell in self.cells.values()
            if not cell.inputs
            for output in cell.outputs
            if parse_function(output.function) == ("const", value)
        ]
        return min(found)[1:] if found else None

    def _single(self, what: str, arity: int, table: int) -> Cell:
        found = self._with_table(arity, table)
        if not found:
            raise UsageError(f"the library {self.name!r} has no {what}")
        return _smallest(found)

    def _with_table(self, arity: int, table: int) -> list[Cell]:
        return [
            cell
            for cell in self.cells.values()
            if len(cell.outputs) == 1 and len(cell.inputs) == arity and not cell.is_flip_flop
            if truth_table(parse_function(cell.outputs[0].function), tuple(cell.inputs)) == table
        ]

    def _adder(self, arity: int, sums: int, carries: int) -> Adder | None:
        found: list[tuple[float, str, Adder]] = []
        for cell in self.cells.values():
            if len(cell.inputs) != arity or len(cell.outputs) != 2 or cell.is_flip_flop:
                continue
            pins = tuple(cell.inputs)
            for total, carry in permutations(cell.outputs):
                tables = [truth_table(parse_function(out.function), pins) for out in (total, carry)]
                if tables == [sums, carries]:
                    adder = Adder(cell.name, pins, total.name, carry.name)
                    found.append((cell.area_um2, cell.name, adder))
        return min(found, key=lambda entry: entry[:2])[2] if found else None


def _smallest(cells: Iterable[Cell]) -> Cell:
    return min(cells, key=lambda cell: (cell.area_um2, cell.name))


# --- the file ----------------------------------------------------------------------------------


def load_library(name: str) -> CellLibrary:
    """The cell table shipped for a target, e.g. ``nangate45``."""
    file = resources.files("hwcompile.compiler.estimate") / "data" / "cells" / f"{name}.yaml"
    return library_from_text(file.read_text(encoding="utf-8"))


def library_from_text(text: str) -> CellLibrary:
    """Read a cell table; ``UsageError`` says which field is missing or wrong."""
    data = yaml.load(text, Loader=_LOADER)
    try:
        return CellLibrary(
            **{key: str(data[key]) for key in ("name", "version", "source", "licence", "corner")},
            voltage_v=float(data["voltage_v"]),
            typical_slew_ns=float(data["typical_slew_ns"]),
            cells={name: _cell(name, entry) for name, entry in data["cells"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"not a cell table: {error!r}") from error


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _cell(name: str, entry: Mapping[str, Any]) -> Cell:
    # Names and functions go into scripts and netlists.
    for word in (name, *entry["inputs"], *entry["outputs"]):
        if not _NAME.fullmatch(str(word)):
            raise ValueError(f"{word!r} is no identifier")
    for out in entry["outputs"].values():
        if set(function_pins(parse_function(str(out["function"])))) - set(entry["inputs"]):
            raise ValueError(f"the function of {name} reads pins it does not have")
    outputs = tuple(
        Output(
            pin,
            str(out["function"]),
            float(out.get("resistance_ns_per_ff", 0.0)),
            {source: float(value) for source, value in out.get("intrinsic_ns", {}).items()},
        )
        for pin, out in entry["outputs"].items()
    )
    return Cell(
        name,
        float(entry["area_um2"]),
        float(entry["leakage_nw"]),
        {pin: float(value) for pin, value in entry["inputs"].items()},
        outputs,
        str(entry.get("clock", "")),
        float(entry.get("setup_ns", 0.0)),
    )


def library_to_text(library: CellLibrary, comment: str = "") -> str:
    """The YAML of a cell table, one line a cell, the same bytes for the same table."""
    head = {
        "name": library.name,
        "version": library.version,
        "source": library.source,
        "licence": library.licence,
        "corner": library.corner,
        "voltage_v": library.voltage_v,
        "typical_slew_ns": library.typical_slew_ns,
    }
    lines = [f"# {line}" for line in comment.splitlines()]
    lines.append(yaml.safe_dump(head, sort_keys=False).rstrip())
    lines.append("cells:")
    for cell in library.cells.values():
        entry: dict[str, Any] = {
            "area_um2": cell.area_um2,
            "leakage_nw": cell.leakage_nw,
            "inputs": dict(cell.inputs),
        }
        if cell.is_flip_flop:
            entry |= {"clock": cell.clock, "setup_ns": cell.setup_ns}
        entry["outputs"] = {out.name: _output_entry(out) for out in cell.outputs}
        flow = yaml.safe_dump(
            entry, sort_keys=False, default_flow_style=True, width=1 << 30
        ).rstrip()
        lines.append(f"  {cell.name}: {flow}")
    return "\n".join(lines) + "\n"


def _output_entry(output: Output) -> dict[str, Any]:
    entry: dict[str, Any] = {"function": output.function}
    if output.intrinsic_ns:
        entry["resistance_ns_per_ff"] = output.resistance_ns_per_ff
        entry["intrinsic_ns"] = dict(output.intrinsic_ns)
    return entry
