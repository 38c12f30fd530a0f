"""A model by its shape and statistics alone, and the facts of a chip of it without a netlist."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from hwcompile.compiler.estimate.cost_model import AreaRange, block_area_from_statistics
from hwcompile.compiler.estimate.facts import DesignFacts, GroupArea, Memory
from hwcompile.compiler.estimate.figures import Table
from hwcompile.compiler.estimate.statistics import HALF, MatrixStatistics
from hwcompile.compiler.estimate.targets import Target

Embedding = Literal["logic", "rom", "metal"]
PLAIN_PERIOD_NS = 1.0
"""Clock of the published ROM and metal machines, 1 GHz (HC1's is not published, and assumed)."""

SPARED_CYCLES = 8
"""Cycles of a unit's start, end and fetch, about."""


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Attention of one layer: ``heads`` of ``head_size``, ``kv_width`` elements of key, as many of
    value, a position. ``rows``: positions an item asks for (1 for a token)."""

    heads: int
    head_size: int
    kv_width: int
    rows: int = 1


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table that is looked up (token or position embedding)."""

    name: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the estimator must know of a model that it never holds.

    ``item``: ``token``, or ``inference`` of all ``context`` positions. ``hidden``: elements that
    pass from layer to layer. ``vector_weights``: norms and biases. ``assumed``: sentences.
    """

    name: str
    item: str
    context: int
    hidden: int
    matrices: tuple[MatrixStatistics, ...]
    attention: tuple[AttentionShape, ...]
    tables: tuple[TableShape, ...] = ()
    vector_weights: int = 0
    assumed: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """Weights in matrices."""
        return sum(m.weights for m in self.matrices)

    @property
    def layers(self) -> int:
        """Layers, by their attention; 1 for a model without."""
        return max(1, len(self.attention))

    @property
    def macs_per_item(self) -> float:
        """Multiply-accumulates: the matrices that an item passes, and attention at mid context."""
        seen = self.context if self.item == "inference" else (self.context + 1) / 2
        attended = sum(2 * a.heads * a.head_size * seen * a.rows for a in self.attention)
        return sum(m.macs for m in self.matrices) + attended


@dataclass(frozen=True, slots=True)
class LogicPlan:
    """How weight logic is built: ``trees`` a matrix (0: a tree for each column, ``bitplane``),
    ``planes`` bits of an input a cycle."""

    x_bits: int = 8
    trees: int = 8
    planes: int = 1


@dataclass(frozen=True, slots=True)
class MatrixArea:
    """Cells of one matrix in um2, all its copies."""

    name: str
    weights: int
    zeros: int
    digits: int
    area: AreaRange


# --- weight logic ---------------------------------------------------------------------------------


def matrix_areas(shape: ModelShape, plan: LogicPlan, target: Target) -> tuple[MatrixArea, ...]:
    """Cells of each matrix. Matrices of one size are modelled once, by their common histogram, and
    weighed by their own signed digits."""
    groups: dict[tuple[int, int], list[MatrixStatistics]] = {}
    for matrix in shape.matrices:
        groups.setdefault((matrix.inputs, matrix.outputs), []).append(matrix)
    made: dict[str, MatrixArea] = {}
    for (inputs, outputs), members in groups.items():
        common = {
            value - HALF: float(sum(m.histogram[value] for m in members))
            for value in range(2 * HALF)
        }
        common = {value: count for value, count in common.items() if count}
        phases = -(-outputs // plan.trees) if plan.trees else 1
        one = block_area_from_statistics(
            inputs, outputs, common, plan.x_bits, phases, plan.planes, target.library
        )
        copies = sum(m.copies for m in members)
        digits = sum(m.digits for m in members) or 1
        for m in members:
            share = copies * m.digits / digits if phases == 1 else m.copies
            area = AreaRange(one.low * share, one.mid * share, one.high * share)
            made[m.name] = MatrixArea(m.name, m.weights, m.zeros, m.digits, area)
    return tuple(made[m.name] for m in shape.matrices)


def _logic_cycles(shape: ModelShape, plan: LogicPlan) -> float:
    """Cycles of an item on this compiler's machine: one operation at a time, an element a cycle."""
    total_cycles = 0.0
    for m in shape.matrices:
        trees = plan.trees or m.outputs
        phases = -(-m.outputs // trees)
        planes = -(-plan.x_bits // plan.planes)
        once = m.inputs + max(phases * planes, m.outputs) + SPARED_CYCLES
        total_cycles += once * m.rows * m.used * m.copies
    seen = shape.context if shape.item == "inference" else (shape.context + 1) / 2
    for a in shape.attention:
        total_cycles += a.rows * a.heads * (a.head_size + 2 * seen)
        # Norms, rotation and residuals around it, an element or two a cycle.
        total_cycles += a.rows * 12 * shape.hidden
    return total_cycles


def _unit_cells_um2(shape: ModelShape, target: Target, bits: int) -> float:
    """Arithmetic of the one attention unit and of norms and requantisers, in adders and registers.

    A multiplier of b by b bits is b^2 full adders; a lane of attention has two of them and two
    accumulators; norms and requantisers together take about sixteen.
    """
    library = target.library
    adder = library.full_adder
    full = library.cell(adder.cell).area_um2 if adder else 5 * library.nand2.area_um2
    flip = library.flip_flop.area_um2
    lanes = max((a.head_size for a in shape.attention), default=0)
    multiplier = bits * bits * full + 4 * bits * flip
    bank = max((m.inputs for m in shape.matrices), default=0) * bits * flip
    return 2 * lanes * (multiplier + 3 * bits * flip) + 16 * 4 * multiplier + bank


def choose_plan(shape: ModelShape, style: str, x_bits: int) -> LogicPlan:
    """A rule of thumb where there is no program: as many trees as an input has bits; half of them
    while all matrices take less time than attention at full context. (A compilation weighs area
    against time, matrix by matrix: :mod:`hwcompile.passes.choose_styles`.)"""
    if style in ("bitplane", "parallel"):
        return LogicPlan(x_bits, 0, x_bits if style == "parallel" else 1)
    attended = sum(a.heads * (2 * shape.context + 2 * a.head_size) for a in shape.attention)
    trees = x_bits
    while trees > 1:
        fewer = sum(
            (m.inputs + -(-m.outputs // (trees // 2)) * x_bits) * m.used * m.copies
            for m in shape.matrices
        )
        if fewer > attended:
            break
        trees //= 2
    return LogicPlan(x_bits, trees)


# --- facts ----------------------------------------------------------------------------------------


def logic_facts(
    shape: ModelShape, plan: LogicPlan, target: Target, areas: tuple[MatrixArea, ...]
) -> DesignFacts:
    """Facts of a chip with the weights as logic, as this compiler would build it."""
    weights = AreaRange(
        *(sum(getattr(a.area, end) for a in areas) for end in ("low", "mid", "high"))
    )
    units = _unit_cells_um2(shape, target, plan.x_bits)
    span = {"low": 0.6, "high": 1.7}
    cells = weights.mid + units
    columns = sum(m.outputs * m.copies for m in shape.matrices)
    return replace(
        _common(shape, plan.x_bits),
        node_nm=target.value("node_nm"),
        library=target.library.name,
        predictive=target.predictive,
        groups=(
            GroupArea("attention, norms and requantisers", units),
            GroupArea("weights", weights.mid),
        ),
        memories=(
            *_memories(shape, plan.x_bits, plan.x_bits),
            Memory("constants of columns", "rom", columns * 64),
        ),
        clock_period_ns=target.value("clock_goal_ns"),
        critical_path_ns=target.value("clock_goal_ns"),
        cycles_per_item=_logic_cycles(shape, plan),
        weights_per_place=_per_place(shape, plan),
        cell_range=(
            (weights.low + span["low"] * units) / cells if cells else 1.0,
            (weights.high + span["high"] * units) / cells if cells else 1.0,
        ),
    )


def _per_place(shape: ModelShape, plan: LogicPlan) -> float:
    if not plan.trees:
        return 1.0
    places = sum(m.inputs * min(plan.trees, m.outputs) * m.copies for m in shape.matrices)
    return shape.weights / places if places else 1.0


def embedded_facts(
    shape: ModelShape, style: Embedding, bits: float, x_bits: int, node_nm: float, table: Table
) -> DesignFacts:
    """Facts of a chip with the weights in mask ROM or metal, by what was published of such chips.

    ``bits``: mean bits a weight. All layers work at once; the rate is that of the published
    machine for as many layers.
    """

    def figure(name: str) -> float:
        return table[f"{style}.{name}"].value

    lanes = shape.layers * shape.hidden
    transistors = (
        figure("transistors_per_weight") * shape.weights + figure("transistors_per_lane") * lanes
    )
    memories = (
        Memory("weights", "rom", math.ceil(shape.weights * bits)),
        *_memories(shape, x_bits, bits),
    )
    return replace(
        _common(shape, x_bits),
        node_nm=node_nm,
        library=f"published {style} figures",
        predictive=False,
        groups=(),
        memories=memories,
        clock_period_ns=PLAIN_PERIOD_NS,
        critical_path_ns=PLAIN_PERIOD_NS,
        cycles_per_item=figure("cycles_per_layer") * shape.layers,
        slots=round(figure("stages_per_layer") * shape.layers)
        if figure("stages_per_layer") > 1
        else 1,
        respin_scope="via" if style == "rom" else "metal",
        embedding=style,
        logic_transistors=transistors,
    )


def _common(shape: ModelShape, x_bits: int) -> DesignFacts:
    """What does not depend on how the weights are held."""
    kept = shape.weights - sum(m.zeros for m in shape.matrices)
    rows = 1 if shape.item == "token" else shape.context
    vocabulary = max((m.outputs for m in shape.matrices), default=1)
    return DesignFacts(
        name=shape.name,
        item=shape.item,
        node_nm=0,
        library="",
        predictive=False,
        weights_total=shape.weights,
        weights_nonzero=kept,
        groups=(),
        memories=(),
        area_basis="modelled",
        critical_path_ns=PLAIN_PERIOD_NS,
        clock_period_ns=PLAIN_PERIOD_NS,
        cycles_per_item=1,
        macs_per_item=shape.macs_per_item,
        memory_bits_per_item=_memory_bits(shape, x_bits),
        io_signals=2 * 8 * math.ceil(math.log2(max(2, vocabulary)) / 8) + 8,
        context=shape.context if shape.item == "token" else 0,
        cut_bits_per_item=float(rows * shape.hidden * x_bits),
    )


def _memories(shape: ModelShape, x_bits: int, table_bits: float) -> tuple[Memory, ...]:
    """Key and value memory, data memory, embedding tables, norms."""
    kv = sum(2 * a.kv_width for a in shape.attention) * shape.context * x_bits
    rows = 1 if shape.item == "token" else shape.context
    widest = max((m.outputs for m in shape.matrices if m.outputs < 4 * shape.hidden + 1), default=0)
    found = [
        Memory("keys and values", "kv", kv),
        Memory("data", "data", rows * (4 * shape.hidden + 2 * widest) * x_bits),
        *(Memory(t.name, "rom", math.ceil(t.rows * t.columns * table_bits)) for t in shape.tables),
        Memory("norms and biases", "rom", shape.vector_weights * 16),
    ]
    return tuple(m for m in found if m.bits)


def _memory_bits(shape: ModelShape, x_bits: int) -> float:
    """Bits read and written an item: inputs and outputs of matrices, keys and values at mid
    context."""
    moved = sum((m.inputs + m.outputs) * m.rows * m.used * m.copies for m in shape.matrices)
    seen = shape.context if shape.item == "inference" else (shape.context + 1) / 2
    moved += sum(2 * a.kv_width * seen * a.rows for a in shape.attention)
    return float(moved * x_bits)
