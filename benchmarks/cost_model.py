"""Fit the cost model of weight blocks to synthesised ones, and say how far it is off.

    python -m benchmarks.cost_model [--blocks 48] [--out docs/results/cost-model.md]

Writes the fitted figures (``compiler/estimate/data/cost_model.yaml``) and a table. Each block's
error is that of a fit to all other blocks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from benchmarks.blocks import KIND_NAMES, FloatArray, measure_block, random_matrix
from hwcompile.compiler.estimate import cost_model
from hwcompile.compiler.estimate.cost_model import FITTED, BlockFeatures
from hwcompile.compiler.estimate.targets import Target, load_target
from hwcompile.passes.lower_weights import lower_weights

ROOT = Path(__file__).parent.parent
DATA = ROOT / "compiler/estimate/data/cost_model.yaml"
SHAPES = ((16, 24), (48, 48), (48, 192), (192, 48), (64, 64), (40, 120), (128, 64), (24, 10))
PHASES = (1, 2, 4, 6, 8, 12, 16, 24, 48, 64)


@dataclass(frozen=True, slots=True)
class Case:
    """One block: how it was made, what it measured, and what the model reads off it."""

    kind: str
    shape: tuple[int, int]
    phases: int
    planes: int
    area_um2: float
    features: BlockFeatures
    sampled_um2: float = 0.0


def cases(count: int, target: Target, cache: Path | None) -> list[Case]:
    """Blocks of every kind, of shapes, phases and planes drawn once and for all."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        kind = tuple(KIND_NAMES)[number % 3]
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        phases = min(int(PHASES[int(rng.integers(len(PHASES)))]), shape[1])
        planes = int(rng.choice([1, 1, 1, 1, 2, 4]))
        weight = random_matrix(kind, shape, number)
        block = lower_weights(weight, 8, phases, share=True, planes=planes)
        measured = measure_block(block, weight, target, cache=cache)
        if not measured.exact:
            raise SystemExit(f"block {number}: the netlist is not its matrix")
        features = cost_model.block_features(block)
        made.append(Case(kind, shape, block.phases, planes, measured.area_um2, features))
    return made


def fit(made: Sequence[Case], target: Target) -> FloatArray:
    """Gates of each fitted feature, in NAND2, none negative; least relative squares."""
    library = target.library
    rows = np.array([c.features.fitted() for c in made]) * library.nand2.area_um2
    rest = np.array([c.area_um2 - cost_model.counted_area(c.features, library) for c in made])
    area = np.array([c.area_um2 for c in made])
    rows, rest = rows / area[:, None], rest / area
    active = np.ones(len(FITTED), bool)
    while True:
        found = np.zeros(len(FITTED))
        found[active] = np.linalg.lstsq(rows[:, active], rest, rcond=None)[0]
        if (found >= 0).all():
            return found
        active &= found > 0


def errors(made: Sequence[Case], target: Target) -> FloatArray:
    """Relative error of each block under a fit to all others."""
    found = []
    for index, case in enumerate(made):
        gates = fit([*made[:index], *made[index + 1 :]], target)
        predicted = cost_model.counted_area(case.features, target.library)
        predicted += float(gates @ case.features.fitted()) * target.library.nand2.area_um2
        found.append(predicted / case.area_um2 - 1)
    return np.array(found)


def report(made: Sequence[Case], error: FloatArray, gates: FloatArray, target: Target) -> str:
    lines = [
        "# Cost model of weight blocks",
        "",
        "Written by `python -m benchmarks.cost_model`: area from counts against the area of the "
        f"mapped netlist in {target.name}, each netlist simulated; each error is that of a fit to "
        "all other blocks.",
        "",
        f"{len(made)} blocks: median error {np.median(np.abs(error)):.1%}, 90 % of them within "
        f"{np.quantile(np.abs(error), 0.9):.1%}, worst {np.abs(error).max():.1%}.",
        "",
        "| gates of | NAND2 each |",
        "|---|---|",
        *(f"| {name} | {value:.2f} |" for name, value in zip(FITTED, gates, strict=True)),
        "",
        "| weights | shape | phases | planes | measured um2 | model um2 | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, off in zip(made, error, strict=True):
        lines.append(
            f"| {KIND_NAMES[case.kind]} | {case.shape[0]}x{case.shape[1]} | {case.phases} | "
            f"{case.planes} | {case.area_um2:.0f} | {case.area_um2 * (1 + off):.0f} | {off:+.1%} |"
        )
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=48)
    parser.add_argument("--target", default="nangate45")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/cost-model.md")
    options = parser.parse_args(arguments)
    target = load_target(options.target)
    began = time.monotonic()
    made = cases(options.blocks, target, options.cache)
    gates, error = fit(made, target), errors(made, target)
    figures = {name: round(float(v), 4) for name, v in zip(FITTED, gates, strict=True)}
    figures["low"] = round(float(1 - np.quantile(error, 0.95)), 4)
    figures["high"] = round(float(1 - np.quantile(error, 0.05)), 4)
    comment = "# Written by `python -m benchmarks.cost_model`; not to be edited. NAND2 each.\n"
    DATA.write_text(comment + yaml.safe_dump(figures, sort_keys=False), encoding="utf-8")
    options.out.write_text(report(made, error, gates, target), encoding="utf-8")
    print(f"median error {np.median(np.abs(error)):.1%}, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
