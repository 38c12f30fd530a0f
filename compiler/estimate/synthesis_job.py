"""What one synthesis reads: the Verilog of a module, stubs of its children, script and cells.

Adders are mapped on purpose: the ``hw_full_adders`` of weight blocks and the word-level adders
become full-adder cells of the library. One whose sum or carry nobody reads, or with a constant
input, becomes gates, which are smaller; so do the carry-save adders of multipliers, which gates
merge with their recoding. Word adders ripple; in a fast module they have a parallel-prefix carry
in gates.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.cells import CellLibrary
from hwcompile.compiler.estimate.memory_macro import memory_macro
from hwcompile.compiler.tools import pyosys_version

PRIMITIVES = ("hw_full_adders", "hw_half_adders", "hw_buffers")
"""Modules that the mapper replaces by cells, whatever the sources say of them."""

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_MODULE = re.compile(r"\bmodule\s+([A-Za-z_][A-Za-z0-9_]*)\b.*?\bendmodule\b", re.DOTALL)
_HEADER = re.compile(r"module\s+\w+\s*(\(.*?\))\s*;", re.DOTALL)
_FUNCTION = re.compile(r"\bfunction\b.*?\bendfunction\b", re.DOTALL)
_PORT = re.compile(r"\b(?:input|output|inout)\b[^;]*;")
_INSTANCE = re.compile(
    r"^[ \t]*([A-Za-z_][A-Za-z0-9_]*)\s+(?:#|\\\S+\s|[A-Za-z_][A-Za-z0-9_$]*\s*[(\[])", re.MULTILINE
)

# Above this source size the mapper leaves out its slower restructuring: it gains nothing in what
# is mostly full-adder cells.
_LARGE_BYTES = 4_000_000
_ABC_THOROUGH = "+strash;ifraig;scorr;dc2;dc2;dch;&get,-n;&nf;&put"
_ABC_FAST = "+strash;ifraig;scorr;dch;&get,-n;&nf;&put"
_ABC_LIGHT = "+strash;&get,-n;&nf;&put"

_RIPPLE = "techmap -map arithmetic.v\n"

_SCRIPT = """\
read_liberty -lib -ignore_miss_func cells.lib
read_verilog -lib stubs.v
read_verilog boxes.v
read_verilog module.v
hierarchy -check -top {top}
proc
flatten
opt_expr
opt_clean
opt
wreduce
peepopt
opt_clean
booth
alumacc
memory -nomap
opt_clean
memory_map
opt -undriven -fine
techmap -map primitives.v
{adders}techmap
{adders}techmap
hierarchy
opt_expr
opt_merge
opt_dff
splitnets
opt_clean
select -set read t:* %ci1 t:* %d o:* %u
select -set sums t:hw_fa @read %ci4:+hw_fa[sum] t:hw_fa %i %d
select -set carries t:hw_fa @read %ci4:+hw_fa[carry] t:hw_fa %i %d
select -set half_sums t:hw_ha @read %ci4:+hw_ha[sum] t:hw_ha %i %d
select -set half_carries t:hw_ha @read %ci4:+hw_ha[carry] t:hw_ha %i %d
chtype -set hw_fa_gates @sums @carries %u
chtype -set hw_ha_gates @half_sums @half_carries %u
techmap -map mapping.v
techmap
dfflibmap -liberty cells.lib
opt_expr
opt_merge
opt_clean
abc -liberty cells.lib -script "{abc}"
setundef -zero
{ties}opt_clean -purge
check -mapped -assert
tee -q -o counts.json stat -json
write_verilog -noattr netlist.v
write_json netlist.json
"""


# --- reading the sources -------------------------------------------------------------------------


def split_modules(text: str) -> dict[str, str]:
    """Verilog text of each module of a file, comments removed."""
    plain = _COMMENT.sub(" ", text)
    return {match[1]: match[0] + "\n" for match in _MODULE.finditer(plain)}


def read_modules(files: Iterable[Path]) -> dict[str, str]:
    modules: dict[str, str] = {}
    for path in files:
        try:
            found = split_modules(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {path}: {error}") from None
        again = sorted(set(found) & set(modules) - set(PRIMITIVES))
        if again:
            raise UsageError(f"module {again[0]} is defined twice, the second time in {path}")
        modules |= found
    for name in PRIMITIVES:
        modules.pop(name, None)
    return modules


def _stub(name: str, text: str) -> str:
    """The ports of a module, without what is in it."""
    header = _HEADER.match(text)
    if header is None:
        raise UsageError(f"module {name} has parameters or no port list; it cannot be instantiated")
    ports = _PORT.findall(_FUNCTION.sub("", text[header.end() :]))
    return "\n".join([f"module {name} {header[1]};", *ports, "endmodule", ""])


def _children(name: str, modules: Mapping[str, str]) -> list[str]:
    words = dict.fromkeys(_INSTANCE.findall(modules[name]))
    return [word for word in words if word in modules and word != name]


def reachable(top: str, modules: Mapping[str, str], closed: frozenset[str]) -> list[str]:
    """Modules to map, top first; nothing below a black box."""
    if top not in modules:
        raise UsageError(f"the Verilog has no module {top}", f"it has {', '.join(sorted(modules))}")
    order = [top]
    for name in order:
        order += [
            child
            for child in _children(name, modules)
            if child not in order and child not in closed and memory_macro(child) is None
        ]
    return order


# --- the files of a child process ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that decides the result of one child process, as the files it reads."""

    name: str
    files: Mapping[str, str]

    @property
    def key(self) -> str:
        digest = hashlib.sha256(f"{self.name}\0{pyosys_version()}\0".encode())
        for name, text in self.files.items():
            digest.update(f"{name}\0{len(text)}\0".encode())
            digest.update(text.encode())
        return digest.hexdigest()


def make_job(
    name: str, modules: Mapping[str, str], library: CellLibrary, liberty: str, fast: bool
) -> Job:
    text = modules[name]
    abc = _ABC_FAST if fast else _ABC_THOROUGH if len(text) < _LARGE_BYTES else _ABC_LIGHT
    ties = ""
    if library.tie_low is not None and library.tie_high is not None:
        (low, low_pin), (high, high_pin) = library.tie_low, library.tie_high
        ties = f"hilomap -singleton -hicell {high} {high_pin} -locell {low} {low_pin}\n"
    script = _SCRIPT.format(
        top=name,
        abc=abc,
        ties=ties,
        adders="" if fast else _RIPPLE,
    )
    return Job(
        name,
        {
            "module.v": text,
            "stubs.v": "".join(_stub(child, modules[child]) for child in _children(name, modules)),
            "boxes.v": _data("boxes.v"),
            "primitives.v": _data("primitives.v"),
            "arithmetic.v": _data("arithmetic.v"),
            "mapping.v": _mapping(library),
            "cells.lib": liberty,
            "synthesis.ys": script,
        },
    )


def _data(name: str) -> str:
    file = resources.files("hwcompile.compiler.estimate") / "data" / "synthesis" / name
    return file.read_text("utf-8")


def _mapping(library: CellLibrary) -> str:
    """How one full adder, half adder and buffer become cells of the library."""
    parts = [_data("mapping.v")]
    full, half = library.full_adder, library.half_adder
    full_cell = half_cell = ""
    if full is not None:
        pins = _connections(full.inputs, "abc")
        full_cell = (
            f"{full.cell} _TECHMAP_REPLACE_ ({pins}, .{full.sum}(sum), .{full.carry}(carry));"
        )
    # Where a half-adder cell saves nothing, gates leave more freedom.
    if half is not None and library.cell(half.cell).area_um2 < _half_adder_gates(library):
        pins = _connections(half.inputs, "ab")
        half_cell = (
            f"{half.cell} _TECHMAP_REPLACE_ ({pins}, .{half.sum}(sum), .{half.carry}(carry));"
        )
    gates = "hw_{}_gates _TECHMAP_REPLACE_ ({}, .sum(sum), .carry(carry));"
    full_gates = gates.format("fa", _connections("abc", "abc"))
    half_gates = gates.format("ha", _connections("ab", "ab"))
    buffer = library.buffer
    (pin,), out = buffer.inputs, buffer.outputs[0].name
    return (
        "\n".join(parts)
        .replace("FULL_ADDER_CELL", full_cell or full_gates)
        .replace("FULL_ADDER_GATES", full_gates)
        .replace("HALF_ADDER_CELL", half_cell or half_gates)
        .replace("HALF_ADDER_GATES", half_gates)
        .replace("BUFFER_CELL", f"{buffer.name} _TECHMAP_REPLACE_ (.{pin}(a), .{out}(y));")
    )


def _connections(pins: Sequence[str], signals: Sequence[str]) -> str:
    return ", ".join(f".{pin}({signal})" for pin, signal in zip(pins, signals, strict=True))


def _half_adder_gates(library: CellLibrary) -> float:
    """Area of an exclusive-or and an and gate."""
    wanted = [(2, 0b0110), (2, 0b1000)]
    return sum(library.smallest_gate(arity, table) for arity, table in wanted)
