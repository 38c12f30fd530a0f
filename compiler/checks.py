"""Checks of a chip's Verilog against the reference: proof, lint, simulation, the text itself.

The same functions serve the pipeline, before a bundle is written, and ``hwcompile verify`` on what
lies on disk.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from hwcompile.compiler.certify import prove_blocks, prove_linear_unit
from hwcompile.compiler.emit.report import ModuleCheck
from hwcompile.compiler.errors import MismatchError, ToolError
from hwcompile.compiler.hardware import Hardware
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Chip
from hwcompile.compiler.ir.program import IntArray, Program
from hwcompile.compiler.tools import find_verilator
from hwcompile.hdl.cells import PRIMITIVES
from hwcompile.hdl.top import TOP_NAME
from hwcompile.sim import reference, runner
from hwcompile.sim.certificate.proof import BlockProof
from hwcompile.sim.chip_run import adder_flags
from hwcompile.sim.runner import Adders, ChipSample, Engine

GENERATED = {"fast": 4, "full": 1 << 30}
"""Tokens that the chip makes by feeding back its own, in one sample of a decoder."""
SAMPLES = {"fast": 2, "full": 6}
SHORT_TOKENS = 2
LINT_SECONDS = 600
_DIFFERENCE = re.compile(r"sample \d+, port \w+, beat \d+: \[[^\]]*\] instead of \[[^\]]*\]")
MOST_NAMED = 4
_PROOF = "proof on the Verilog"
_COUNTED = (
    "in the chip's simulation its adders were counts of ones (HW_COUNT_TREES); they are proven here"
)


@dataclass(frozen=True, slots=True)
class Vectors:
    """Test vectors of a whole chip, with what the reference gives on them.

    ``short``: a sample for a slow simulator, two tokens long where there are tokens.
    """

    chip: Chip
    samples: tuple[ChipSample, ...]
    short: tuple[ChipSample, ...] = ()

    @property
    def timeout(self) -> int:
        """Cycles after which a chip is stuck."""
        return runner.timeout_cycles(self.chip, self.samples, gaps=True)


def vectors(program: Program, chip: Chip, level: str, seed: int) -> Vectors:
    """Random and corner inputs, expected outputs; for decoders also tokens of the chip's own.

    A decoder's first sample fills its context.
    """
    count = SAMPLES.get(level, SAMPLES["fast"])
    inputs = _random_inputs(program, count, np.random.default_rng(seed))
    samples = expect(program, chip, inputs)
    own = _own_tokens(program, chip, inputs, GENERATED.get(level, GENERATED["fast"]))
    first = {key: x[:1] for key, x in inputs.items()}
    given = _token_input(program)
    if given is not None:
        first[given.value.key] = first[given.value.key][:, :SHORT_TOKENS]
    return Vectors(chip, (*samples, *own), tuple(expect(program, chip, first)))


def expect(program: Program, chip: Chip, inputs: Mapping[str, IntArray]) -> list[ChipSample]:
    """Samples on integers by value key, with the outputs of the reference."""
    outputs = reference.run(program, inputs)
    by_key = {o.value: outputs[o.model_name] for o in program.outputs}
    return runner.chip_samples(chip.ports, inputs, by_key)


def _random_inputs(program: Program, count: int, rng: np.random.Generator) -> dict[str, IntArray]:
    """Inputs by value key ``[count, rows, cols]``; the last sample holds extremes."""
    made = {}
    for given in program.inputs:
        value = given.value
        x = rng.integers(value.low, value.high + 1, (count, value.rows, value.cols))
        if given.kind == "flags":
            x = (np.arange(value.rows)[None, :, None] < _lengths(count, value.rows)).astype(int)
        elif count > 1:
            x[-1] = rng.choice([value.low, value.high], (value.rows, value.cols))
        made[value.key] = x.astype(np.int64)
    return made


def _lengths(count: int, rows: int) -> IntArray:
    """Numbers of rows that are no padding: all of them first, then fewer."""
    return np.array([max(1, rows - n * rows // count) for n in range(count)])[:, None, None]


def _own_tokens(
    program: Program, chip: Chip, inputs: Mapping[str, IntArray], most: int
) -> list[ChipSample]:
    """One sample of greedy generation from the first token of the first sample."""
    given = _token_input(program)
    if given is None or not any(p.kind == "token" for p in chip.ports):
        return []
    first = {k: x[:1] for k, x in inputs.items()}
    first[given.value.key] = first[given.value.key][:, :1]
    sample = expect(program, chip, first)[0]
    following = min(most, reference.context(program)) - 1
    expected = expect_beats(program, chip, sample.inputs, following)
    outputs = {name: len(beats) for name, beats in expected.items()}
    return [replace(sample, outputs=outputs, generate=following, expected=expected)]


def _token_input(program: Program) -> ir.Input | None:
    """The input of the sequence section that the chip's own tokens are fed to."""
    found = [i for i in program.inputs if program.sections[i.section] == "sequence"]
    return found[0] if found and found[0].kind == "ids" else None


def expect_beats(
    program: Program, chip: Chip, beats: Mapping[str, Sequence[int]], generate: int
) -> dict[str, list[int]]:
    """Beats by output port that the reference gives on beats by input port.

    ``generate``: so many more tokens follow, each the latest choice.
    """
    ports = {p.name: p for p in chip.ports if p.direction == "in"}
    inputs = {
        ports[name].value: np.array(values, np.int64).reshape(1, -1, ports[name].cols)
        for name, values in beats.items()
    }
    given = _token_input(program)
    if generate and given is not None:
        prompt = [int(t) for t in inputs[given.value.key].ravel()]
        once = {k: x for k, x in inputs.items() if k != given.value.key}
        made = reference.generate(program, prompt, generate, once)
        tokens = np.array([*prompt, *made[:generate]], np.int64)
        inputs[given.value.key] = tokens.reshape(1, -1, 1)
    return {k: list(v) for k, v in expect(program, chip, inputs)[0].expected.items()}


def bundle_files(checked: Vectors) -> dict[str, str]:
    """The files of ``sim/``."""
    return runner.bundle_files(checked.chip.ports, checked.samples, checked.timeout)


def check_hardware(
    rtl: Path,
    checked: Vectors,
    level: str,
    program: Program,
    tell: Callable[[str], None] = lambda text: None,
    jobs: int = 1,
) -> tuple[ModuleCheck, ...]:
    """Prove the weight blocks in the folder ``rtl``, lint and simulate it all; one line a module.

    ``tell`` gets one line a proof. ``jobs``: proofs at a time.

    Raises:
        MismatchError: it differs from the reference, or lint complains.
        ToolError: no simulator.
    """
    files = (rtl / "filelist.f").read_text(encoding="utf-8").split()
    names = [name.removesuffix(".v") for name in files]
    if level == "none":
        return tuple(ModuleCheck(name, "not verified", "none asked for") for name in names)
    with ThreadPoolExecutor(1) as pool:  # both wait for processes of one thread each
        linting = pool.submit(lint, rtl, files)
        products = checked.chip.products
        proofs = prove_blocks(rtl, program, products, tell, jobs)
        unit = prove_linear_unit(rtl, program, products, proofs) if proofs else None
        linting.result()
    simulate(rtl, checked)
    method = "whole chip in Verilator"
    if level == "full":
        simulate(rtl, checked, gaps_seed=1, adders="full")
        method += ", with and without pauses"
        if shutil.which("iverilog"):
            # Four-valued from reset: a register that nobody sets shows here.
            simulate(rtl, Vectors(checked.chip, checked.short), engine="icarus")
            method += ", and in Icarus Verilog"
    beats = sum(len(b) for s in checked.samples for b in s.expected.values())
    detail = f"{beats} output values of {len(checked.samples)} samples equal the reference"
    counted = level != "full" and bool(adder_flags([rtl / name for name in files], "auto"))
    lines = {name: ModuleCheck(name, "simulated", method, detail) for name in names}
    if proofs:
        inside = "with the weight blocks that hold it"
        lines |= {n: ModuleCheck(n, "proven", _PROOF, inside) for n in PRIMITIVES if n in lines}
    lines |= {name: proven(proof, counted) for name, proof in proofs.items()}
    if unit is not None:
        lines[unit.module] = unit
    return tuple(lines.values())


def proven(proof: BlockProof, counted: bool) -> ModuleCheck:
    """The line of a weight block; ``counted``: its adders were left out of the simulation."""
    said = (
        f"equals its matrix of {proof.inputs} x {len(proof.correction)} weights on every input, "
        f"and no sum can leave its width: {proof.adders} adders"
    )
    return ModuleCheck(proof.module, "proven", _PROOF, f"{said}; {_COUNTED}" if counted else said)


def simulate(
    rtl: Path,
    checked: Vectors,
    gaps_seed: int | None = None,
    engine: Engine = "verilator",
    adders: Adders = "auto",
) -> None:
    """Simulate the whole chip. Raises MismatchError naming sample, port and beat."""
    ports, samples, timeout = checked.chip.ports, checked.samples, checked.timeout
    try:
        runner.simulate(rtl, ports, samples, engine, gaps_seed, timeout, adders=adders)
    except MismatchError as error:
        found = list(dict.fromkeys(_DIFFERENCE.findall(error.message)))
        if not found:
            raise
        lines = "\n".join(f"  {line}" for line in found[:MOST_NAMED])
        raise MismatchError(f"the RTL differs from the reference\n{lines}", error.hint) from error


def lint(rtl: Path, files: Sequence[str]) -> None:
    """``verilator --lint-only -Wall`` must say nothing.

    Raises:
        MismatchError: it complains; the message holds what it says.
        ToolError: there is no Verilator.
    """
    tool = find_verilator()
    command = [str(tool.program), "--lint-only", "-Wall", "--top-module", TOP_NAME]
    command += [str(rtl / name) for name in ("waivers.vlt", *files) if (rtl / name).exists()]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **tool.environment},
            capture_output=True,
            text=True,
            timeout=LINT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"lint took more than {LINT_SECONDS} s") from error
    said = [line for line in done.stderr.splitlines() if line.startswith("%")]
    if said or done.returncode:
        text = "\n".join(said[:10]) or done.stderr[-1000:]
        raise MismatchError(f"lint complains about the Verilog:\n{text}".replace(f"{rtl}/", "rtl/"))


def differing_modules(hardware: Hardware, rtl: Path) -> list[str]:
    """Files of ``rtl`` whose text is not what the program gives: first differing line, layers."""
    layers = _layers(hardware)
    found = []
    for name, text in hardware.rtl.items():
        path = rtl / name
        if not path.exists():
            found.append(f"rtl/{name}")
            continue
        stored = path.read_text(encoding="utf-8", errors="replace")
        if stored != text:
            pairs = zip_longest(stored.splitlines(), text.splitlines())
            line = next((n for n, (a, b) in enumerate(pairs, 1) if a != b), 0)
            found.append(f"rtl/{name} line {line}{layers.get(name, '')}")
    return found


def _layers(hardware: Hardware) -> dict[str, str]:
    """What the model calls that which a file computes, by name of the file."""
    found = {f"{m.module}.v": f" (weights of {_origins([m.operation])})" for m in hardware.matrices}
    for unit in hardware.chip.units:
        if unit.operations:
            found[f"hw_core_{unit.kind}.v"] = f" ({unit.kind}: {_origins(unit.operations)})"
    return found


def _origins(operations: Sequence[ir.Operation]) -> str:
    names = list(dict.fromkeys(op.origin or op.output.key for op in operations))
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
