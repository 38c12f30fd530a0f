"""The whole way as a table of stages, and the main job: model in, bundle out."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from hwcompile.compiler import assessment, checks
from hwcompile.compiler.cache import StageCache
from hwcompile.compiler.emit import bundle, dump, flows
from hwcompile.compiler.emit.manifest import Manifest, tool_versions
from hwcompile.compiler.emit.report import parse_report, render_html, report_json
from hwcompile.compiler.errors import ModelError, UsageError
from hwcompile.compiler.estimate.closure import synthesise_to_period
from hwcompile.compiler.estimate.estimate import estimate
from hwcompile.compiler.estimate.figures import Table, load_tables
from hwcompile.compiler.estimate.scenario import DEFAULT, load_scenario
from hwcompile.compiler.estimate.targets import Target, load_target
from hwcompile.compiler.execute import read_npz
from hwcompile.compiler.frontend import load_models, stays_in_files
from hwcompile.compiler.hardware import Hardware, build_hardware, goal_of, pace_for
from hwcompile.compiler.importing import PassLog, PassRecord, import_model
from hwcompile.compiler.ir import serialise
from hwcompile.compiler.ir.graph import Graph, Linear
from hwcompile.compiler.ir.program import Program
from hwcompile.compiler.ir.verify import verify_program
from hwcompile.compiler.isolation import check_isolated
from hwcompile.compiler.names import Ident, label
from hwcompile.compiler.options import Options, flag, recorded
from hwcompile.compiler.stages import Listener, Stage, cut, run_stages
from hwcompile.hdl.matrix_block import PhaseDecode
from hwcompile.hdl.top import TOP_NAME
from hwcompile.passes import (
    calibrate,
    choose_widths,
    drop_zeros,
    load_weights,
    narrow,
    prune,
    quantise,
)
from hwcompile.passes.calibrate import Calibration
from hwcompile.passes.cmvm_tile import SolverOptions
from hwcompile.sim import float_reference, reference

# --- the stages -----------------------------------------------------------------------------------


def _import(options: Options, content: bytes) -> tuple[Any, ...]:
    return import_model(onnx.load_from_string(content), shapes(options), options.check)


def _calibrate(options: Options, graph: Graph) -> tuple[Any, ...]:
    data = read_npz(options.calibration) if options.calibration else None
    notes: PassLog = ()
    if options.sparsity is not None:
        pruned = prune.run(graph, options.sparsity)
        graph, notes = pruned.graph, (PassRecord("prune", pruned.changed, pruned.lines),)
    return graph, calibrate.run(graph, _float_values, data, options.seed), notes


def _float_values(graph: Graph, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
    return float_reference.evaluate(graph, feeds, collect=True)[1]


def _quantise(options: Options, net: Graph, calibration: Calibration) -> tuple[Any, ...]:
    chosen = quantise.QuantiseOptions(weights=options.weights)  # type: ignore[arg-type]
    made = choose_widths.run(
        net, calibration, _integers, chosen, _bits(options.activations), options.min_agreement
    )
    dropped = drop_zeros.run(narrow.run(made.program))
    if options.check:
        verify_program(made.program)
        verify_program(dropped.program)
    notes = (
        PassRecord("quantise", True, made.lines),
        PassRecord("drop_zeros", dropped.changed, dropped.lines),
    )
    return dropped.program, assessment.quality(dropped.program, calibration), notes


def _integers(program: Program, feeds: Mapping[str, Any]) -> dict[str, Any]:
    return reference.run(program, reference.quantise_inputs(program, feeds))


def _bits(activations: str) -> int | None:
    return None if activations == "auto" else int(activations.removeprefix("int"))


def _generate(options: Options, program: Program) -> tuple[Any, ...]:
    return (hardware_of(options, program),)


def hardware_of(options: Options, program: Program) -> Hardware:
    """The chip of a program, as the options want it: those of ``SHAPING``."""
    goal = goal_of(program, options.target, options.min_tokens_per_s, options.max_area_mm2)
    decode: PhaseDecode = options.phase_decode  # type: ignore[assignment]
    return build_hardware(
        program,
        options.style,  # type: ignore[arg-type]
        options.logits_port,
        options.cache_port,
        decode,
        goal,
        options.respin,
        SolverOptions(options.optimise, options.objective),  # type: ignore[arg-type]
        pace_for(options.target, options.clock_period_ns, decode, options.respin),
    )


SHAPING = (
    *("style", "phase_decode", "logits_port", "cache_port", "respin", "optimise", "objective"),
    *("min_tokens_per_s", "max_area_mm2", "target", "clock_period_ns"),
)
"""Options that :func:`hardware_of` reads."""


def _verify(options: Options, program: Program, hardware: Hardware) -> tuple[Any, ...]:
    vectors = checks.vectors(program, hardware.chip, options.verify, options.seed)
    with tempfile.TemporaryDirectory(prefix="hwcompile-") as folder:
        rtl = write_rtl(hardware, Path(folder))
        found = checks.check_hardware(rtl, vectors, options.verify, program, jobs=options.jobs)
    return vectors, found


def _synthesise(options: Options, hardware: Hardware) -> tuple[Any, ...]:
    target = _target(options)
    with tempfile.TemporaryDirectory(prefix="hwcompile-") as folder:
        rtl = write_rtl(hardware, Path(folder))
        files = [rtl / name for name in hardware.file_names]
        synthesis, timing = synthesise_to_period(
            files, TOP_NAME, target, goal_ns=options.clock_period_ns, jobs=options.jobs
        )
        return (assessment.silicon(hardware, synthesis, timing, target),)


def _target(options: Options) -> Target:
    return load_target(options.target, Path(options.liberty) if options.liberty else None)


def _estimate(
    options: Options,
    title: str,
    program: Program,
    hardware: Hardware,
    silicon: assessment.Silicon,
) -> tuple[Any, ...]:
    facts = assessment.design_facts(title, program, hardware, silicon, options)
    found = estimate(facts, load_scenario(options.scenario or DEFAULT), tables(options))
    assessment.check_budgets(found, options)
    return (found,)


def tables(options: Options) -> dict[str, Table]:
    """The estimator's tables with the user's figures over them. Raises UsageError."""
    return load_tables(Path(options.figures) if options.figures else None)


def _report(options: Options, title: str, *parts: Any) -> tuple[Any, ...]:
    return (assessment.report(title, options, *parts),)


STAGES = (
    Stage("import", "Reading the model", _import, ("content",), ("graph", "passes"), ("shape",)),
    Stage(
        "calibrate",
        "Running the float model",
        _calibrate,
        ("graph",),
        ("net", "calibration", "prune_notes"),
        ("calibration", "sparsity", "seed"),
    ),
    Stage(
        "quantise",
        "Choosing integers",
        _quantise,
        ("net", "calibration"),
        ("program", "quality", "quantise_notes"),
        ("weights", "activations", "min_agreement"),
    ),
    Stage(
        "generate",
        "Building the chip",
        _generate,
        ("program",),
        ("hardware",),
        SHAPING,
    ),
    Stage(
        "verify",
        "Simulating the Verilog against the reference",
        _verify,
        ("program", "hardware"),
        ("vectors", "checks"),
        ("verify", "seed"),
    ),
    Stage(
        "synthesise",
        "Mapping to cells",
        _synthesise,
        ("hardware",),
        ("silicon",),
        ("target", "liberty", "clock_period_ns"),
    ),
    Stage(
        "estimate",
        "Estimating cost",
        _estimate,
        ("title", "program", "hardware", "silicon"),
        ("estimate",),
        ("target", "clock_period_ns", "scenario", "figures", "max_area_mm2", "min_tokens_per_s"),
    ),
    Stage(
        "report",
        "Writing the report",
        _report,
        (
            "title",
            "graph",
            "passes",
            "prune_notes",
            "quantise_notes",
            "calibration",
            "program",
            "quality",
            "hardware",
            "checks",
            "silicon",
            "estimate",
        ),
        ("report",),
        tuple(recorded(Options())),
    ),
)


# --- the main job ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a compilation came to.

    ``stopped_after``: the stage named with ``--stop-after``. ``report``: the document of
    report.json.
    """

    folder: Path
    report: Mapping[str, Any]
    summary: tuple[str, ...] = ()
    up_to_date: bool = False
    stopped_after: str | None = None
    artefacts: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Silent:
    """A listener that shows nothing."""

    def started(self, stage: Stage, index: int, count: int) -> None: ...

    def finished(self, stage: Stage, seconds: float, cached: bool, made: Any) -> None: ...


def compile_model(
    model: str | Path | Sequence[str | Path],
    options: Options | None = None,
    listener: Listener | None = None,
) -> Outcome:
    """Compile a model into a design bundle; an encoder and a decoder, given as two, into one chip.

    Raises:
        HwcompileError: see its subclasses; what was at the destination is then unchanged.
    """
    paths = tuple(Path(m) for m in ((model,) if isinstance(model, str | Path) else model))
    options = options or Options()
    if len(paths) not in (1, 2):
        raise UsageError(f"{len(paths)} model files", "one file, or an encoder and a decoder")
    stages: Sequence[Stage] = STAGES
    if options.stop_after is not None:
        names = [stage.name for stage in STAGES]
        if options.stop_after not in names:
            raise UsageError(f"no stage {options.stop_after!r}", "stages: " + ", ".join(names))
        stages = cut(STAGES, options.stop_after)
    writes = options.stop_after is None and not options.dry_run
    if options.dry_run:
        options = replace(options, verify="none")
    folder = Path(options.output) if options.output else Path(f"{paths[0].stem}-hwcompile")
    if writes:
        bundle.check_destination(folder, options.force)
    _target(options)
    load_scenario(options.scenario or DEFAULT)
    tables(options)
    for path in paths:
        if not path.is_file():
            raise UsageError(f"there is no file {label(str(path))}")
    if options.isolate:
        check_isolated(paths, shapes(options))
    loaded = load_models(paths, shapes(options))
    large = stays_in_files(loaded)
    if large and options.stop_after != "import":
        raise _too_large(import_model(loaded, shapes(options))[0])
    content = _bytes(loaded)
    title = label(" + ".join(path.stem for path in paths))
    origin = _origin(content, title, options)
    if writes and not options.force and bundle.up_to_date(folder, origin):
        return Outcome(folder, read_report(folder), up_to_date=True)
    given = {
        "content": (content, origin.input["sha256"]),
        "title": (title, title),
    }
    made = run_stages(
        stages,
        given,
        options,
        StageCache(enabled=options.cache and not options.check and not large),
        listener or Silent(),
    )
    if options.dump_ir:
        _dump(Path(options.dump_ir), made)
    if options.stop_after is not None:
        return Outcome(folder, {}, stopped_after=options.stop_after, artefacts=made)
    report = made["report"]
    if writes:
        bundle.write(folder, bundle_content(made, options), origin)
    return Outcome(folder, report, assessment.summary(report), artefacts=made)


def _too_large(graph: Graph) -> ModelError:
    """Why a network whose weights stay in their files is not built."""
    matrices = [op.weight for op in graph.operations if isinstance(op, Linear)]
    count = sum(weight.size for weight in matrices)
    if not load_weights.mapped_weights(graph):
        return ModelError(
            f"the network has {count:,} weights, but its file holds gigabytes of others",
            "save the model without what it does not use",
        )
    return ModelError(
        f"the network has {count:,} weights in {len(matrices)} matrices; a chip is built of up to "
        f"{load_weights.MOST:,}",
        "area, power and price without building it: hwcompile estimate; its structure: "
        "hwcompile inspect",
    )


def _bytes(model: onnx.ModelProto) -> bytes:
    """The model in one piece, the same bytes for the same model."""
    return bytes(model.SerializeToString(deterministic=True))  # type: ignore[no-untyped-call]


def shapes(options: Options) -> dict[str, tuple[int, ...]]:
    """``("x=1x64",)`` -> ``{"x": (1, 64)}``. Raises UsageError."""
    found = {}
    for text in options.shape:
        name, equals, sizes = text.rpartition("=")
        if not equals or not all(size.isdigit() and int(size) for size in sizes.split("x")):
            raise UsageError(f"{flag('shape')}: {text!r} is not like input_ids=1x64")
        found[name] = tuple(int(size) for size in sizes.split("x"))
    return found


def _origin(content: bytes, title: str, options: Options) -> Manifest:
    digest = hashlib.sha256(content).hexdigest()
    return Manifest({"name": title, "sha256": digest}, recorded(options), tool_versions(), {})


def write_rtl(hardware: Hardware, folder: Path) -> Path:
    """Write the files of ``rtl/``; returns the folder."""
    for name, text in hardware.rtl.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def bundle_content(made: Mapping[str, Any], options: Options) -> dict[str, bytes]:
    """All files of the bundle but its manifest."""
    hardware: Hardware = made["hardware"]
    silicon: assessment.Silicon = made["silicon"]
    facts = flows.FlowFacts(
        Ident(TOP_NAME),
        hardware.file_names,
        options.target,
        assessment.period_ns(silicon, options),
    )
    document, arrays = serialise.to_bytes(made["program"])
    texts: dict[str, str] = {
        **{f"rtl/{name}": text for name, text in hardware.rtl.items()},
        **{f"netlist/{name}": text for name, text in silicon.files.items()},
        **{f"sim/{name}": text for name, text in checks.bundle_files(made["vectors"]).items()},
        **flows.files(facts),
        "report.json": report_json(made["report"]),
        "report.html": render_html(made["report"]),
    }
    files = {name: text.encode() for name, text in texts.items()}
    files["reference/program.json"] = document
    files["reference/program.npz"] = arrays
    if options.model_copy:
        files["reference/model.onnx"] = made["content"]
    return files


def read_report(folder: Path) -> dict[str, Any]:
    """The document of a bundle's report.json.

    Raises:
        UsageError: there is none.
        OutputError: it has another schema.
    """
    try:
        return parse_report((folder / "report.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{folder} holds no report.json", "make one: hwcompile MODEL") from error


def _dump(folder: Path, made: Mapping[str, Any]) -> None:
    """Write the representations made so far as text."""
    folder.mkdir(parents=True, exist_ok=True)
    if "graph" in made:
        (folder / "graph.txt").write_text(dump.graph_text(made["graph"]), encoding="utf-8")
    if "program" in made:
        (folder / "program.txt").write_text(dump.program_text(made["program"]), encoding="utf-8")
    if "hardware" in made:
        text = dump.chip_text(made["hardware"].chip)
        (folder / "chip.txt").write_text(text, encoding="utf-8")
