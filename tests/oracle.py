"""What each operation of a Program means, once more: plain Python integers, an entry an operation.

Written from docs/integer-contract.md alone and importing nothing of hwcompile, so that an error in
the reference cannot hide here. ``ORACLE[name](fields, inputs, first, rows)``: ``fields`` maps the
names of an operation's fields to integers and nested lists, ``bits`` among them; matrices are lists
of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor, isqrt
from typing import Any

Matrix = list[list[int]]
Fields = dict[str, Any]


def saturate(x: int, bits: int) -> int:
    most = 2 ** (bits - 1) - 1
    return min(max(x, -most), most)


def round_shift(x: int, shift: int) -> int:
    """The nearest integer to ``x / 2^shift``, halves up."""
    return floor(Fraction(x) / Fraction(2) ** shift + Fraction(1, 2))


def requantise(x: int, multiplier: int, shift: int, bits: int) -> int:
    return saturate(round_shift(x * multiplier, shift), bits)


def row_of(x: Matrix, r: int) -> list[int]:
    """Row r, or the only row."""
    return x[r] if len(x) > 1 else x[0]


def embed(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    table = f["table"]
    cols = len(table[0])
    return [table[i] if 0 <= i < len(table) else [0] * cols for (i,) in xs[0]]


def constant_rows(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    return [f["table"][first + r] for r in range(rows)]


def linear(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    out = []
    for x in xs[0]:
        row = []
        for c, bias in enumerate(f["bias"]):
            acc = bias + sum(x[i] * f["weight"][i][c] for i in range(len(x)))
            row.append(requantise(acc, f["multiplier"][c], f["shift"][c], f["bits"]))
        out.append(row)
    return out


def rescale(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    return [[requantise(x, f["multiplier"], f["shift"], f["bits"]) for x in r] for r in xs[0]]


def lookup(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    return [[f["table"][x - f["first"]] for x in row] for row in xs[0]]


def add(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    out = []
    for r in range(max(len(xs[0]), len(xs[1]))):
        pairs = zip(row_of(xs[0], r), row_of(xs[1], r), strict=True)
        sums = [a * f["multiplier_a"] + b * f["multiplier_b"] for a, b in pairs]
        out.append([saturate(round_shift(s, f["shift"]), f["bits"]) for s in sums])
    return out


def multiply(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    out = []
    for r in range(max(len(xs[0]), len(xs[1]))):
        pairs = zip(row_of(xs[0], r), row_of(xs[1], r), strict=True)
        out.append([requantise(a * b, f["multiplier"], f["shift"], f["bits"]) for a, b in pairs])
    return out


def normalise(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    out = []
    for x in xs[0]:
        d = len(x)
        s = sum(x) if f["kind"] == "layer" else 0
        v = d * sum(e * e for e in x) - s * s + f["epsilon"]
        root = isqrt(v * 4 ** f["root_fraction"])
        normed = [0] * d
        if root > 0:
            b = len(bin(root)) - 2
            inverse = 2 ** (b + 15) // root
            shift = b + 15 - f["root_fraction"] - 12
            normed = [round_shift((d * e - s) * inverse, shift) for e in x]
        row = zip(normed, f["gain"], f["bias"], strict=True)
        out.append([saturate(round_shift(n * g + o, f["shift"]), f["bits"]) for n, g, o in row])
    return out


def rotate(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    out = []
    for r, x in enumerate(xs[0]):
        cosine, sine = f["cosine"][first + r], f["sine"][first + r]
        p = len(cosine)
        turned = [x[c] * cosine[c % p] + x[f["partner"][c]] * sine[c % p] for c in range(len(x))]
        out.append([requantise(t, 1, f["shift"], f["bits"]) for t in turned])
    return out


def attend(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    q, k, v = xs[:3]
    size, value_size = len(q[0]) // f["heads"], len(v[0]) // f["kv_heads"]
    out = []
    for r in range(len(q)):
        seen = [
            t
            for t in range(len(k))
            if (not f["causal"] or t <= first + r) and (len(xs) < 4 or xs[3][t][0] != 0)
        ]
        row: list[int] = []
        for h in range(f["heads"]):
            g = h // (f["heads"] // f["kv_heads"])
            row += _head(
                f, q[r], k, v, seen, h * size, g * size, size, g * value_size, value_size,
                _biases(f, h, first + r, len(k)),
            )  # fmt: skip
        out.append(row)
    return out


def _biases(f: Fields, head: int, r: int, keys: int) -> list[int]:
    """The bias of each key for row r, by distance or by row and key."""
    if not f["bias"]:
        return [0] * keys
    line = f["bias"][head if len(f["bias"]) > 1 else 0]
    if isinstance(line[0], list):
        return list(line[r])
    at = r + len(line) - f["rows"]
    return [line[at - t] if 0 <= at - t < len(line) else 0 for t in range(keys)]


def _head(
    f: Fields, q: list[int], k: Matrix, v: Matrix, seen: list[int],
    q_at: int, k_at: int, size: int, v_at: int, value_size: int, bias: list[int],
) -> list[int]:  # fmt: skip
    if not seen:
        return [0] * value_size
    scores = {t: bias[t] + sum(q[q_at + i] * k[t][k_at + i] for i in range(size)) for t in seen}
    top = max(scores.values())
    last = len(f["exp_table"]) - 1
    p = {}
    for t in seen:
        index = round_shift((top - scores[t]) * f["multiplier"], f["shift"])
        p[t] = f["exp_table"][min(index, last)]
    reciprocal = 2 ** f["reciprocal_bits"] // sum(p.values())
    sums = [sum(p[t] * v[t][v_at + j] for t in seen) for j in range(value_size)]
    return [saturate(round_shift(a * reciprocal, f["output_shift"]), f["bits"]) for a in sums]


def gather(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    flat = [e for x in xs for row in x for e in row]
    return [[flat[i] for i in f["index"][first + r]] for r in range(rows)]


def sum_rows(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    used = [r for r in range(len(xs[0])) if len(xs) < 2 or xs[1][r][0] != 0]
    sums = [sum(xs[0][r][c] for r in used) for c in range(len(xs[0][0]))]
    return [[requantise(s, f["multiplier"], f["shift"], f["bits"]) for s in sums]]


def delay(f: Fields, xs: list[Matrix], first: int, rows: int) -> Matrix:
    before = xs[0] if first else [f["initial"], *xs[0]]
    return before[:rows]


ORACLE: dict[str, Callable[[Fields, list[Matrix], int, int], Matrix]] = {
    "embed": embed,
    "rows": constant_rows,
    "linear": linear,
    "rescale": rescale,
    "lookup": lookup,
    "add": add,
    "multiply": multiply,
    "normalise": normalise,
    "rotate": rotate,
    "attend": attend,
    "gather": gather,
    "sum_rows": sum_rows,
    "delay": delay,
}
