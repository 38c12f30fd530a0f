"""hwcompile run: a compiled design on a user's inputs."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from hwcompile.compiler import execute as engines
from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output
from hwcompile.compiler.errors import OutputError

_EXAMPLE = "hwcompile run model-hwcompile --inputs x.npz --engine rtl --limit 2 -o y.npz"


def add(commands: common.Commands) -> None:
    parser = common.command(
        commands, "run", execute, "execute a compiled design on float inputs", _EXAMPLE
    )
    parser.add_argument("design", metavar="DIR", help="design bundle")
    parser.add_argument(
        "--inputs", required=True, metavar="X.npz", help="arrays named as in the ONNX model"
    )
    parser.add_argument("-o", "--output", metavar="Y.npz", help="where to write the outputs")
    parser.add_argument(
        "--outputs",
        type=lambda text: text.split(","),
        metavar="NAMES",
        help="only these outputs, by comma; caches too",
    )
    common.add_engine(parser)
    common.add_limit(parser)
    common.add_jobs(parser)
    common.add_json(parser)
    common.add_progress(parser)


def execute(args: argparse.Namespace, output: Output) -> int:
    design = engines.open_design(args.design, args.liberty)
    feeds = engines.read_npz(args.inputs)
    results = engines.run(design, feeds, args.engine, args.outputs, args.limit, args.jobs)
    if args.output:
        try:
            np.savez(Path(args.output), allow_pickle=False, **results)
        except OSError as error:
            raise OutputError(f"cannot write {args.output}: {error.strerror}") from error
    plain = {name: x for name, x in results.items() if not name.endswith(("__int", "__scale"))}
    for name, x in plain.items():
        output.result(f"{name}: {list(x.shape)}, {x.min():.6g} to {x.max():.6g}")
    output.document(
        {
            "engine": args.engine,
            "outputs": {name: {"shape": list(x.shape)} for name, x in plain.items()},
        }
    )
    return 0
