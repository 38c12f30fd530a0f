"""hwcompile estimate: the figures of a design, under any scenario, without writing anything."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hwcompile.compiler import assessment, isolation, pipeline, tolerance
from hwcompile.compiler.appraisal import Appraisal, appraise, appraise_shape
from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output, StageDisplay
from hwcompile.compiler.emit.explain_report import explain_report
from hwcompile.compiler.emit.report import ReportInputs, build_report, render_html
from hwcompile.compiler.errors import OutputError, UsageError
from hwcompile.compiler.estimate.estimate import Estimate, estimate
from hwcompile.compiler.estimate.explain import line
from hwcompile.compiler.estimate.facts import DesignFacts
from hwcompile.compiler.estimate.scenario import DEFAULT, load_scenario
from hwcompile.compiler.estimate.shape import Embedding
from hwcompile.compiler.execute import open_design, read_npz
from hwcompile.compiler.large_model import NETLIST_LIMIT, is_large, program_shape
from hwcompile.compiler.options import Options, add_arguments, from_sources
from hwcompile.sim import reference

_EXAMPLE = """hwcompile estimate model.onnx --target sky130hd
hwcompile estimate llama-8b.onnx --weights int4 --hold rom --node 6 --report llama.html
hwcompile estimate model-hwcompile --scenario mine.yaml --explain cost.chip_usd"""
_OPTIONS = (
    *("target", "liberty", "clock_period_ns", "weights", "activations", "sparsity"),
    *("calibration", "shape", "style", "scenario", "figures"),
    *("json", "jobs", "progress", "cache", "isolate"),
)


def add(commands: common.Commands) -> None:
    parser = common.command(
        commands, "estimate", execute, "area, speed, power and economics of a design", _EXAMPLE
    )
    parser.add_argument("design", metavar="MODEL.onnx|DIR", help="trained model, or a bundle")
    parser.add_argument("--explain", metavar="NAME", help="the formula chain of one figure")
    parser.add_argument(
        "--basis",
        choices=("auto", "netlist", "model"),
        default="auto",
        help="areas from synthesis, or modelled from the weights' statistics "
        f"(auto: modelled above {NETLIST_LIMIT} weights)",
    )
    common.add_holding(parser, "how the weights are held; rom and metal as published chips do it")
    parser.add_argument("--context", type=int, metavar="N", help="positions, if the file is open")
    parser.add_argument(
        "--measure-defects",
        action="store_true",
        help="of a bundle: how many wrong weights its program bears (yield graded by accuracy)",
    )
    parser.add_argument(
        "--min-agreement",
        type=float,
        metavar="SHARE",
        help="answers that must stay the same (default 0.99)",
    )
    parser.add_argument("--data", metavar="X.npz", help="inputs to measure them on (else random)")
    parser.add_argument("--report", metavar="FILE", help="write the report page here")
    add_arguments(parser, only=_OPTIONS)


def execute(args: argparse.Namespace, output: Output) -> int:
    options = from_sources({**vars(args), "dry_run": True, "verify": "none"})
    path = Path(args.design)
    content: dict[str, Any] = {}
    report: dict[str, Any] | None = None
    if args.measure_defects and not path.is_dir():
        raise UsageError("--measure-defects needs a bundle", "hwcompile MODEL -o DIR makes one")
    if path.is_dir():
        made, found, content = _of_bundle(path, options, args, output)
        report = made.report() if made is not None else None
    elif _modelled(path, options, args):
        made = _modelled_estimate(path, options, args, output)
        found, report = made.estimate, made.report()
        content = {"basis": "modelled", "layers": made.layers()}
    else:
        found = _of_model(path, options, output)
    if report is None:
        report = build_report(ReportInputs(title=found.facts.name, kind="estimate", estimate=found))
        content["basis"] = found.facts.area_basis
    if args.explain is not None:
        output.result(explain_report(report, args.explain).rstrip())
    else:
        for quantity in found.quantities:
            output.result(line(quantity))
        output.result(f"verdict: {found.verdict.name}")
    if args.report is not None:
        _write(Path(args.report), render_html(report))
        output.message(f"report: {args.report}")
    output.document({**content, **report["estimate"]})
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def _modelled(path: Path, options: Options, args: argparse.Namespace) -> bool:
    """Whether areas come from statistics: as asked for, else by the size of the file."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    if options.isolate:
        isolation.check_isolated([path], pipeline.shapes(options))
    if args.hold != "logic" or args.basis == "model":
        return True
    return args.basis == "auto" and is_large(path)


def _modelled_estimate(
    path: Path, options: Options, args: argparse.Namespace, output: Output
) -> Appraisal:
    hold: Embedding = args.hold
    made = appraise(path, options, hold, args.context, args.node)
    shape = made.shape
    output.message(
        f"{shape.name}: {shape.weights} weights in {len(shape.matrices)} matrices, "
        f"{len(shape.attention)} attentions; areas are modelled, not synthesised"
    )
    for text in shape.assumed:
        output.message(f"assumed: {text}")
    return made


def _of_bundle(
    path: Path, options: Options, args: argparse.Namespace, output: Output
) -> tuple[Appraisal | None, Estimate, dict[str, Any]]:
    """A bundle's own facts, or its program held in ROM or metal; its defects where asked for."""
    content: dict[str, Any] = {}
    bears = None
    if args.measure_defects:
        measured = _measure(path, args)
        content["defects"] = asdict(measured)
        bears = measured.bears
        for point in measured.points:
            output.message(
                f"{point.count} wrong weights: {point.mean:.1%} of the answers the same "
                f"(worst trial {point.worst:.1%})"
            )
        output.message(
            f"bears {bears} wrong weights of {measured.weights} "
            f"({measured.min_agreement:.0%} of the answers, on {measured.samples} samples)"
        )
    if args.hold != "logic":
        program = open_design(path, options.liberty).program
        shape = program_shape(path.name, program)
        made = appraise_shape(shape, options, args.hold, args.node, bears)
        return made, made.estimate, content | {"basis": "modelled", "layers": made.layers()}
    facts = DesignFacts.from_json(pipeline.read_report(path)["estimate"]["facts"])
    scenario = load_scenario(options.scenario or DEFAULT)
    tables = pipeline.tables(options)
    found = estimate(replace(facts, bearable_defects=bears), scenario, tables)
    return None, found, content


def _measure(path: Path, args: argparse.Namespace) -> tolerance.Tolerance:
    program = open_design(path).program
    inputs = None
    if args.data is not None:
        feeds = dict(read_npz(args.data))
        names = [given.model_name for given in program.inputs]
        missing = [name for name in names if name not in feeds]
        if missing:
            raise UsageError(
                f"{args.data} lacks {', '.join(missing)}", "inputs by the model's names"
            )
        few = {name: feeds[name][: tolerance.SAMPLES] for name in names}
        inputs = reference.quantise_inputs(program, few)
    least = args.min_agreement if args.min_agreement is not None else 0.99
    return tolerance.measure(program, inputs, least)


def _of_model(path: Path, options: Options, output: Output) -> Estimate:
    with StageDisplay(output) as display:
        outcome = pipeline.compile_model(path, replace(options, isolate=False), display)
    for text in assessment.summary(outcome.report):
        output.message(text, level=1)
    found: Estimate = outcome.artefacts["estimate"]
    return found
