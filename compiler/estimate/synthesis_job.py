"""What one synthesis reads: the Verilog of a module, stubs of its children, script and cells.

Adders are mapped on purpose: the ``hw_full_adders`` of weight blocks and the word-level adders
become full-adder cells of the library. One whose sum or carry nobody reads, or with a constant
input, becomes gates, which are smaller; so do the carry-save adders of multipliers, which gates
merge with their recoding. Word adders ripple; in a fast module they have a parallel-prefix carry
in gates. Afterwards no net but the clock has more sinks than one buffer drives: ``buffer_trees``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.cells import Cell, CellLibrary
from hwcompile.compiler.estimate.memory_macro import memory_macro
from hwcompile.compiler.estimate.targets import Target
from hwcompile.compiler.tools import pyosys_version

PRIMITIVES = ("hw_full_adders", "hw_half_adders", "hw_buffers")
"""Modules that the mapper replaces by cells, whatever the sources say of them."""

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_MODULE = re.compile(r"\bmodule\s+([A-Za-z_][A-Za-z0-9_]*)\b.*?\bendmodule\b", re.DOTALL)
_HEADER = re.compile(r"module\s+\w+\s*(\(.*?\))\s*;", re.DOTALL)
_FUNCTION = re.compile(r"\bfunction\b.*?\bendfunction\b", re.DOTALL)
_PORT = re.compile(r"\b(?:input|output|inout)\b[^;]*;")
_CLOCK = re.compile(r"\bposedge\s+([A-Za-z_][A-Za-z0-9_]*)")
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
write_json mapped.json
"""

_WRITE = """\
read_json netlist.json
check -mapped -assert
tee -q -o counts.json stat -json
write_verilog -noattr netlist.v
"""

_CHILD = """\
import json
from pathlib import Path

from pyosys import libyosys as ys

import buffer_trees


def run(script):
    design = ys.Design()
    for line in Path(script).read_text().splitlines():
        ys.run_pass(line, design)


run("synthesis.ys")
job = json.loads(Path("trees.json").read_text())
rules = buffer_trees.TreeRules(**job["rules"])
added = buffer_trees.rewrite(Path("mapped.json"), Path("netlist.json"), job["module"], rules)
Path("added.json").write_text(json.dumps(added))
run("write.ys")
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
    name: str, modules: Mapping[str, str], target: Target, liberty: str, fast: bool
) -> Job:
    """The job of one module; ``liberty`` describes the cells of ``target``."""
    library = target.library
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
            "write.ys": _WRITE,
            "trees.json": json.dumps({"module": name, "rules": _tree_rules(name, modules, target)}),
            "buffer_trees.py": _source("buffer_trees.py"),
            "child.py": _CHILD,
        },
    )


def _tree_rules(name: str, modules: Mapping[str, str], target: Target) -> dict[str, Any]:
    """Fields of ``buffer_trees.TreeRules``."""
    library = target.library
    buffer = tree_buffer(target)
    flops = {cell.name: [cell.clock] for cell in library.cells.values() if cell.is_flip_flop}
    children = {child: _clocks(child, modules) for child in _children(name, modules)}
    return {
        "buffer": (buffer.name, *buffer.inputs, buffer.outputs[0].name),
        "bound": int(target.value("sinks_per_buffer")),
        "ties": [tie for tie in (library.tie_low, library.tie_high) if tie is not None],
        "clocks": flops | children,
        # The connections of a re-spin block: other weights, the same cells.
        "spares": f"{name}_rail" in modules,
    }


def tree_buffer(target: Target) -> Cell:
    """The buffer of least area times delay at its full load of ordinary gates."""
    library = target.library
    sink = max(library.nand2.inputs.values()) + target.value("wire_ff_per_sink")
    load = target.value("sinks_per_buffer") * sink

    def cost(cell: Cell) -> tuple[float, str]:
        return cell.area_um2 * cell.outputs[0].slowest_ns(load), cell.name

    return min(library.buffers, key=cost)


def _clocks(name: str, modules: Mapping[str, str]) -> list[str]:
    """Clock ports of a module: what it, or a module below it, has an edge of."""
    below = reachable(name, modules, frozenset())
    return sorted({word for child in below for word in _CLOCK.findall(modules[child])})


def _source(name: str) -> str:
    return (resources.files("hwcompile.compiler.estimate") / name).read_text("utf-8")


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
