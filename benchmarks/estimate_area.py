"""The estimator's area of weight blocks against synthesis, on blocks that no figure was fitted to.

    python -m benchmarks.estimate_area [--blocks 24] [--cache DIR]

Two estimates: from the counts of the block's own arrays, and from the histogram of its weights
alone (what the estimate of a model of many GB has). Weights, shapes and the second cell library
are not those of ``benchmarks.cost_model``, which fits the model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.estimate.cost_model import (
    AreaRange,
    block_area,
    block_area_from_statistics,
)
from hwcompile.compiler.estimate.synthesis import synthesise
from hwcompile.compiler.estimate.targets import Target, load_target
from hwcompile.hdl.matrix_block import matrix_block_verilog
from hwcompile.passes.lower_weights import lower_weights

OUT = Path("docs/results/estimate_area.md")
SHAPES = ((20, 30), (32, 64), (64, 32), (56, 40), (96, 36), (36, 96))
PHASES = (1, 1, 2, 3, 5, 8, 16, 32)
X_BITS = (8, 8, 6, 10)
TARGETS = ("nangate45", "sky130hd")
MEDIAN_BOUND, WORST_BOUND = 0.10, 0.30
WEIGHTS = {
    "student t, 6 bits": 31,
    "laplace, 8 bits": 127,
    "normal, 3 bits": 3,
    "normal, 5 bits, 70 % zeros": 15,
    "ternary, 30 % zeros": 1,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One block: what it is, what synthesis measured, what was estimated."""

    target: str
    kind: str
    shape: tuple[int, int]
    phases: int
    planes: int
    x_bits: int
    measured_um2: float
    counted: AreaRange
    statistical: AreaRange

    def error(self, estimate: AreaRange) -> float:
        """Relative error of the middle."""
        return estimate.mid / self.measured_um2 - 1


def weights(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.int64]:
    """A matrix of one of the kinds, each column scaled to its greatest."""
    top = WEIGHTS[kind]
    if kind.startswith("ternary"):
        return rng.choice([-1, 0, 1], shape, p=[0.35, 0.3, 0.35]).astype(np.int64)
    draw = {
        "student": lambda: rng.standard_t(5, shape),
        "laplace": lambda: rng.laplace(0, 1, shape),
    }
    x = draw.get(kind.split()[0].rstrip(","), lambda: rng.standard_normal(shape))()
    made: NDArray[np.int64] = np.rint(x / np.abs(x).max(0) * top).astype(np.int64)
    if "zeros" in kind:
        made[rng.random(shape) < 0.65] = 0
    return made


def case(number: int, target: Target, cache: Path | None) -> Case:
    """Make, estimate and synthesise one block."""
    rng = np.random.default_rng([2, number])
    kind = tuple(WEIGHTS)[number % len(WEIGHTS)]
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    phases = min(int(rng.choice(PHASES)), shape[1])
    planes, x_bits = int(rng.choice([1, 1, 2])), int(rng.choice(X_BITS))
    matrix = weights(kind, shape, rng)
    block = lower_weights(matrix, x_bits, phases, share=True, planes=planes)
    with tempfile.TemporaryDirectory(prefix="hwcompile-area-") as folder:
        source = Path(folder) / "block.v"
        source.write_text(matrix_block_verilog(block, "block", "local"))
        mapped = synthesise([source], "block", target, cache=cache)
    values, counts = np.unique(matrix, return_counts=True)
    histogram = {int(v): float(c) for v, c in zip(values, counts, strict=True)}
    library = target.library
    statistical = block_area_from_statistics(*shape, histogram, x_bits, phases, planes, library)
    counted = block_area(block, library)
    # The model does not count the buffers that bound the fan-out.
    area = mapped.area_um2 - mapped.tree_area_um2
    return Case(target.name, kind, shape, phases, planes, x_bits, area, counted, statistical)


def report(cases: list[Case]) -> str:
    lines = ["# Area estimate against synthesis", ""]
    lines += [
        f"Written by `python -m benchmarks.estimate_area`: {len(cases)} weight blocks, none "
        "of them among those that the cost model is fitted to; cell areas after mapping.",
        "",
        "| estimate | median error | worst | inside its own range | bounds: median, worst |",
        "|---|---|---|---|---|",
    ]
    for name, of in (
        ("from the block's counts", "counted"),
        ("from the histogram alone", "statistical"),
    ):
        errors = np.array([abs(c.error(getattr(c, of))) for c in cases])
        inside = sum(getattr(c, of).low <= c.measured_um2 <= getattr(c, of).high for c in cases)
        lines.append(
            f"| {name} | {np.median(errors):.1%} | {errors.max():.1%} | {inside} of {len(cases)} | "
            f"{MEDIAN_BOUND:.0%}, {WORST_BOUND:.0%} |"
        )
    ratios = [c.measured_um2 / c.statistical.mid for c in cases]
    lines += [
        "",
        "Synthesis over the estimate from the histogram: "
        f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}). That is the figure "
        "`statistics_spread` of compiler/estimate/data/geometry.yaml.",
        "",
        "| cells | weights | shape | phases | planes | x bits | synthesis µm² | by counts | "
        "by histogram |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for c in cases:
        found = (f"{e.mid:.0f} ({c.error(e):+.1%})" for e in (c.counted, c.statistical))
        lines.append(
            f"| {c.target} | {c.kind} | {c.shape[0]}x{c.shape[1]} | {c.phases} | {c.planes} | "
            f"{c.x_bits} | {c.measured_um2:.0f} | {' | '.join(found)} |"
        )
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    targets = [load_target(name) for name in TARGETS]
    cases = []
    for number in range(args.blocks):
        cases.append(case(number, targets[number % len(targets)], args.cache))
        print(f"{number + 1} of {args.blocks}", file=sys.stderr)
    text = report(cases)
    args.out.write_text(text, encoding="utf-8")
    print("\n".join(text.splitlines()[:8]))
    errors = [abs(c.error(e)) for c in cases for e in (c.counted, c.statistical)]
    return 0 if np.median(errors) <= MEDIAN_BOUND and max(errors) <= WORST_BOUND else 1


if __name__ == "__main__":
    raise SystemExit(main())
