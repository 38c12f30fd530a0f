"""From measurements to the facts of the report: quality, silicon, what the estimator must know."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwcompile.compiler.emit.manifest import tool_versions
from hwcompile.compiler.emit.report import (
    BlockArea,
    LayerZeros,
    ModuleArea,
    ModuleCheck,
    PassNote,
    Port,
    QualityLine,
    ReportInputs,
    build_report,
)
from hwcompile.compiler.errors import BudgetError
from hwcompile.compiler.estimate import area
from hwcompile.compiler.estimate.area import AreaReport, area_report
from hwcompile.compiler.estimate.estimate import Estimate
from hwcompile.compiler.estimate.facts import DesignFacts, GroupArea, Memory
from hwcompile.compiler.estimate.netlist_statistics import NO_CELLS
from hwcompile.compiler.estimate.synthesis import SynthesisResult
from hwcompile.compiler.estimate.targets import Target
from hwcompile.compiler.estimate.timing import TimingReport
from hwcompile.compiler.hardware import Hardware, Matrix
from hwcompile.compiler.importing import PassLog
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Chip
from hwcompile.compiler.ir.graph import Graph
from hwcompile.compiler.ir.program import Program
from hwcompile.compiler.options import Options, recorded
from hwcompile.hdl.memory import ram_name
from hwcompile.passes.calibrate import Calibration
from hwcompile.sim import reference

QUALITY_SAMPLES = 64
PERIOD_STEP_NS = 0.1
_GROUPS = (
    ("hw_matrix_", "weights"),
    ("hw_core_linear", "linear unit"),
    ("hw_core_attend", "attention"),
    ("hw_core_cache", "attention"),
    ("hw_core_normalise", "norms"),
    ("hw_core_lookup", "tables"),
    ("hw_core_embed", "embedding"),
    ("hw_core_elementwise", "elementwise"),
    ("hw_core_rotate", "elementwise"),
    ("hw_core_gather", "elementwise"),
    ("hw_core_sum_rows", "elementwise"),
    ("hw_core_delay", "elementwise"),
    ("hw_ram_", "small memories"),
)
_CONTROL = "control and streams"

# --- quality --------------------------------------------------------------------------------------


def quality(program: Program, calibration: Calibration) -> tuple[QualityLine, ...]:
    """The program against the float model on calibration inputs: agreement and relative error."""
    feeds = {name: x[:QUALITY_SAMPLES] for name, x in calibration.feeds.items()}
    got = reference.execute(program, feeds)
    lines = []
    for output in program.outputs:
        name = output.model_name
        want = np.asarray(calibration.outputs[name], np.float64)[:QUALITY_SAMPLES]
        have = got[name].reshape(want.shape)
        about = (len(want), calibration.source)
        if output.kind == "logits":
            equal = float((want.argmax(-1) == have.argmax(-1)).mean())
            lines.append(QualityLine("arg-max agreement", 1.0, equal, *about))
        power = float((want**2).mean()) or 1.0
        error = float(((want - have) ** 2).mean()) / power
        lines.append(QualityLine("relative squared error", 0.0, error, *about))
    return tuple(lines)


# --- silicon --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Silicon:
    """What synthesis and timing found. ``files``: the bundle's ``netlist/``, name -> text.

    ``full_adder_um2``: area of the library's full adder; None when it has no such cell.
    """

    node_nm: float
    predictive: bool
    critical_path_ns: float
    critical_module: str
    full_adder_um2: float | None
    areas: AreaReport
    files: Mapping[str, str]


def silicon(
    hardware: Hardware, synthesis: SynthesisResult, timing: TimingReport, target: Target
) -> Silicon:
    """Areas, the critical path and the netlists of a mapped chip."""
    matrices = {m.module: m for m in hardware.matrices}
    areas = area_report(
        synthesis,
        timing,
        target,
        layers={n: layer_of(matrices[n]) for n in synthesis.modules if n in matrices},
        weights={name: m.operation.weight.size for name, m in matrices.items()},
        memories={ram_name(m.words, m.bits): _kind_of(m.kind) for m in hardware.chip.memories},
    )
    adder = target.library.full_adder
    files = {f"{n}.v": _netlist(m.netlist) for n, m in synthesis.modules.items()}
    files["areas.json"] = json.dumps(areas.to_json(), indent=1, sort_keys=True) + "\n"
    return Silicon(
        node_nm=target.value("node_nm"),
        predictive=target.predictive,
        critical_path_ns=timing.critical_ns,
        critical_module=timing.slowest.name,
        full_adder_um2=target.library.cell(adder.cell).area_um2 if adder else None,
        areas=areas,
        files=files,
    )


def _netlist(path: Path) -> str:
    """A netlist without the first line, where Yosys names the machine that built it."""
    first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    return rest if first.startswith("/* Generated by Yosys") else f"{first}\n{rest}"


def layer_of(matrix: Matrix) -> str:
    """The name of a matrix's layer: where it comes from in the model."""
    return matrix.operation.origin or matrix.module


def _kind_of(memory: str) -> str:
    return "data" if memory == "data" else "kv"


def group_of(module: str) -> str:
    """The part of the chip that a module belongs to."""
    return next((group for prefix, group in _GROUPS if module.startswith(prefix)), _CONTROL)


# --- the estimator's facts ------------------------------------------------------------------------


def period_ns(silicon: Silicon, options: Options) -> float:
    """The clock period: as asked for, else the critical path rounded up."""
    if options.clock_period_ns is not None:
        return options.clock_period_ns
    return math.ceil(silicon.critical_path_ns / PERIOD_STEP_NS) * PERIOD_STEP_NS


def design_facts(
    title: str,
    program: Program,
    hardware: Hardware,
    silicon: Silicon,
    options: Options,
) -> DesignFacts:
    """What the estimator must know of the design."""
    chip = hardware.chip
    weights = [m.operation.weight for m in hardware.matrices]
    context = reference.context(program)
    groups: dict[str, float] = {}
    for module in silicon.areas.modules:
        group = group_of(module.name)
        groups[group] = groups.get(group, 0.0) + module.total_um2
    return DesignFacts(
        name=title,
        item="token" if context else "inference",
        node_nm=silicon.node_nm,
        library=silicon.areas.library,
        predictive=silicon.predictive,
        weights_total=sum(w.size for w in weights),
        weights_nonzero=sum(int(np.count_nonzero(w)) for w in weights),
        groups=tuple(GroupArea(name, area) for name, area in sorted(groups.items())),
        memories=tuple(
            Memory(m.name, m.kind, m.instances * m.words * m.bits, m.area_um2)
            for m in silicon.areas.memories
        ),
        area_basis="synthesised",
        critical_path_ns=silicon.critical_path_ns,
        clock_period_ns=period_ns(silicon, options),
        cycles_per_item=cycles_per_item(chip, context),
        macs_per_item=_per_item(program, context, _macs),
        memory_bits_per_item=_per_item(program, context, _memory_bits),
        io_signals=sum(p.lane_bits + 3 for p in chip.ports) + 2,
        slots=chip.slots,
        context=context,
        weights_per_place=_weights_per_place(hardware),
        cut_bits_per_item=_cut_bits(program, context),
    )


def _cut_bits(program: Program, context: int) -> float:
    """Bits of one item that cross a cut between two layers: the mean input of a matrix."""
    inputs = [
        program.values[op.inputs[0]] for op in program.operations if isinstance(op, ir.Linear)
    ]
    rows = 1 if context else max((value.rows for value in inputs), default=1)
    return rows * sum(v.cols * v.bits for v in inputs) / len(inputs) if inputs else 0.0


def _weights_per_place(hardware: Hardware) -> float:
    places = sum(m.counts.taps + m.counts.idle_taps for m in hardware.matrices)
    return sum(m.operation.weight.size for m in hardware.matrices) / places if places else 1.0


def cycles_per_item(chip: Chip, context: int) -> float:
    """Mean cycles of a token over the context, the encoder's share included, or of an inference."""
    if not context:
        return float(chip.cycles_once())
    tokens = sum(chip.cycles_per_token(position) for position in range(context))
    return (chip.cycles_once() + tokens) / context


def _per_item(program: Program, context: int, cost: Any) -> float:
    """A cost of operations, a row each, summed to one item."""
    total = 0.0
    for op in program.operations:
        rows = op.output.rows
        once = program.sections[op.section] == "once"
        total += cost(program, op) * (rows / max(context, 1) if once else 1.0)
    return total


def _macs(program: Program, op: ir.Operation) -> float:
    if isinstance(op, ir.Linear):
        return float(op.weight.size)
    if isinstance(op, ir.Attend):
        return _visible(program, op) * (_cols(program, op, 0) + op.output.cols)
    return 0.0


def _memory_bits(program: Program, op: ir.Operation) -> float:
    """Bits read and written: elements of inputs and output, for attention its keys and values."""
    bits = op.output.cols * op.output.bits
    if isinstance(op, ir.Attend):
        q, k, v = (program.values[key] for key in op.inputs[:3])
        shared = op.heads // op.kv_heads
        words = shared * (k.cols * k.bits + v.cols * v.bits)
        return bits + q.cols * q.bits + _visible(program, op) * words
    return bits + sum(program.values[k].cols * program.values[k].bits for k in op.inputs)


def _visible(program: Program, op: ir.Attend) -> float:
    """Mean number of keys that a row sees."""
    keys = program.values[op.inputs[1]].rows
    return (keys + 1) / 2 if op.causal else float(keys)


def _cols(program: Program, op: ir.Operation, index: int) -> int:
    return program.values[op.inputs[index]].cols


def check_budgets(estimate: Estimate, options: Options) -> None:
    """Raise BudgetError when area or speed misses what was asked for.

    The area is that of the core: cells with room for their wires, and memories; not the pads.
    """
    numbers = {q.name: q.mid for q in estimate.quantities}
    core, rate = numbers["area.core_mm2"], numbers["performance.chip_rate"]
    if options.max_area_mm2 is not None and core > options.max_area_mm2:
        other = "" if options.style == "folded" else ", or --style folded"
        raise BudgetError(
            f"the logic takes {core:.4g} mm2 of the die (cells, memories, room for wires), "
            f"{options.max_area_mm2:g} mm2 were allowed",
            f"the nearest that fits: --max-area-mm2 {core * 1.001:.4g}{other}",
        )
    if options.min_tokens_per_s is not None and rate < options.min_tokens_per_s:
        other = "" if options.style == "bitplane" else ", or --style bitplane"
        raise BudgetError(
            f"the chip makes {rate:.4g} a second, {options.min_tokens_per_s:g} were asked for",
            f"the nearest that fits: --min-tokens-per-s {rate * 0.999:.4g}{other}",
        )


# --- the report -----------------------------------------------------------------------------------


def report(
    title: str,
    options: Options,
    graph: Graph,
    passes: PassLog,
    prune_notes: PassLog,
    quantise_notes: PassLog,
    calibration: Calibration,
    program: Program,
    quality: tuple[QualityLine, ...],
    hardware: Hardware,
    checks: tuple[ModuleCheck, ...],
    silicon: Silicon,
    estimate: Estimate,
) -> dict[str, Any]:
    """The document of report.json."""
    modelled = "estimated buffers of the clock's tree are included in the areas"
    notes = (*passes, *prune_notes, *quantise_notes)
    inputs = ReportInputs(
        title=title,
        kind=_kind(graph),
        estimate=estimate,
        zeros=tuple(layer_zeros(m, silicon.full_adder_um2) for m in hardware.matrices),
        passes=tuple(PassNote(p.name, p.changed, "; ".join(p.lines)) for p in notes),
        quality=quality,
        verification=checks,
        modules=tuple(map(module_area, silicon.areas.modules)),
        blocks=block_areas(hardware, silicon.areas, options.phase_decode),
        ports=tuple(
            Port(p.name, p.direction, p.lane_bits, _layout(program, p)) for p in hardware.chip.ports
        ),
        assumptions=(f"scales were chosen on: {calibration.source}", modelled),
        limits=(
            "areas are those of mapped cells before place and route",
            f"the critical path, {silicon.critical_path_ns:.3g} ns in {silicon.critical_module}, "
            "comes from a linear delay model without a clock tree",
        ),
        options=recorded(options),
        tools=tool_versions(),
    )
    return build_report(inputs)


def module_area(module: area.ModuleArea) -> ModuleArea:
    """A module's line of the report."""
    n, found = module.instances, module.statistics
    return ModuleArea(
        module=module.name,
        group=group_of(module.name),
        cells=n * found.cells,
        cell_area_um2=module.total_um2,
        tree_area_um2=n * module.tree_area_um2,
        clock_tree_um2=n * module.clock_tree_um2,
        nets=n * found.nets,
        fan_out_max=found.fan_out_max,
        fan_out_mean=found.fan_out_mean,
        pins_per_cell=found.pins_per_cell,
    )


def block_areas(hardware: Hardware, areas: AreaReport, decode: str) -> tuple[BlockArea, ...]:
    """The weight blocks, each with the modules that belong to it."""
    blocks = []
    for matrix, plan in zip(hardware.matrices, hardware.chip.matrices, strict=True):
        name = matrix.module
        parts = [m for m in areas.modules if m.name == name or m.name.startswith(f"{name}_")]
        found = sum((m.statistics for m in parts for _ in range(m.instances)), NO_CELLS)
        inputs, outputs = matrix.operation.weight.shape
        total = sum(m.total_um2 for m in parts)
        blocks.append(
            BlockArea(
                module=name,
                layer=layer_of(matrix),
                inputs=inputs,
                outputs=outputs,
                style=plan.style,
                phases=matrix.phases,
                planes=plan.planes,
                decode="none" if matrix.phases == 1 else decode,  # type: ignore[arg-type]
                cells=found.cells,
                cell_area_um2=total,
                tree_area_um2=sum(m.instances * m.tree_area_um2 for m in parts),
                um2_per_weight=total / max(1, inputs * outputs),
                nets=found.nets,
                fan_out_max=found.fan_out_max,
                fan_out_mean=found.fan_out_mean,
                pins_per_cell=found.pins_per_cell,
            )
        )
    return tuple(blocks)


def layer_zeros(matrix: Matrix, full_adder_um2: float | None) -> LayerZeros:
    """Zeros of a matrix and the cells they spare: full adders, by what a weight's place takes."""
    weight = matrix.operation.weight
    spared = None if full_adder_um2 is None else matrix.counts.spared_adders * full_adder_um2
    return LayerZeros(layer_of(matrix), weight.size, int((weight == 0).sum()), spared)


def _kind(graph: Graph) -> str:
    if graph.sections == ("sequence",):
        return f"decoder ({graph.form} file): token in, token out"
    if "sequence" in graph.sections:
        return "encoder-decoder: source tokens, then target tokens in, tokens out"
    return "tensor in, tensor out"


def _layout(program: Program, port: Any) -> str:
    if port.kind in ("ids", "token"):
        return f"one token id a beat, {port.bits} bits"
    if port.kind == "cache":
        return (
            f"before the first token: for each position {port.cols} elements of the key and of the "
            f"value of each attention, one a beat, {port.bits} bits signed"
        )
    value = program.values[port.value]
    sign = "signed" if port.signed else "unsigned"
    return (
        f"{value.rows} x {value.cols} elements row by row, one a beat, {port.bits} bits {sign}, "
        f"unit {value.scale:.6g}"
    )


def _wiring(blocks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How hard the weight blocks are to wire, in a line."""
    if blocks:
        cells = sum(block["cells"] for block in blocks)
        pins = sum(block["cells"] * block["pins_per_cell"] for block in blocks)
        most = max(block["fan_out_max"] for block in blocks)
        decode = sorted({block["decode"] for block in blocks} - {"none"})
        decoded = f", phases decoded {decode[0]}" if decode else ""
        yield (
            f"weight blocks: {len(blocks)} of {cells} cells, {sum(b['nets'] for b in blocks)} nets "
            f"of at most {most} sinks, {pins / max(cells, 1):.3g} pins a cell{decoded}"
        )


def summary(report: Mapping[str, Any]) -> tuple[str, ...]:
    """The lines a user reads in the terminal."""
    estimate = report["estimate"]
    numbers = {name: entry["mid"] for name, entry in estimate["quantities"].items()}
    facts = estimate["facts"]
    weights, kept = facts["weights_total"], facts["weights_nonzero"]
    cells = sum(g["cell_area_um2"] for g in facts["groups"]) / 1e6
    statuses = [check["status"] for check in report["verification"]]
    counts = {s: statuses.count(s) for s in dict.fromkeys(statuses)}
    lines = [
        f"{report['title']}: {report['kind']}",
        f"weights: {weights} in matrices, {weights - kept} of them zero and left out",
    ]
    for line in report["quality"]:
        lines.append(
            f"quality: {line['metric']} {line['design']:.4g} over {line['samples']} samples"
        )
    lines += [
        "verified: " + ", ".join(f"{n} modules {status}" for status, n in counts.items()),
        *_wiring(report["blocks"]),
        f"cells: {cells:.4g} mm2 in {facts['library']}, die {numbers['area.die_mm2']:.4g} mm2",
        f"speed: {numbers['performance.chip_rate']:.4g} {facts['item']}s/s "
        f"at {numbers['performance.clock_hz'] / 1e6:.4g} MHz",
        f"power: {numbers['power.chip_w'] * 1e3:.4g} mW; chip {numbers['cost.chip_usd']:.4g} USD",
        f"verdict: {estimate['verdict']['name']}",
    ]
    return tuple(lines)
