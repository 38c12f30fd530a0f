"""Rows of registers in weight blocks, proven on the Verilog; faults in them are refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hwcompile.compiler.errors import MismatchError
from hwcompile.compiler.ir.weight_logic import WeightBlock
from hwcompile.hdl.cells import PRIMITIVES
from hwcompile.hdl.matrix_block import matrix_block_verilog
from hwcompile.passes.lower_matrix import lower_matrix
from hwcompile.sim.certificate.proof import BlockShape, prove_block
from tests.paces import pace

WEIGHT = np.random.default_rng(0).integers(-127, 128, (20, 6))


def written(block: WeightBlock, folder: Path) -> list[Path]:
    texts = {"block": matrix_block_verilog(block, "block"), **PRIMITIVES}
    for name, text in texts.items():
        (folder / f"{name}.v").write_text(text)
    return [folder / f"{name}.v" for name in texts]


@pytest.mark.parametrize("most_cuts", [1, 3])
@pytest.mark.parametrize(("phases", "planes"), [(1, 1), (3, 1), (2, 4), (1, 8), (6, 8)])
def test_a_cut_block_is_proven(phases: int, planes: int, most_cuts: int, tmp_path: Path) -> None:
    block = lower_matrix(WEIGHT, 8, phases, planes, pace=pace(most_cuts=most_cuts))
    assert block.cuts
    shape = BlockShape(8, block.phases, planes, block.cuts)
    found = prove_block(written(block, tmp_path), "block", WEIGHT, shape)
    assert np.array_equal(found.correction, block.correction)


@pytest.mark.parametrize("claimed", [0, 2])
def test_another_number_of_rows(claimed: int, tmp_path: Path) -> None:
    block = lower_matrix(WEIGHT, 8, 3, pace=pace())
    assert block.cuts == 1
    with pytest.raises(MismatchError):
        prove_block(
            written(block, tmp_path), "block", WEIGHT, BlockShape(8, block.phases, 1, claimed)
        )


_ROW = r"  reg (\[\d+:0\] )(s\d+);\n  always @\(posedge clk\) s\d+ <= ([^;]*);"


@pytest.mark.parametrize(
    ("pattern", "new", "said"),
    [
        # A row of which no bit is held.
        (_ROW, r"  wire \1\2 = \3;", "different cycles"),
        # One bit of it is not.
        (
            _ROW,
            r"  reg \1\2_;\n  always @(posedge clk) \2_ <= \3;\n"
            r"  wire \1\2_now = \3;\n  wire \1\2 = {\2_ >> 1, \2_now[0]};",
            "different cycles",
        ),
        # One bit of it is held twice.
        (
            _ROW,
            r"  reg \1\2_;\n  reg \2_old;\n"
            r"  always @(posedge clk) begin \2_ <= \3; \2_old <= \2_[0]; end\n"
            r"  wire \1\2 = {\2_ >> 1, \2_old};",
            "different cycles",
        ),
        # Two bits change places.
        (
            _ROW,
            r"  reg \1\2_;\n  always @(posedge clk) \2_ <= \3;\n"
            r"  wire \1\2 = {\2_ >> 2, \2_[0], \2_[1]};",
            "output column|carry",
        ),
        # A row that may stand still, and one that the other edge moves.
        (
            r"always @\(posedge clk\) (s\d+) <=",
            r"always @(posedge clk) if (first) \1 <=",
            "loop",
        ),
        (r"always @\(posedge clk\) (s\d+) <=", r"always @(negedge clk) \1 <=", "falling"),
        # What begins a phase is not as late as its data, or later, or never there.
        (r"\{~first0\}", "{~first}", "different cycles"),
        (r"first0 <= first;", "first0 <= 1'b0;", "constant"),
        (r"first0 <= first;", "first0 <= ~first;", "although first is 1|accumulator"),
    ],
)
def test_a_fault_is_refused(pattern: str, new: str, said: str, tmp_path: Path) -> None:
    block = lower_matrix(WEIGHT, 8, 3, pace=pace())
    files = written(block, tmp_path)
    text = files[0].read_text()
    at = next(p for p in re.finditer(pattern, text) if "count" not in p[0])
    text = text[: at.start()] + at.expand(new) + text[at.end() :]
    files[0].write_text(re.sub(r"`ifdef.*?`else|`endif", "", text, flags=re.DOTALL))
    with pytest.raises(MismatchError, match=said):
        prove_block(files, "block", WEIGHT, BlockShape(8, block.phases, 1, 1))
