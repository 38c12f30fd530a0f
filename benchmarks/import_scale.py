"""Import of a model whose weights are many GB: memory and seconds.

    python -m benchmarks.import_scale [--layers 17] [--folder DIR] [--model FILE]

Writes a Llama-shaped model (3B shape, float32, 17 layers are 10 GB) to a temporary folder, unless a
FILE made before is given, and runs ``hwcompile inspect`` on it in each format, and ``hwcompile
compile``, which must refuse it for what it is. Peak memory is that of the whole process tree,
mapped pages included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import Run, hwcompile
from benchmarks.synthetic_llama import SPECS, write

OUT = Path("docs/results/import_scale.md")
SPEC = "llama-3.2-3b"
BOUND_BYTES = 2 << 30
FORMATS = ("text", "json", "svg")


def measured(path: Path) -> tuple[list[tuple[str, Run]], str]:
    """Every run with its name, and what the JSON says of the graph."""
    rows, facts = [], ""
    for kind in FORMATS:
        done = hwcompile("inspect", path, "--format", kind, "--no-progress")
        if done.code or not done.stdout:
            raise SystemExit(f"inspect: exit {done.code}: {done.complaint}")
        rows.append((f"inspect, {kind}", done))
        if kind == "json":
            found = json.loads(done.stdout)
            counted = ", ".join(f"{n} {name}" for name, n in found["operations"].items())
            facts = f"{found['matrix_weights']:,} weights in matrices. Operations: {counted}."
    with tempfile.TemporaryDirectory(prefix="hwcompile-scale-") as folder:
        done = hwcompile(path, "-o", Path(folder) / "out", "--no-progress")
    if done.code != 3:
        raise SystemExit(f"compile: exit {done.code}, not 3: {done.complaint}")
    return [*rows, ("compile (refused)", done)], facts


def report(rows: list[tuple[str, Run]], facts: str, size: int) -> str:
    """The page."""
    table = ["| command | exit | seconds | processor seconds | peak MiB |", "|---|---|---|---|---|"]
    for name, done in rows:
        cost = f"{done.seconds:.1f} | {done.cpu_seconds:.1f} | {done.peak_bytes / 2**20:.0f}"
        table.append(f"| {name} | {done.code} | {cost} |")
    text = [
        "# Import of large models",
        "",
        "Written by `python -m benchmarks.import_scale`; load of the machine at the end: "
        f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores.",
        "",
        f"A model in the shape of {SPEC} with {size / 1e9:.2f} GB of external data. {facts}",
        "",
        *table,
        "",
        f"Bound: {BOUND_BYTES >> 20} MiB. What compile says: {rows[-1][1].complaint}",
        "",
    ]
    return "\n".join(text)


def main() -> int:
    """The command line; 1 when a run took more memory than the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=17, help="17 layers are 10 GB")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--model", type=Path, help="made by benchmarks.synthetic_llama")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hwcompile-scale-", dir=args.folder) as name:
        path: Path = args.model or Path(name) / "llama.onnx"
        if args.model is None:
            print("writing the model", file=sys.stderr)
            write(replace(SPECS[SPEC], layers=args.layers), path)
        rows, facts = measured(path)
        size = path.with_suffix(".data").stat().st_size
    args.out.write_text(report(rows, facts, size), encoding="utf-8")
    print(args.out.read_text("utf-8"))
    return int(max(done.peak_bytes for _, done in rows) > BOUND_BYTES)


if __name__ == "__main__":
    sys.exit(main())
