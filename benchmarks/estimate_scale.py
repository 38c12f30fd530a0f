"""Estimate of a model whose weights are many GB: memory and pace.

    python -m benchmarks.estimate_scale [--layers 17] [--folder DIR]
    python -m benchmarks.estimate_scale --layers 0 --small MODEL.onnx --out FILE.md

Writes a Llama-shaped model (3B shape, float32) to a temporary folder, estimates it as weight logic
and in ROM, each in a process of its own, and deletes it. The pace is that of the statistics alone,
weights of matrices over processor seconds of one core; the estimate's seconds are all of it, start
of Python included, on a machine that may be busy: its load is written down.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import Run, hwcompile
from benchmarks.synthetic_llama import SPECS, write
from hwcompile.compiler.large_model import read_shape

OUT = Path("docs/results/estimate_scale.md")
SPEC = "llama-3.2-3b"
BOUND_BYTES, BOUND_PACE, BOUND_SMALL_S = 2 << 30, 50e6, 60


def pace(path: Path) -> tuple[int, float, int]:
    """Weights in matrices, processor seconds of reading their statistics, peak bytes."""
    # Compiled once on a small part, so that the pace is not that of the compiler.
    with tempfile.TemporaryDirectory(prefix="hwcompile-scale-") as folder:
        small = Path(folder) / "toy.onnx"
        write(SPECS["toy"], small)
        read_shape(small, 4, None, {})
    start = time.process_time()
    shape = read_shape(path, 4, None, {})
    seconds = time.process_time() - start
    return shape.weights, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=17, help="17 layers are 10 GB, 0: none")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--small", type=Path, help="also time the estimate of this encoder")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    rows: list[tuple[str, Run]] = []
    lines: list[str] = []
    if args.layers:
        rows, lines = large(args.layers, args.folder)
    if args.small is not None:
        shape = ("--shape", "input_ids=1x64")
        rows.append((args.small.stem, hwcompile("estimate", args.small, "--json", *shape)))
    args.out.write_text(report(rows, lines), encoding="utf-8")
    print(args.out.read_text("utf-8"))


def large(layers: int, folder: Path | None) -> tuple[list[tuple[str, Run]], list[str]]:
    """Write the model, measure the pace on it and its estimates."""
    spec = replace(SPECS[SPEC], layers=layers)
    rows, lines = [], []
    with tempfile.TemporaryDirectory(prefix="hwcompile-scale-", dir=folder) as name:
        path = Path(name) / "llama.onnx"
        print("writing the model", file=sys.stderr)
        write(spec, path)
        size = path.with_suffix(".data").stat().st_size
        weights, seconds, peak = pace(path)
        lines.append(
            f"{weights:,} weights in matrices ({size / 1e9:.2f} GB of external data, float32): "
            f"statistics in {seconds:.1f} processor seconds, "
            f"**{weights / seconds / 1e6:.0f} million weights a second and core** "
            f"(bound {BOUND_PACE / 1e6:.0f}), peak {peak / 2**20:.0f} MiB."
        )
        for hold, more in (("logic", ()), ("ROM", ("--hold", "rom", "--node", "7"))):
            done = hwcompile("estimate", path, "--weights", "int4", "--json", *more)
            rows.append((f"{SPEC}, {layers} layers, {hold}", done))
    return rows, lines


def report(rows: list[tuple[str, Run]], lines: list[str]) -> str:
    table = ["| estimate | seconds | processor seconds | peak MiB | core mm² | verdict |"]
    table.append("|---|---|---|---|---|---|")
    for name, done in rows:
        if done.code:
            raise SystemExit(f"{name}: exit {done.code}: {done.complaint}")
        answer = json.loads(done.stdout)
        core = answer["quantities"]["area.core_mm2"]
        span = f"{core['mid']:.4g} ({core['low']:.4g} to {core['high']:.4g})"
        cost = f"{done.seconds:.1f} | {done.cpu_seconds:.1f} | {done.peak_bytes / 2**20:.0f}"
        table.append(f"| {name} | {cost} | {span} | {answer['verdict']['name']} |")
    text = [
        "# Estimate of large models",
        "",
        "Written by `python -m benchmarks.estimate_scale`; load of the machine at the end: "
        f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores.",
        "",
        *lines,
        "",
        *table,
        "",
        f"Bounds: {BOUND_BYTES >> 20} MiB; MiniLM-L6 in {BOUND_SMALL_S} s. Memory is that of all "
        "processes together at the peak, mapped pages of the file included.",
        "",
    ]
    return "\n".join(text)


if __name__ == "__main__":
    main()
