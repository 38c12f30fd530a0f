"""From a Program to the Verilog of its chip: styles, plan, weight blocks, schedule, text."""

from __future__ import annotations

from dataclasses import dataclass

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Chip
from hwcompile.compiler.ir.weight_logic import BlockCounts, counts
from hwcompile.compiler.names import Ident
from hwcompile.hdl.cells import PRIMITIVES
from hwcompile.hdl.linear import plan_linear
from hwcompile.hdl.matrix_block import PhaseDecode, matrix_block_verilog
from hwcompile.hdl.top import with_cycles
from hwcompile.hdl.verilog import chip_verilog
from hwcompile.passes.choose_styles import Style, choose_styles
from hwcompile.passes.lower_weights import lower_weights
from hwcompile.passes.plan_chip import plan_chip


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


def build_hardware(
    program: ir.Program,
    style: Style,
    logits_port: bool = True,
    cache_port: bool = False,
    decode: PhaseDecode = "local",
) -> Hardware:
    """The chip of a program and its Verilog."""
    chip = plan_chip(program, choose_styles(program, style), logits_port, cache_port)
    unit = chip.unit("linear")
    operations = [op for op in (unit.operations if unit else ()) if isinstance(op, ir.Linear)]
    matrices, plans, texts = [], [], dict(PRIMITIVES)
    for number, (op, plan) in enumerate(zip(operations, chip.matrices, strict=True)):
        module = Ident(f"hw_matrix_{number}")
        bits = program.values[op.inputs[0]].bits
        block = lower_weights(op.weight, bits, plan.phases, share=True, planes=plan.planes)
        plans.append(plan_linear(number, op, program.values[op.inputs[0]], block, module))
        texts[module] = matrix_block_verilog(block, module, decode)
        matrices.append(Matrix(module, op, block.phases, counts(block)))
    chip = with_cycles(chip, plans)
    return Hardware(chip, tuple(matrices), chip_verilog(chip, plans, texts))
