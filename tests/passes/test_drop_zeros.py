"""Dropping zeros changes shapes, never results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.verify import verify_program
from hwcompile.passes import drop_zeros
from hwcompile.sim import reference
from tests import programs


def thin(program: ir.Program, origin_of: str, row: int | None, column: int | None) -> ir.Program:
    """The matrix that makes ``origin_of`` without the weights of a row or a column."""

    def change(op: ir.Operation) -> ir.Operation:
        if op.output.key != origin_of or not isinstance(op, ir.Linear):
            return op
        weight = op.weight.copy()
        if row is not None:
            weight[row] = 0
        if column is not None:
            weight[:, column] = 0
        return replace(op, weight=weight)

    return replace(program, operations=tuple(change(op) for op in program.operations))


def matrices(program: ir.Program) -> list[ir.Linear]:
    return [op for op in program.operations if isinstance(op, ir.Linear)]


def logits(program: ir.Program) -> np.ndarray:
    ids = np.random.default_rng(3).integers(0, 12, (4, 8, 1))
    return reference.run(program, {program.inputs[0].value.key: ids})["logits"]


@pytest.mark.parametrize("swiglu", [True, False])
def test_a_hidden_unit_nothing_reads_is_removed(swiglu: bool) -> None:
    program = programs.tiny_decoder(swiglu=swiglu)
    down = matrices(program)[-2]
    thinned = thin(program, down.output.key, row=5, column=None)
    dropped = drop_zeros.run(thinned)
    verify_program(dropped.program)
    assert matrices(dropped.program)[-2].weight.shape == (15, 8)
    assert matrices(dropped.program)[-3].weight.shape == (8, 15)
    assert np.array_equal(logits(dropped.program), logits(thinned))
    assert any("16x8 became 15x8" in line for line in dropped.lines)


def test_a_constant_hidden_unit_moves_into_the_bias() -> None:
    program = programs.tiny_decoder(swiglu=False)
    up = matrices(program)[-3]
    thinned = thin(program, up.output.key, row=None, column=2)
    dropped = drop_zeros.run(thinned)
    verify_program(dropped.program)
    assert matrices(dropped.program)[-3].weight.shape == (8, 15)
    assert np.array_equal(logits(dropped.program), logits(thinned))


def test_columns_of_the_residual_stream_stay() -> None:
    program = programs.tiny_decoder()
    output = matrices(program)[3]
    thinned = thin(program, output.output.key, row=None, column=1)
    dropped = drop_zeros.run(thinned)
    assert [op.weight.shape for op in matrices(dropped.program)] == [
        op.weight.shape for op in matrices(program)
    ]
    assert np.array_equal(logits(dropped.program), logits(thinned))


def test_zeros_are_counted() -> None:
    program = programs.tiny_decoder()
    line = drop_zeros.run(program).lines[0]
    weight = matrices(program)[0].weight
    assert f"{(weight == 0).sum()} of {weight.size} weights are zero" in line
