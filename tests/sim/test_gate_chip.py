"""A small chip with AXI4-Stream ports at gate level: handshakes, generation, differences."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from hwcompile.compiler.errors import MismatchError
from hwcompile.compiler.estimate.netlist import Netlist
from hwcompile.compiler.estimate.targets import Target, load_target
from hwcompile.compiler.ir.chip import Port
from hwcompile.sim.gate_chip import mapped_chip, simulate_gates
from hwcompile.sim.runner import ChipSample

# Answers each beat with the running sum since the last TLAST, three cycles later.
CHIP = """module hw_top (
    input aclk, input aresetn,
    input [7:0] s_axis_tdata, input s_axis_tvalid, output s_axis_tready, input s_axis_tlast,
    output [7:0] m_axis_tdata, output m_axis_tvalid, input m_axis_tready, output m_axis_tlast
);
  reg [7:0] total;
  reg [1:0] wait_left;
  reg full, last, clear;
  assign s_axis_tready = aresetn & !full;
  assign m_axis_tdata = total;
  assign m_axis_tvalid = aresetn & full & wait_left == 0;
  assign m_axis_tlast = last;
  always @(posedge aclk)
    if (!aresetn) begin
      full <= 0; clear <= 1; last <= 0; wait_left <= 0;
    end else if (s_axis_tvalid & s_axis_tready) begin
      total <= clear ? s_axis_tdata : total + s_axis_tdata;
      clear <= s_axis_tlast; last <= s_axis_tlast;
      full <= 1; wait_left <= 3;
    end else if (full & wait_left != 0) wait_left <= wait_left - 1;
    else if (m_axis_tvalid & m_axis_tready) full <= 0;
endmodule
"""
PORTS = (
    Port("s_axis", "in", "ids", "v0", 0, 4, 1, 8, False),
    Port("m_axis", "out", "token", "v1", 0, 4, 1, 8, True),
)


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("nangate45")


@pytest.fixture(scope="module")
def netlist(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Netlist:
    folder: Path = tmp_path_factory.mktemp("chip")
    (folder / "chip.v").write_text(CHIP)
    return mapped_chip([folder / "chip.v"], "hw_top", target, cache=folder / "cache")


def test_samples_run_side_by_side(netlist: Netlist, target: Target) -> None:
    samples = [
        ChipSample({"s_axis": [1, 2, 3]}, {"m_axis": 3}, expected={"m_axis": [1, 3, 6]}),
        ChipSample({"s_axis": [200]}, {"m_axis": 1}, expected={"m_axis": [-56]}),
    ]
    first, second = simulate_gates(netlist, target.library, PORTS, samples)
    assert first.outputs["m_axis"] == [1, 3, 6]
    assert first.lasts["m_axis"] == [0, 0, 1]
    assert second.outputs["m_axis"] == [-56]
    cycles = first.cycles["m_axis"]
    assert all(later - earlier == 5 for earlier, later in pairwise(cycles))


def test_generated_beats_follow_the_answers(netlist: Netlist, target: Target) -> None:
    sample = ChipSample({"s_axis": [1]}, {"m_axis": 5}, generate=4)
    (result,) = simulate_gates(netlist, target.library, PORTS, [sample])
    assert result.outputs["m_axis"] == [1, 2, 4, 8, 16]
    assert result.lasts["m_axis"] == [0, 0, 0, 0, 1]


def test_a_difference_is_an_error(netlist: Netlist, target: Target) -> None:
    sample = ChipSample({"s_axis": [1, 2]}, {"m_axis": 2}, expected={"m_axis": [1, 4]})
    with pytest.raises(MismatchError, match="m_axis"):
        simulate_gates(netlist, target.library, PORTS, [sample])


def test_a_chip_that_stops_is_an_error(netlist: Netlist, target: Target) -> None:
    with pytest.raises(MismatchError, match="stopped"):
        sample = ChipSample({"s_axis": [1]}, {"m_axis": 2})
        simulate_gates(netlist, target.library, PORTS, [sample], timeout=50)
    assert simulate_gates(netlist, target.library, PORTS, []) == []
