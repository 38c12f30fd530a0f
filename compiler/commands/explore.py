"""hwcompile explore: the designs of a model that no other design beats."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hwcompile.compiler import explore
from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output, StageDisplay
from hwcompile.compiler.emit.front_chart import front_chart
from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.options import STYLES, add_arguments, from_sources

_EXAMPLE = "hwcompile explore model.onnx --target sky130hd --try-weights int8,int4 --plot front.svg"
_OPTIONS = (
    *("target", "liberty", "clock_period_ns", "activations", "sparsity", "calibration", "shape"),
    *("scenario", "figures", "seed", "json", "jobs", "progress", "cache"),
)


def add(commands: common.Commands) -> None:
    parser = common.command(
        commands, "explore", execute, "area, speed, energy and accuracy of many designs", _EXAMPLE
    )
    parser.add_argument("model", metavar="MODEL.onnx", help="trained model")
    parser.add_argument(
        "--try-weights",
        metavar="A,B",
        default=",".join(explore.WEIGHTS_TRIED),
        help="weight formats to try (default: %(default)s)",
    )
    parser.add_argument(
        "--try-styles",
        metavar="A,B",
        default=",".join(STYLES),
        help="styles of weight logic to try (default: %(default)s)",
    )
    parser.add_argument("--plot", metavar="FILE.svg", help="write the picture of the front here")
    add_arguments(parser, only=_OPTIONS)


def execute(args: argparse.Namespace, output: Output) -> int:
    options = from_sources(vars(args))
    plot = Path(args.plot) if args.plot else None
    if plot is not None and not plot.resolve().parent.is_dir():
        raise UsageError(f"--plot: there is no folder {plot.parent}")
    with StageDisplay(output) as display:
        found = explore.explore(
            Path(args.model),
            options,
            display,
            args.try_weights.split(","),
            args.try_styles.split(","),
            output.message,
        )
    for line in table(found):
        output.result(line)
    if plot is not None:
        plot.write_text(front_chart(found) + "\n", encoding="utf-8")
        output.result(f"plot: {plot}")
    output.document(document(found))
    return 0


def table(found: explore.Exploration) -> list[str]:
    """All points as text, those of the front marked."""
    front = found.front
    lines = [
        f"{'weights':<8} {'style':<10} {'core mm2':>10} {found.item + 's/s':>12} "
        f"{'uJ each':>10} {'accuracy':>9}  front"
    ]
    for p in sorted(found.points, key=lambda p: (p.area_mm2, -p.rate)):
        mark = "yes" if p in front else ""
        lines.append(
            f"{p.weights:<8} {p.style:<10} {p.area_mm2:>10.4g} {p.rate:>12.4g} "
            f"{p.energy_uj:>10.4g} {p.accuracy:>9.4f}  {mark}".rstrip()
        )
    lines += [f"{f.weights} weights, {f.style}: not built: {f.why}" for f in found.failures]
    return lines


def document(found: explore.Exploration) -> dict[str, Any]:
    """Points, front and failures as plain values."""
    front = found.front
    return {
        "item": found.item,
        "target": found.target,
        "points": [{**asdict(p), "front": p in front} for p in found.points],
        "failures": [asdict(f) for f in found.failures],
    }
