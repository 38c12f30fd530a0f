"""Areas of whole chips against an earlier table of models.

    git show REVISION:docs/results/models.csv > /tmp/before.csv
    python -m benchmarks.area_change /tmp/before.csv CORPUS/gpt-5k/model.dynamo18.onnx ...

Compiles each model with no option but the file, and compares area, clock and rate with the row of
the same model and file. Table: ``docs/results/area-change.md``.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import hwcompile

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Chip:
    """Cells of a chip and of its weights, um2, and results a second."""

    area_um2: float
    weights_um2: float
    rate: float


def before(row: Mapping[str, str]) -> Chip:
    """A row of ``models.csv``."""
    groups = dict(part.split(": ") for part in row["group_area_um2"].split("; "))
    return Chip(float(row["cell_area_um2"]), float(groups["weights"]), float(row["rate"]))


def after(report: Mapping[str, object]) -> Chip:
    """A bundle's ``report.json``."""
    modules = report["modules"]
    estimate = report["estimate"]
    assert isinstance(modules, list) and isinstance(estimate, dict)
    area = {m["module"]: (m["group"], m["cell_area_um2"]) for m in modules}
    return Chip(
        sum(um2 for _, um2 in area.values()),
        sum(um2 for group, um2 in area.values() if group == "weights"),
        estimate["quantities"]["performance.chip_rate"]["mid"],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--revision", default="", help="of the earlier table, for the page")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/area-change.md")
    options = parser.parse_args(arguments)
    with options.before.open(newline="") as file:
        rows = {(r["model"], r["file"]): r for r in csv.DictReader(file) if r["ok"] == "True"}
    lines = [
        "# Areas of whole chips, before and after",
        "",
        "Written by `python -m benchmarks.area_change`: each model compiled with no option but the "
        f"file, nangate45 cells, against the table of models of revision {options.revision}.",
        "",
        "| model | cells mm2 | | | weights mm2 | | | results a second | | | area x time |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model in options.models:
        old = before(rows[model.parent.name, model.name])
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "bundle"
            run = hwcompile(model, "-o", out, "--verify", "none", cache=options.cache)
            if run.code:
                raise SystemExit(f"{model}: {run.complaint}")
            new = after(json.loads((out / "report.json").read_text()))
        cells = []
        for name, unit, form in (
            ("area_um2", 1e6, ".4f"),
            ("weights_um2", 1e6, ".4f"),
            ("rate", 1, ".0f"),
        ):
            a, b = getattr(old, name) / unit, getattr(new, name) / unit
            cells.append(f"{a:{form}} | {b:{form}} | {b / a - 1:+.0%}")
        product = (new.area_um2 / new.rate) / (old.area_um2 / old.rate)
        lines.append(f"| {model.parent.name} | {' | '.join(cells)} | {product - 1:+.0%} |")
        options.out.write_text("\n".join([*lines, ""]), encoding="utf-8")
        print(lines[-1], flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
