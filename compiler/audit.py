"""The audit of a bundle on disk: it trusts the program in ``reference/`` and its own code alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from hwcompile.compiler import checks, pipeline
from hwcompile.compiler.emit import manifest as manifests
from hwcompile.compiler.emit.manifest import tool_versions
from hwcompile.compiler.emit.report import ModuleCheck
from hwcompile.compiler.errors import MismatchError
from hwcompile.compiler.execute import Design, gates, open_design, planned
from hwcompile.compiler.hardware import Hardware
from hwcompile.compiler.options import Options
from hwcompile.compiler.rebuild import compare_following, compiled_anew, not_compared
from hwcompile.sim.gate_chip import simulate_gates

MOST_GATES = 200_000
"""Cells of the largest chip that the audit simulates gate by gate."""
_GATES = "mapped gates"


def verify(
    folder: str | Path,
    level: str = "fast",
    tell: Callable[[str], None] = lambda text: None,
    files: Mapping[str, str] | None = None,
    jobs: int = 1,
) -> tuple[ModuleCheck, ...]:
    """Audit a bundle.

    1. Every file is as the manifest says, and nothing else is there.
    2. The program is read back and checked; the vectors in ``sim/`` expect what it gives.
    3. Every weight block of the Verilog on disk is proven to be its matrix; all of it passes lint,
       and equals the reference in simulation, on new vectors.
    4. If this very version wrote it, the Verilog on disk is the text that the program gives, file
       by file: a difference that no vector showed is one too, and has the name of its layer. So are
       the files of simulation and hand-over, and the page of the report.
    5. At ``full``, the gates that synthesis makes of the Verilog are simulated, and, by the same
       version, the model is compiled again: netlists, areas, clock period and report must be the
       same bytes.

    Returns one line a module.

    Args:
        files: paths of files that options named when it was compiled (``liberty``,
            ``calibration``, ``scenario``, ``figures``), and of the model (``model``) if the bundle
            has no copy.

    Raises:
        MismatchError: naming the first differing file, or signal, vector and layer.
    """
    files = files or {}
    design = open_design(folder, files.get("liberty"))
    tell("comparing files with the manifest")
    changed = manifests.differences(design.folder, design.manifest)
    if changed:
        raise MismatchError(
            f"{len(changed)} files are not as the manifest says; first: {changed[0]}",
            "rebuild the bundle, or restore the file",
        )
    tell("comparing vectors with the reference")
    check_own_vectors(design)
    tell("building the chip anew from the program")
    hardware = rebuild(design)
    found = compare(design, hardware, level, tell, jobs)
    if level == "full":
        tell("simulation of the gates")
        found += (simulated_gates(design, hardware, jobs),)
    if not _ours(design):
        return (*found, not_compared("made by another version of hwcompile"))
    if level != "full":
        return (*found, not_compared("compiled again at --level full only"))
    return (*found, compiled_anew(design, files, jobs, tell))


def _ours(design: Design) -> bool:
    """Whether this very version wrote the bundle."""
    return bool(design.manifest.tools.get("hwcompile") == tool_versions()["hwcompile"])


def rebuild(design: Design) -> Hardware:
    """The chip that the bundle's program gives, with its Verilog."""
    given = design.manifest.options
    shaping = {name: given[name] for name in pipeline.SHAPING if name in given}
    return pipeline.hardware_of(Options(**shaping), design.program)


def compare(
    design: Design,
    hardware: Hardware,
    level: str,
    tell: Callable[[str], None] = lambda text: None,
    jobs: int = 1,
) -> tuple[ModuleCheck, ...]:
    """Steps 3 and 4 of the audit; at level ``none`` without simulation.

    Raises:
        MismatchError: the Verilog on disk is not that of ``hardware``.
    """
    rtl = design.folder / "rtl"
    seed = int(design.manifest.options.get("seed", 0))
    vectors = checks.vectors(design.program, hardware.chip, level, seed + 1)
    ours = _ours(design)
    tell("lint and simulation of the Verilog on disk")
    try:
        found = checks.check_hardware(rtl, vectors, level, design.program, tell, jobs)
    except MismatchError as error:
        where = _where(hardware, rtl) if ours else ""
        raise MismatchError(error.message + where, error.hint) from error
    if not ours:
        tell("made by another version of hwcompile: its text is not compared with ours")
        return found
    differing = checks.differing_modules(hardware, rtl)
    if differing:
        raise MismatchError(
            f"{len(differing)} files are not what the program gives; first: {differing[0]}",
            "rebuild the bundle with this version",
        )
    compare_following(design, hardware)
    return found


def simulated_gates(design: Design, hardware: Hardware, jobs: int) -> ModuleCheck:
    """The gates against the reference on a short sample; too many of them are left out.

    Raises:
        MismatchError: naming sample and port.
    """
    options = design.manifest.options
    if options.get("liberty") and design.liberty is None:
        return ModuleCheck(_GATES, "not verified", "needs --liberty")
    seed = int(options.get("seed", 0))
    sample = checks.vectors(design.program, hardware.chip, "fast", seed + 1).short
    netlist, library = gates(design, jobs)
    if len(netlist.gates) > MOST_GATES:
        return ModuleCheck(_GATES, "not verified", f"{len(netlist.gates)} cells are too many")
    simulate_gates(netlist, library, hardware.chip.ports, sample)
    beats = sum(len(b) for s in sample for b in s.expected.values())
    return ModuleCheck(
        _GATES,
        "simulated",
        f"gate by gate, {len(netlist.gates)} cells",
        f"{beats} output values equal the reference",
    )


def _where(hardware: Hardware, rtl: Path) -> str:
    differing = checks.differing_modules(hardware, rtl)
    return f"\nfirst file that is not what the program gives: {differing[0]}" if differing else ""


def check_own_vectors(design: Design) -> None:
    """Every sample of ``sim/vectors.json`` must expect what the reference gives on its inputs.

    Raises:
        MismatchError: naming sample and port.
    """
    chip = planned(design)
    path = design.folder / "sim" / "vectors.json"
    try:
        samples = json.loads(path.read_text(encoding="utf-8"))["samples"]
        for number, sample in enumerate(samples):
            wanted = checks.expect_beats(design.program, chip, sample["inputs"], sample["generate"])
            for port, beats in wanted.items():
                if sample["expected"][port] != beats:
                    raise MismatchError(
                        f"sim/vectors.json: sample {number} does not expect on port {port} what "
                        "the reference gives",
                        "rebuild the bundle",
                    )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MismatchError(f"{path} cannot be read: {error!r}", "rebuild the bundle") from error
