"""Areas of whole chips against an earlier table of models.

    python -m benchmarks.area_change CORPUS [--revision ec7f8da] [--only "gpt-*"] [--resume]

CORPUS holds a folder a model. Of each model that is in the table of models of the revision (its
``docs/results/models.csv``, read from git), one file is compiled with no option but the file: areas
and rate are compared with the row of the same content. One model at a time, in a process of its own
with one job; a model that takes longer than ``--timeout`` or fails is a row that says so.

Writes OUT.json and OUT.md after every model. ``--resume`` keeps rows of the same content and
version of this compiler. ``--cache DIR`` keeps the caches of compilation and synthesis there.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import hashlib
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import hwcompile
from hwcompile.compiler.emit.manifest import tool_versions

ROOT = Path(__file__).parent.parent
TABLE = "docs/results/models.csv"
FILE = "model.dynamo18.onnx"


@dataclass(frozen=True, slots=True)
class Chip:
    """Cells of a chip and of its weights, um2, and results a second."""

    area_um2: float
    weights_um2: float
    rate: float

    @property
    def area_time(self) -> float:
        """um2 times seconds a result."""
        return self.area_um2 / self.rate


@dataclass(frozen=True, slots=True)
class Row:
    """One model, compiled now (``after``, or ``why`` it is not) and by the revision."""

    model: str
    file: str
    sha256: str
    version: str
    before: Chip
    after: Chip | None
    why: str
    seconds: float
    peak_mib: int


Key = tuple[str, str, str]
"""Model, file and the sha256 of its content."""


# --- the two sides --------------------------------------------------------------------------------


def earlier(revision: str) -> dict[Key, Chip]:
    """The table of models of a revision of this repository."""
    command = ["git", "-C", str(ROOT), "show", f"{revision}:{TABLE}"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = csv.DictReader(text.splitlines())
    return {(r["model"], r["file"], r["sha256"]): before(r) for r in rows if r["ok"] == "True"}


def before(row: Mapping[str, str]) -> Chip:
    """A row of ``models.csv``."""
    groups = dict(part.split(": ") for part in row["group_area_um2"].split("; "))
    return Chip(float(row["cell_area_um2"]), float(groups["weights"]), float(row["rate"]))


def after(report: Mapping[str, Any]) -> Chip:
    """A bundle's ``report.json``."""
    modules = report["modules"]
    return Chip(
        sum(m["cell_area_um2"] for m in modules),
        sum(m["cell_area_um2"] for m in modules if m["group"] == "weights"),
        report["estimate"]["quantities"]["performance.chip_rate"]["mid"],
    )


def measure(path: Path, key: Key, old: Chip, cache: Path | None, timeout_s: float) -> Row:
    """Compile a file and read its report."""
    with tempfile.TemporaryDirectory(prefix="hwcompile-change-") as folder:
        out = Path(folder) / "bundle"
        arguments = (path, "-o", out, "--verify", "none", "-j", 1, "--no-progress")
        kept = cache if cache is not None else Path(folder) / "cache"
        run = hwcompile(*arguments, cache=kept, timeout_s=timeout_s)
        new = None if run.code else after(json.loads((out / "report.json").read_text("utf-8")))
    late = f"not finished after {timeout_s:.0f} s"
    why = "" if not run.code else late if run.code == 124 else run.complaint
    version = tool_versions()["hwcompile"]
    peak = round(run.peak_bytes / 2**20)
    return Row(*key, version, old, new, why, round(run.seconds, 1), peak)


# --- the page -------------------------------------------------------------------------------------

COLUMNS: tuple[tuple[str, Callable[[Chip], float], str], ...] = (
    ("cells mm2", lambda chip: chip.area_um2 / 1e6, ".4f"),
    ("weights mm2", lambda chip: chip.weights_um2 / 1e6, ".4f"),
    ("results a second", lambda chip: chip.rate, ".0f"),
)


def page(rows: Sequence[Row], revision: str) -> str:
    """Markdown: a row a model, before, after and change; the geometric mean of the changes."""
    versions = ", ".join(sorted({row.version for row in rows}))
    heads = [f"{name} before | after | change" for name, _, _ in COLUMNS]
    lines = [
        "# Areas of whole chips, before and after",
        "",
        "Written by `python -m benchmarks.area_change`: each model compiled with no option but the "
        f"file, nangate45 cells, against the table of models of revision {revision}. Buffers of "
        "nets with many sinks are in all areas. "
        f"Version: {versions}.",
        "",
        f"| model | {' | '.join(heads)} | area x time | compiled in s | peak MiB |",
        f"|---|{'---|' * (3 * len(COLUMNS) + 3)}",
        *map(_line, rows),
    ]
    pairs = [(row.before, row.after) for row in rows if row.after is not None]
    if pairs:
        means = [f"| | {_mean(pairs, figure)}" for _, figure, _ in COLUMNS]
        product = _mean(pairs, lambda chip: chip.area_time)
        lines.append(f"| geometric mean of {len(pairs)} {' '.join(means)} | {product} | | |")
    smaller = sum(new.area_um2 < old.area_um2 for old, new in pairs)
    better = sum(new.area_time < old.area_time for old, new in pairs)
    lines += [
        "",
        f"The area fell in {smaller} of {len(rows)} models, area times time in {better}.",
        "",
    ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    if row.after is None:
        blank = " |" * (3 * len(COLUMNS))
        return f"| {row.model} |{blank} {row.why} | {row.seconds:.0f} | {row.peak_mib} |"
    cells = []
    for _, figure, form in COLUMNS:
        a, b = figure(row.before), figure(row.after)
        cells.append(f"{a:{form}} | {b:{form}} | {b / a - 1:+.0%}")
    product = row.after.area_time / row.before.area_time - 1
    return (
        f"| {row.model} | {' | '.join(cells)} | {product:+.0%} | {row.seconds:.0f} | "
        f"{row.peak_mib} |"
    )


def _mean(pairs: Sequence[tuple[Chip, Chip]], figure: Callable[[Chip], float]) -> str:
    logs = [math.log(figure(new) / figure(old)) for old, new in pairs]
    return f"{math.exp(sum(logs) / len(logs)) - 1:+.0%}"


# --- the command ----------------------------------------------------------------------------------


def read_rows(path: Path) -> list[Row]:
    """Rows of an earlier run; none if there is no file."""
    if not path.exists():
        return []
    entries = json.loads(path.read_text("utf-8"))
    return [
        Row(**{**e, "before": Chip(**e["before"]), "after": e["after"] and Chip(**e["after"])})
        for e in entries
    ]


def files(corpus: Path, only: str, file: str, table: Mapping[Key, Chip]) -> Iterator[Key]:
    """Models of the corpus that the table knows, in order of name."""
    for path in sorted(corpus.glob(f"*/{file}")):
        key = (path.parent.name, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        if key in table and any(fnmatch.fnmatch(key[0], glob) for glob in only.split(",")):
            yield key


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when a model failed or none was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--revision", default="ec7f8da", help="of the earlier table")
    parser.add_argument("--only", default="*", help="globs of model folders, with commas between")
    parser.add_argument("--file", default=FILE, help=f"of each model (default {FILE})")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds a model")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep one cache for all models")
    parser.add_argument("--resume", action="store_true", help="keep rows that still hold")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/area-change")
    options = parser.parse_args(arguments)
    table = earlier(options.revision)
    version = tool_versions()["hwcompile"]
    kept = read_rows(options.out.with_suffix(".json")) if options.resume else []
    rows = {
        row.model: row
        for row in kept
        if row.version == version and row.after and row.before == table.get(_key(row))
    }
    for key in files(options.corpus, options.only, options.file, table):
        model = key[0]
        if model not in rows or _key(rows[model]) != key:
            path = options.corpus / key[0] / key[1]
            rows[model] = measure(path, key, table[key], options.cache, options.timeout)
        ordered = [rows[name] for name in sorted(rows)]
        text = json.dumps([asdict(row) for row in ordered], indent=1) + "\n"
        options.out.with_suffix(".json").write_text(text, encoding="utf-8")
        options.out.with_suffix(".md").write_text(page(ordered, options.revision), encoding="utf-8")
        print(_line(rows[model]), flush=True)
    return int(not rows or any(row.after is None for row in rows.values()))


def _key(row: Row) -> Key:
    return row.model, row.file, row.sha256


if __name__ == "__main__":
    sys.exit(main())
