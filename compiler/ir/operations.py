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
# Arrays are ``[..., rows, cols]``: leading axes are independent samples. ``first`` is the position
# of row 0 (0 unless a sequence section is executed in pieces).

_EXACT_FLOAT = 1 << 52


def _matmul(a: IntArray, b: IntArray) -> IntArray:
    """Exact ``a @ b``. A float64 product is 50 times faster than an integer one, and exact while no
    sum of magnitudes reaches 2^53."""
    bound = a.shape[-1] * int(np.abs(a).max(initial=0)) * int(np.abs(b).max(initial=0))
    kind = np.float64 if bound < _EXACT_FLOAT else np.int64
    if b.ndim == 2:  # one product of all samples
        flat = a.reshape(-1, a.shape[-1]).astype(kind) @ b.astype(kind)
        return flat.reshape(*a.shape[:-1], b.shape[-1]).astype(np.int64)
    return np.asarray(a.astype(kind) @ b.astype(kind), np.int64)


def integer_sqrt(v: IntArray) -> IntArray:
    """``floor(sqrt(v))`` for ``0 <= v < 2^62``: the float root is off by one at most."""
    root = np.sqrt(v.astype(np.float64)).astype(np.int64)
    root -= root * root > v
    root += (root + 1) * (root + 1) <= v
    return root


def _embed(op: ir.Embed, ids: IntArray, first: int) -> IntArray:
    known = (ids[..., 0] >= 0) & (ids[..., 0] < len(op.table))
    return np.where(known[..., None], op.table[np.where(known, ids[..., 0], 0)], 0)


def _rows(op: ir.Rows, rows: int, first: int) -> IntArray:
    return op.table[first : first + rows]


def _linear(op: ir.Linear, x: IntArray, first: int) -> IntArray:
    acc = _matmul(x, op.weight) + op.bias
    return requantise(acc, op.multiplier, op.shift, op.output.bits)


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
    d = x.shape[-1]
    total = x.sum(-1, keepdims=True) if op.kind == "layer" else np.int64(0)
    n = d * x - total
    v = d * (x * x).sum(-1, keepdims=True) - total * total + op.epsilon
    root = integer_sqrt(v << 2 * op.root_fraction)
    length = np.frexp(root.astype(np.float64))[1].astype(np.int64)  # bit length of the root
    inverse = np.left_shift(1, length + INVERSE_BITS) // np.maximum(root, 1)
    fraction = length + (INVERSE_BITS - NORMED_FRACTION - op.root_fraction)
    normed = np.where(root > 0, round_shift(n * inverse, fraction), 0)
    return saturate(round_shift(normed * op.gain + op.bias, op.shift), op.output.bits)


def _rotate(op: ir.Rotate, x: IntArray, first: int) -> IntArray:
    rows, cols = x.shape[-2:]
    column = np.arange(cols) % op.cosine.shape[1]
    cosine = op.cosine[first : first + rows][:, column]
    sine = op.sine[first : first + rows][:, column]
    return requantise(x * cosine + x[..., op.partner] * sine, 1, op.shift, op.output.bits)


def _heads(x: IntArray, heads: int) -> IntArray:
    """``[..., rows, heads * size]`` -> ``[..., heads, rows, size]``."""
    return np.moveaxis(x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads), -2, -3)


def bias_of(op: ir.Attend, first: int, rows: int, keys: int) -> IntArray:
    """What is added to the scores of ``rows`` from ``first`` on: ``[1 or heads, rows, keys]``."""
    r, t = first + np.arange(rows)[:, None], np.arange(keys)[None, :]
    if op.bias.size == 0:
        return np.zeros((1, rows, keys), np.int64)
    if op.bias.ndim == 3:
        return op.bias[:, first : first + rows, :keys]
    count = op.bias.shape[1]
    # Keys after a causal row have no entry, and are not seen.
    return op.bias[:, np.clip(r - t + count - op.output.rows, 0, count - 1)]


def _attend(
    op: ir.Attend, q: IntArray, k: IntArray, v: IntArray, flags: IntArray | None, first: int
) -> IntArray:
    rows, keys = q.shape[-2], k.shape[-2]
    visible = np.ones((rows, keys), bool)
    if op.causal:
        visible = np.arange(keys)[None, :] <= first + np.arange(rows)[:, None]
    if flags is not None:
        visible = visible & (flags[..., None, None, :keys, 0] != 0)
    share = op.heads // op.kv_heads
    key, value = (np.repeat(_heads(x, op.kv_heads), share, axis=-3) for x in (k, v))
    scores = _matmul(_heads(q, op.heads), np.swapaxes(key, -1, -2))
    scores = scores + bias_of(op, first, rows, keys)
    least = int(scores.min(initial=0))
    distance = np.where(visible, scores, least).max(-1, keepdims=True) - scores
    index = round_shift(np.where(visible, distance, 0) * op.multiplier, op.shift)
    p = np.where(visible, op.exp_table[np.minimum(index, len(op.exp_table) - 1)], 0)
    total = p.sum(-1, keepdims=True)
    reciprocal = (1 << op.reciprocal_bits) // np.maximum(total, 1)
    acc = _matmul(p, value) * reciprocal
    out = saturate(round_shift(acc, op.output_shift), op.output.bits)
    return np.moveaxis(np.where(total > 0, out, 0), -3, -2).reshape(*out.shape[:-3], rows, -1)


def _gather(op: ir.Gather, xs: tuple[IntArray, ...], first: int, rows: int) -> IntArray:
    # Inputs are whole (all rows of the values), the output may be a piece.
    samples = np.broadcast_shapes(*(x.shape[:-2] for x in xs))
    flat = [np.broadcast_to(x, (*samples, *x.shape[-2:])).reshape(*samples, -1) for x in xs]
    return np.concatenate(flat, axis=-1)[..., op.index[first : first + rows]]


def _sum_rows(op: ir.SumRows, x: IntArray, flags: IntArray | None, first: int) -> IntArray:
    chosen = x if flags is None else np.where(flags != 0, x, 0)
    return requantise(chosen.sum(-2, keepdims=True), op.multiplier, op.shift, op.output.bits)


def _delay(op: ir.Delay, x: IntArray, first: int, rows: int) -> IntArray:
    """``x``: rows of the input from ``first - 1`` on, or from 0 on where ``first`` is 0."""
    if first:
        return x[..., :rows, :]
    start = np.broadcast_to(op.initial, (*x.shape[:-2], 1, len(op.initial)))
    return np.concatenate([start, x], axis=-2)[..., :rows, :]


# --- intervals of the exact result (before saturation to the output width) ------------------------


def _scaled(interval: Interval, multiplier: int, shift: int) -> Interval:
    # Python integers: an interval is never wrapped.
    half = 1 << shift - 1 if shift > 0 else 0
    ends = [(e * multiplier + half >> max(shift, 0)) << max(-shift, 0) for e in interval]
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


def normed_bound(op: ir.Normalise) -> int:
    """Greatest magnitude of ``normed``.

    Cauchy-Schwarz: ``|n_i| <= sqrt(V d)`` (and ``n_i = 0`` unless V >= d - 1, RMS: d), so with
    ``y = sqrt(V) 2^f`` and ``R = floor(y)`` the quotient is at most ``sqrt(d) (R + 1) / R``.
    """
    d = len(op.gain)
    least = d if op.kind == "rms" else max(d - 1, 1)
    root = isqrt(least + op.epsilon << 2 * op.root_fraction)
    return isqrt(d << 2 * NORMED_FRACTION) * (root + 1) // root + 2


def _normalise_interval(op: ir.Normalise, x: Interval) -> Interval:
    reach = normed_bound(op) * np.abs(op.gain)
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

    ``meaning(op, inputs, first, rows)``: output ``[..., rows, cols]`` for inputs
    ``[..., rows, cols]`` (leading axes: samples); ``first`` is the position of its first row.
    ``interval(op, input_values)``: least and greatest exact result before saturation; of a Delay,
    whose input is not made yet, all its width holds.
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
        lambda op, xs, first, rows: _gather(op, xs, first, rows),
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
    ir.Delay: OperationSpec(
        "delay",
        lambda op, xs, first, rows: _delay(op, xs[0], first, rows),
        lambda op, vs: (-limit(op.output.bits), limit(op.output.bits)),
        lambda op, vs: op.output.cols,
        "delay",
        True,
    ),
}


def spec(op: ir.Operation) -> OperationSpec:
    """The table row of an operation."""
    return OPERATIONS[type(op)]
