"""The options of a compilation: one frozen record, from which flags and config keys are made.

Every option is declared once, as a field of :class:`Options`. The command line, the keys of
``hwcompile.yaml``, the manifest's record and the cache keys of the stages are all read from the
fields.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hwcompile.compiler.errors import UsageError

WEIGHTS = ("auto", "int8", "int6", "int4", "int3", "int2", "ternary")
ACTIVATIONS = ("auto", "int8", "int9", "int10", "int12", "int16")
STYLES = ("auto", "parallel", "bitplane", "folded")
PHASE_DECODES = ("local", "shared")
SEARCH_LEVELS = (0, 1, 2, 3)
OBJECTIVES = ("area", "adders", "depth")
VERIFY_LEVELS = ("none", "fast", "full")


def _option(
    default: Any,
    help: str,
    *,
    metavar: str | None = None,
    choices: tuple[str, ...] | tuple[int, ...] | None = None,
    short: str | None = None,
    file: bool = False,
    named: bool = False,
    recorded: bool = True,
    off: str | None = None,
) -> Any:
    """A field. ``file``: the manifest records the content's hash, not the path. ``named``: or it is
    the name of something that ships, when there is no such file. ``recorded``: the
    option shapes the design and enters the manifest. ``off``: the flag that clears a boolean."""
    about = {
        "help": help,
        "metavar": metavar,
        "choices": choices,
        "short": short,
        "file": file,
        "named": named,
        "recorded": recorded,
        "off": off,
    }
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that steers ``hwcompile compile``; see the help text of each field."""

    target: str = _option(
        "nangate45", "cells to map to: a name listed by `hwcompile targets`", metavar="NAME"
    )
    liberty: str | None = _option(
        None, "real liberty file in place of the target's cell table", metavar="FILE", file=True
    )
    clock_period_ns: float | None = _option(
        None, "clock period in ns (default: the target's)", metavar="NS"
    )
    weights: str = _option("auto", "weight format", choices=WEIGHTS)
    activations: str = _option(
        "auto",
        "activation format (auto: the fewest bits that keep the answers)",
        choices=ACTIVATIONS,
    )
    sparsity: str | None = _option(
        None, "set the least weights to zero: a share, or 2:4", metavar="0.5|2:4"
    )
    calibration: str | None = _option(
        None, "npz of model inputs to calibrate scales on", metavar="X.npz", file=True
    )
    min_agreement: float | None = _option(
        None, "least share of arg-max choices equal to the float model's", metavar="SHARE"
    )
    shape: tuple[str, ...] = _option(
        (), "shape of an input whose file leaves it open (repeatable)", metavar="NAME=1x64"
    )
    style: str = _option("auto", "weight logic", choices=STYLES)
    phase_decode: str = _option(
        "local", "where folded weight logic decodes its phase", choices=PHASE_DECODES
    )
    optimise: int = _option(
        1,
        "search for shared logic: 0 none, 1 greedy; parallel also 2 portfolio, 3 long search",
        choices=SEARCH_LEVELS,
        short="-O",
    )
    objective: str = _option("area", "what the search of parallel blocks saves", choices=OBJECTIVES)
    respin: bool = _option(
        False, "weights as connections alone: the same cells for all weights, for metal re-spins"
    )
    logits_port: bool = _option(
        True, "no port for the logits: tokens only (no --engine rtl)", off="--no-logits-port"
    )
    cache_port: bool = _option(False, "a port that loads a decoder's caches")
    max_area_mm2: float | None = _option(None, "budget: die logic area in mm2", metavar="MM2")
    min_tokens_per_s: float | None = _option(None, "budget: tokens per second", metavar="RATE")
    scenario: str | None = _option(
        None,
        "economics scenario: a file, or the name of one that ships (default: chip-per-model)",
        metavar="S.yaml",
        file=True,
        named=True,
    )
    figures: str | None = _option(
        None, "figures of your own (wafer, masks, ...) over the tables", metavar="F.yaml", file=True
    )
    verify: str = _option("fast", "how much to check before writing", choices=VERIFY_LEVELS)
    seed: int = _option(0, "seed of made calibration data and of test vectors", metavar="N")
    model_copy: bool = _option(
        True, "leave the copy of the model out of the bundle", off="--no-model-copy"
    )
    output: str | None = _option(
        None,
        "output folder (default: MODEL-hwcompile)",
        metavar="DIR",
        short="-o",
        recorded=False,
    )
    stop_after: str | None = _option(
        None, "stop after this stage and write nothing", metavar="STAGE", recorded=False
    )
    dump_ir: str | None = _option(
        None, "write each representation as text to this folder", metavar="DIR", recorded=False
    )
    check: bool = _option(False, "check the representation after every pass", recorded=False)
    dry_run: bool = _option(False, "plan and estimate; write nothing", recorded=False)
    json: bool = _option(False, "machine report on stdout, messages on stderr", recorded=False)
    jobs: int = _option(2, "parallel processes", metavar="N", short="-j", recorded=False)
    force: bool = _option(
        False, "replace a folder that hwcompile did not write, or rebuild", recorded=False
    )
    progress: bool = _option(True, "no progress display", off="--no-progress", recorded=False)
    isolate: bool = _option(
        False,
        "read the model first in a child process with limits of memory and time",
        recorded=False,
    )
    cache: bool = _option(True, "do not use the cache", off="--no-cache", recorded=False)

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            _check_type(f, getattr(self, f.name))
        positive = ("clock_period_ns", "max_area_mm2", "min_tokens_per_s", "jobs")
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{flag(name)} must be positive, not {value}")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise UsageError(
                f"--min-agreement is a share between 0 and 1, not {self.min_agreement}"
            )


def flag(name: str) -> str:
    """The command line flag of an option: ``clock_period_ns`` -> ``--clock-period-ns``."""
    return "--" + name.replace("_", "-")


def _check_type(f: dataclasses.Field[Any], value: Any) -> None:
    """Raise UsageError when a value (from YAML, say) has not the type the field declares."""
    choices = f.metadata["choices"]
    if choices and value not in choices:
        raise UsageError(f"{flag(f.name)}: {value!r} is not one of {', '.join(map(str, choices))}")
    kind = str(f.type)
    if value is None and "None" in kind:
        return
    wanted: Mapping[str, tuple[type, ...]] = {
        "bool": (bool,),
        "int": (int,),
        "float": (int, float),
        "str": (str,),
        "tuple": (tuple,),
    }
    types = wanted[kind.split(" ")[0].split("[")[0]]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise UsageError(f"{flag(f.name)}: {value!r} is not a {types[-1].__name__}")


def add_arguments(parser: argparse.ArgumentParser, only: tuple[str, ...] | None = None) -> None:
    """Declare the flags on a parser; what is not given stays absent from the namespace."""
    for f in dataclasses.fields(Options):
        if only is not None and f.name not in only:
            continue
        names = [n for n in (f.metadata["short"], f.metadata["off"] or flag(f.name)) if n]
        about: dict[str, Any] = {
            "dest": f.name,
            "default": argparse.SUPPRESS,
            "help": f.metadata["help"],
        }
        kind = str(f.type)
        if kind == "bool":
            about["action"] = "store_false" if f.metadata["off"] else "store_true"
        elif kind.startswith("tuple"):
            about.update(action="append", metavar=f.metadata["metavar"])
        else:
            number: type = float if "float" in kind else int if kind == "int" else str
            about.update(type=number, metavar=f.metadata["metavar"], choices=f.metadata["choices"])
        parser.add_argument(*names, **about)


def from_sources(arguments: Mapping[str, Any], config: str | None = None) -> Options:
    """Options from a config file (lowest), then from given arguments.

    Raises:
        UsageError: unknown key, wrong type, unreadable file.
    """
    names = [f.name for f in dataclasses.fields(Options)]
    values = {} if config is None else _read_config(config, names)
    values.update({k: v for k, v in arguments.items() if k in names})
    if isinstance(values.get("shape"), list):
        values["shape"] = tuple(values["shape"])
    return Options(**values)


def _read_config(path: str, names: list[str]) -> dict[str, Any]:
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} must hold keys and values, like `target: nangate45`")
    values = {str(key).replace("-", "_"): value for key, value in document.items()}
    unknown = [key for key in values if key not in names]
    if unknown:
        raise UsageError(f"{path}: unknown keys {', '.join(unknown)}", "keys: " + ", ".join(names))
    return values


def recorded(options: Options, only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """The options that shape the design, without paths: a file is its content's sha256.

    Raises:
        UsageError: a named file cannot be read.
    """
    result: dict[str, Any] = {}
    for f in dataclasses.fields(options):
        if not f.metadata["recorded"] or (only is not None and f.name not in only):
            continue
        value = getattr(options, f.name)
        named = f.metadata["named"] and not Path(str(value)).is_file()
        if value is not None and f.metadata["file"] and not named:
            value = {"sha256": file_hash(value)}
        result[f.name] = list(value) if isinstance(value, tuple) else value
    return result


def file_hash(path: str | Path) -> str:
    """sha256 of a file's bytes, in hex."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
