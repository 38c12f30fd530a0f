"""hwcompile inspect: what the front-end makes of a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from hwcompile.compiler import pipeline
from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output, StageDisplay
from hwcompile.compiler.emit import dump
from hwcompile.compiler.options import add_arguments, from_sources


def add(commands: common.Commands) -> None:
    parser = common.command(
        commands,
        "inspect",
        execute,
        "show what the front-end makes of a model",
        "hwcompile inspect model.onnx",
    )
    parser.add_argument("model", metavar="MODEL.onnx", help="trained model")
    add_arguments(parser, only=("shape", "json", "progress", "cache"))


def execute(args: argparse.Namespace, output: Output) -> int:
    options = from_sources({**vars(args), "stop_after": "import"})
    with StageDisplay(output) as display:
        outcome = pipeline.compile_model(Path(args.model), options, display)
    graph = outcome.artefacts["graph"]
    output.result(dump.graph_text(graph).rstrip())
    output.document(dump.graph_facts(graph))
    return 0
