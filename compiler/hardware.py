"""From a Program to the Verilog of its chip: styles, plan, weight blocks, schedule, text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from hwcompile.compiler.estimate.block_timing import pace_of
from hwcompile.compiler.estimate.cells import load_library
from hwcompile.compiler.estimate.cost_model import sampled_area
from hwcompile.compiler.estimate.targets import load_target, target_names
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Chip
from hwcompile.compiler.ir.weight_logic import BlockCounts, counts
from hwcompile.compiler.names import Ident
from hwcompile.hdl.cells import PRIMITIVES
from hwcompile.hdl.linear import plan_linear
from hwcompile.hdl.matrix_block import RESPIN_PHASES, PhaseDecode, matrix_block_verilog
from hwcompile.hdl.top import with_cycles
from hwcompile.hdl.verilog import chip_verilog
from hwcompile.passes.choose_styles import NO_GOAL, Goal, Style, choose_styles, respin_styles
from hwcompile.passes.cmvm_tile import SolverOptions
from hwcompile.passes.cut_trees import Pace
from hwcompile.passes.lower_matrix import GREEDY, lower_matrix
from hwcompile.passes.plan_chip import plan_chip

_LIBRARY = "nangate45"
_MAGNITUDES = (1, 3, 7)
_CLOCK_MISS = 1.4
"""Clock period of a chip, as a multiple of the target's goal, about."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """One weight block of the chip: its module, its Linear operation, its logic in numbers."""

    module: str
    operation: ir.Linear
    phases: int
    counts: BlockCounts


@dataclass(frozen=True, slots=True)
class Hardware:
    """A chip ready to be written: schedule with cycles, matrices, and all files of ``rtl/``."""

    chip: Chip
    matrices: tuple[Matrix, ...]
    rtl: dict[str, str]

    @property
    def file_names(self) -> list[str]:
        """Verilog files in the order of ``filelist.f``, the top last."""
        return self.rtl["filelist.f"].split()


def _area_um2(decode: PhaseDecode, weight: ir.IntArray, bits: int, phases: int) -> float:
    """Area of a block with one plane a cycle. The cells are those of one library whatever the
    target, so that all targets get the same Verilog.
    """
    return sampled_area(weight, bits, phases, 1, load_library(_LIBRARY), decode).mid


def goal_of(
    program: ir.Program, target: str, min_tokens_per_s: float | None, max_area_mm2: float | None
) -> Goal:
    """The bounds of a compilation's budgets, at the clock and density expected of ``target``."""
    if min_tokens_per_s is None and max_area_mm2 is None:
        return NO_GOAL
    facts = load_target(target if target in target_names() else _LIBRARY)
    rows = max(program.values[output.value].rows for output in program.outputs)
    tokens = rows if "sequence" in program.sections else 1
    cells = load_library(_LIBRARY).nand2.area_um2 / facts.library.nand2.area_um2
    return Goal(
        cycles=None
        if min_tokens_per_s is None
        else tokens * 1e9 / (facts.value("clock_goal_ns") * _CLOCK_MISS * min_tokens_per_s),
        area_um2=None
        if max_area_mm2 is None
        else max_area_mm2 * 1e6 * facts.value("utilisation") * cells,
    )


def pace_for(
    target: str, clock_period_ns: float | None, decode: PhaseDecode, respin: bool
) -> Pace | None:
    """The clock that the blocks should keep: the one asked for, else that of the target's chips, so
    that no block is cut for a clock that the rest of the chip misses. None for a target of the
    user's, of whose cells an audit of the bundle would not know.
    """
    if target not in target_names():
        return None
    facts = load_target(target)
    usual = facts.value("clock_goal_ns") * _CLOCK_MISS
    return pace_of(facts, usual if clock_period_ns is None else clock_period_ns, decode, respin)


def _magnitude_bits(weight: ir.IntArray) -> int:
    """Room for every weight of its format: ternary, int4, int8 or more."""
    needed = int(np.abs(weight).max()).bit_length()
    return next((bits for bits in _MAGNITUDES if bits >= needed), needed)


def build_hardware(
    program: ir.Program,
    style: Style,
    logits_port: bool = True,
    cache_port: bool = False,
    decode: PhaseDecode = "local",
    goal: Goal = NO_GOAL,
    respin: bool = False,
    search: SolverOptions = GREEDY,
    pace: Pace | None = None,
) -> Hardware:
    """The chip of a program and its Verilog.

    ``goal``: bounds that ``style`` auto is to keep. ``respin``: matrices whose cells are the same
    whatever the weights, which are connections alone. ``search``: how hard to look for what the
    outputs of a matrix can share. ``pace``: the clock that the blocks should keep, if any.
    """
    styles = (
        respin_styles(program, RESPIN_PHASES)
        if respin
        else choose_styles(program, partial(_area_um2, decode), style, goal)
    )
    chip = plan_chip(program, styles, logits_port, cache_port)
    matrices, plans, texts = [], [], dict(PRIMITIVES)
    for number, (op, plan) in enumerate(zip(chip.products, chip.matrices, strict=True)):
        module = Ident(f"hw_matrix_{number}")
        bits = program.values[op.inputs[0]].bits
        places = _magnitude_bits(op.weight) if respin and plan.phases > 1 else 0
        block = lower_matrix(op.weight, bits, plan.phases, plan.planes, places, search, pace)
        plans.append(plan_linear(number, op, program.values[op.inputs[0]], block, module))
        texts[module] = matrix_block_verilog(block, module, decode, respin)
        matrices.append(Matrix(module, op, block.phases, counts(block)))
    chip = with_cycles(chip, plans)
    return Hardware(chip, tuple(matrices), chip_verilog(chip, plans, texts))
