"""Rows of registers in the trees of blocks: when, where, how many, and that faults are seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hwcompile.compiler.ir.weight_logic import (
    IntArray,
    Stage,
    WeightBlock,
    WeightLogicError,
    counts,
    evaluate,
    expand,
)
from hwcompile.passes.cut_trees import slowest_ns
from hwcompile.passes.lower_matrix import lower_matrix
from hwcompile.passes.lower_weights import lower_weights
from tests.paces import pace

RNG = np.random.default_rng(0)
WEIGHT = RNG.integers(-127, 128, (20, 6))
X = RNG.integers(-128, 128, (40, 20))


@pytest.mark.parametrize("most_cuts", [1, 3])
@pytest.mark.parametrize(("phases", "planes"), [(1, 1), (1, 3), (3, 1), (2, 4), (1, 8), (6, 8)])
def test_a_cut_block_is_the_matrix(phases: int, planes: int, most_cuts: int) -> None:
    """Run cycle by cycle with its registers; the correction is that of the block without."""
    plain = lower_matrix(WEIGHT, 8, phases, planes)
    block = lower_matrix(WEIGHT, 8, phases, planes, pace=pace(most_cuts=most_cuts))
    assert 1 <= block.cuts <= most_cuts
    assert np.array_equal(evaluate(block, X) + block.correction, X @ WEIGHT)
    assert np.array_equal(block.correction, plain.correction)
    assert slowest_ns(block, pace()) < slowest_ns(plain, pace())


@pytest.mark.parametrize(("phases", "planes"), [(1, 1), (3, 1), (1, 8)])
def test_only_what_is_too_slow_is_cut(phases: int, planes: int) -> None:
    plain = lower_matrix(WEIGHT, 8, phases, planes)
    reached = slowest_ns(plain, pace())
    same = lower_matrix(WEIGHT, 8, phases, planes, pace=pace(reached, 4))
    assert same.cuts == 0 and len(same.stages) == len(plain.stages)
    assert all(
        np.array_equal(a.inputs, b.inputs) for a, b in zip(same.stages, plain.stages, strict=True)
    )
    cut = lower_matrix(WEIGHT, 8, phases, planes, pace=pace(0.95 * reached, 4))
    assert cut.cuts == 1
    assert slowest_ns(cut, pace()) <= 0.95 * reached


def test_few_registers_and_no_other_adder() -> None:
    """A folded tree of many leaves is cut where little more than its accumulator's width is."""
    weight = np.random.default_rng(1).integers(-127, 128, (256, 8))
    plain = lower_weights(weight, 8, 8)
    block = lower_weights(weight, 8, 8, pace=pace(2.5))
    assert block.cuts == 1
    made, before = counts(block), counts(plain)
    assert made.full_adders == before.full_adders
    width = int(plain.upper_widths[0])
    assert width < made.flip_flops - before.flip_flops < 3 * width


def test_no_matrix_no_cut() -> None:
    zero = lower_weights(np.zeros((3, 4), np.int64), 8, 2, pace=pace())
    assert zero.cuts == 0


def _without_register(block: WeightBlock) -> WeightBlock:
    """One bit goes past the row."""
    row = next(s for s in block.stages if s.kind == "register")
    return _renumbered(block, {row.first: int(row.inputs[0, 0])})


def _fed_back_late(block: WeightBlock) -> WeightBlock:
    """The row in front of the accumulators: the feedback takes a cycle more."""
    bits = block.upper_bits[block.upper_bits >= 0]
    end = block.stages[-1].end
    stage = Stage("register", bits[None], end)
    moved = np.where(block.upper_bits < 0, -1, end + np.cumsum(block.upper_bits >= 0) - 1)
    stages = (*block.stages, stage)
    return replace(block, stages=stages, upper_bits=moved, cuts=block.cuts + 1)


def _renumbered(block: WeightBlock, change: dict[int, int]) -> WeightBlock:
    def moved(bits: IntArray) -> IntArray:
        return np.vectorize(lambda bit: change.get(int(bit), int(bit)))(bits)

    stages = tuple(replace(s, inputs=moved(s.inputs)) for s in block.stages)
    return replace(block, stages=stages, upper_bits=moved(block.upper_bits))


FAULTS: dict[str, Callable[[WeightBlock], WeightBlock]] = {
    "a bit past the row": _without_register,
    "the row behind the feedback": _fed_back_late,
    "a cut too many claimed": lambda block: replace(block, cuts=block.cuts + 1),
    "none claimed": lambda block: replace(block, cuts=0),
}


@pytest.mark.parametrize("phases", [1, 3])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(fault: str, phases: int) -> None:
    block = lower_weights(WEIGHT, 8, phases, pace=pace())
    expand(block)
    with pytest.raises(WeightLogicError, match="cycle"):
        expand(FAULTS[fault](block))
