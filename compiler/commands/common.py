"""What several commands share in their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from hwcompile.compiler.catalogue import Entry
from hwcompile.compiler.console import Output
from hwcompile.compiler.execute import ENGINES

Commands = Any  # argparse's sub-parser collection has no public name
Execute = Callable[[argparse.Namespace, Output], int]


def command(
    commands: Commands, name: str, execute: Execute, summary: str, example: str
) -> argparse.ArgumentParser:
    """Declare a command with its help, an example, -v and -q."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="example:\n  " + example.replace("\n", "\n  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="count", default=0, help="say more (-vv: all)")
    volume.add_argument("-q", "--quiet", action="store_true", help="errors only")
    parser.set_defaults(execute=execute)
    return parser


def show(entries: Sequence[Entry], output: Output) -> None:
    """A list, one entry a line."""
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        output.result(f"{entry.name:<{width}}  {entry.about}")
    output.document([{"name": entry.name, "about": entry.about} for entry in entries])


def add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="reference",
        help="numpy integer reference, simulation of the Verilog in the bundle, or of its gates",
    )
    add_liberty(parser)


def add_liberty(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--liberty", metavar="FILE", help="the liberty file that the bundle was mapped with"
    )


def add_holding(parser: argparse.ArgumentParser, help: str) -> None:
    """How the weights of a design without a netlist are held, and at what process."""
    parser.add_argument("--hold", choices=("logic", "rom", "metal"), default="logic", help=help)
    parser.add_argument("--node", type=float, metavar="NM", help="process of a ROM or metal chip")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable answer on stdout")


def add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-progress", dest="progress", action="store_false", help="no progress display"
    )


def add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N samples")


def add_jobs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-j", "--jobs", type=positive, default=2, metavar="N", help="processes")


def positive(text: str) -> int:
    """argparse type: an integer above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def token_list(text: str) -> list[int]:
    """argparse type: ``12,7,3``."""
    try:
        return [int(part) for part in text.replace(" ", "").split(",") if part]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of token ids like 12,7,3") from None
