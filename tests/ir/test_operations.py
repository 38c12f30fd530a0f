"""Every operation: the reference equals the oracle, and results stay inside the interval rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwcompile.compiler.ir import operations
from hwcompile.compiler.ir import program as ir
from tests.oracle import ORACLE

Case = tuple[ir.Operation, tuple[ir.Value, ...], tuple[np.ndarray, ...], int, int]
Draw = Callable[[st.SearchStrategy[Any]], Any]


def value(draw: Draw, rows: int, cols: int, bits: int | None = None) -> ir.Value:
    bits = bits or draw(st.integers(2, 16))
    most = operations.limit(bits)
    low, high = sorted((draw(st.integers(-most, most)), draw(st.integers(-most, most))))
    return ir.Value("x", rows, cols, bits, low, high, 1.0)


def array(draw: Draw, v: ir.Value) -> np.ndarray:
    """A matrix of a value: corners and zero often."""
    corners = sorted({v.low, v.high, min(max(0, v.low), v.high)})
    element = st.one_of(st.sampled_from(corners), st.integers(v.low, v.high))
    flat = draw(st.lists(element, min_size=v.rows * v.cols, max_size=v.rows * v.cols))
    return np.array(flat, np.int64).reshape(v.rows, v.cols)


def table(draw: Draw, rows: int, cols: int, most: int) -> np.ndarray:
    v = ir.Value("x", rows, cols, 16, -most, most, 1.0)
    return array(draw, v)


def output(draw: Draw, rows: int, cols: int) -> ir.Value:
    return ir.Value("y", rows, cols, draw(st.integers(2, 18)), 0, 0, 1.0)


sizes = st.integers(1, 5)
shifts = st.integers(-3, 20)
multipliers = st.integers(1, 300)


@st.composite
def embed(draw: Draw) -> Case:
    rows, cols, count = draw(sizes), draw(sizes), draw(sizes)
    ids = ir.Value("x", rows, 1, 8, 0, count + 2, 1.0)
    op = ir.Embed(output(draw, rows, cols), ("x",), 0, "", table(draw, count, cols, 1))
    return op, (ids,), (array(draw, ids),), 0, rows


@st.composite
def constant_rows(draw: Draw) -> Case:
    rows, cols = draw(sizes), draw(sizes)
    first = draw(st.integers(0, rows - 1))
    op = ir.Rows(output(draw, rows, cols), (), 0, "", table(draw, rows, cols, 1))
    return op, (), (), first, rows - first


@st.composite
def linear(draw: Draw) -> Case:
    rows, n, m = draw(sizes), draw(sizes), draw(sizes)
    x = value(draw, rows, n)
    column = [
        np.array(draw(st.lists(s, min_size=m, max_size=m)), np.int64)
        for s in (st.integers(-(2**20), 2**20), multipliers, shifts)
    ]
    weight = table(draw, n, m, 127)
    op = ir.Linear(output(draw, rows, m), ("x",), 0, "", weight, *column)
    return op, (x,), (array(draw, x),), 0, rows


@st.composite
def rescale(draw: Draw) -> Case:
    x = value(draw, draw(sizes), draw(sizes))
    op = ir.Rescale(output(draw, x.rows, x.cols), ("x",), 0, "", draw(multipliers), draw(shifts))
    return op, (x,), (array(draw, x),), 0, x.rows


@st.composite
def lookup(draw: Draw) -> Case:
    x = value(draw, draw(sizes), draw(sizes), 4)
    first = x.low - draw(st.integers(0, 3))
    length = x.high - first + 1 + draw(st.integers(0, 3))
    entries = table(draw, 1, length, 1)[0]
    op = ir.Lookup(output(draw, x.rows, x.cols), ("x",), 0, "", entries, first)
    return op, (x,), (array(draw, x),), 0, x.rows


def pair(draw: Draw) -> tuple[ir.Value, ir.Value]:
    rows, cols = draw(sizes), draw(sizes)
    one = draw(st.sampled_from([(rows, rows), (1, rows), (rows, 1)]))
    return value(draw, one[0], cols), value(draw, one[1], cols)


@st.composite
def add(draw: Draw) -> Case:
    a, b = pair(draw)
    made = output(draw, max(a.rows, b.rows), a.cols)
    scale = st.integers(-9, 9)
    op = ir.Add(made, ("a", "b"), 0, "", draw(scale), draw(scale), draw(shifts))
    return op, (a, b), (array(draw, a), array(draw, b)), 0, made.rows


@st.composite
def multiply(draw: Draw) -> Case:
    a, b = pair(draw)
    made = output(draw, max(a.rows, b.rows), a.cols)
    op = ir.Multiply(made, ("a", "b"), 0, "", draw(multipliers), draw(shifts))
    return op, (a, b), (array(draw, a), array(draw, b)), 0, made.rows


@st.composite
def normalise(draw: Draw) -> Case:
    rows, d = draw(sizes), draw(st.integers(1, 20))
    x = value(draw, rows, d)
    gain, bias = table(draw, 1, d, 255)[0], table(draw, 1, d, 2**16)[0]
    op = ir.Normalise(
        output(draw, rows, d), ("x",), 0, "",
        draw(st.sampled_from(["layer", "rms"])), draw(st.sampled_from([0, 1, 5, 1000])),
        draw(st.integers(0, 6)), gain, bias, draw(st.integers(0, 20)),
    )  # fmt: skip
    return op, (x,), (array(draw, x),), 0, rows


@st.composite
def rotate(draw: Draw) -> Case:
    rows, period, heads = draw(sizes), draw(sizes), draw(sizes)
    first = draw(st.integers(0, rows - 1))
    x = value(draw, rows - first, period * heads)
    partner = np.array(draw(st.permutations(range(x.cols))), np.int64)
    cosine, sine = table(draw, rows, period, 1 << 14), table(draw, rows, period, 1 << 14)
    made = output(draw, rows, x.cols)
    op = ir.Rotate(made, ("x",), 0, "", cosine, sine, partner, draw(st.integers(8, 20)))
    return op, (x,), (array(draw, x),), first, x.rows


def bias(draw: Draw, heads: int, rows: int, keys: int, causal: bool) -> np.ndarray:
    groups = draw(st.sampled_from([0, 1, heads]))
    if not groups:
        return np.zeros((0, 0), np.int64)
    if draw(st.booleans()):
        return table(draw, groups * rows, keys, 900).reshape(groups, rows, keys)
    return table(draw, groups, rows if causal else rows + keys - 1, 900)


@st.composite
def attend(draw: Draw) -> Case:
    kv_heads, share, size, value_size = (draw(st.integers(1, 3)) for _ in range(4))
    keys, causal = draw(sizes), draw(st.booleans())
    first = draw(st.integers(0, keys - 1)) if causal else 0
    rows = keys - first if causal else draw(sizes)
    heads = kv_heads * share
    q = value(draw, rows, heads * size, 8)
    k, v = value(draw, keys, kv_heads * size, 8), value(draw, keys, kv_heads * value_size, 8)
    inputs = [q, k, v]
    if draw(st.booleans()):
        inputs.append(ir.Value("f", keys, 1, 2, 0, 1, 1.0))
    steps = draw(st.lists(st.integers(0, 4095), min_size=1, max_size=20))
    entries = np.array(sorted(steps, reverse=True), np.int64)
    entries[0] = max(entries[0], 1)
    bits = draw(st.integers(8, 24))
    op = ir.Attend(
        output(draw, keys if causal else rows, heads * value_size),
        tuple("qkvf")[: len(inputs)], 0, "",
        heads, kv_heads, causal, draw(st.integers(1, 9)), draw(st.integers(0, 14)), entries,
        bits, bits - draw(st.integers(-2, 4)),
        bias(draw, heads, keys if causal else rows, keys, causal),
    )  # fmt: skip
    return op, tuple(inputs), tuple(array(draw, x) for x in inputs), first, rows


@st.composite
def gather(draw: Draw) -> Case:
    inputs = tuple(value(draw, draw(sizes), draw(sizes)) for _ in range(draw(st.integers(1, 3))))
    elements = sum(x.rows * x.cols for x in inputs)
    rows, cols = draw(sizes), draw(sizes)
    picks = st.lists(st.integers(0, elements - 1), min_size=rows * cols, max_size=rows * cols)
    index = np.array(draw(picks), np.int64).reshape(rows, cols)
    op = ir.Gather(output(draw, rows, cols), tuple("abc")[: len(inputs)], 0, "", index)
    return op, inputs, tuple(array(draw, x) for x in inputs), 0, rows


@st.composite
def sum_rows(draw: Draw) -> Case:
    x = value(draw, draw(sizes), draw(sizes))
    inputs = [x, ir.Value("f", x.rows, 1, 2, 0, 1, 1.0)][: draw(st.integers(1, 2))]
    keys = ("x", "f")[: len(inputs)]
    op = ir.SumRows(output(draw, 1, x.cols), keys, 0, "", draw(multipliers), draw(shifts))
    return op, tuple(inputs), tuple(array(draw, v) for v in inputs), 0, 1


@st.composite
def delay(draw: Draw) -> Case:
    x = value(draw, draw(sizes), draw(sizes))
    first = draw(st.integers(0, 2))
    op = ir.Delay(output(draw, x.rows, x.cols), ("x",), 0, "", table(draw, 1, x.cols, 9)[0])
    return op, (x,), (array(draw, x),), first, x.rows


CASES: dict[str, st.SearchStrategy[Case]] = {
    "embed": embed(),
    "rows": constant_rows(),
    "linear": linear(),
    "rescale": rescale(),
    "lookup": lookup(),
    "add": add(),
    "multiply": multiply(),
    "normalise": normalise(),
    "rotate": rotate(),
    "attend": attend(),
    "gather": gather(),
    "sum_rows": sum_rows(),
    "delay": delay(),
}


def plain(op: ir.Operation) -> dict[str, Any]:
    values = {f.name: getattr(op, f.name) for f in fields(op)}
    lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}
    return {**lists, "bits": op.output.bits, "rows": op.output.rows}


def test_every_operation_has_a_case_and_an_oracle() -> None:
    names = [row.name for row in operations.OPERATIONS.values()]
    assert names == list(CASES) == list(ORACLE)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_reference_equals_oracle(name: str, data: st.DataObject) -> None:
    op, _, xs, first, rows = data.draw(CASES[name])
    got = operations.spec(op).meaning(op, xs, first, rows)
    assert got.tolist() == ORACLE[name](plain(op), [x.tolist() for x in xs], first, rows)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_results_lie_in_the_interval(name: str, data: st.DataObject) -> None:
    op, inputs, xs, first, rows = data.draw(CASES[name])
    op = replace(op, output=replace(op.output, bits=62))  # nothing saturates
    got = operations.spec(op).meaning(op, xs, first, rows)
    low, high = operations.spec(op).interval(op, inputs)
    assert low <= got.min() and got.max() <= high


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_leading_axes_are_samples(name: str, data: st.DataObject) -> None:
    op, _, xs, first, rows = data.draw(CASES[name])
    if not xs:
        return
    meaning = operations.spec(op).meaning
    one = meaning(op, xs, first, rows)
    two = meaning(op, tuple(np.stack([x, x[::-1]]) for x in xs), first, rows)
    assert np.array_equal(two[0], one)
    flipped = meaning(op, tuple(np.ascontiguousarray(x[::-1]) for x in xs), first, rows)
    assert np.array_equal(two[1], flipped)


@given(st.integers(0, 2**62 - 1))
def test_integer_root(v: int) -> None:
    root = int(operations.integer_sqrt(np.array([v]))[0])
    assert root * root <= v < (root + 1) ** 2


@pytest.mark.parametrize("root", [1, 94906265, 94906266, 2**31 - 1])
def test_integer_root_beside_squares(root: int) -> None:
    squares = np.array([root * root - 1, root * root, root * root + 2 * root])
    assert operations.integer_sqrt(squares).tolist() == [root - 1, root, root]


def test_rounding_is_half_up_for_both_signs() -> None:
    halves = np.array([-5, -3, -1, 1, 3, 5])
    assert operations.round_shift(halves, 1).tolist() == [-2, -1, 0, 1, 2, 3]
    assert operations.round_shift(halves, 0).tolist() == halves.tolist()
    assert operations.round_shift(halves, -2).tolist() == (halves * 4).tolist()


def test_saturation_is_symmetric() -> None:
    assert operations.saturate(np.array([-200, -128, 127, 200]), 8).tolist() == [
        -127,
        -127,
        127,
        127,
    ]
