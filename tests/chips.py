"""From a Program to the RTL of its chip, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Chip, Port
from hwcompile.hdl.cells import PRIMITIVES
from hwcompile.hdl.linear import LinearPlan, plan_linear
from hwcompile.hdl.matrix_block import matrix_block_verilog
from hwcompile.hdl.top import with_cycles
from hwcompile.hdl.verilog import chip_verilog
from hwcompile.passes.choose_styles import Style, choose_styles
from hwcompile.passes.lower_weights import lower_weights
from hwcompile.passes.plan_chip import plan_chip
from hwcompile.sim import reference
from hwcompile.sim.runner import ChipSample, chip_samples


@dataclass(frozen=True, slots=True)
class Built:
    """A chip and its Verilog in ``folder``."""

    program: ir.Program
    chip: Chip
    folder: Path

    @property
    def ports(self) -> tuple[Port, ...]:
        return self.chip.ports


def lower(chip: Chip) -> tuple[list[LinearPlan], dict[str, str]]:
    """Plans of the linear unit and the Verilog of its blocks."""
    unit = chip.unit("linear")
    plans: list[LinearPlan] = []
    blocks: dict[str, str] = dict(PRIMITIVES) if unit else {}
    for number, op in enumerate(unit.operations if unit else ()):
        assert isinstance(op, ir.Linear)
        x = chip.program.values[op.inputs[0]]
        block = lower_weights(op.weight, x.bits, chip.matrices[number].phases)
        name = f"hw_matrix_{number}"
        plans.append(plan_linear(chip.program.operations.index(op), op, x, block, name))
        blocks[name] = matrix_block_verilog(block, name)
    return plans, blocks


def build(
    program: ir.Program,
    folder: Path,
    style: Style = "auto",
    logits_port: bool = True,
    cache_port: bool = False,
) -> Built:
    """Plan the chip and write its Verilog."""
    chip = plan_chip(program, choose_styles(program, style), logits_port, cache_port)
    plans, blocks = lower(chip)
    chip = with_cycles(chip, plans)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in chip_verilog(chip, plans, blocks).items():
        (folder / name).write_text(text)
    return Built(program, chip, folder)


def random_samples(built: Built, count: int, seed: int = 0, tokens: int = 0) -> list[ChipSample]:
    """Samples of random inputs with what the reference says; ``tokens``: of a shorter sequence."""
    program = built.program
    rng = np.random.default_rng(seed)
    arrays = {}
    for given in program.inputs:
        value = given.value
        short = tokens and program.sections[given.section] == "sequence"
        shape = (count, tokens if short else value.rows, value.cols)
        arrays[value.key] = rng.integers(value.low, value.high + 1, shape)
    outputs = reference.run(program, arrays)
    expected = {o.value: outputs[o.model_name] for o in program.outputs}
    return chip_samples(built.ports, arrays, expected)
