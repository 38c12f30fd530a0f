"""Files of a bundle that follow from others: made again and compared, byte by byte.

What follows from the program and the Verilog alone is compared at once: the simulation's files, the
page of the report, and the hand-over files at the clock period that they state. All the rest
(netlists, areas, the period itself, the report's numbers) is compared by compiling the bundle's
copy of the model anew.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hwcompile.compiler import checks, pipeline
from hwcompile.compiler.cache import StageCache
from hwcompile.compiler.emit import flows
from hwcompile.compiler.emit.report import ModuleCheck, parse_report, render_html, report_json
from hwcompile.compiler.errors import MismatchError, OutputError, UsageError
from hwcompile.compiler.execute import Design
from hwcompile.compiler.frontend import load_model
from hwcompile.compiler.hardware import Hardware
from hwcompile.compiler.names import Ident
from hwcompile.compiler.options import Options, file_hash, flag
from hwcompile.compiler.stages import run_stages
from hwcompile.hdl.top import TOP_NAME

_PERIOD = re.compile(r"^set clk_period ([0-9.e+-]+)$", re.MULTILINE)
_FOLLOWING = "netlist, constraints, flow and report"


def compare_following(design: Design, hardware: Hardware) -> None:
    """Compare what follows from the program and the Verilog, where the bundle has it.

    Raises:
        MismatchError: naming the first file that differs.
    """
    wanted: dict[str, str] = {}
    folder, options = design.folder, design.manifest.options
    level, seed = str(options.get("verify", "fast")), int(options.get("seed", 0))
    vectors = checks.vectors(design.program, hardware.chip, level, seed)
    wanted |= {f"sim/{name}": text for name, text in checks.bundle_files(vectors).items()}
    if (folder / "report.json").exists():
        text = _read(folder / "report.json")
        try:
            report = parse_report(text)
            wanted |= {"report.json": report_json(report), "report.html": render_html(report)}
        except (OutputError, ValueError, KeyError, TypeError) as error:
            raise MismatchError(f"report.json is damaged: {error}") from error
    if (folder / "constraints" / "design.sdc").exists():
        found = _PERIOD.search(_read(folder / "constraints" / "design.sdc"))
        if found is None:
            raise MismatchError("constraints/design.sdc states no clock period")
        wanted |= flows.files(
            flows.FlowFacts(
                Ident(TOP_NAME),
                hardware.file_names,
                str(options.get("target", "nangate45")),
                float(found[1]),
            )
        )
    compare_files(folder, {name: text.encode() for name, text in wanted.items()})


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def compare_files(folder: Path, wanted: Mapping[str, bytes]) -> None:
    """The files of a folder must have this content. Raises MismatchError naming the first."""
    for name, content in wanted.items():
        path = folder / name
        found = path.read_bytes() if path.exists() else None
        if found == content:
            continue
        if found is None:
            raise MismatchError(f"{name} is missing", "rebuild the bundle")
        lines = zip(found.split(b"\n"), content.split(b"\n"), strict=False)
        line = next((n for n, (a, b) in enumerate(lines, 1) if a != b), "after the end")
        raise MismatchError(
            f"{name} is not what the program gives: line {line}", "rebuild the bundle"
        )


def compiled_anew(
    design: Design, files: Mapping[str, str], jobs: int, tell: Callable[[str], None]
) -> ModuleCheck:
    """Compile the bundle's model again and compare every file; says so where that cannot be done.

    Args:
        files: paths of the files that an option named, by option; and of the model (``model``),
            where the bundle holds no copy.

    Raises:
        MismatchError: naming the first file that differs.
        UsageError: a file is not the one that the bundle was made with.
    """
    model = Path(files["model"]) if "model" in files else design.model
    values = dict(design.manifest.options)
    named = [name for name, value in values.items() if isinstance(value, dict)]
    missing = [flag(name) for name in named if name not in files]
    if model is None:
        missing.append("--model")
    if missing or model is None:
        return not_compared(f"needs {', '.join(missing)}")
    for name in named:
        if file_hash(files[name]) != values[name]["sha256"]:
            raise UsageError(f"{flag(name)}: {files[name]} is not the file of this bundle")
        values[name] = files[name]
    values["shape"] = tuple(values.get("shape", ()))
    options = Options(**values, jobs=jobs)
    content = model.read_bytes()
    if "model" in files:
        loaded = load_model(model, pipeline.shapes(options))
        content = bytes(loaded.SerializeToString(deterministic=True))  # type: ignore[no-untyped-call]
    if hashlib.sha256(content).hexdigest() != design.manifest.input.get("sha256"):
        raise MismatchError("the model is not the one that the manifest names")
    title = str(design.manifest.input.get("name"))
    made = run_stages(
        pipeline.STAGES,
        {"content": (content, title), "title": (title, title)},
        options,
        StageCache(enabled=False),
        _Telling(tell),
    )
    compare_files(design.folder, pipeline.bundle_content(made, options))
    return ModuleCheck(_FOLLOWING, "rebuilt", "the model compiled again: the same bytes")


def not_compared(why: str) -> ModuleCheck:
    """The line of the files that only a second compilation could judge."""
    return ModuleCheck(_FOLLOWING, "not verified", why)


class _Telling:
    """Passes the stages on as lines."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell

    def started(self, stage: Any, index: int, count: int) -> None:
        self.tell(f"compiling again: {stage.title.lower()}")

    def finished(self, stage: Any, seconds: float, cached: bool, made: Any) -> None: ...
