"""hwcompile inspect: what the front-end makes of a model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hwcompile.compiler import pipeline
from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output, StageDisplay
from hwcompile.compiler.emit import dump, outline, outline_text
from hwcompile.compiler.errors import ModelError, OutputError
from hwcompile.compiler.options import add_arguments, from_sources

_FORMATS = ("text", "json", "svg")


def add(commands: common.Commands) -> None:
    parser = common.command(
        commands,
        "inspect",
        execute,
        "draw what the front-end makes of a model, and say what each part was recognised as",
        "hwcompile inspect model.onnx\nhwcompile inspect model.onnx --format svg -o model.svg",
    )
    parser.add_argument(
        "model", nargs="+", metavar="MODEL.onnx", help="trained model, or an encoder and a decoder"
    )
    parser.add_argument("--format", choices=_FORMATS, default="text", help="default: text")
    parser.add_argument("-o", "--output", metavar="FILE", dest="file", help="default: stdout")
    add_arguments(parser, only=("shape", "json", "progress", "cache", "isolate"))


def execute(args: argparse.Namespace, output: Output) -> int:
    options = from_sources({**vars(args), "stop_after": "import"})
    as_json = options.json or args.format == "json"
    try:
        with StageDisplay(output) as display:
            outcome = pipeline.compile_model(args.model, options, display)
    except ModelError as error:
        if as_json and error.problems:
            problems = [{name: getattr(p, name) for name in p.__slots__} for p in error.problems]
            _write(json.dumps({"problems": problems}, indent=1), args.file)
        raise
    graph, title = outcome.artefacts["graph"], " + ".join(Path(m).name for m in args.model)
    found = outline.outline(graph)
    if as_json:
        document = dump.graph_facts(graph) | {"outline": outline.as_json(found)}
        _write(json.dumps(document, indent=1), args.file)
    elif args.format == "svg":
        _write(outline_text.as_svg(found, graph, title), args.file)
    else:
        _write(outline_text.as_text(found, graph, title), args.file)
    return 0


def _write(content: str, file: str | None) -> None:
    if file is None:
        print(content)
        return
    try:
        Path(file).write_text(content + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror}", "choose another -o") from error
