"""hwcompile targets: the cell targets, the figures of a node, the check of a file of one's own."""

from __future__ import annotations

import argparse

from hwcompile.compiler import catalogue
from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output
from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.explain import figure_text

_EXAMPLE = """hwcompile targets --json
hwcompile targets --explain N5
hwcompile targets validate mine.yaml"""


def add(commands: common.Commands) -> None:
    parser = common.command(commands, "targets", execute, "list the cell targets", _EXAMPLE)
    parser.add_argument(
        "action", nargs="?", choices=("validate",), help="validate: check a file of your own"
    )
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="a target, a scenario, or figures over the tables"
    )
    parser.add_argument(
        "--explain",
        metavar="NODE",
        help="every figure of a node (N5, 45) or target, with source, date and grade",
    )
    common.add_json(parser)


def execute(args: argparse.Namespace, output: Output) -> int:
    if (args.action is None) != (args.file is None):
        raise UsageError("no file to validate", "hwcompile targets validate FILE")
    if args.file is not None:
        about = catalogue.validate(args.file)
        output.result(f"{args.file}: {about}")
        output.document({"file": args.file, "about": about})
    elif args.explain is not None:
        figures = catalogue.figures_of(args.explain)
        for name, figure in figures.items():
            output.result(figure_text(name, figure))
        output.document(catalogue.figures_json(figures))
    else:
        common.show(catalogue.targets(), output)
    return 0
