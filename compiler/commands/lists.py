"""hwcompile ops, passes: what there is."""

from __future__ import annotations

import argparse

from hwcompile.compiler import catalogue
from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output

_LISTS = {
    "ops": ("list the ONNX operators understood", catalogue.operators),
    "passes": ("list the stages and passes in order", catalogue.passes),
}


def add(commands: common.Commands) -> None:
    for name, (summary, _) in _LISTS.items():
        parser = common.command(commands, name, execute, summary, f"hwcompile {name} --json")
        common.add_json(parser)
        parser.set_defaults(list=name)


def execute(args: argparse.Namespace, output: Output) -> int:
    common.show(_LISTS[args.list][1](), output)
    return 0
