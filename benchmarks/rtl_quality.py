"""The emitted Verilog before other people's tools: lint, checks, latches, X, two simulators.

    python -m benchmarks.rtl_quality [MODEL ...] [--random N] [--seed S] [--compared N]

For each model (default: the shipped examples) and each random graph:

* ``verilator --lint-only -Wall`` says nothing; what the shipped waivers silence is counted apart;
* ``yosys check -assert`` passes, and no latch is left after ``proc``;
* in Icarus, with reset held from time 0, no handshake or beat is X and all beats are right;
* for the models and the first ``--compared`` random graphs, Icarus and Verilator give the same
  beats, TLASTs and cycles from reset.

Ends in 1 when anything is amiss.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks import random_graphs
from benchmarks.drawn_graphs import draw
from hwcompile.compiler import checks
from hwcompile.compiler.errors import HwcompileError, MismatchError
from hwcompile.compiler.hardware import Hardware, build_hardware
from hwcompile.compiler.options import Options
from hwcompile.compiler.pipeline import compile_model, write_rtl
from hwcompile.compiler.tools import find_verilator
from hwcompile.hdl.top import TOP_NAME
from hwcompile.hdl.verilog import FILE_LIST, WAIVERS, run_yosys
from hwcompile.sim import plain_bench, runner
from hwcompile.sim.runner import ChipSample

ROOT = Path(__file__).resolve().parent.parent
OUT = Path("docs/results/rtl_quality.md")
MODELS = ("tiny/tiny", "llama/llama", "ternary/ternary", "dates/dates", "vit/digits")
CHECKS = ("lint", "yosys", "icarus", "compared")
FORBIDDEN = ("$dlatch", "$adlatch", "$dlatchsr", "$sr")
_RULE = re.compile(r"^%Warning-(\w+):", re.M)

Subject = tuple[str, Hardware, Sequence[ChipSample]]


@dataclass(slots=True)
class Quality:
    """One chip. ``found`` by check: "ok", or what is amiss; ``waived``: warnings by rule."""

    name: str
    modules: int
    found: dict[str, str] = field(default_factory=dict)
    waived: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> dict[str, str]:
        return {k: v for k, v in self.found.items() if not v.startswith("ok")}


def yosys_check(rtl: Path) -> None:
    """``check -assert`` of the whole hierarchy, and no latch. Raises ToolError."""
    names = (rtl / FILE_LIST).read_text().split()
    latches = " ".join(f"t:{kind}" for kind in FORBIDDEN)
    run_yosys(
        [
            *(f"read_verilog {name}" for name in names),
            f"hierarchy -check -top {TOP_NAME}",
            "proc",
            "check -assert",
            f"select -assert-none {latches}",
        ],
        rtl,
    )


def waived_warnings(rtl: Path) -> Counter[str]:
    """What ``-Wall`` says by rule when the waivers are left out."""
    tool = find_verilator()
    names = [str(rtl / name) for name in (rtl / FILE_LIST).read_text().split()]
    command = [str(tool.program), "--lint-only", "-Wall", "--top-module", TOP_NAME, *names]
    done = subprocess.run(
        command, env={**os.environ, **tool.environment}, capture_output=True, text=True
    )
    return Counter(_RULE.findall(done.stderr))


def compare_simulators(rtl: Path, hardware: Hardware, samples: Sequence[ChipSample]) -> str:
    """Beats, TLASTs and cycles of Icarus and Verilator. Raises MismatchError where they differ."""
    chip = hardware.chip
    timeout = runner.timeout_cycles(chip, samples, gaps=False)
    one, two = (
        runner.simulate(rtl, chip.ports, samples, engine, timeout=timeout)
        for engine in ("icarus", "verilator")
    )
    if one != two:
        raise MismatchError("Icarus and Verilator differ in beats, TLASTs or cycles")
    last = max(cycle for cycles in one[-1].cycles.values() for cycle in cycles)
    return f"ok: {last} cycles"


def examine(subject: Subject, compared: bool) -> Quality:
    """All checks of one chip."""
    name, hardware, samples = subject
    made = Quality(name, len(hardware.file_names))
    with tempfile.TemporaryDirectory(prefix="hwcompile-") as folder:
        rtl = write_rtl(hardware, Path(folder))
        _check(made, "lint", lambda: checks.lint(rtl, hardware.file_names))
        if (rtl / WAIVERS).exists():
            made.waived = waived_warnings(rtl)
        _check(made, "yosys", lambda: yosys_check(rtl))
        _check(made, "icarus", lambda: _icarus(rtl, hardware, samples))
        if compared:
            _check(made, "compared", lambda: compare_simulators(rtl, hardware, samples))
    return made


def _icarus(rtl: Path, hardware: Hardware, samples: Sequence[ChipSample]) -> str:
    timeout = runner.timeout_cycles(hardware.chip, samples, gaps=True)
    with tempfile.TemporaryDirectory(prefix="hwcompile-") as work:
        cycles = plain_bench.run(
            rtl, hardware.chip.ports, samples, Path(work), 1, timeout, "auto", 1800
        )
    return f"ok: {cycles} cycles"


def _check(made: Quality, name: str, check: Callable[[], str | None]) -> None:
    try:
        made.found[name] = check() or "ok"
    except HwcompileError as error:
        made.found[name] = error.message.replace("\n", " / ")[:500]


def subjects(models: Sequence[Path], count: int, seed: int) -> Iterator[Subject]:
    """The chips, one by one: models, then random graphs."""
    for path in models:
        made = compile_model(path, Options(stop_after="generate")).artefacts
        hardware = made["hardware"]
        yield path.stem, hardware, checks.vectors(made["program"], hardware.chip, "fast", 0).short
    for number in range(seed, seed + count):
        drawn = draw(number)
        program = random_graphs.integer_program(drawn)
        hardware = build_hardware(program, drawn.style, drawn.logits_port, drawn.cache_port)
        runs = random_graphs.vectors(program, hardware.chip, np.random.default_rng(number))
        samples = random_graphs.chip_samples(program, hardware.chip, runs, 2)
        yield f"seed {number} ({drawn.family}, {drawn.style})", hardware, samples


def markdown(done: Sequence[Quality], command: str, seconds: float) -> str:
    """The page."""
    titles = {
        "lint": "Verilator -Wall",
        "yosys": "Yosys check, latches",
        "icarus": "Icarus, X-free",
        "compared": "Icarus = Verilator",
    }
    lines = [
        "# Quality of the Verilog",
        "",
        f"Written by `{command}` in {seconds:.0f} s:",
        "`verilator --lint-only -Wall` with the shipped waivers; `yosys check -assert`, no",
        "latch after `proc`; Icarus with reset held from time 0, every handshake and beat checked",
        "for X and value; the same beats, TLASTs and cycles in Icarus and Verilator.",
        "",
        "| | chips | without fault |",
        "|---|---|---|",
    ]
    for name, title in titles.items():
        own = [q for q in done if name in q.found]
        lines.append(f"| {title} | {len(own)} | {sum(name not in q.faults for q in own)} |")
    waived = sum((q.waived for q in done), Counter[str]())
    text = ", ".join(f"{rule} {count}" for rule, count in sorted(waived.items()))
    lines += ["", f"Warnings that `waivers.vlt` silences, in all chips: {text or 'none'}.", ""]
    lines += ["| chip | files | " + " | ".join(titles.values()) + " |", "|---" * 6 + "|"]
    for q in done:
        cells = ["fault" if c in q.faults else q.found.get(c, "-") for c in CHECKS]
        lines.append(f"| {q.name} | {q.modules} | {' | '.join(cells)} |")
    faults = [f"* {q.name}, {name}: {text}" for q in done for name, text in q.faults.items()]
    return "\n".join([*lines, "", *(faults or ["No fault."]), ""])


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", type=Path)
    parser.add_argument("--random", type=int, default=20, metavar="N", help="random graphs")
    parser.add_argument("--seed", type=int, default=0, help="of the first random graph")
    parser.add_argument("--compared", type=int, default=3, metavar="N", help="of them in both")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none after")
    parser.add_argument("--out", type=Path, default=OUT, metavar="PAGE", help="where to write")
    options = parser.parse_args()
    models = options.models or [ROOT / "examples" / f"{name}.onnx" for name in MODELS]
    command = " ".join(
        [
            "python -m benchmarks.rtl_quality",
            *map(str, options.models),
            f"--random {options.random} --seed {options.seed} --compared {options.compared}",
        ]
    )
    began, done, page = time.monotonic(), list[Quality](), ""
    tell = Console(stderr=True)
    for number, subject in enumerate(subjects(models, options.random, options.seed)):
        if time.monotonic() - began > options.seconds:
            break
        quality = examine(subject, number < len(models) + options.compared)
        tell.print(f"{quality.name}: {quality.found}", markup=False)
        done.append(quality)
        page = markdown(done, command, time.monotonic() - began)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(page, encoding="utf-8")
    print(page)
    return int(any(q.faults for q in done))


if __name__ == "__main__":
    sys.exit(main())
