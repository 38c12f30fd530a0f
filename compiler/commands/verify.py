"""hwcompile verify: the audit of a bundle as it lies on disk."""

from __future__ import annotations

import argparse

from hwcompile.compiler import audit
from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output


def add(commands: common.Commands) -> None:
    parser = common.command(
        commands,
        "verify",
        execute,
        "audit a bundle on disk: hashes, lint, simulation against the reference",
        "hwcompile verify model-hwcompile --level full",
    )
    parser.add_argument("design", metavar="DIR", help="design bundle")
    parser.add_argument("--level", choices=("fast", "full"), default="fast", help="how thoroughly")
    common.add_liberty(parser)
    for name in ("calibration", "scenario", "figures"):
        about = f"full: the file that --{name} named, to compile again"
        parser.add_argument(f"--{name}", metavar="FILE", help=about)
    parser.add_argument("--model", metavar="M.onnx", help="full: the model, if no copy is inside")
    common.add_jobs(parser)
    common.add_json(parser)
    common.add_progress(parser)


def execute(args: argparse.Namespace, output: Output) -> int:
    names = ("liberty", "calibration", "scenario", "figures", "model")
    files = {name: path for name in names if (path := getattr(args, name)) is not None}
    found = audit.verify(
        args.design, args.level, lambda text: output.message(text, level=1), files, args.jobs
    )
    for check in found:
        output.result(f"{check.module}: {check.status} ({check.method})")
    output.document([{"module": c.module, "status": c.status, "method": c.method} for c in found])
    return 0
