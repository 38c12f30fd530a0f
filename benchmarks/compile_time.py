"""Time and memory of a whole compilation, stage by stage, cold and warm.

    python -m benchmarks.compile_time MODEL [--runs N]

Each run starts from an empty cache in a folder of its own and compiles the model twice with
``--verify fast``: cold, then warm into a new folder. A third call finds the bundle up to date. The
median over the runs is reported, and written to OUT.json and OUT.md. Only two cores are used.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.measure import Run, hwcompile
from hwcompile.compiler.pipeline import STAGES

OUT = Path("docs/results/compile_time")
CORES = 2
BOUND_S = {"cold": 180.0, "warm": 20.0}
_STAGE = re.compile(r"^(\w+): .*: (?:([\d.]+) s|(from the cache))$", re.MULTILINE)


def measure(model: Path) -> dict[str, dict[str, Any]]:
    """One run: figures of the cold, the warm and the third call by name."""
    with tempfile.TemporaryDirectory(prefix="hwcompile-time-") as folder:
        work = Path(folder)
        common = (model, "--verify", "fast", "--no-progress", "-v")
        calls = {"cold": "first", "warm": "second", "up to date": "second"}
        found = {}
        for name, output in calls.items():
            done = hwcompile(*common, "-o", work / output, cache=work / "cache")
            if done.code:
                raise SystemExit(f"{name}: exit {done.code}: {done.complaint}")
            found[name] = figures(done)
        return found


def figures(done: Run) -> dict[str, Any]:
    """Seconds, peak memory, and the seconds of each stage that ran."""
    stages = {name: float(seconds or 0) for name, seconds, _ in _STAGE.findall(done.stderr)}
    known = {stage.name: stages[stage.name] for stage in STAGES if stage.name in stages}
    rest = max(0.0, done.seconds - sum(known.values()))
    return {
        "seconds": round(done.seconds, 1),
        "cpu_seconds": round(done.cpu_seconds, 1),
        "peak_mib": round(done.peak_bytes / 2**20),
        "stages_s": {**known, "start, model, bundle": round(rest, 1)},
    }


def median(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run of median length."""
    middle = statistics.median_low(run["seconds"] for run in runs)
    return next(run for run in runs if run["seconds"] == middle)


def markdown(title: str, command: str, found: dict[str, dict[str, Any]], runs: int) -> str:
    """The page."""
    lines = [
        "# Time of a compilation",
        "",
        f"Written by `{command}`: {title}, verification `fast` included, on {CORES} cores; the",
        f"median of {runs} runs. Memory is that of all processes together at the peak.",
        "",
        "| | seconds | bound | CPU seconds | peak MiB |",
        "|---|---|---|---|---|",
    ]
    for name, entry in found.items():
        bound = f"{BOUND_S[name]:.0f}" if name in BOUND_S else "-"
        figures = (name, entry["seconds"], bound, entry["cpu_seconds"], entry["peak_mib"])
        lines.append("| " + " | ".join(map(str, figures)) + " |")
    lines += ["", "| stage | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for stage in found["cold"]["stages_s"]:
        cells = [f"{entry['stages_s'].get(stage, '-')}" for entry in found.values()]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> int:
    """The command line; the exit code (1: a bound is missed)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=1, metavar="N")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write, without suffix")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    runs = []
    with Progress(console=Console(stderr=True)) as bar:
        for _ in bar.track(range(options.runs), description="compiling"):
            runs.append(measure(options.model))
    found = {name: median([run[name] for run in runs]) for name in runs[0]}
    title = f"{options.model.parent.name}/{options.model.name}"
    command = f"python -m benchmarks.compile_time {title} --runs {options.runs}"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    document = {"schema": "hwcompile-compile-time/1", "model": title, "runs": runs}
    text = json.dumps(document, indent=1) + "\n"
    options.out.with_suffix(".json").write_text(text, encoding="utf-8")
    page = markdown(title, command, found, options.runs)
    options.out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)
    return int(any(found[name]["seconds"] > bound for name, bound in BOUND_S.items()))


if __name__ == "__main__":
    sys.exit(main())
