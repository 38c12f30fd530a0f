"""hwcompile diff: what a re-spin to new weights changes, and what it costs."""

from __future__ import annotations

import argparse
from pathlib import Path

from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output, StageDisplay
from hwcompile.compiler.difference import (
    Design,
    Difference,
    difference,
    large_difference,
    read_design,
)
from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.explain import line
from hwcompile.compiler.large_model import is_large
from hwcompile.compiler.options import Options, add_arguments, from_sources

_EXAMPLE = """hwcompile diff old-hwcompile new-hwcompile
hwcompile diff old.onnx new.onnx --respin --lora-rank 8"""
_OPTIONS = (
    *(
        "target",
        "liberty",
        "clock_period_ns",
        "weights",
        "activations",
        "sparsity",
        "seed",
        "respin",
    ),
    *("calibration", "shape", "style", "scenario", "figures", "phase_decode"),
    *("json", "jobs", "progress", "cache"),
)


def add(commands: common.Commands) -> None:
    parser = common.command(
        commands,
        "diff",
        execute,
        "what changes from one design to its successor: cells, nets, masks, cost",
        _EXAMPLE,
    )
    parser.add_argument("old", metavar="OLD", help="bundle or model")
    parser.add_argument("new", metavar="NEW", help="its successor of the same architecture")
    parser.add_argument(
        "--lora-rank",
        type=common.positive,
        metavar="R",
        help="also price the successor as a low-rank adapter in memory",
    )
    common.add_holding(parser, "of models too large to compile: how the weights are held")
    add_arguments(parser, only=_OPTIONS)


def execute(args: argparse.Namespace, output: Output) -> int:
    options = from_sources(vars(args))
    paths = [Path(args.old), Path(args.new)]
    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no {path}", "a bundle, or a model")
    if all(p.is_file() and (args.hold != "logic" or is_large(p)) for p in paths):
        found = large_difference(paths[0], paths[1], options, args.hold, args.node, args.lora_rank)
    else:
        old, new = (_read(path, options, output) for path in paths)
        found = difference(old, new, options, args.lora_rank)
    _print(found, output)
    output.document(found.to_json())
    return 0


def _read(path: Path, options: Options, output: Output) -> Design:
    if path.is_dir():
        return read_design(path, options)
    with StageDisplay(output) as display:
        return read_design(path, options, display)


def _print(found: Difference, output: Output) -> None:
    output.result(f"{'layer':<32} {'module':<14} {'constants':>10} {'changed':>10}")
    for layer in found.layers:
        row = f"{layer.layer[:32]:<32} {layer.module:<14} {layer.constants:>10} {layer.changed:>10}"
        output.result(row)
    output.result("")
    header = ("module", "change", "cells", "added", "gone", "pins changed")
    output.result("{:<32} {:<12} {:>8} {:>8} {:>8} {:>12}".format(*header))
    for m in found.modules:
        if m.change == "same":
            continue
        numbers = f"{m.cells[1]:>8} {m.cells_added:>8} {m.cells_gone:>8} {m.pins_changed:>12}"
        output.result(f"{m.module[:32]:<32} {m.change:<12} {numbers}")
    same = sum(m.change == "same" for m in found.modules)
    said = f"{same} of {len(found.modules)} modules are the same"
    output.result(said if found.modules else "no netlists: too large to compile here, or not asked")
    output.result("")
    output.result(f"masks: {found.masks} ({found.rule})")
    for quantity in found.quantities:
        output.result(line(quantity))
    output.result(f"masks of the weight blocks alone: {found.weights_masks}")
    for quantity in found.weights_quantities:
        output.result(line(quantity))
