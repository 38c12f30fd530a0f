"""hwcompile eval: the float model and the compiled design, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from hwcompile.compiler import evaluate as evaluation
from hwcompile.compiler import execute as engines
from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output
from hwcompile.compiler.errors import BudgetError

_EXAMPLE = "hwcompile eval dates-hwcompile --data eval.npz --metric exact-match --min 0.99"


def add(commands: common.Commands) -> None:
    parser = common.command(
        commands, "eval", execute, "measure quality: float model beside compiled design", _EXAMPLE
    )
    parser.add_argument("design", metavar="DIR", help="design bundle")
    parser.add_argument(
        "--data", required=True, metavar="EVAL.npz", help="inputs by name, and label"
    )
    parser.add_argument("--metric", required=True, choices=evaluation.METRICS)
    parser.add_argument(
        "--min", type=float, metavar="V", help="least value (most, for perplexity and mse)"
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help="the float model")
    common.add_engine(parser)
    common.add_limit(parser)
    common.add_json(parser)
    common.add_progress(parser)


def execute(args: argparse.Namespace, output: Output) -> int:
    design = engines.open_design(args.design, args.liberty)
    data = engines.read_npz(args.data)
    found = evaluation.evaluate(design, data, args.metric, args.model, args.engine, args.limit)
    output.result(f"{found.metric} over {found.items} samples")
    output.result(f"  float model      {found.float_value:.6g}")
    output.result(f"  compiled design  {found.design_value:.6g}")
    output.document(
        {
            "metric": found.metric,
            "items": found.items,
            "float": found.float_value,
            "design": found.design_value,
        }
    )
    if args.min is not None and not found.reaches(args.min):
        raise BudgetError(
            f"{found.metric} is {found.design_value:.6g}, off the bound {args.min} by "
            f"{abs(found.design_value - args.min):.3g}",
            f"the float model itself has {found.float_value:.6g}",
        )
    return 0
