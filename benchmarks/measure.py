"""Runs a command and measures it with all its children: wall and CPU time, peak memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Run:
    """What a command did. ``cpu_seconds`` and ``peak_bytes`` (resident memory, sampled) are of the
    whole process tree.
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def complaint(self) -> str:
        """The first line of its error message."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("error:")]
        return (lines or self.stderr.strip().splitlines()[-1:] or [f"exit code {self.code}"])[0]


def hwcompile(*arguments: object, cache: Path | None = None, timeout_s: float = 3600) -> Run:
    """Run the command line of this checkout. ``cache``: in place of the user's cache folder."""
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    if cache is not None:
        environment["XDG_CACHE_HOME"] = str(cache)
    command = [sys.executable, "-m", "hwcompile", *map(str, arguments)]
    return run(command, environment, timeout_s)


def run(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> Run:
    """Run a command to its end; after ``timeout_s`` it is killed and its code is 124."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began, used = time.monotonic(), _children_seconds()
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=err)
        peak = [0]
        done = threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, peak, done))
        watch.start()
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            code = 124
        finally:
            done.set()
            watch.join()
        seconds, cpu_seconds = time.monotonic() - began, _children_seconds() - used
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return Run(code, texts[0], texts[1], seconds, cpu_seconds, peak[0])


def _children_seconds() -> float:
    """CPU time of all children so far, theirs included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _watch(root: int, peak: list[int], done: threading.Event) -> None:
    while not done.wait(SAMPLE_SECONDS):
        peak[0] = max(peak[0], tree_bytes(root))


def tree_bytes(root: int) -> int:
    """Resident bytes of a process and all its descendants (shared pages counted in each)."""
    parent: dict[int, int] = {}
    resident: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(folder.name)
        parent[pid], resident[pid] = int(stat[1]), int(stat[21]) * _PAGE
    return sum(size for pid, size in resident.items() if _descends(pid, root, parent))


def _descends(pid: int, root: int, parent: Mapping[int, int]) -> bool:
    while pid > 1:
        if pid == root:
            return True
        pid = parent.get(pid, 0)
    return False
