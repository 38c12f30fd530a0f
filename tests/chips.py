"""From a Program to the RTL of its chip, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwcompile.compiler.hardware import build_hardware
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Chip, Port
from hwcompile.compiler.pipeline import write_rtl
from hwcompile.passes.choose_styles import Style
from hwcompile.passes.cut_trees import Pace
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


def build(
    program: ir.Program,
    folder: Path,
    style: Style = "auto",
    logits_port: bool = True,
    cache_port: bool = False,
    pace: Pace | None = None,
) -> Built:
    """Plan the chip and write its Verilog."""
    hardware = build_hardware(program, style, logits_port, cache_port, pace=pace)
    folder.mkdir(parents=True, exist_ok=True)
    write_rtl(hardware, folder)
    return Built(program, hardware.chip, folder)


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
