"""The command line: arguments, dispatch, exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from hwcompile import __version__
from hwcompile.compiler.commands import (
    compile_model,
    diff,
    estimate,
    evaluate,
    explore,
    generate,
    inspect_model,
    lists,
    report,
    run,
    targets,
    verify,
)
from hwcompile.compiler.console import Output
from hwcompile.compiler.errors import ExitCode, HwcompileError

_COMMANDS = (
    *(compile_model, run, generate, verify, evaluate, estimate, explore, diff),
    *(report, inspect_model, targets, lists),
)
_EPILOG = """examples:
  hwcompile model.onnx                      compile, verify, estimate, report
  hwcompile run model-hwcompile --inputs x.npz --engine rtl -o y.npz
  hwcompile verify model-hwcompile --level full

exit codes: 0 done, 1 internal error, 2 usage, 3 model invalid or unsupported, 4 does not fit the
budget, 5 verification mismatch, 6 external tool missing or failed, 7 output folder refused,
130 interrupted"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each stores its function as ``execute``."""
    parser = argparse.ArgumentParser(
        prog="hwcompile",
        description="Compiles a trained ONNX transformer into hardware that is this model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hwcompile {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code and never raises, but for argparse's own exits."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    args = parser.parse_args(_with_command(arguments, parser))
    verbosity = -1 if args.quiet else args.verbose
    output = Output(
        verbosity=verbosity,
        progress=getattr(args, "progress", True),
        json=getattr(args, "json", False),
    )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(args.execute(args, output))
    except HwcompileError as error:
        if verbosity >= 2:
            traceback.print_exc()
        output.error(error)
        return int(error.code)
    except KeyboardInterrupt:
        print("interrupted; what was there before is unchanged", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our stdout has left; point it elsewhere so that the exit flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.DONE)
    except Exception as error:
        if verbosity >= 2:
            traceback.print_exc()
        output.error(
            HwcompileError(
                f"internal error: {type(error).__name__}: {error}",
                "this is a defect of hwcompile: run again with -vv and report the output, "
                f"with the version ({__version__}) and, if you can, the model",
            )
        )
        return int(ExitCode.INTERNAL)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _with_command(arguments: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """``hwcompile MODEL.onnx ...`` is short for ``hwcompile compile MODEL.onnx ...``."""
    known = next(
        tuple(a.choices) for a in parser._actions if isinstance(a, argparse._SubParsersAction)
    )
    first = next((a for a in arguments if not a.startswith("-")), None)
    asks = arguments[:1] in (["--version"], ["-h"], ["--help"], [])
    if asks or first in known:
        return arguments
    if first is not None and not _looks_like_file(first) and not _any_file(arguments):
        return arguments
    return ["compile", *arguments]


def _looks_like_file(text: str) -> bool:
    return "." in text or os.sep in text or Path(text).exists()


def _any_file(arguments: list[str]) -> bool:
    return any(a.endswith(".onnx") for a in arguments)
