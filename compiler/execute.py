"""Executing a compiled design on a user's data: numpy reference or RTL, bit for bit the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.emit import manifest as manifests
from hwcompile.compiler.errors import MismatchError, OutputError, UsageError
from hwcompile.compiler.estimate.cells import CellLibrary
from hwcompile.compiler.estimate.netlist import Netlist
from hwcompile.compiler.estimate.targets import load_target
from hwcompile.compiler.ir import serialise
from hwcompile.compiler.ir.chip import Chip
from hwcompile.compiler.ir.program import IntArray, Program
from hwcompile.compiler.options import file_hash
from hwcompile.hdl.top import TOP_NAME
from hwcompile.passes.plan_chip import plan_chip
from hwcompile.sim import reference
from hwcompile.sim.gate_chip import mapped_chip, simulate_gates
from hwcompile.sim.runner import ChipResult, cache_beats, chip_samples, output_arrays, simulate

ENGINES = ("reference", "rtl", "gates")
Feeds = Mapping[str, NDArray[Any]]
Results = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Design:
    """A bundle on disk, opened. ``liberty``: the file it was mapped with, where it was given."""

    folder: Path
    manifest: manifests.Manifest
    program: Program
    liberty: Path | None = None

    @property
    def model(self) -> Path | None:
        """The vetted copy of the model, unless it was left out."""
        path = self.folder / "reference" / "model.onnx"
        return path if path.exists() else None


def open_design(folder: str | Path, liberty: str | None = None) -> Design:
    """Open a bundle. ``liberty``: the file that it was mapped with, if it was one of the user's.

    Raises:
        UsageError: no such bundle, or another liberty file.
        OutputError: written in another format.
        MismatchError: its program is damaged.
    """
    path = Path(folder)
    manifest = manifests.read(path)
    if manifest is None:
        raise UsageError(
            f"{path} is not a design bundle (it has no manifest.json of ours)",
            "make one with: hwcompile MODEL.onnx -o DIR",
        )
    if manifest.schema != manifests.SCHEMA:
        raise OutputError(f"{path} was written in another format ({manifest.schema})", "rebuild it")
    try:
        program = serialise.load(path / "reference")
    except serialise.InvalidFile as error:
        raise MismatchError(f"{path}/reference: {error}", "rebuild the bundle") from error
    if liberty is not None and {"sha256": file_hash(liberty)} != manifest.options.get("liberty"):
        raise UsageError(f"{path} was not mapped with {liberty}", "give the same file, or none")
    return Design(path, manifest, program, Path(liberty) if liberty else None)


def port_options(design: Design) -> dict[str, bool]:
    """The options that shape the chip's ports, as the bundle was compiled with."""
    options = design.manifest.options
    return {
        "logits_port": bool(options.get("logits_port", True)),
        "cache_port": bool(options.get("cache_port", False)),
    }


def planned(design: Design) -> Chip:
    """The chip of a bundle, with its ports."""
    return plan_chip(design.program, (), **port_options(design))


def read_npz(path: str | Path) -> Results:
    """The arrays of an npz file; pickled objects are refused.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UsageError(f"{path} is not an npz file", "write one with numpy.savez")
            return {name: archive[name] for name in archive.files}
    except UsageError:
        raise
    except Exception as error:  # numpy raises whatever the damage provokes
        raise UsageError(f"cannot read {path}: {error}", "write one with numpy.savez") from error


def run(
    design: Design,
    feeds: Feeds,
    engine: str = "reference",
    outputs: Sequence[str] | None = None,
    limit: int | None = None,
    jobs: int = 1,
) -> Results:
    """Execute a design on float inputs named as in the model.

    Args:
        feeds: model inputs by name, samples first; axis 1 is time in the ``step`` form.
        engine: ``reference``, ``rtl`` or ``gates``; all give the same bits.
        outputs: names to return, caches (``present...``) among them; default: every output but
            caches.
        limit: only the first so many samples.
        jobs: simulations at a time.

    Returns:
        For each output NAME: floats under NAME, integers under NAME__int, one unit's real value
        under NAME__scale.

    Raises:
        UsageError: inputs missing or of a wrong shape, unknown engine or output.
    """
    program = design.program
    feeds = {name: np.asarray(x)[:limit] for name, x in feeds.items() if np.ndim(x)}
    inputs = reference.quantise_inputs(program, feeds)
    caches = reference.quantise_caches(program, feeds)
    wanted = _wanted(program, outputs)
    execute = _engine(engine)
    results: Results = {}
    if any(name in wanted for name in (c.output_name for c in program.caches)):
        if engine != "reference":
            raise UsageError("caches are returned by --engine reference only")
        results.update(_cache_outputs(program, inputs, caches, wanted))
    integers = execute(design, inputs, caches, jobs)
    shaped = reference.model_shapes(program, integers)
    for output in program.outputs:
        if output.model_name in wanted:
            scale = program.values[output.value].scale
            whole = shaped[output.model_name]
            results[output.model_name] = (whole * scale).astype(np.float32)
            results[f"{output.model_name}__int"] = whole
            results[f"{output.model_name}__scale"] = np.asarray(scale)
    return results


def _engine(name: str) -> Callable[..., dict[str, IntArray]]:
    engines = {"reference": _run_reference, "rtl": _run_rtl, "gates": _run_gates}
    if name not in engines:
        raise UsageError(f"unknown engine {name!r}", "engines: " + ", ".join(ENGINES))
    return engines[name]


def _wanted(program: Program, outputs: Sequence[str] | None) -> list[str]:
    plain = [o.model_name for o in program.outputs]
    known = plain + [c.output_name for c in program.caches]
    unknown = [name for name in outputs or () if name not in known]
    if unknown:
        raise UsageError(f"unknown outputs {', '.join(unknown)}", "outputs: " + ", ".join(known))
    return list(outputs) if outputs else plain


def _run_reference(
    design: Design, inputs: dict[str, IntArray], caches: reference.Caches | None, jobs: int = 1
) -> dict[str, IntArray]:
    return reference.run(design.program, inputs, caches)


def _cache_outputs(
    program: Program,
    inputs: dict[str, IntArray],
    caches: reference.Caches | None,
    wanted: Sequence[str],
) -> Results:
    _, after = reference.run_with_caches(program, inputs, caches)
    return {
        name: x.astype(np.float32)
        for name, x in reference.dequantise_caches(program, after).items()
        if name in wanted
    }


def _run_rtl(
    design: Design, inputs: dict[str, IntArray], caches: reference.Caches | None, jobs: int = 1
) -> dict[str, IntArray]:
    chip = planned(design)
    ports = chip.ports
    if not port_options(design)["logits_port"]:
        raise UsageError("this chip has no logits port", "compile without --no-logits-port")
    loads = caches is not None and caches.length > 0
    if loads and not port_options(design)["cache_port"]:
        raise UsageError(
            "this chip has no port to load caches", "compile with --cache-port, or use reference"
        )
    beats = cache_beats(chip, caches.rows) if caches is not None and loads else ()
    samples = chip_samples(ports, inputs, caches=beats)
    rtl = design.folder / "rtl"
    # The first sample alone, so that the simulator is built once before any run in parallel.
    results = simulate(rtl, ports, samples[:1])
    shares = [samples[1 + n :: jobs] for n in range(min(jobs, len(samples) - 1))]
    with ThreadPoolExecutor(max(1, len(shares))) as pool:
        parts = list(pool.map(lambda share: simulate(rtl, ports, share), shares))
    rest: list[ChipResult | None] = [None] * (len(samples) - 1)
    for n, part in enumerate(parts):
        rest[n::jobs] = part
    arrays = output_arrays(ports, [*results, *[r for r in rest if r is not None]])
    return {o.model_name: arrays[o.value] for o in design.program.outputs}


def _run_gates(
    design: Design, inputs: dict[str, IntArray], caches: reference.Caches | None, jobs: int = 1
) -> dict[str, IntArray]:
    """The netlist that synthesis makes of the Verilog on disk, all samples side by side."""
    if caches is not None:
        raise UsageError("caches cannot be loaded into gates", "use --engine reference or rtl")
    netlist, library = gates(design, jobs)
    ports = planned(design).ports
    results = simulate_gates(netlist, library, ports, chip_samples(ports, inputs))
    arrays = output_arrays(ports, results)
    return {o.model_name: arrays[o.value] for o in design.program.outputs}


def gates(design: Design, jobs: int = 1) -> tuple[Netlist, CellLibrary]:
    """The netlist of a bundle's Verilog at its target and clock period, and its cells.

    Raises:
        UsageError: it was mapped with a liberty file that was not given.
    """
    options = design.manifest.options
    if options.get("liberty") and design.liberty is None:
        raise UsageError(
            "this bundle was mapped with a liberty file of yours", "give it with --liberty FILE"
        )
    target = load_target(str(options.get("target", "nangate45")), design.liberty)
    rtl = design.folder / "rtl"
    files = [rtl / name for name in (rtl / "filelist.f").read_text(encoding="utf-8").split()]
    goal = options.get("clock_period_ns")
    return mapped_chip(files, TOP_NAME, target, jobs, goal_ns=goal), target.library


# --- generation -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the host chooses from the logits: greedy at temperature 0."""

    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """Tokens made after the prompt. ``context_full``: the design could hold no more."""

    tokens: tuple[int, ...]
    context_full: bool


def generate(
    design: Design,
    prompt: Sequence[int],
    source: Sequence[int] | None = None,
    tokens: int | None = None,
    engine: str = "reference",
    sampling: Sampling | None = None,
    stop: int | None = None,
) -> Generation:
    """Continue ``prompt`` token by token.

    Args:
        source: the encoder's tokens, for an encoder-decoder.
        tokens: how many to make (default: until the context is full).
        engine: ``reference``; else every choice is made from the simulated chip's logits.
        stop: a token after which to end.

    Raises:
        UsageError: not an autoregressive design, prompt empty or too long, ids out of range.
        MismatchError: the simulated chip chose otherwise than the reference.
    """
    program = design.program
    if not is_autoregressive(program):
        raise UsageError(
            "this design takes tensors and gives tensors: there is nothing to generate",
            "use: hwcompile run DIR --inputs X.npz",
        )
    sampling = sampling or Sampling()
    context = reference.context(program)
    once = _source_inputs(program, source)
    stepper = reference.Stepper(program, once)
    _check_prompt(stepper.sequence_input().id_count, prompt, context)
    rng = np.random.default_rng(sampling.seed)
    logits = [stepper.step(token) for token in prompt][-1]
    made: list[int] = []
    while True:
        made.append(choose(logits, program, sampling, rng))
        full = stepper.position >= context
        if full or len(made) == tokens or made[-1] == stop:
            break
        logits = stepper.step(made[-1])
    if engine != "reference":
        made = _confirm(design, engine, prompt, made, once, sampling)
    return Generation(tuple(made), full and len(made) != tokens and made[-1] != stop)


def is_autoregressive(program: Program) -> bool:
    """Whether the design takes a token and gives logits for the next one."""
    section = {i.value.key: i.section for i in program.inputs}
    section.update({op.output.key: op.section for op in program.operations})
    return any(
        o.kind == "logits" and program.sections[section[o.value]] == "sequence"
        for o in program.outputs
    )


def choose(logits: IntArray, program: Program, sampling: Sampling, rng: np.random.Generator) -> int:
    """The next token from integer logits: arg-max (lowest id first), or a draw."""
    if sampling.temperature <= 0:
        return int(logits.argmax())
    output = next(o for o in program.outputs if o.kind == "logits")
    real = logits * program.values[output.value].scale / sampling.temperature
    if sampling.top_k:
        real = np.where(real >= np.sort(real)[-min(sampling.top_k, len(real))], real, -np.inf)
    weights = np.exp(real - real.max())
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def _check_prompt(id_count: int, prompt: Sequence[int], context: int) -> None:
    if not prompt:
        raise UsageError("the prompt is empty", "give --prompt 12,7,3 or --text")
    if len(prompt) > context:
        raise UsageError(f"{len(prompt)} prompt tokens do not fit the context of {context}")
    wrong = [token for token in prompt if not 0 <= token < id_count]
    if wrong:
        raise UsageError(f"token {wrong[0]} is outside 0..{id_count - 1}")


def _source_inputs(program: Program, source: Sequence[int] | None) -> dict[str, IntArray]:
    once = [i for i in program.inputs if program.sections[i.section] == "once"]
    if not once:
        if source is not None:
            raise UsageError("this design has no encoder: leave out --source")
        return {}
    if source is None:
        raise UsageError("this design has an encoder", "give its tokens with --source 5,9,2")
    given = once[0]
    if not 0 < len(source) <= given.value.rows:
        raise UsageError(f"the source holds 1 to {given.value.rows} tokens, not {len(source)}")
    _check_prompt(given.id_count, source, given.value.rows)
    padded = [*source, *[0] * (given.value.rows - len(source))]
    return {given.value.key: np.array(padded, np.int64).reshape(1, -1, 1)}


def _confirm(
    design: Design,
    engine: str,
    prompt: Sequence[int],
    made: Sequence[int],
    once: dict[str, IntArray],
    sampling: Sampling,
) -> list[int]:
    """Feed the same tokens to the simulated chip and choose again, from its logits."""
    program = design.program
    fed = [*prompt, *made][:-1]
    key = next(i.value.key for i in program.inputs if program.sections[i.section] == "sequence")
    tokens = np.array(fed, np.int64).reshape(1, -1, 1)
    name = next(o.model_name for o in program.outputs if o.kind == "logits")
    logits = _engine(engine)(design, {**once, key: tokens}, None)[name][0, len(prompt) - 1 :]
    rng = np.random.default_rng(sampling.seed)
    chosen = [choose(row, program, sampling, rng) for row in logits]
    for position, (want, got) in enumerate(zip(made, chosen, strict=True)):
        if want != got:
            raise MismatchError(
                f"token {position + 1} is {got} in {engine} and {want} in the reference",
                "run: hwcompile verify DIR",
            )
    return chosen
