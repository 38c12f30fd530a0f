"""The rows of the table of whole models, and its three files: JSON, CSV and a page of Markdown."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one file.

    ``cell_area_um2`` leaves memories out; ``rate`` is a second; ``rtl_samples`` were simulated and
    are equal; ``compile_s`` is wall time, ``compile_cpu_s`` that of all processors, from an empty
    cache, verification included.
    """

    model: str
    file: str
    sha256: str
    version: str
    ok: bool = False
    why: str = ""
    kind: str = ""
    structure: str = ""
    metric: str = ""
    quality_float: float | None = None
    quality_design: float | None = None
    agreement: float | None = None
    positions: int | None = None
    weights: int | None = None
    zeros_dropped: int | None = None
    cell_area_um2: float | None = None
    group_area_um2: Mapping[str, float] = field(default_factory=dict)
    um2_per_weight: float | None = None
    memory_bits: int | None = None
    memory_area_um2: float | None = None
    clock_mhz: float | None = None
    rate: float | None = None
    rate_of: str = ""
    rate_basis: str = ""
    verified: Mapping[str, int] = field(default_factory=dict)
    rtl_samples: int | None = None
    compile_s: float | None = None
    compile_cpu_s: float | None = None
    peak_mib: float | None = None


def read_rows(path: Path) -> list[Row]:
    """Rows of an earlier run, or none."""
    if not path.exists():
        return []
    return [Row(**record) for record in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def write(rows: Sequence[Row], out: Path, command: str) -> None:
    """OUT.json, OUT.csv and OUT.md."""
    out.parent.mkdir(parents=True, exist_ok=True)
    records = [asdict(row) for row in rows]
    document = {"schema": "hwcompile-models/1", "command": command, "rows": records}
    out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    with out.with_suffix(".csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, [f.name for f in fields(Row)])
        table.writeheader()
        table.writerows({k: _flat(v) for k, v in record.items()} for record in records)
    out.with_suffix(".md").write_text(markdown(rows, command), encoding="utf-8")


def markdown(rows: Sequence[Row], command: str) -> str:
    """The page: quality and verification, then area and speed, then what was recognised."""
    short = [f"* {r.model}/{r.file}: {r.why}" for r in rows if not r.ok]
    lines = [
        "# Whole models",
        "",
        f"Written by `{command}`. {sum(r.ok for r in rows)} of {len(rows)} files are ok: compiled",
        "with no option but the file, quality within the bounds of",
        "[the benchmark](../../benchmarks/models.py), all checks passed. Times are from an empty",
        "cache, with `--cache` from one kept for all files; verification included; wall time on",
        "the machine of the run, and CPU time.",
        "",
        *(["## What fell short", "", *short, ""] if short else []),
        "## Quality and verification",
        "",
        *_table(_QUALITY, map(_quality, rows)),
        "## Silicon, speed and the cost of compiling",
        "",
        *_table(_SILICON, map(_silicon, rows)),
        "## Cell area by part, um2",
        "",
        *_groups(rows),
        "## What was recognised",
        "",
        *_table(_FOUND, ((r.model, r.file, r.kind, r.structure, r.rate_basis) for r in rows)),
    ]
    return "\n".join(lines)


_QUALITY = ("model", "file", "metric", "float", "design", "agreement", "verified", "RTL equal")
_SILICON = (
    *("model", "file", "weights", "zeros dropped", "cells mm2", "um2/weight", "memory kbit"),
    *("MHz", "rate", "compile s", "CPU s", "peak MiB"),
)
_FOUND = ("model", "file", "kind", "operations", "rate is")


def _quality(r: Row) -> Sequence[Any]:
    agreement = None if r.agreement is None else f"{100 * r.agreement:.2f} %"
    simulated = f"{r.rtl_samples} samples" if r.rtl_samples else None
    known = (r.model, r.file, r.metric, r.quality_float, r.quality_design, agreement)
    return (*known, _flat(r.verified), simulated)


def _silicon(r: Row) -> Sequence[Any]:
    if r.weights is None:
        return (r.model, r.file, *[None] * 7, r.compile_s, r.compile_cpu_s, r.peak_mib)
    share = 100 * (r.zeros_dropped or 0) / max(1, r.weights)
    return (
        *(r.model, r.file, r.weights, f"{r.zeros_dropped} ({share:.1f} %)"),
        *(f"{(r.cell_area_um2 or 0) / 1e6:.4f}", r.um2_per_weight),
        *(f"{(r.memory_bits or 0) / 1e3:.1f}", r.clock_mhz, f"{r.rate:,.0f} {r.rate_of}s/s"),
        *(r.compile_s, r.compile_cpu_s, r.peak_mib),
    )


def _groups(rows: Sequence[Row]) -> list[str]:
    known = [r for r in rows if r.group_area_um2]
    names = sorted({name for r in known for name in r.group_area_um2})
    areas = ((r, [r.group_area_um2.get(name) for name in names]) for r in known)
    cells = ((r.model, r.file, *(a and f"{a:,.0f}" for a in found)) for r, found in areas)
    return _table(("model", "file", *names), cells)


def _flat(x: Any) -> Any:
    return "; ".join(f"{k}: {v}" for k, v in x.items()) if isinstance(x, Mapping) else x


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for cells in rows:
        texts = ("-" if c is None or c == "" else str(c).replace("|", "/") for c in cells)
        lines.append("| " + " | ".join(texts) + " |")
    return [*lines, ""]
