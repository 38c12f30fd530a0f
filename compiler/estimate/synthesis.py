"""Logic synthesis: Verilog modules onto the cells of a target, with Yosys in child processes.

Each module is mapped by itself, its children as black boxes, so that the hierarchy stays and a
module is mapped once however often it is instantiated. A result is kept in the user's cache under
a hash of everything it depends on. Memories above the flip-flop limit stay black boxes.

Adders are mapped on purpose: the ``hw_full_adders`` of weight blocks and the word-level adders
become full-adder cells of the library. One whose sum or carry nobody reads, or with a constant
input, becomes gates, which are smaller; so do the carry-save adders of multipliers, which gates
merge with their recoding. Word adders ripple; in modules named as ``fast`` they have a
parallel-prefix carry in gates.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from hwcompile.compiler.cache import cache_folder
from hwcompile.compiler.errors import ToolError, UsageError
from hwcompile.compiler.estimate.cells import Cell, CellLibrary
from hwcompile.compiler.estimate.liberty import write_liberty
from hwcompile.compiler.estimate.memory_macro import memory_macro
from hwcompile.compiler.estimate.targets import Target
from hwcompile.compiler.tools import pyosys_version, run_tool

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
read_verilog primitives.v
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

_CHILD = """\
from pyosys import libyosys as ys
design = ys.Design()
for line in open("synthesis.ys"):
    ys.run_pass(line.strip(), design)
"""


# --- results -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModuleSynthesis:
    """One mapped module; all counts and areas are its own, without its children."""

    name: str
    cells: Mapping[str, int]
    children: Mapping[str, int]
    area_um2: float
    area_by_kind: Mapping[str, float]
    folder: Path = field(repr=False)
    cached: bool

    @property
    def netlist(self) -> Path:
        """Mapped netlist as structural Verilog."""
        return self.folder / "netlist.v"

    @property
    def netlist_json(self) -> Path:
        """The same netlist as Yosys JSON, gzipped."""
        return self.folder / "netlist.json.gz"

    @property
    def log(self) -> Path:
        return self.folder / "synthesis.log"


@dataclass(frozen=True, slots=True)
class SynthesisResult:
    """A mapped hierarchy. ``instances`` counts every module and black box below the top."""

    top: str
    modules: Mapping[str, ModuleSynthesis]
    instances: Mapping[str, int]

    @property
    def area_um2(self) -> float:
        """Cell area of the whole hierarchy; black boxes are not in it."""
        return sum(self.instances[name] * module.area_um2 for name, module in self.modules.items())

    @property
    def cells(self) -> Mapping[str, int]:
        """Cell counts of the whole hierarchy."""
        total: dict[str, int] = {}
        for name, module in self.modules.items():
            for cell, count in module.cells.items():
                total[cell] = total.get(cell, 0) + self.instances[name] * count
        return dict(sorted(total.items()))

    @property
    def area_by_kind(self) -> Mapping[str, float]:
        """um2 of full adders, half adders, flip-flops, inverters and buffers, logic."""
        total: dict[str, float] = {}
        for name, module in self.modules.items():
            for kind, area in module.area_by_kind.items():
                total[kind] = total.get(kind, 0.0) + self.instances[name] * area
        return dict(sorted(total.items()))

    @property
    def black_boxes(self) -> Mapping[str, int]:
        """Instances that were not mapped, memories above all."""
        return {name: n for name, n in self.instances.items() if name not in self.modules}


def cell_kind(cell: Cell, library: CellLibrary) -> str:
    """The line of an area table that a cell belongs to."""
    if cell.is_flip_flop:
        return "flip-flops"
    if library.full_adder is not None and cell.name == library.full_adder.cell:
        return "full adders"
    if library.half_adder is not None and cell.name == library.half_adder.cell:
        return "half adders"
    return "inverters and buffers" if len(cell.inputs) == 1 else "logic"


# --- reading the sources -------------------------------------------------------------------------


def split_modules(text: str) -> dict[str, str]:
    """Verilog text of each module of a file, comments removed."""
    plain = _COMMENT.sub(" ", text)
    return {match[1]: match[0] + "\n" for match in _MODULE.finditer(plain)}


def _sources(files: Iterable[Path]) -> dict[str, str]:
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


def _reachable(top: str, modules: Mapping[str, str], closed: frozenset[str]) -> list[str]:
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


# --- the work of one module ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Job:
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


def _job(
    name: str, modules: Mapping[str, str], library: CellLibrary, liberty: str, fast: bool
) -> _Job:
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
    return _Job(
        name,
        {
            "module.v": text,
            "stubs.v": "".join(_stub(child, modules[child]) for child in _children(name, modules)),
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


def _map(job: _Job, root: Path, limits: _Limits) -> tuple[Path, bool]:
    """Folder of the result and whether it was there already."""
    folder = root / job.key[:2] / job.key
    if (folder / "counts.json").is_file():
        return folder, True
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
    try:
        for name, text in job.files.items():
            (work / name).write_text(text, encoding="utf-8")
        run_tool(
            [sys.executable, "-c", _CHILD],
            name=f"synthesis of {job.name}",
            cwd=work,
            timeout_s=limits.timeout_s,
            memory_mb=limits.memory_mb,
            # One thread a child: `jobs` decides how many processors are used.
            environment={"TMPDIR": str(work), "YOSYS_MAX_THREADS": "1"},
            log_file=work / "synthesis.log",
            cancelled=limits.cancelled.is_set,
        )
        plain = (work / "netlist.json").read_bytes()
        (work / "netlist.json.gz").write_bytes(gzip.compress(plain, 1, mtime=0))
        for name in (*job.files, "netlist.json"):
            (work / name).unlink()
        # Another process may have been faster; its result is the same.
        with suppress(OSError):
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder, False


@dataclass(frozen=True, slots=True)
class _Limits:
    timeout_s: float
    memory_mb: int
    cancelled: threading.Event


def _read_result(name: str, folder: Path, cached: bool, library: CellLibrary) -> ModuleSynthesis:
    try:
        content = json.loads((folder / "counts.json").read_text("utf-8"))
        counts: Mapping[str, Any] = content["modules"][f"\\{name}"]["num_cells_by_type"]
    except (OSError, ValueError, KeyError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ToolError(f"synthesis of {name}: no counts in its result ({error!r})") from None
    cells: dict[str, int] = {}
    children: dict[str, int] = {}
    kinds: dict[str, float] = {}
    for kind, count in sorted(counts.items()):
        cell = library.cells.get(kind)
        if cell is None:
            children[kind] = int(count)
            continue
        cells[kind] = int(count)
        line = cell_kind(cell, library)
        kinds[line] = kinds.get(line, 0.0) + int(count) * cell.area_um2
    return ModuleSynthesis(name, cells, children, sum(kinds.values()), kinds, folder, cached)


# --- the whole ----------------------------------------------------------------------------------


def synthesise(
    verilog_files: Sequence[Path],
    top: str,
    target: Target,
    *,
    black_boxes: Iterable[str] = (),
    fast: Iterable[str] = (),
    jobs: int = 1,
    timeout_s: float = 900,
    memory_mb: int = 6000,
    cache: Path | None = None,
    progress: Callable[[ModuleSynthesis], None] = lambda module: None,
) -> SynthesisResult:
    """Map the module ``top`` and everything below it to the cells of ``target``.

    Modules named in ``black_boxes`` and memory macros are left as they are; those in ``fast`` get
    faster and larger adders. At most ``jobs`` child
    processes run at a time, each under ``timeout_s`` seconds and ``memory_mb``. ``cache`` is the
    folder of results (default: in the user's cache). ``progress`` is called after each module, in
    this thread. Raises ``UsageError`` for sources that do not fit together and ``ToolError`` with
    the end of the log when Yosys fails.
    """
    modules = _sources(verilog_files)
    order = _reachable(top, modules, frozenset(black_boxes))
    library = target.library
    liberty = write_liberty(library)
    root = cache if cache is not None else cache_folder() / "synthesis"
    limits = _Limits(timeout_s, memory_mb, threading.Event())
    quick = frozenset(fast)
    found: dict[str, ModuleSynthesis] = {}
    largest_first = sorted(order, key=lambda name: (-len(modules[name]), name))
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        tasks = {
            pool.submit(
                _map, _job(name, modules, library, liberty, name in quick), root, limits
            ): name
            for name in largest_first
        }
        try:
            for task in as_completed(tasks):
                name = tasks[task]
                found[name] = _read_result(name, *task.result(), library)
                progress(found[name])
        except BaseException:
            limits.cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    instances = _instances(top, found)
    return SynthesisResult(top, {name: found[name] for name in order}, instances)


def _instances(top: str, modules: Mapping[str, ModuleSynthesis]) -> dict[str, int]:
    """How often each module and black box occurs; parents come before their children."""
    waiting = dict.fromkeys(modules, 0)
    for module in modules.values():
        for child in module.children:
            waiting[child] = waiting.get(child, 0) + 1
    count = {top: 1}
    ready = [top]
    for name in ready:
        if name not in modules:
            continue
        for child, number in modules[name].children.items():
            count[child] = count.get(child, 0) + count[name] * number
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    return count
