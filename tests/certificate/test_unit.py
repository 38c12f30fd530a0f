"""The linear unit of small chips, proven up to its column sums; faults in it are named."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwcompile.compiler.certify import prove_blocks, prove_linear_unit
from hwcompile.compiler.emit.report import ModuleCheck
from hwcompile.compiler.errors import MismatchError
from hwcompile.compiler.ir import program as ir
from hwcompile.passes.choose_styles import Style
from hwcompile.sim.certificate.proof import BlockProof
from tests import chips, programs
from tests.paces import pace

UNIT = "hw_core_linear.v"


def matrices(built: chips.Built) -> list[ir.Linear]:
    unit = built.chip.unit("linear")
    assert unit is not None
    return [op for op in unit.operations if isinstance(op, ir.Linear)]


def proofs_of(built: chips.Built) -> dict[str, BlockProof]:
    return prove_blocks(built.folder, built.program, matrices(built))


def check(built: chips.Built, proofs: dict[str, BlockProof]) -> ModuleCheck | None:
    return prove_linear_unit(built.folder, built.program, matrices(built), proofs)


def scaled(program: ir.Program) -> ir.Program:
    """The program with multipliers other than 1."""
    rng = np.random.default_rng(0)
    made = [
        replace(op, multiplier=rng.integers(1, 9, op.multiplier.shape), shift=op.shift + 3)
        if isinstance(op, ir.Linear)
        else op
        for op in program.operations
    ]
    return replace(program, operations=tuple(made))


@pytest.mark.parametrize("style", ["parallel", "folded"])
def test_styles(style: Style, tmp_path: Path) -> None:
    built = chips.build(programs.tiny_decoder(swiglu=False), tmp_path, style)
    found = check(built, proofs_of(built))
    assert found is not None and found.status == "bounded"


def test_rows_of_registers(tmp_path: Path) -> None:
    """Blocks with one and with more; a unit that takes sums a cycle early is named."""
    program = programs.tiny_decoder(swiglu=False)
    built = chips.build(program, tmp_path, pace=pace(most_cuts=3))
    proofs = proofs_of(built)
    found = check(built, proofs)
    assert found is not None and found.status == "bounded"
    early = tmp_path / "early"
    chips.build(program, early)
    (tmp_path / UNIT).write_text((early / UNIT).read_text())
    with pytest.raises(MismatchError, match="not taken after all planes"):
        check(built, proofs)


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> tuple[chips.Built, dict[str, BlockProof]]:
    program = scaled(programs.tiny_decoder(swiglu=False))
    built = chips.build(program, tmp_path_factory.mktemp("chip"))
    return built, proofs_of(built)


def test_with_multipliers(chip: tuple[chips.Built, dict[str, BlockProof]]) -> None:
    assert check(*chip) is not None


@pytest.mark.parametrize(
    ("pattern", "new", "said"),
    [
        (r" constant\[3\] = (\d+'h)\w+", r" constant[3] = \g<1>5", "column 3 of .*constant"),
        (r" multiplier\[2\] = (\d+'h)\w+", r" multiplier[2] = \g<1>b", "column 2 .*multiplier is"),
        (r" shift\[2\] = (\d+'h)\w+", r" shift[2] = \g<1>1", "column 2 .*shift is 1 instead"),
        (r"held >> \d+'h(\w+)", r"held >> 5'h2", "not of its accumulator"),
    ],
)
def test_a_fault_is_named(
    chip: tuple[chips.Built, dict[str, BlockProof]], pattern: str, new: str, said: str
) -> None:
    path = chip[0].folder / UNIT
    text = path.read_text()
    edited, count = re.subn(pattern, new, text, count=1)
    assert count == 1
    path.write_text(edited)
    try:
        with pytest.raises(MismatchError, match=said):
            check(*chip)
    finally:
        path.write_text(text)
