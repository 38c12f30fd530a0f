"""hwcompile estimate: the figures of a design, under any scenario, without writing anything."""

from __future__ import annotations

import argparse
from pathlib import Path

from hwcompile.compiler import assessment, pipeline
from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output, StageDisplay
from hwcompile.compiler.emit.report import ReportInputs, build_report
from hwcompile.compiler.estimate.estimate import Estimate, estimate
from hwcompile.compiler.estimate.explain import explain, line
from hwcompile.compiler.estimate.facts import DesignFacts
from hwcompile.compiler.estimate.scenario import DEFAULT, load_scenario
from hwcompile.compiler.options import Options, add_arguments, from_sources

_EXAMPLE = """hwcompile estimate model.onnx --target sky130hd
hwcompile estimate model-hwcompile --scenario mine.yaml --explain cost.chip_usd"""
_OPTIONS = (
    *("target", "liberty", "clock_period_ns", "weights", "activations", "sparsity"),
    *("calibration", "shape", "style", "scenario", "figures"),
    *("json", "jobs", "progress", "cache"),
)


def add(commands: common.Commands) -> None:
    parser = common.command(
        commands, "estimate", execute, "area, speed, power and economics of a design", _EXAMPLE
    )
    parser.add_argument("design", metavar="MODEL.onnx|DIR", help="trained model, or a bundle")
    parser.add_argument("--explain", metavar="NAME", help="the formula chain of one figure")
    add_arguments(parser, only=_OPTIONS)


def execute(args: argparse.Namespace, output: Output) -> int:
    options = from_sources({**vars(args), "dry_run": True, "verify": "none"})
    path = Path(args.design)
    found = _of_bundle(path, options) if path.is_dir() else _of_model(path, options, output)
    quantities = found.by_name()
    if args.explain is not None:
        output.result(explain(quantities, args.explain).rstrip())
    else:
        for quantity in found.quantities:
            output.result(line(quantity))
        output.result(f"verdict: {found.verdict.name}")
    report = ReportInputs(title=found.facts.name, kind="estimate", estimate=found)
    output.document(build_report(report)["estimate"])
    return 0


def _of_bundle(path: Path, options: Options) -> Estimate:
    facts = DesignFacts.from_json(pipeline.read_report(path)["estimate"]["facts"])
    scenario = load_scenario(options.scenario or DEFAULT)
    return estimate(facts, scenario, pipeline.tables(options))


def _of_model(path: Path, options: Options, output: Output) -> Estimate:
    with StageDisplay(output) as display:
        outcome = pipeline.compile_model(path, options, display)
    for text in assessment.summary(outcome.report):
        output.message(text, level=1)
    found: Estimate = outcome.artefacts["estimate"]
    return found
