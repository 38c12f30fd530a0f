"""Narrowing proves widths and changes no result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcompile.compiler.ir import operations
from hwcompile.compiler.ir.verify import verify_program
from hwcompile.passes import narrow
from hwcompile.sim import reference
from tests import programs


@given(st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40))
def test_width_is_the_least_symmetric_one(a: int, b: int) -> None:
    low, high = min(a, b), max(a, b)
    bits = narrow.width(low, high)
    assert -operations.limit(bits) <= low and high <= operations.limit(bits)
    assert bits == 2 or max(-low, high) > operations.limit(bits - 1)


@pytest.mark.parametrize("seed", range(5))
def test_results_stay_and_observed_values_lie_in_their_intervals(seed: int) -> None:
    program = programs.tiny_decoder(seed, swiglu=seed % 2 == 0)
    wide = replace(
        program,
        operations=tuple(
            replace(op, output=replace(op.output, bits=op.output.bits + 3))
            if op.output.bits > 13
            else op
            for op in program.operations
        ),
    )
    narrowed = narrow.run(wide)
    verify_program(narrowed)
    ids = {"v0": np.random.default_rng(seed).integers(0, 12, (4, 8, 1))}

    def inside(op: object, output: np.ndarray) -> None:
        value = op.output  # type: ignore[attr-defined]
        assert value.low <= output.min() and output.max() <= value.high

    before = reference.run(wide, ids)["logits"]
    assert np.array_equal(reference.run(narrowed, ids, observe=inside)["logits"], before)


def test_narrowing_twice_is_narrowing_once() -> None:
    program = programs.tiny_encoder()
    assert narrow.run(program).values == program.values
