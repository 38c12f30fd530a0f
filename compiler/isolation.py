"""Isolation: a model file is read first in a child process that can do little harm.

The child is a fresh interpreter. Once it has loaded its libraries, and before it opens the model,
it limits itself: memory, processor time, no byte written to any file, no core dump. It does all
that an import does and answers in JSON, which is read as data. Whatever ends it, a crash of a
parser included, is a :class:`ModelError`; the parent reads the file only after the child could.

    python -m hwcompile.compiler.isolation      the child; the request on its standard input
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hwcompile.compiler.errors import ModelError, Problem
from hwcompile.compiler.frontend import load_models
from hwcompile.compiler.importing import import_model

GIB = 1 << 30
_STATUS = Path("/proc/self/status")
_ANSWER = 4 << 20
_WAIT = 4
"""Seconds of the clock allowed for every second of processor time."""
_HINT = "the file is damaged or made to harm; a sound one this large: try without --isolate"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a process: ``data_bytes`` on top of what it holds already, ``cpu_seconds`` from now on,
    ``file_bytes`` of any file it writes."""

    data_bytes: int
    cpu_seconds: int
    file_bytes: int = 0


def limit_process(limits: Limits) -> None:
    """Limit this process, for good: memory, processor time, files; no core is dumped.

    Memory is what the process may write to: read-only maps of files do not count.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + limits.cpu_seconds
    bounds = {
        resource.RLIMIT_DATA: _data_bytes() + limits.data_bytes,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for kind, bound in bounds.items():
        _, hard = resource.getrlimit(kind)
        # Over the soft limit of time comes a signal with a name, over the hard one the end.
        most = bound + (kind == resource.RLIMIT_CPU)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (min(bound, most), most))


def _data_bytes() -> int:
    """Bytes of memory of this process that RLIMIT_DATA counts."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return GIB


def limits_for(paths: Sequence[Path]) -> Limits:
    """1 GB and four times the files; a minute, and one more for each gigabyte of the files.

    Data beside the model counts, that of the first gigabyte: more of it is mapped, not loaded.
    """
    folders = dict.fromkeys(path.absolute().parent for path in paths)
    beside = sum(p.stat().st_size for folder in folders for p in folder.iterdir() if p.is_file())
    loaded = max(sum(path.stat().st_size for path in paths), min(beside, GIB))
    return Limits(GIB + 4 * loaded, 60 + 60 * beside // GIB)


def check_isolated(
    paths: Sequence[Path], shapes: Mapping[str, tuple[int, ...]], limits: Limits | None = None
) -> None:
    """Read model files, as an import would, in a limited child process.

    Raises:
        ModelError: what the import says of them, or that the child broke a limit or crashed.
    """
    allowed = limits or limits_for(paths)
    request = {
        "paths": [str(path.absolute()) for path in paths],
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "limits": asdict(allowed),
    }
    command = [sys.executable, "-B", "-m", "hwcompile.compiler.isolation"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_WAIT * allowed.cpu_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        why = f"did not end within {_WAIT * allowed.cpu_seconds} s"
        raise ModelError(f"reading the file {why}", _HINT) from error
    _raise(_answer(done.stdout), done.returncode, allowed)


def _raise(answer: Mapping[str, Any], code: int, limits: Limits) -> None:
    if code == -signal.SIGXCPU:
        raise ModelError(f"reading the file took over {limits.cpu_seconds} s", _HINT)
    if code == 0 and answer.get("verdict") == "memory":
        size = limits.data_bytes >> 20
        raise ModelError(f"reading the file took over {size} MiB of memory", _HINT)
    if code == 0 and answer.get("verdict") == "refused":
        problems = tuple(
            Problem(*(str(p.get(f, "")) for f in Problem.__slots__)) for p in answer["problems"]
        )
        raise ModelError(str(answer["message"]), str(answer["hint"]), problems)
    if code != 0 or answer.get("verdict") != "ok":
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"failed ({code})"
        raise ModelError(f"the process that read the file {how}", _HINT)


def _answer(text: bytes) -> Mapping[str, Any]:
    """What the child wrote, as far as it is what a child writes."""
    try:
        found = json.loads(text[:_ANSWER])
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    problems = found.get("problems", [])
    sound = isinstance(problems, list) and all(isinstance(p, dict) for p in problems)
    return {"message": "", "hint": "", **found, "problems": problems} if sound else {}


def _read(paths: Sequence[Path], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The child's verdict."""
    try:
        import_model(load_models(tuple(paths), shapes), shapes)
    except ModelError as error:
        problems = [{name: getattr(p, name) for name in p.__slots__} for p in error.problems]
        return {
            "verdict": "refused",
            "message": error.message,
            "hint": error.hint,
            "problems": problems,
        }
    except MemoryError:
        return {"verdict": "memory"}
    return {"verdict": "ok"}


def main() -> int:
    """The child."""
    request = json.loads(sys.stdin.buffer.read())
    shapes = {name: tuple(shape) for name, shape in request["shapes"].items()}
    limit_process(Limits(**request["limits"]))
    answer = _read([Path(path) for path in request["paths"]], shapes)
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
