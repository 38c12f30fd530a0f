"""What the quality benchmark is to notice in Verilog."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import rtl_quality
from hwcompile.compiler.errors import ToolError

GOOD = """module hw_top (input wire clk, input wire e, input wire d, output reg q);
  always @(posedge clk) if (e) q <= d;
endmodule
"""
LATCH = GOOD.replace("@(posedge clk)", "@*").replace("<=", "=")
UNDRIVEN = GOOD.replace("output reg q", "output reg q, output wire r")
LOOP = GOOD.replace("endmodule", "  wire a, b;\n  assign a = ~b & d, b = ~a & e;\nendmodule")


def write(folder: Path, text: str) -> Path:
    (folder / "hw_top.v").write_text(text)
    (folder / "filelist.f").write_text("hw_top.v\n")
    return folder


def test_a_good_module_passes(tmp_path: Path) -> None:
    rtl_quality.yosys_check(write(tmp_path, GOOD))


@pytest.mark.parametrize("text", [LATCH, UNDRIVEN, LOOP], ids=["latch", "undriven", "loop"])
def test_a_bad_module_fails(tmp_path: Path, text: str) -> None:
    with pytest.raises(ToolError):
        rtl_quality.yosys_check(write(tmp_path, text))


def test_warnings_are_counted_by_rule(tmp_path: Path) -> None:
    counts = rtl_quality.waived_warnings(
        write(tmp_path, GOOD.replace("input wire d", "input [1:0] d"))
    )
    assert sum(counts.values()) >= 1
