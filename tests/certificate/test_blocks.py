"""Emitted weight blocks against their matrices, by proof on the Verilog."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwcompile.hdl.cells import PRIMITIVES
from hwcompile.hdl.matrix_block import PhaseDecode, matrix_block_verilog
from hwcompile.passes.lower_weights import lower_weights
from hwcompile.sim.certificate.circuit import UnreadableCircuit
from hwcompile.sim.certificate.proof import BlockProof, BlockShape, NotProven, prove_block

SMALL = np.array([[3, -128, 0], [-7, 5, 1], [0, 127, -1], [64, 2, 77]])


def emitted(
    weight: np.ndarray, bits: int, phases: int, folder: Path, planes: int = 1
) -> list[Path]:
    """The files of a block and of the cells that it stands on."""
    block = lower_weights(weight, bits, phases, planes=planes)
    texts = {"block": matrix_block_verilog(block, "block"), **PRIMITIVES}
    for name, text in texts.items():
        (folder / f"{name}.v").write_text(text)
    return [folder / f"{name}.v" for name in texts]


def prove(
    files: list[Path], weight: np.ndarray, bits: int, phases: int, planes: int = 1
) -> BlockProof:
    return prove_block(files, "block", weight, BlockShape(bits, phases, planes))


@pytest.mark.parametrize("planes", [1, 3, 4, 8])
@pytest.mark.parametrize("phases", [1, 2, 3])
def test_block_and_its_correction(phases: int, planes: int, tmp_path: Path) -> None:
    found = prove(emitted(SMALL, 8, phases, tmp_path, planes), SMALL, 8, phases, planes)
    wanted = lower_weights(SMALL, 8, phases, planes=planes).correction
    assert np.array_equal(found.correction, wanted)


@pytest.mark.parametrize("decode", ["local", "shared"])
def test_respun_block(decode: PhaseDecode, tmp_path: Path) -> None:
    """Three modules, of which the weights are connections alone."""
    files = emitted(SMALL, 8, 3, tmp_path)
    block = lower_weights(SMALL, 8, 3, magnitude_bits=8)
    files[0].write_text(matrix_block_verilog(block, "block", decode, respin=True))
    assert np.array_equal(prove(files, SMALL, 8, 3).correction, block.correction)


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "transposed": lambda w: np.ascontiguousarray(w.T).T,
    "strided": lambda w: np.repeat(np.repeat(w, 2, 0), 3, 1)[::2, ::3],
    "reversed": lambda w: np.ascontiguousarray(w[::-1, ::-1])[::-1, ::-1],
}


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Integer matrices of every type and layout; with zeros, extremes and repeated columns."""
    n, m = draw(st.tuples(st.integers(1, 9), st.integers(1, 5)))
    most = draw(st.sampled_from([0, 1, 7, 127]))
    seed = draw(st.integers(0, 1 << 16))
    weight = np.random.default_rng(seed).integers(-most - (most == 127), most + 1, (n, m))
    if draw(st.booleans()):
        weight[:, draw(st.integers(0, m - 1))] = weight[:, 0]
    kind = draw(st.sampled_from([np.int8, np.int16, np.int32, np.int64, ">i2", ">i8"]))
    return LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](weight.astype(kind))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(matrices(), st.sampled_from([2, 4, 8]), st.integers(1, 4), st.sampled_from([1, 2, 8]))
def test_any_matrix(
    tmp_path_factory: pytest.TempPathFactory,
    weight: np.ndarray,
    bits: int,
    phases: int,
    planes: int,
) -> None:
    planes = min(planes, bits)
    phases = -(-weight.shape[1] // -(-weight.shape[1] // phases))  # what the trees really need
    folder = tmp_path_factory.mktemp("block")
    prove(emitted(weight, bits, phases, folder, planes), weight, bits, phases, planes)


def edited(files: list[Path], pattern: str, new: str, number: int = 0) -> list[Path]:
    """Replace one place in the text of a block, or of a cell."""
    for path in files:
        text = path.read_text()
        active = text.index("`else") if "`else" in text else 0
        places = [
            p
            for p in re.finditer(pattern, text)
            if not 0 < text.find("`ifdef") < p.start() < active
        ]
        if places:
            at = places[number]
            path.write_text(text[: at.start()] + at.expand(new) + text[at.end() :])
            return files
    raise AssertionError(pattern)


@pytest.mark.parametrize(
    ("phases", "pattern", "new", "said"),
    [
        (1, r"x\[1\]", "x[2]", "output column 0, input 1: expected coefficient"),
        (1, r"\^ (\d+)'h([0-9a-f]+);", r"^ ~\1'h\2;", "expected coefficient"),
        (2, r"1'd0: (\w+) = (\d+)'h\w+", r"1'd0: \1 = \2'h1", "expected coefficient"),
        (1, r"~first", "1'b1", "although first is 1"),
        (1, r"\{(\d+)\{~first\}\}", r"{\1{first}}", "accumulator"),
        (1, r"back0\[1\]", "back0[0]", "column 0"),
        (1, r"a \^ b \^ c", "a ^ b ^ ~c", "does not add"),
        (1, r"posedge", "negedge", "falling"),
    ],
)
def test_a_fault_is_named(phases: int, pattern: str, new: str, said: str, tmp_path: Path) -> None:
    files = edited(emitted(SMALL, 8, phases, tmp_path), pattern, new)
    with pytest.raises((NotProven, UnreadableCircuit), match=said):
        prove(files, SMALL, 8, phases)


SUMMED = """\
module block (
    input wire clk, en, first, input wire [2:0] x, output wire [{top}+1:0] acc);
  reg [{top}:0] upper;
  reg lower;
  wire [{top}:0] back = first ? 0 : upper >> 1;
  always @(posedge clk) if (en) begin
    upper <= x[0] + x[1] + x[2] + back;
    lower <= upper[0];
  end
  assign acc = {{upper, lower}};
endmodule
"""


@pytest.mark.parametrize(("top", "fits"), [(2, True), (1, False)])
def test_word_adders_and_a_narrow_accumulator(top: int, fits: bool, tmp_path: Path) -> None:
    """Equal modulo the width is not enough."""
    source = tmp_path / "block.v"
    source.write_text(SUMMED.format(top=top))
    weight = np.ones((3, 1), np.int64)
    if fits:
        assert prove([source], weight, 2, 1).correction.tolist() == [-6]
        return
    with pytest.raises(NotProven, match="a sum of 0 to 4 does not fit the 2 bits"):
        prove([source], weight, 2, 1)


def test_another_matrix(tmp_path: Path) -> None:
    files = emitted(SMALL, 8, 1, tmp_path)
    wrong = SMALL.copy()
    wrong[3, 2] += 1
    with pytest.raises(
        NotProven, match="output column 2, input 3: expected coefficient 78, found 77"
    ):
        prove(files, wrong, 8, 1)
