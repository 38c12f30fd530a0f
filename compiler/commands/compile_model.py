"""hwcompile compile: the main job. A bare ``hwcompile MODEL.onnx`` is this command."""

from __future__ import annotations

import argparse

from hwcompile.compiler import pipeline
from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output, StageDisplay
from hwcompile.compiler.options import Options, add_arguments, from_sources

_EXAMPLE = "hwcompile model.onnx -o chip --target sky130hd --clock-period-ns 10 --verify full"


def add(commands: common.Commands) -> None:
    parser = common.command(
        commands, "compile", execute, "compile a model into a verified design bundle", _EXAMPLE
    )
    parser.add_argument(
        "model",
        nargs="+",
        metavar="MODEL.onnx",
        help="trained model; an encoder and a decoder exported apart make one chip",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="options as YAML; the keys are the options' names"
    )
    add_arguments(parser)


def execute(args: argparse.Namespace, output: Output) -> int:
    options = from_sources(vars(args), args.config)
    with StageDisplay(output) as display:
        outcome = pipeline.compile_model(args.model, options, display)
    if outcome.up_to_date:
        output.result(f"{outcome.folder}: up to date")
    elif outcome.stopped_after is not None:
        output.result(f"stopped after {outcome.stopped_after}; nothing written")
    else:
        for line in summary(outcome, options):
            output.result(line)
    output.document(outcome.report)
    return 0


def summary(outcome: pipeline.Outcome, options: Options) -> list[str]:
    """What a user wants to read at the end: a few lines of the report."""
    lines = list(outcome.summary)
    if options.dry_run:
        return [*lines, "dry run: nothing written"]
    return [*lines, f"bundle: {outcome.folder}", f"report: {outcome.folder / 'report.html'}"]
