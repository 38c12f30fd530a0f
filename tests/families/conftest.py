"""From a small ONNX file to its integers and its chip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwcompile.compiler.ir.graph import Graph
from hwcompile.compiler.ir.program import Program
from hwcompile.compiler.ir.verify import verify_program
from hwcompile.passes import calibrate, choose_widths, drop_zeros
from hwcompile.sim import float_reference, reference
from hwcompile.sim.runner import simulate
from hwcompile.sim.unit_bench import quick_simulator
from tests import chips
from tests.frontend.conftest import agree, importer, net

__all__ = ["agree", "importer", "net"]

Quantised = Callable[[Graph], Program]
Simulated = Callable[[Program], None]


def _values(graph: Graph, feeds: Any) -> Any:
    return float_reference.evaluate(graph, feeds, collect=True)[1]


def _execute(program: Program, feeds: Any) -> Any:
    return reference.run(program, reference.quantise_inputs(program, feeds))


@pytest.fixture
def quantised() -> Quantised:
    """The program of a graph; its integers must be near the floats."""

    def run(graph: Graph) -> Program:
        made = choose_widths.run(graph, calibrate.run(graph, _values, None), _execute)
        assert made.fidelity.relative_error < 0.01
        program = drop_zeros.run(made.program).program
        verify_program(program)
        return program

    return run


@pytest.fixture
def simulated(tmp_path: Path) -> Simulated:
    """Simulates the chip of a program on two samples: every integer as in the reference, or an
    error."""

    def run(program: Program) -> None:
        built = chips.build(program, tmp_path / "rtl")
        simulate(built.folder, built.ports, chips.random_samples(built, 2), quick_simulator())

    return run
