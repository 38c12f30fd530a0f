"""Lowering of matrices to weight blocks: exact for every matrix, and faults are seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir.weight_logic import (
    IntArray,
    WeightBlock,
    WeightLogicError,
    counts,
    evaluate,
    expand,
)
from hwcompile.passes.lower_weights import lower_weights, signed_digits, simplest

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
ENTRIES = st.sampled_from([(0, 0), (-1, 1), (-8, 7), (-128, 127), (0, 4), (-(1 << 13), 1 << 13)])


@st.composite
def matrices(draw: st.DrawFn) -> IntArray:
    low, high = draw(ENTRIES)
    weight = draw(arrays(np.int64, draw(SIZES), elements=st.integers(low, high)))
    return weight * draw(st.sampled_from([1, 1, 4]))


def products(block: WeightBlock, x: IntArray) -> IntArray:
    return evaluate(block, x) + block.correction


def random_rows(rng: np.random.Generator, n: int, x_bits: int) -> IntArray:
    """Both ends, a mix of them, and random rows."""
    low, high = -(1 << (x_bits - 1)), (1 << (x_bits - 1)) - 1
    x = rng.integers(low, high + 1, (6, n))
    x[0], x[1] = low, high
    x[2] = rng.choice([low, high], n)
    return x


@settings(max_examples=120, deadline=None)
@given(
    matrices(),
    st.integers(1, 13),
    st.sampled_from([(2, 1), (2, 2), (5, 1), (5, 2), (8, 1), (8, 4), (8, 8), (9, 4), (12, 1)]),
    st.booleans(),
    st.integers(0, 99),
)
def test_block_is_the_matrix(
    w: IntArray, phases: int, bits: tuple[int, int], share: bool, seed: int
) -> None:
    x_bits, planes = bits
    block = lower_weights(w, x_bits, phases, share, planes)
    x = random_rows(np.random.default_rng(seed), len(w), x_bits)
    assert np.array_equal(products(block, x), x @ w)
    assert block.trees == -(-w.shape[1] // block.phases) and block.phases <= phases


@pytest.mark.parametrize("kind", ["transposed", "int8", "strided", "uint8"])
def test_any_memory_layout(kind: str) -> None:
    w = np.random.default_rng(0).integers(-128, 128, (6, 8))
    w = {
        "transposed": np.asfortranarray(w),
        "int8": w.astype(np.int8),
        "strided": np.repeat(w, 2, axis=1)[:, ::2],
        "uint8": np.abs(w).astype(np.uint8),
    }[kind]
    x = random_rows(np.random.default_rng(1), 6, 8)
    assert np.array_equal(products(lower_weights(w, 8, 3), x), x @ w.astype(np.int64))


def test_zeros_cost_nothing() -> None:
    """Zero weights, zero columns and zero rows add neither leaves nor adders."""
    rng = np.random.default_rng(2)
    dense = rng.integers(1, 128, (10, 4))
    wide = np.zeros((15, 6), np.int64)
    wide[:10, :4] = dense
    small, large = (counts(lower_weights(w, 8)) for w in (dense, wide))
    assert (small.leaves, small.full_adders) == (large.leaves, large.full_adders)
    assert large.zero_digits > small.zero_digits
    assert (large.taps, large.idle_taps) == (40, 50)
    assert large.spared_adders > small.spared_adders == 0
    assert counts(lower_weights(np.zeros((3, 3), np.int64), 8)).flip_flops == 0


def test_equal_columns_are_shared() -> None:
    """A second output with the same weights, or the opposite ones, costs next to no adders."""
    column = np.random.default_rng(5).integers(-127, 128, (40, 1))
    alone = counts(lower_weights(column, 8)).full_adders
    pair = np.concatenate([column, -column], axis=1)
    shared = counts(lower_weights(pair, 8, share=True)).full_adders
    assert shared < 1.6 * alone < 0.85 * counts(lower_weights(pair, 8)).full_adders


def test_one_adder_for_each_leaf() -> None:
    """A full adder takes two bits away, so a tree needs about one a leaf, whatever its shape."""
    block = lower_weights(np.random.default_rng(3).integers(-127, 128, (64, 16)), 8, 4)
    size = counts(block)
    assert size.full_adders <= size.leaves
    assert size.half_adders <= 4 * 20


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_signed_digits(w: IntArray) -> None:
    """They give the weight back and no two neighbours are set."""
    digits = signed_digits(w)
    total = sum((d << k for k, d in enumerate(digits)), np.zeros_like(w))
    assert np.array_equal(total, w)
    assert not (digits[1:] & digits[:-1]).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.data())
def test_simplest_keeps_what_matters(phases: int, data: st.DataObject) -> None:
    value, care = (data.draw(arrays(np.bool_, (5, phases))) for _ in range(2))
    filled = simplest(value, care)
    assert np.array_equal(filled & care, value & care)


def test_simplest_drops_a_phase_bit() -> None:
    value = np.array([[1, 0, 0, 0]], bool)
    care = np.array([[1, 1, 0, 1]], bool)
    assert simplest(value, care).tolist() == [[True, False, True, False]]


@pytest.mark.parametrize(
    "arguments", [(np.zeros((0, 3), int), 8), (np.zeros(3, int), 8), (np.ones((2, 2)), 8)]
)
def test_bad_matrix(arguments: tuple[IntArray, int]) -> None:
    with pytest.raises(UsageError):
        lower_weights(*arguments)


@pytest.mark.parametrize("x_bits, phases, planes", [(1, 1, 1), (8, 0, 1), (8, 1, 9), (8, 1, 0)])
def test_bad_options(x_bits: int, phases: int, planes: int) -> None:
    with pytest.raises(UsageError):
        lower_weights(np.ones((2, 2), int), x_bits, phases, planes=planes)


# --- faults ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def matrix() -> IntArray:
    return np.random.default_rng(4).integers(-9, 10, (6, 4))


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("phases", [1, 2])
@pytest.mark.parametrize(
    "fault", ["sign", "mask", "input", "plane", "wire", "width", "feedback", "carry"]
)
def test_faults_are_seen(matrix: IntArray, phases: int, planes: int, fault: str) -> None:
    """Each seeded fault is refused by the walk, or changes the matrix it finds."""
    if fault == "plane" and planes == 1:
        pytest.skip("one plane a cycle has no other")
    block = lower_weights(matrix, 8, phases, planes=planes)
    broken = FAULTS[fault](block)
    try:
        found = expand(broken)
    except WeightLogicError:
        return
    assert not np.array_equal(found.weight, matrix)


def _wire(block: WeightBlock, stage: int, to: int) -> WeightBlock:
    stages = list(block.stages)
    inputs = stages[stage].inputs.copy()
    inputs[0, 0] = to
    stages[stage] = replace(stages[stage], inputs=inputs)
    return replace(block, stages=tuple(stages))


def _flipped(table: np.ndarray) -> np.ndarray:
    table = table.copy()
    table[3, 0] ^= True
    return table


def _swapped_carry(block: WeightBlock) -> WeightBlock:
    """The first adder's sum and carry change places at the readers of later stages."""
    first = block.stages[0]
    pair = {first.first: first.first + first.size, first.first + first.size: first.first}
    stages = [
        replace(s, inputs=np.vectorize(lambda b: pair.get(b, b))(s.inputs)) for s in block.stages
    ]
    upper = np.array([pair.get(int(b), int(b)) for b in block.upper_bits])
    return replace(block, stages=tuple(stages), upper_bits=upper)


FAULTS = {
    "sign": lambda b: replace(b, tap_sign=_flipped(b.tap_sign)),
    "mask": lambda b: replace(b, leaf_mask=_flipped(b.leaf_mask)),
    "input": lambda b: replace(b, tap_input=(b.tap_input + 1) % b.inputs),
    "plane": lambda b: replace(b, tap_plane=b.tap_plane[::-1]),
    "wire": lambda b: _wire(b, 0, int(b.stages[0].inputs[0, 0]) + 1),
    "width": lambda b: replace(
        b,
        upper_bits=b.upper_bits[:-1],
        upper_start=np.minimum(b.upper_start, b.upper_start[-1] - 1),
    ),
    "feedback": lambda b: _wire(
        b,
        *next(
            (s, int(b.feedback_start[0]) + 1)
            for s, stage in enumerate(b.stages)
            if stage.inputs[0, 0] != b.feedback_start[0] + 1
        ),
    ),
    "carry": _swapped_carry,
}
