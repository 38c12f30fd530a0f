"""Seeded faults in a design bundle: how many does verification catch, and what catches them?

    python -m benchmarks.faults DIR [--count N] [--level fast|full] [--kinds "weight bit,sign"]
    python -m benchmarks.faults --blocks [--count N]

Each fault goes into a copy of the bundle, whose manifest is made anew (or kept, ``--manifest``), so
that the hashes cannot be what notices it. It is caught when ``hwcompile verify`` would end in 5.
Kinds take turns. ``--static`` leaves out lint and simulation, which is fast: what is then caught
does not rest on a vector that happens to show it. Writes OUT.json and OUT.md; ends in 1 when a
fault is missed.

``--blocks``: faults in the Verilog of small weight blocks, with the proof alone to notice them
(:mod:`benchmarks.block_faults`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, cycle, islice
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks import block_faults
from hwcompile.compiler import audit
from hwcompile.compiler.emit import manifest as manifests
from hwcompile.compiler.errors import MismatchError
from hwcompile.compiler.execute import open_design
from hwcompile.compiler.hardware import Hardware
from hwcompile.sim.faults import KINDS, Fault, NoSite, make_fault

OUT = Path("docs/results/faults")
BLOCKS_OUT = Path("docs/results/block_faults")
_CATCHERS = (
    ("not as the manifest says", "manifest"),
    ("weight block", "proof"),
    ("lint complains", "lint"),
    ("RTL differs from the reference", "simulation"),
    ("vectors.json", "vectors"),
    ("what the program gives", "text of the Verilog"),
    ("reference", "checks of the program"),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault and what became of it. ``caught_by``: empty when nothing noticed it."""

    kind: str
    what: str
    caught_by: str
    message: str
    seconds: float


def inject(folder: Path, fault: Fault, new_manifest: bool) -> None:
    """Put a fault into a bundle."""
    for name, content in fault.files.items():
        (folder / name).write_bytes(content)
    manifest = manifests.read(folder)
    if new_manifest and manifest is not None:
        hashes = {name: manifests.sha256(folder / name) for name in manifest.files}
        text = manifests.to_text(replace(manifest, files=hashes))
        (folder / manifests.NAME).write_text(text, encoding="utf-8")


def attempt(
    bundle: Path, fault: Fault, level: str, new_manifest: bool, hardware: Hardware
) -> Trial:
    """Verify a copy of the bundle with the fault. ``hardware``: of the program without fault."""
    with tempfile.TemporaryDirectory(prefix="hwcompile-faults-") as work:
        folder = Path(work) / "design"
        shutil.copytree(bundle, folder)
        inject(folder, fault, new_manifest)
        began = time.monotonic()
        try:
            if level == "none" and not any(n.startswith("reference/") for n in fault.files):
                design = open_design(folder)
                audit.check_own_vectors(design)
                audit.compare(design, hardware, level)
            else:
                audit.verify(folder, level)
            message = ""
        except MismatchError as error:
            message = error.message.replace(f"{folder}/", "").partition("\n")[0]
        seconds = round(time.monotonic() - began, 1)
    return Trial(fault.kind, fault.what, _catcher(message), message, seconds)


def _catcher(message: str) -> str:
    found = [name for text, name in _CATCHERS if text in message]
    return found[0] if found else "other" if message else ""


def faults(bundle: Path, kinds: Sequence[str], total: int) -> Iterator[Fault]:
    """So many faults, kinds in turn; kinds that have no place in this bundle are left out."""

    def endless() -> Iterator[Fault]:
        possible = [kind for kind in kinds if _has_place(bundle, kind)]
        seeds = count()
        for kind in cycle(possible):
            yield make_fault(bundle, kind, next(seeds))

    return islice(endless(), total)


def _has_place(bundle: Path, kind: str) -> bool:
    try:
        make_fault(bundle, kind, 0)
    except NoSite:
        return False
    return True


def markdown(trials: Sequence[Trial], command: str) -> str:
    """The page."""
    kinds = list(dict.fromkeys(t.kind for t in trials))
    catchers = sorted({t.caught_by for t in trials if t.caught_by})
    caught = sum(bool(t.caught_by) for t in trials)
    lines = [
        "# Seeded faults",
        "",
        f"Written by `{command}`: {caught} of {len(trials)} faults caught. The manifest was made",
        "to agree with the damaged files. What noticed each fault first:",
        "",
        "| fault | seeded | caught | " + " | ".join(catchers) + " |",
        "|" + "---|" * (3 + len(catchers)),
    ]
    for kind in kinds:
        by = Counter(t.caught_by for t in trials if t.kind == kind)
        cells = [sum(by.values()), sum(by.values()) - by[""], *(by[name] for name in catchers)]
        lines.append(f"| {kind} | " + " | ".join(map(str, cells)) + " |")
    missed = [f"* {t.kind}: {t.what}" for t in trials if not t.caught_by]
    return "\n".join([*lines, "", *(["Missed:", "", *missed, ""] if missed else [])])


def _blocks(count: int) -> int:
    """Seed faults in weight blocks, write the page; the exit code."""
    command = f"python -m benchmarks.faults --blocks --count {count}"
    found, page = block_faults.measure(count, command)
    records = ",\n".join(json.dumps(asdict(t)) for t in found)
    text = f'{{"schema": "hwcompile-block-faults/1", "trials": [\n{records}\n]}}\n'
    BLOCKS_OUT.parent.mkdir(parents=True, exist_ok=True)
    BLOCKS_OUT.with_suffix(".json").write_text(text, encoding="utf-8")
    BLOCKS_OUT.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)
    return int(any(t.outcome == block_faults.MISSED for t in found))


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", metavar="DIR", type=Path, nargs="?")
    parser.add_argument("--blocks", action="store_true", help="in blocks alone, by proof alone")
    parser.add_argument("--count", type=int, default=len(KINDS), metavar="N")
    parser.add_argument("--level", choices=("fast", "full"), default="fast")
    parser.add_argument("--static", action="store_true", help="leave out lint and simulation")
    parser.add_argument("--kinds", default=",".join(KINDS), help="with commas between")
    parser.add_argument("--manifest", action="store_true", help="keep the manifest as it is")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write, without suffix")
    options = parser.parse_args()
    if options.blocks:
        return _blocks(options.count)
    if options.bundle is None:
        parser.error("name a bundle, or give --blocks")
    command = f"python -m benchmarks.faults {options.bundle.name} --count {options.count}"
    command += " --static" if options.static else f" --level {options.level}"
    level = "none" if options.static else options.level
    hardware = audit.rebuild(open_design(options.bundle))
    trials: list[Trial] = []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.TemporaryDirectory(prefix="hwcompile-faults-")
    os.environ["XDG_CACHE_HOME"] = scratch.name  # builds of damaged chips are of no further use
    with scratch, Progress(console=Console(stderr=True)) as bar:
        seeded = faults(options.bundle, options.kinds.split(","), options.count)
        for fault in bar.track(seeded, total=options.count, description="verifying"):
            trial = attempt(options.bundle, fault, level, not options.manifest, hardware)
            trials.append(trial)
            records = ",\n".join(json.dumps(asdict(t)) for t in trials)
            text = f'{{"schema": "hwcompile-faults/1", "trials": [\n{records}\n]}}\n'
            options.out.with_suffix(".json").write_text(text, encoding="utf-8")
            page = markdown(trials, command)
            options.out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)
    return int(not all(t.caught_by for t in trials))


if __name__ == "__main__":
    sys.exit(main())
