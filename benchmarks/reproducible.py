"""Same bytes whatever surrounds the compiler; kill -9 leaves the old bundle or the new one.

    python -m benchmarks.reproducible [MODEL ...] [--kills N] [--cold-kills N] [--seed S]
        [--options="--verify none"]

Each model is compiled under other hash seeds, ``-j``, folders, time zones and caches; the bundles
are compared file by file. Then the compiler is killed N times with all its children at a random
moment, half of the times while it writes, and what is at the destination is compared with both
bundles. Ends in 1 when a byte differs or a mixture is found. Run it on a checkout that nobody
edits meanwhile: the sources' hash is part of a bundle.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
OUT = Path("docs/results/reproducible.md")
MODELS = ("examples/tiny/tiny.onnx", "examples/ternary/ternary.onnx")
_POLL_SECONDS = 0.0005
_WRITING_SECONDS = 0.08  # a bundle is written in about so long

Digest = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Setting:
    """What surrounds a run. ``cache``: name of its cache folder."""

    what: str
    environment: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    folder: str = "plain"
    cache: str = "one"
    other_path: bool = False


SETTINGS = (
    Setting("PYTHONHASHSEED=0, -j 1, cold cache", {"PYTHONHASHSEED": "0"}, ("-j", "1")),
    Setting(
        "PYTHONHASHSEED=1, -j 2, cold cache, other folder, model path, zone, locale, width",
        {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C", "COLUMNS": "40"},
        ("-j", "2"),
        "a much longer name/of a folder",
        "two",
        True,
    ),
    Setting("PYTHONHASHSEED=12345, warm cache", {"PYTHONHASHSEED": "12345"}),
    Setting("PYTHONHASHSEED=random, -j 2, warm cache", {"PYTHONHASHSEED": "random"}, ("-j", "2")),
)


@dataclass(frozen=True, slots=True)
class Same:
    """One run beside the first of its model. ``differing``: names of files."""

    model: str
    setting: str
    files: int
    differing: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill. ``phase``: "before" it wrote, "writing", "in place" (the new bundle was there) or
    "ended" (it had finished); ``before``, ``after``: what was at the destination."""

    aimed: str
    seconds: float
    phase: str
    before: str
    after: str


def digest(folder: Path) -> Digest:
    """sha256 of every file by name; empty where there is no folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def command(model: Path, out: Path, arguments: Sequence[str]) -> list[str]:
    """A compilation."""
    return [sys.executable, "-m", "hwcompile", str(model), "-o", str(out), *arguments]


def surroundings(cache: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Environment of a run of this checkout, from wherever it is started."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(cache),
        "NO_COLOR": "1",
        **more,
    }


def compile_once(
    model: Path, out: Path, cache: Path, setting: Setting, work: Path, options: Sequence[str]
) -> float:
    """Run a compilation to its end; seconds. Raises RuntimeError when it fails."""
    began = time.monotonic()
    done = subprocess.run(
        command(model, out, (*setting.arguments, *options)),
        env=surroundings(cache, setting.environment),
        cwd=work,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{setting.what}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return time.monotonic() - began


def same_bytes(model: Path, work: Path, options: Sequence[str], tell: Console) -> Iterator[Same]:
    """The model in all settings."""
    first: Digest = {}
    for number, setting in enumerate(SETTINGS):
        given = model.resolve()
        if setting.other_path:
            given = work / "elsewhere" / model.name
            given.parent.mkdir(exist_ok=True)
            shutil.copy(model, given)
        out = work / str(number) / setting.folder / "bundle"
        place = work if setting.other_path else ROOT
        cache = work / f"cache-{setting.cache}"
        seconds = compile_once(given, out, cache, setting, place, options)
        made = digest(out)
        first = first or made
        names = sorted(first.keys() | made.keys())
        differing = tuple(n for n in names if first.get(n) != made.get(n))
        tell.print(f"{model.name}: {setting.what}: {len(differing)} files differ, {seconds:.0f} s")
        yield Same(model.name, setting.what, len(made), differing, seconds)


# --- kills ----------------------------------------------------------------------------------------


def killed_run(words: Sequence[str], environment: Mapping[str, str], out: Path, moment: float,
               writing: bool) -> tuple[str, float]:  # fmt: skip
    """Start a compilation and kill it with its children; the phase it was in, and when.

    ``moment``: seconds from the start or, with ``writing``, from when the hidden folder is there.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    hidden = out.with_name(f".{out.name}.hwcompile-{process.pid}")
    if writing:
        while process.poll() is None and not hidden.exists():
            time.sleep(_POLL_SECONDS)
        due = time.monotonic() + moment
    else:
        due = began + moment
    while process.poll() is None and time.monotonic() < due:
        time.sleep(_POLL_SECONDS)
    ended = process.poll() is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        ended = True
    process.wait()
    seconds = time.monotonic() - began
    return ("ended" if ended else "writing" if hidden.exists() else "before"), seconds


def kills(
    model: Path, work: Path, count: int, options: Sequence[str], rng: random.Random, tell: Console
) -> Iterator[Kill]:
    """Kill compilations that replace one bundle by another, or begin with none, in turn."""
    out, cache = work / "killed" / "bundle", work / "cache-one"
    variants = {"A": (*options,), "B": ("--no-model-copy", *options)}
    wanted: dict[str, Digest] = {}
    seconds = 0.0
    for name, arguments in variants.items():
        made = work / "whole" / name
        setting = Setting(name, {}, arguments)
        seconds = compile_once(model.resolve(), made, cache, setting, ROOT, ())
        wanted[name] = digest(made)
    shutil.copytree(work / "whole" / "A", out)
    for number in range(count):
        if number % 5 == 4:
            shutil.rmtree(out, ignore_errors=True)
        elif not out.exists():
            shutil.copytree(work / "whole" / "A", out)
        before = _named(digest(out), wanted)
        following = "B" if before == "A" else "A"
        writing = number % 2 == 1
        moment = rng.uniform(0, _WRITING_SECONDS if writing else seconds)
        words = command(model.resolve(), out, variants[following])
        phase, at = killed_run(words, surroundings(cache, {}), out, moment, writing)
        after = _named(digest(out), wanted)
        if after == following and phase != "ended":
            phase = "in place"
        yield Kill("while writing" if writing else "any time", at, phase, before, after)
        tell.print(f"kill {number}: {phase}, {before} -> {after}")
        if after == "mixture":
            shutil.rmtree(out)
    setting = Setting("after all kills", {}, variants["A"])
    compile_once(model.resolve(), out, cache, setting, ROOT, ())
    left = [path.name for path in out.parent.iterdir() if path != out]
    after = _named(digest(out), wanted)
    yield Kill("none: the last run", 0.0, f"{len(left)} folders left", "any", after)


def cold_kills(
    model: Path, work: Path, count: int, seconds: float, wanted: Digest, options: Sequence[str],
    rng: random.Random, tell: Console,
) -> Iterator[Kill]:  # fmt: skip
    """Kill compilations that fill a cache; the run after them must not trip over what is left."""
    out, cache = work / "cold" / "bundle", work / "cache-cold"
    for number in range(count):
        moment = rng.uniform(0, seconds)
        words = command(model.resolve(), out, options)
        phase, at = killed_run(words, surroundings(cache, {}), out, moment, False)
        after = _named(digest(out), {"A": wanted})
        yield Kill("cold cache", at, phase, "none", after)
        tell.print(f"cold kill {number}: {phase}, none -> {after}")
    if count:
        compile_once(model.resolve(), out, cache, Setting("after", {}), ROOT, options)
        after = _named(digest(out), {"A": wanted})
        yield Kill("none: the run after them", 0.0, "ended", "any", after)


def _named(made: Digest, wanted: Mapping[str, Digest]) -> str:
    if not made:
        return "none"
    return next((name for name, whole in wanted.items() if whole == made), "mixture")


def wrong(kill: Kill) -> bool:
    """Neither the old bundle nor a new one; or not the new one where nothing was killed."""
    if kill.aimed.startswith("none"):
        return kill.after != "A" or not kill.phase.startswith(("0 ", "ended"))
    return kill.after == "mixture" or (kill.after == "none" and kill.before != "none")


def markdown(same: Sequence[Same], killed: Sequence[Kill], words: str) -> str:
    """The page."""
    lines = [
        "# Reproducible bundles",
        "",
        f"Written by `{words}`. Every file of a bundle, its manifest too, beside the first run's.",
        "",
        "| model | run | files | differ | seconds |",
        "|---|---|---|---|---|",
        *(
            f"| {s.model} | {s.setting} | {s.files} | {len(s.differing)} | {s.seconds:.0f} |"
            for s in same
        ),
        "",
        *(f"* {s.model}, {s.setting}: {', '.join(s.differing)}" for s in same if s.differing),
        "",
        "## Killed",
        "",
        "SIGKILL to the compiler and all its children. A and B are bundles of two options; a run",
        "was to replace the one there by the other, or to write where there was none.",
        "",
        "| aimed at | phase when killed | there before | there after | kills |",
        "|---|---|---|---|---|",
    ]
    rows = [(k.aimed, k.phase, k.before, k.after) for k in killed]
    for row in sorted(dict.fromkeys(rows)):
        lines.append(f"| {' | '.join(row)} | {rows.count(row)} |")
    bad = sum(map(wrong, killed))
    total = sum(not k.aimed.startswith("none") for k in killed)
    lines += ["", f"{total} kills, {bad} times neither the old bundle nor the new one."]
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", type=Path)
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="with a warm cache")
    parser.add_argument("--cold-kills", type=int, default=2, metavar="N", help="while it is filled")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--options", default="", help="of each compilation, as one word")
    parser.add_argument("--out", type=Path, default=OUT, metavar="PAGE", help="where to write")
    options = parser.parse_args()
    models = options.models or [ROOT / name for name in MODELS]
    chosen = options.options.split()
    words = " ".join(
        [
            "python -m benchmarks.reproducible",
            *map(str, options.models),
            f"--kills {options.kills} --cold-kills {options.cold_kills}",
            *([f'--options="{options.options}"'] if chosen else []),
        ]
    )
    tell, rng = Console(stderr=True), random.Random(options.seed)
    same: list[Same] = []
    killed: list[Kill] = []

    def write() -> str:
        page = markdown(same, killed, words)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(page, encoding="utf-8")
        return page

    for number, model in enumerate(models):
        with tempfile.TemporaryDirectory(prefix="hwcompile-") as folder:
            work = Path(folder)
            for run in same_bytes(model, work, chosen, tell):
                same.append(run)
                write()
            if number == 0:
                whole = digest(work / "0" / SETTINGS[0].folder / "bundle")
                cold = same[0].seconds
                for kill in chain(
                    kills(model, work, options.kills, chosen, rng, tell),
                    cold_kills(model, work, options.cold_kills, cold, whole, chosen, rng, tell),
                ):
                    killed.append(kill)
                    write()
    page = write()
    print(page)
    return int(any(s.differing for s in same) or any(map(wrong, killed)))


if __name__ == "__main__":
    sys.exit(main())
