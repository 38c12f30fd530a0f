"""Mapped weight blocks against the arrays they were written from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwcompile.compiler.estimate.netlist import read_netlist
from hwcompile.compiler.estimate.synthesis import synthesise
from hwcompile.compiler.estimate.targets import load_target
from hwcompile.compiler.ir.weight_logic import evaluate
from hwcompile.hdl.matrix_block import matrix_block_verilog
from hwcompile.passes.lower_weights import lower_weights
from hwcompile.sim.gate_block import simulate_block
from tests.paces import pace


@pytest.mark.parametrize(
    ("target_name", "phases", "cuts"),
    [("nangate45", 1, 0), ("sky130hd", 4, 0), ("nangate45", 5, 1)],
)
def test_gates_compute_the_matrix(target_name: str, phases: int, cuts: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(phases)
    weight = rng.integers(-127, 128, (7, 10)) * (rng.random((7, 10)) < 0.7)
    block = lower_weights(weight, 8, phases=phases, pace=pace() if cuts else None)
    assert block.cuts == cuts
    source = tmp_path / "block.v"
    source.write_text(matrix_block_verilog(block, "block"))
    target = load_target(target_name)
    mapped = synthesise([source], "block", target, cache=tmp_path).modules["block"]
    netlist = read_netlist(mapped.netlist_json, "block", target.library)
    x = rng.choice([-128, -1, 0, 127, *rng.integers(-128, 128, 60).tolist()], (96, 7))
    assert np.array_equal(simulate_block(netlist, target.library, block, x), evaluate(block, x))
