"""Single faults for a design bundle, to show that verification notices them.

A fault is one wrong thing in one file, as a careless hand or a defect of ours would leave it: a bit
of a weight, an operand of an adder, a shift, a sign, an entry of a table, an expected value, a
number of the reference. The text stays valid; nothing but its meaning changes.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir import serialise


@dataclass(frozen=True, slots=True)
class Fault:
    """New contents of files of a bundle, by path in it. ``what``: the change in words."""

    kind: str
    what: str
    files: Mapping[str, bytes]


class NoSite(Exception):
    """The bundle has no place for a fault of this kind."""


Rewrite = Callable[[re.Match[str], random.Random], str]

_BIT = re.compile(r"(\d+)'h([0-9a-f]+)")
_ENTRY = re.compile(r"^    (\w+\[\d+\]) = (\d+)'h([0-9a-f]+);$", re.MULTILINE)
_ADDER = re.compile(r"hw_(?:full|half)_adders #\(\.WIDTH\((\d+)\)\) \w+ \(\n\s*\.a\(([^()]*)\),")
_SLICE = re.compile(r"^(  assign .* = [^;\n]*?\w)\[(\d+):(\d+)\]", re.MULTILINE)
_SHIFT = re.compile(r"^(  assign \w+ = .* >>>? )(\w+);$", re.MULTILINE)
_SUM = re.compile(r"^(  assign .* = .*) ([+-]) (.*;)$", re.MULTILINE)
_SIMULATION_ONLY = re.compile(r"`ifdef.*?`else", re.DOTALL)


def _flip(width: str, digits: str, chance: random.Random) -> str:
    value = int(digits, 16) ^ 1 << chance.randrange(int(width))
    return f"{width}'h{value:0{len(digits)}x}"


def _flip_bit(found: re.Match[str], chance: random.Random) -> str:
    return _flip(found[1], found[2], chance)


def _flip_entry(found: re.Match[str], chance: random.Random) -> str:
    return f"    {found[1]} = {_flip(found[2], found[3], chance)};"


def _drop_adder(found: re.Match[str], chance: random.Random) -> str:
    """One of the adders no longer adds its first operand."""
    width = int(found[1])
    kept = (1 << width) - 1 ^ 1 << chance.randrange(width)
    return found[0].replace(found[2], f"{found[2]} & {width}'h{kept:x}")


def _move_slice(found: re.Match[str], chance: random.Random) -> str:
    """A slice one bit too low: twice the value it should be."""
    return f"{found[1]}[{int(found[2]) - 1}:{int(found[3]) - 1}]"


def _shift_more(found: re.Match[str], chance: random.Random) -> str:
    return f"{found[1]}({found[2]} + 1'h1);"


def _swap_sign(found: re.Match[str], chance: random.Random) -> str:
    return f"{found[1]} {'-' if found[2] == '+' else '+'} {found[3]}"


#: Kind -> glob of files in ``rtl/``, pattern of its places, what is done there.
_RTL: Mapping[str, tuple[str, re.Pattern[str], Rewrite]] = {
    "weight bit": ("hw_matrix_*.v", _BIT, _flip_bit),
    "dropped adder": ("hw_matrix_*.v", _ADDER, _drop_adder),
    "slice": ("hw_core_*.v", _SLICE, _move_slice),
    "shift": ("hw_core_*.v", _SHIFT, _shift_more),
    "sign": ("hw_core_*.v", _SUM, _swap_sign),
    "table entry": ("hw_core_*.v", _ENTRY, _flip_entry),
}


def make_fault(folder: Path, kind: str, seed: int, only: str = "*") -> Fault:
    """A fault of a kind at a random place of the bundle in ``folder``, which stays as it is.

    Args:
        only: glob of the Verilog files that a fault in the Verilog may choose from.

    Raises:
        NoSite: there is no such place.
        KeyError: no such kind (see :data:`KINDS`).
    """
    chance = random.Random(f"{kind} {seed}")
    if kind in _RTL:
        return _rtl_fault(folder, kind, chance, only)
    return _STORED[kind](folder, kind, chance)


def _rtl_fault(folder: Path, kind: str, chance: random.Random, only: str) -> Fault:
    glob, pattern, rewrite = _RTL[kind]
    places = [
        (path, found)
        for path in sorted((folder / "rtl").glob(glob))
        if path.match(only)
        for found in _places(path.read_text(encoding="utf-8"), pattern)
    ]
    if not places:
        raise NoSite(kind)
    path, found = chance.choice(places)
    new = rewrite(found, chance)
    text = found.string[: found.start()] + new + found.string[found.end() :]
    line = found.string.count("\n", 0, found.start()) + 1
    name = f"rtl/{path.name}"
    return Fault(kind, f"{name} line {line}", {name: text.encode()})


def _places(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """Matches outside of what only a simulator reads; slices and shifts that can be moved."""
    hidden = [found.span() for found in _SIMULATION_ONLY.finditer(text)]
    return [
        found
        for found in pattern.finditer(text)
        if not any(a <= found.start() < b for a, b in hidden)
        and not (pattern is _SLICE and found[3] == "0")
    ]


def _expected(folder: Path, kind: str, chance: random.Random) -> Fault:
    name = "sim/vectors.json"
    document: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    number = chance.randrange(len(document["samples"]))
    expected = document["samples"][number]["expected"]
    port = chance.choice(sorted(expected))
    beat = chance.randrange(len(expected[port]))
    expected[port][beat] ^= 1
    text = json.dumps(document, indent=1) + "\n"
    return Fault(kind, f"{name} sample {number} {port} beat {beat}", {name: text.encode()})


def _reference(folder: Path, kind: str, chance: random.Random) -> Fault:
    """The lowest bit of one number in an array of the program: weight, bias, table, gain."""
    program = serialise.load(folder / "reference")
    weights = kind == "reference weight"
    places = [
        (n, f.name)
        for n, op in enumerate(program.operations)
        for f in fields(op)
        if isinstance(getattr(op, f.name), np.ndarray)
        and (isinstance(op, ir.Linear) and f.name == "weight") == weights
    ]
    if not places:
        raise NoSite(kind)
    number, name = chance.choice(places)
    op = program.operations[number]
    array = getattr(op, name).copy()
    index = chance.randrange(array.size)
    array.flat[index] ^= 1
    operations = list(program.operations)
    operations[number] = replace(op, **{name: array})
    document, arrays = serialise.to_bytes(replace(program, operations=tuple(operations)))
    what = f"reference {name} of {op.origin or op.output.key}, element {index}"
    files = {"reference/program.json": document, "reference/program.npz": arrays}
    return Fault(kind, what, files)


_STORED: Mapping[str, Callable[[Path, str, random.Random], Fault]] = {
    "expected value": _expected,
    "reference weight": _reference,
    "reference constant": _reference,
}
KINDS = (*_RTL, *_STORED)
"""Kinds of faults."""
