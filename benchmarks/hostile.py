"""Damaged and hostile model files: each must be compiled or refused, quickly and within its memory.

    python -m benchmarks.hostile [FOLDER ...] [--count 10000] [--jobs 2] [--seed 0]

The models that ship, and all of FOLDER (those under 256 KiB), are damaged in the ways of
``benchmarks/damage.py``: bits, cuts, and changes of the decoded file. Each goes through what the
command line does before it computes anything (vetting, tracing, import) in a worker with a limit of
memory and time. Accepted is what ``hwcompile`` would end with 0 or 3 for: a model, or a ModelError.
Anything else is a defect, as are more than 10 s, more than 1 GB + 4 x the file above what the
worker had before, and a file written. Writes OUT.md; ends in 1 when there is a defect.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnx
from rich.console import Console
from rich.progress import Progress

from benchmarks import damage
from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.importing import import_graph
from hwcompile.compiler.isolation import GIB, Limits, limit_process

OUT = Path("docs/results/hostile.md")
LARGEST = 256 << 10
SECONDS = 10
BATCH = 25


@dataclass(frozen=True, slots=True)
class Trial:
    """One damaged file. ``verdict``: ok, refused, or what went wrong."""

    source: str
    kind: str
    seed: int
    verdict: str
    seconds: float
    megabytes: float


class TooSlow(BaseException):
    """The time for one file is over; no handler for ordinary errors stops it."""


def seeds(folders: Sequence[Path]) -> list[Path]:
    """The models that are damaged, in order of path."""
    shipped = sorted(Path("examples").rglob("*.onnx"))
    given = [p for folder in folders for p in sorted(folder.rglob("*.onnx"))]
    return [p for p in (*shipped, *given) if 0 < p.stat().st_size <= LARGEST]


def trial(path: Path, number: int, seed: int) -> Trial:
    """Damage number ``number`` of the campaign, done to ``path``."""
    kind = damage.KINDS[number % len(damage.KINDS)]
    with tempfile.TemporaryDirectory(prefix="hwcompile-hostile-") as folder:
        place = Path(folder) / "in"
        place.mkdir()
        file = place / "model.onnx"
        file.write_bytes(damage.damaged(path.read_bytes(), kind, seed + number, place))
        allowed = GIB + 4 * sum(f.stat().st_size for f in place.iterdir())
        before, began = _peak_bytes(), time.monotonic()
        files = sorted(p.name for p in Path(folder).rglob("*"))
        verdict = _verdict(file)
        seconds, used = time.monotonic() - began, _peak_bytes() - before
        if sorted(p.name for p in Path(folder).rglob("*")) != files:
            verdict = "a file was written"
        elif verdict in ("ok", "refused") and used > allowed:
            verdict = f"{used / 2**20:.0f} MiB"
    return Trial(path.parent.name, kind, seed + number, verdict, seconds, used / 2**20)


def _verdict(file: Path) -> str:
    signal.signal(signal.SIGALRM, _over)
    signal.alarm(SECONDS)
    try:
        import_graph(file)
        return "ok"
    except ModelError:
        return "refused"
    except TooSlow:
        return f"over {SECONDS} s"
    except MemoryError:
        return "out of memory"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        inside = f"{Path(where.filename).name}:{where.name}"
        return f"{type(error).__name__} in {inside}: {str(error)[:80]}"
    finally:
        signal.alarm(0)


def _over(signum: int, frame: object) -> None:
    raise TooSlow


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def batch(paths: Sequence[Path], numbers: range, seed: int) -> list[Trial]:
    """Trials in a child of its own, whose end by a signal is a defect of the trial it was at."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        limit_process(Limits(6 * GIB, BATCH * SECONDS, GIB))
        with os.fdopen(write, "w", encoding="utf-8") as stream:
            for n in numbers:
                t = trial(paths[n % len(paths)], n, seed)
                stream.write(f"{t.source}\t{t.kind}\t{t.seed}\t{t.verdict!r}\t{t.seconds}\t")
                stream.write(f"{t.megabytes}\n")
                stream.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as stream:
        found = [_parse(line) for line in stream]
    _, status = os.waitpid(child, 0)
    if len(found) < len(numbers):
        n = numbers[len(found)]
        kind = damage.KINDS[n % len(damage.KINDS)]
        why = f"the process ended with {status}"
        found.append(Trial(paths[n % len(paths)].parent.name, kind, seed + n, why, 0.0, 0.0))
        found += batch(paths, numbers[len(found) :], seed) if len(found) < len(numbers) else []
    return found


def _parse(line: str) -> Trial:
    source, kind, seed, verdict, seconds, megabytes = line.rstrip("\n").split("\t")
    said = verdict[1:-1]
    return Trial(source, kind, int(seed), said, float(seconds), float(megabytes))


def campaign(paths: Sequence[Path], count: int, jobs: int, seed: int) -> Iterator[Trial]:
    """All trials, in order."""
    parts = [range(n, min(n + BATCH, count)) for n in range(0, count, BATCH)]
    with ProcessPoolExecutor(jobs) as pool:
        for found in pool.map(batch, [paths] * len(parts), parts, [seed] * len(parts)):
            yield from found


def markdown(trials: Sequence[Trial], models: int, command: str) -> str:
    """The page."""
    wrong = [t for t in trials if t.verdict not in ("ok", "refused")]
    refused, good = (sum(t.verdict == v for t in trials) for v in ("refused", "ok"))
    lines = [
        "# Damaged and hostile files",
        "",
        f"Written by `{command}`: {len(trials)} damaged copies of {models} models, each vetted and",
        "imported in a limited process ([how](../../benchmarks/hostile.py)).",
        "",
        f"**{len(wrong)} defects.** {refused} are refused, {good} still models. The slowest",
        f"took {max(t.seconds for t in trials):.1f} s, the most memory on top was",
        f"{max(t.megabytes for t in trials):.0f} MiB.",
        "",
        "| damage | files | refused | still a model | defects | slowest s |",
        "|---|---|---|---|---|---|",
    ]
    for kind in damage.KINDS:
        mine = [t for t in trials if t.kind == kind]
        counts = Counter(t.verdict for t in mine)
        good = counts["ok"] + counts["refused"]
        slowest = max((t.seconds for t in mine), default=0.0)
        lines.append(
            f"| {kind} | {len(mine)} | {counts['refused']} | {counts['ok']} | "
            f"{len(mine) - good} | {slowest:.1f} |"
        )
    lines += ["", *(f"* {t.source}, {t.kind}, seed {t.seed}: {t.verdict}" for t in wrong[:50])]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="*", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    paths = seeds(options.folder)
    onnx.checker.check_model(onnx.load(paths[0]))
    trials: list[Trial] = []
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("damaged files", total=options.count)
        for found in campaign(paths, options.count, options.jobs, options.seed):
            trials.append(found)
            bar.advance(task)
    command = f"python -m benchmarks.hostile {' '.join(f.name for f in options.folder)}"
    command = f"{command.rstrip()} --count {options.count} --seed {options.seed}"
    options.out.write_text(markdown(trials, len(paths), command), encoding="utf-8")
    wrong = sum(t.verdict not in ("ok", "refused") for t in trials)
    print(f"{len(trials)} files, {wrong} defects; table: {options.out}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
