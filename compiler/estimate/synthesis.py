"""Logic synthesis: Verilog modules onto the cells of a target, with Yosys in child processes.

Each module is mapped by itself, its children as black boxes, so that the hierarchy stays and a
module is mapped once however often it is instantiated. A result is kept in the user's cache under
a hash of everything it depends on. Memories above the flip-flop limit stay black boxes.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwcompile.compiler.cache import cache_folder
from hwcompile.compiler.errors import ToolError
from hwcompile.compiler.estimate.cells import Cell, CellLibrary
from hwcompile.compiler.estimate.liberty import write_liberty
from hwcompile.compiler.estimate.synthesis_job import Job, make_job, reachable, read_modules
from hwcompile.compiler.estimate.targets import Target
from hwcompile.compiler.tools import run_tool

_CACHE_LIMIT_BYTES = 1 << 30


# --- results -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModuleSynthesis:
    """One mapped module; all counts and areas are its own, without its children.

    ``tree_cells``: those of ``cells`` that bound the fan-out, ``tree_area_um2`` their area.
    """

    name: str
    cells: Mapping[str, int]
    children: Mapping[str, int]
    area_um2: float
    area_by_kind: Mapping[str, float]
    tree_cells: Mapping[str, int]
    tree_area_um2: float
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
    def tree_area_um2(self) -> float:
        """Part of ``area_um2``: the cells that bound the fan-out."""
        modules = self.modules.items()
        return sum(self.instances[name] * module.tree_area_um2 for name, module in modules)

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


# --- the work of one module ---------------------------------------------------------------------


def _map(job: Job, root: Path, limits: _Limits) -> tuple[Path, bool]:
    """Folder of the result and whether it was there already."""
    folder = root / job.key[:2] / job.key
    if (folder / "counts.json").is_file():
        with suppress(OSError):
            os.utime(folder)
        return folder, True
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
    except OSError as error:
        raise ToolError(
            f"cannot write to the cache folder {root}: {error.strerror}",
            "set HWCOMPILE_CACHE to a folder that can be written",
        ) from error
    try:
        for name, text in job.files.items():
            (work / name).write_text(text, encoding="utf-8")
        run_tool(
            [sys.executable, "-B", "child.py"],
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
        for name in (*job.files, "mapped.json", "netlist.json"):
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
        trees: dict[str, int] = json.loads((folder / "added.json").read_text("utf-8"))
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
    return ModuleSynthesis(
        name=name,
        cells=cells,
        children=children,
        area_um2=sum(kinds.values()),
        area_by_kind=kinds,
        tree_cells=trees,
        tree_area_um2=sum(n * library.cells[cell].area_um2 for cell, n in trees.items()),
        folder=folder,
        cached=cached,
    )


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
    modules = read_modules(verilog_files)
    order = reachable(top, modules, frozenset(black_boxes))
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
                _map, make_job(name, modules, target, liberty, name in quick), root, limits
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
    _prune(root, {module.folder for module in found.values()})
    instances = _instances(top, found)
    return SynthesisResult(top, {name: found[name] for name in order}, instances)


def _prune(root: Path, kept: set[Path]) -> None:
    """Drop the results used longest ago until the cache is small enough."""
    with suppress(OSError):
        folders = [folder for folder in root.glob("??/*") if folder.is_dir()]
        sizes = {folder: sum(f.stat().st_size for f in folder.iterdir()) for folder in folders}
        total = sum(sizes.values())
        for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime):
            if total <= _CACHE_LIMIT_BYTES:
                break
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)
                total -= sizes[folder]


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
