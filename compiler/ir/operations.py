"""The operation table: each operation of a Program declared once.

A row gives the integer meaning (numpy, whole matrices), the interval of the exact result, the cost
in elementary steps and the key of the hardware block. The reference executes ``meaning``; width
narrowing uses ``interval``; the chip plan uses ``work`` and ``block``. ``docs/integer-contract.md``
says the same in prose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.program import IntArray

NORMED_FRACTION = 12
ROTATE_FRACTION = 14
INVERSE_BITS = 15

Interval = tuple[int, int]


# --- rounding and saturation -------------------------------------------------------------------


def limit(bits: int) -> int:
    """Largest magnitude of a symmetric ``bits``-wide value: ``2^(bits-1) - 1``."""
    return (1 << (bits - 1)) - 1


def saturate(x: IntArray, bits: int) -> IntArray:
    """Clip to the symmetric range ``-(2^(bits-1)-1) .. 2^(bits-1)-1``."""
    return np.clip(x, -limit(bits), limit(bits))


def round_shift(x: IntArray, shift: int | IntArray) -> IntArray:
    """``floor((x + 2^(shift-1)) / 2^shift)``, half up; a negative shift is a left shift."""
    s = np.asarray(shift, dtype=np.int64)
    right = np.maximum(s, 0)
    half = np.where(right > 0, np.left_shift(1, np.maximum(right - 1, 0)), 0)
    return np.asarray(np.left_shift(np.right_shift(x + half, right), np.maximum(-s, 0)), np.int64)


def requantise(
    x: IntArray, multiplier: int | IntArray, shift: int | IntArray, bits: int
) -> IntArray:
    """``saturate(round_shift(x * multiplier, shift), bits)``."""
    return saturate(round_shift(x * multiplier, shift), bits)


# --- meanings: (operation, input arrays, first row) -> output array ------------------------------
# ``first`` is the position of row 0 (0 unless a sequence section is executed in pieces).


def _embed(op: ir.Embed, ids: IntArray, first: int) -> IntArray:
    known = (ids[:, 0] >= 0) & (ids[:, 0] < len(op.table))
    return np.where(known[:, None], op.table[np.where(known, ids[:, 0], 0)], 0)


def _rows(op: ir.Rows, rows: int, first: int) -> IntArray:
    return op.table[first : first + rows]


def _linear(op: ir.Linear, x: IntArray, first: int) -> IntArray:
    # Every partial sum of an int8 product row is far below 2^53, so a float64 product is exact and
    # about 50 times faster than an integer one; wider sums take the integer path.
    bound = int(np.abs(x).max(initial=0)) * int(np.abs(op.weight).sum(0).max(initial=0))
    if bound < 1 << 52:
        acc = (x.astype(np.float64) @ op.weight.astype(np.float64)).astype(np.int64)
    else:
        acc = x @ op.weight
    return requantise(acc + op.bias, op.multiplier, op.shift, op.output.bits)


def _rescale(op: ir.Rescale, x: IntArray, first: int) -> IntArray:
    return requantise(x, op.multiplier, op.shift, op.output.bits)


def _lookup(op: ir.Lookup, x: IntArray, first: int) -> IntArray:
    return op.table[x - op.first]


def _add(op: ir.Add, a: IntArray, b: IntArray, first: int) -> IntArray:
    total = a * op.multiplier_a + b * op.multiplier_b
    return saturate(round_shift(total, op.shift), op.output.bits)


def _multiply(op: ir.Multiply, a: IntArray, b: IntArray, first: int) -> IntArray:
    return requantise(a * b, op.multiplier, op.shift, op.output.bits)


def _normalise(op: ir.Normalise, x: IntArray, first: int) -> IntArray:
    d = x.shape[1]
    total = x.sum(1) if op.kind == "layer" else np.zeros(len(x), np.int64)
    n = d * x - total[:, None]
    out = np.zeros_like(x)
    for r in range(len(x)):
        # Python integers: V << 2f may pass 63 bits.
        v = d * int((x[r] * x[r]).sum()) - int(total[r]) ** 2 + op.epsilon
        root = isqrt(v << 2 * op.root_fraction)
        if root:
            b = root.bit_length()
            inverse = (1 << (b + INVERSE_BITS)) // root
            out[r] = round_shift(
                n[r] * inverse, b + INVERSE_BITS - op.root_fraction - NORMED_FRACTION
            )
    return saturate(round_shift(out * op.gain + op.bias, op.shift), op.output.bits)


def _rotate(op: ir.Rotate, x: IntArray, first: int) -> IntArray:
    period = op.cosine.shape[1]
    column = np.arange(x.shape[1]) % period
    cosine = op.cosine[first : first + len(x)][:, column]
    sine = op.sine[first : first + len(x)][:, column]
    return requantise(x * cosine + x[:, op.partner] * sine, 1, op.shift, op.output.bits)


def _attend(
    op: ir.Attend, q: IntArray, k: IntArray, v: IntArray, flags: IntArray | None, first: int
) -> IntArray:
    rows, keys = len(q), len(k)
    size, value_size = q.shape[1] // op.heads, v.shape[1] // op.kv_heads
    visible = np.ones((rows, keys), bool)
    if op.causal:
        visible = np.arange(keys)[None, :] <= first + np.arange(rows)[:, None]
    if flags is not None:
        visible = visible & (flags[:keys, 0] != 0)[None, :]
    out = np.zeros((rows, op.heads * value_size), np.int64)
    for h in range(op.heads):
        g = h // (op.heads // op.kv_heads)
        scores = q[:, h * size : (h + 1) * size] @ k[:, g * size : (g + 1) * size].T
        top = np.where(visible, scores, np.iinfo(np.int64).min).max(1, keepdims=True)
        distance = np.where(visible, top - scores, 0)
        index = np.minimum(round_shift(distance * op.multiplier, op.shift), len(op.exp_table) - 1)
        p = np.where(visible, op.exp_table[index], 0)
        total = p.sum(1, keepdims=True)
        reciprocal = (1 << op.reciprocal_bits) // np.maximum(total, 1)
        acc = p @ v[:, g * value_size : (g + 1) * value_size]
        part = saturate(round_shift(acc * reciprocal, op.output_shift), op.output.bits)
        out[:, h * value_size : (h + 1) * value_size] = np.where(total > 0, part, 0)
    return out


def _gather(op: ir.Gather, xs: tuple[IntArray, ...], first: int) -> IntArray:
    return np.concatenate([x.ravel() for x in xs])[op.index]


def _sum_rows(op: ir.SumRows, x: IntArray, flags: IntArray | None, first: int) -> IntArray:
    chosen = x if flags is None else np.where(flags != 0, x, 0)
    return requantise(chosen.sum(0, keepdims=True), op.multiplier, op.shift, op.output.bits)


# --- intervals of the exact result (before saturation to the output width) ------------------------


def _scaled(interval: Interval, multiplier: int, shift: int) -> Interval:
    ends = [int(round_shift(np.asarray(e * multiplier, np.int64), shift)) for e in interval]
    return min(ends), max(ends)


def _table_interval(table: IntArray) -> Interval:
    return int(table.min(initial=0)), int(table.max(initial=0))


def accumulator_interval(op: ir.Linear, x: Interval) -> tuple[IntArray, IntArray]:
    """Exact least and greatest accumulator of each output column, bias included: two ``[m]``."""
    positive, negative = np.maximum(op.weight, 0).sum(0), np.minimum(op.weight, 0).sum(0)
    low = positive * x[0] + negative * x[1] + op.bias
    high = positive * x[1] + negative * x[0] + op.bias
    return low, high


def _linear_interval(op: ir.Linear, x: Interval) -> Interval:
    low, high = accumulator_interval(op, x)
    lows = round_shift(low * op.multiplier, op.shift)
    highs = round_shift(high * op.multiplier, op.shift)
    return int(lows.min(initial=0)), int(highs.max(initial=0))


def _lookup_interval(op: ir.Lookup, x: Interval) -> Interval:
    part = op.table[max(x[0] - op.first, 0) : x[1] - op.first + 1]
    return int(part.min()), int(part.max())


def _add_interval(op: ir.Add, a: Interval, b: Interval) -> Interval:
    low = min(a[0] * op.multiplier_a, a[1] * op.multiplier_a)
    high = max(a[0] * op.multiplier_a, a[1] * op.multiplier_a)
    low += min(b[0] * op.multiplier_b, b[1] * op.multiplier_b)
    high += max(b[0] * op.multiplier_b, b[1] * op.multiplier_b)
    return _scaled((low, high), 1, op.shift)


def _multiply_interval(op: ir.Multiply, a: Interval, b: Interval) -> Interval:
    products = [x * y for x in a for y in b]
    return _scaled((min(products), max(products)), op.multiplier, op.shift)


def _normalise_interval(op: ir.Normalise, x: Interval) -> Interval:
    # |n_i| / sqrt(V) <= sqrt(d) (Cauchy-Schwarz); the inverse and the root add under 2^-8 of it.
    d = len(op.gain)
    normed = (isqrt(d - 1) + 1 << NORMED_FRACTION) * 257 // 256 + 1
    reach = normed * np.abs(op.gain)
    low = round_shift(op.bias - reach, op.shift)
    high = round_shift(op.bias + reach, op.shift)
    return int(low.min(initial=0)), int(high.max(initial=0))


def _rotate_interval(op: ir.Rotate, x: Interval) -> Interval:
    reach = max(abs(x[0]), abs(x[1]))
    most = int((np.abs(op.cosine) + np.abs(op.sine)).max(initial=0)) * reach
    return _scaled((-most, most), 1, op.shift)


def _attend_interval(op: ir.Attend, q: Interval, k: Interval, v: Interval) -> Interval:
    # A_j / D lies between the least and greatest v; the floor of the reciprocal only shrinks it.
    low, high = min(v[0], 0), max(v[1], 0)
    return _scaled((low << op.reciprocal_bits, high << op.reciprocal_bits), 1, op.output_shift)


def _sum_rows_interval(op: ir.SumRows, x: Interval, rows: int) -> Interval:
    return _scaled((min(x[0], 0) * rows, max(x[1], 0) * rows), op.multiplier, op.shift)


# --- the table ------------------------------------------------------------------------------------

Meaning = Callable[[Any, tuple[IntArray, ...], int, int], IntArray]
IntervalRule = Callable[[Any, tuple[ir.Value, ...]], Interval]
Work = Callable[[Any, tuple[ir.Value, ...]], int]


@dataclass(frozen=True, slots=True)
class OperationSpec:
    """One row of the table.

    ``meaning(op, inputs, first, rows)``: output ``[rows, cols]``; ``first`` is the position of its
    first row. ``interval(op, input_values)``: least and greatest exact result before saturation.
    ``work(op, input_values)``: multiply-accumulates or elementary steps per row, for reports.
    ``block``: the hardware block, a module of hwcompile.hdl. ``rowwise``: acts on each row alone.
    """

    name: str
    meaning: Meaning
    interval: IntervalRule
    work: Work
    block: str
    rowwise: bool


def _bounds(values: tuple[ir.Value, ...]) -> list[Interval]:
    return [(v.low, v.high) for v in values]


OPERATIONS: Mapping[type[ir.Operation], OperationSpec] = {
    ir.Embed: OperationSpec(
        "embed",
        lambda op, xs, first, rows: _embed(op, xs[0], first),
        lambda op, vs: _table_interval(op.table),
        lambda op, vs: op.output.cols,
        "embed",
        True,
    ),
    ir.Rows: OperationSpec(
        "rows",
        lambda op, xs, first, rows: _rows(op, rows, first),
        lambda op, vs: _table_interval(op.table),
        lambda op, vs: op.output.cols,
        "embed",
        True,
    ),
    ir.Linear: OperationSpec(
        "linear",
        lambda op, xs, first, rows: _linear(op, xs[0], first),
        lambda op, vs: _linear_interval(op, _bounds(vs)[0]),
        lambda op, vs: int(np.count_nonzero(op.weight)),
        "linear",
        True,
    ),
    ir.Rescale: OperationSpec(
        "rescale",
        lambda op, xs, first, rows: _rescale(op, xs[0], first),
        lambda op, vs: _scaled(_bounds(vs)[0], op.multiplier, op.shift),
        lambda op, vs: op.output.cols,
        "elementwise",
        True,
    ),
    ir.Lookup: OperationSpec(
        "lookup",
        lambda op, xs, first, rows: _lookup(op, xs[0], first),
        lambda op, vs: _lookup_interval(op, _bounds(vs)[0]),
        lambda op, vs: op.output.cols,
        "lookup",
        True,
    ),
    ir.Add: OperationSpec(
        "add",
        lambda op, xs, first, rows: _add(op, xs[0], xs[1], first),
        lambda op, vs: _add_interval(op, *_bounds(vs)),
        lambda op, vs: op.output.cols,
        "elementwise",
        True,
    ),
    ir.Multiply: OperationSpec(
        "multiply",
        lambda op, xs, first, rows: _multiply(op, xs[0], xs[1], first),
        lambda op, vs: _multiply_interval(op, *_bounds(vs)),
        lambda op, vs: op.output.cols,
        "elementwise",
        True,
    ),
    ir.Normalise: OperationSpec(
        "normalise",
        lambda op, xs, first, rows: _normalise(op, xs[0], first),
        lambda op, vs: _normalise_interval(op, _bounds(vs)[0]),
        lambda op, vs: 2 * op.output.cols,
        "normalise",
        True,
    ),
    ir.Rotate: OperationSpec(
        "rotate",
        lambda op, xs, first, rows: _rotate(op, xs[0], first),
        lambda op, vs: _rotate_interval(op, _bounds(vs)[0]),
        lambda op, vs: 2 * op.output.cols,
        "rotate",
        True,
    ),
    ir.Attend: OperationSpec(
        "attend",
        lambda op, xs, first, rows: _attend(
            op, xs[0], xs[1], xs[2], xs[3] if len(xs) > 3 else None, first
        ),
        lambda op, vs: _attend_interval(op, *_bounds(vs)[:3]),
        lambda op, vs: vs[1].rows * op.heads * (vs[0].cols // op.heads + vs[2].cols // op.kv_heads),
        "attend",
        False,
    ),
    ir.Gather: OperationSpec(
        "gather",
        lambda op, xs, first, rows: _gather(op, xs, first),
        lambda op, vs: (min(v.low for v in vs), max(v.high for v in vs)),
        lambda op, vs: op.output.cols,
        "gather",
        False,
    ),
    ir.SumRows: OperationSpec(
        "sum_rows",
        lambda op, xs, first, rows: _sum_rows(op, xs[0], xs[1] if len(xs) > 1 else None, first),
        lambda op, vs: _sum_rows_interval(op, _bounds(vs)[0], vs[0].rows),
        lambda op, vs: vs[0].rows * op.output.cols,
        "sum_rows",
        False,
    ),
}


def spec(op: ir.Operation) -> OperationSpec:
    """The table row of an operation."""
    return OPERATIONS[type(op)]
