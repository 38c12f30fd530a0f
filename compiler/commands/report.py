"""hwcompile report: where the report is, rebuilt if need be."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output
from hwcompile.compiler.emit.explain_report import explain_report
from hwcompile.compiler.emit.report import render_html
from hwcompile.compiler.errors import OutputError
from hwcompile.compiler.pipeline import read_report


def add(commands: common.Commands) -> None:
    parser = common.command(
        commands,
        "report",
        execute,
        "open the report of a bundle, or write it anew from report.json",
        "hwcompile report model-hwcompile --no-open",
    )
    parser.add_argument("design", metavar="DIR", help="design bundle")
    parser.add_argument("-o", "--output", metavar="FILE", help="write report.html here instead")
    parser.add_argument("--explain", metavar="NAME", help="the formula chain of one figure")
    parser.add_argument(
        "--no-open", dest="open", action="store_false", help="only print where it is"
    )
    common.add_json(parser)


def execute(args: argparse.Namespace, output: Output) -> int:
    folder = Path(args.design)
    content = read_report(folder)
    if args.explain is not None:
        output.result(explain_report(content, args.explain).rstrip())
        return 0
    page = folder / "report.html"
    if args.output:
        page = Path(args.output)
        try:
            page.write_text(render_html(content), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {page}: {error.strerror}") from error
    output.result(str(page))
    output.document(content)
    if args.open and not args.json:
        webbrowser.open(page.resolve().as_uri())
    return 0
