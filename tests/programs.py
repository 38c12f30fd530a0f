"""Small random Programs of realistic structure, with proven intervals, for tests of every stage.

Weights are random 8-bit integers; shifts are chosen so that values use their ranges. Nothing is
trained: what counts is that each kind of operation and each width occurs.
"""

from __future__ import annotations

from math import log2

import numpy as np

from hwcompile.compiler.ir import program as ir
from hwcompile.passes import narrow

IntArray = ir.IntArray


class Builder:
    """Appends operations to a program; every method returns the key of its result."""

    def __init__(self, seed: int, sections: tuple[ir.SectionKind, ...]) -> None:
        self.random = np.random.default_rng(seed)
        self.sections = sections
        self.section = 0
        self.inputs: list[ir.Input] = []
        self.operations: list[ir.Operation] = []
        self.shapes: dict[str, tuple[int, int]] = {}

    def value(self, rows: int, cols: int, bits: int, scale: float = 1.0) -> ir.Value:
        key = f"v{len(self.shapes)}"
        self.shapes[key] = (rows, cols)
        most = (1 << bits - 1) - 1
        return ir.Value(key, rows, cols, bits, -most, most, scale)

    def add(self, op: ir.Operation) -> str:
        self.operations.append(op)
        return op.output.key

    def base(
        self, inputs: tuple[str, ...], rows: int, cols: int, bits: int, scale: float = 1.0
    ) -> tuple[ir.Value, tuple[str, ...], int, str]:
        return self.value(rows, cols, bits, scale), inputs, self.section, f"part {len(self.shapes)}"

    def ids(self, rows: int, count: int, name: str) -> str:
        key = f"v{len(self.shapes)}"
        self.shapes[key] = (rows, 1)
        bits = max((count - 1).bit_length() + 1, 2)
        value = ir.Value(key, rows, 1, bits, 0, count - 1, 1.0)
        self.inputs.append(ir.Input(value, "ids", self.section, name, (1, rows), count))
        return key

    def tensor(self, rows: int, cols: int, bits: int, scale: float, name: str) -> str:
        value = self.value(rows, cols, bits, scale)
        self.inputs.append(ir.Input(value, "tensor", self.section, name, (1, rows, cols)))
        return value.key

    def embed(self, ids: str, count: int, cols: int, bits: int = 14) -> str:
        table = self.random.integers(-(1 << bits - 2), 1 << bits - 2, (count, cols))
        return self.add(ir.Embed(*self.base((ids,), self.shapes[ids][0], cols, 16), table))

    def rows(self, rows: int, cols: int, bits: int = 12) -> str:
        table = self.random.integers(-(1 << bits - 2), 1 << bits - 2, (rows, cols))
        return self.add(ir.Rows(*self.base((), rows, cols, 16), table))

    def linear(
        self, x: str, cols: int, bits: int = 8, zeros: float = 0.1, magnitude: int = 127
    ) -> str:
        rows, n = self.shapes[x]
        weight = self.random.integers(-magnitude, magnitude + 1, (n, cols))
        weight[self.random.random((n, cols)) < zeros] = 0
        # Sums of n products of x (about 40) and a weight come to about a third of the output range.
        typical = log2(40 * magnitude * 0.58 * n**0.5)
        shift = round(typical - (bits - 2)) + self.random.integers(-1, 2, cols)
        bias = self.random.integers(-(1 << 9), 1 << 9, cols)
        multiplier = np.ones(cols, np.int64)
        return self.add(
            ir.Linear(*self.base((x,), rows, cols, bits), weight, bias, multiplier, shift)
        )

    def normalise(self, x: str, kind: str, bits: int = 8) -> str:
        rows, d = self.shapes[x]
        gain = self.random.integers(40, 80, d)
        bias = self.random.integers(-(1 << 12), 1 << 12, d) if kind == "layer" else gain * 0
        base = self.base((x,), rows, d, bits)
        return self.add(ir.Normalise(*base, kind, 7 * d, 1, gain, bias, 13))

    def sum(self, a: str, b: str, bits: int = 16) -> str:
        return self.add(ir.Add(*self.base((a, b), *self.shapes[a], bits)))

    def multiply(self, a: str, b: str, bits: int = 8) -> str:
        return self.add(ir.Multiply(*self.base((a, b), *self.shapes[a], bits), 3, 8))

    def lookup(self, x: str, bits: int = 8) -> str:
        x_real = np.arange(-127, 128) / 24
        table = np.floor(24 * x_real / (1 + np.exp(-x_real)) + 0.5).astype(np.int64)
        return self.add(ir.Lookup(*self.base((x,), *self.shapes[x], bits), table, -127))

    def flag(self, ids: str, count: int) -> str:
        table = (np.arange(count) != 0).astype(np.int64)
        return self.add(ir.Lookup(*self.base((ids,), self.shapes[ids][0], 1, 2), table, 0))

    def rotate(self, x: str, size: int, bits: int = 8) -> str:
        rows, cols = self.shapes[x]
        half = size // 2
        angle = np.arange(rows)[:, None] * 0.1 ** (np.arange(half) * 2 / half)
        cosine, sine = (np.floor(f(angle) * 2**14 + 0.5).astype(int) for f in (np.cos, np.sin))
        head = np.arange(cols) // size * size
        partner = head + (np.arange(cols) - head + half) % size
        return self.add(
            ir.Rotate(
                *self.base((x,), rows, cols, bits),
                np.hstack([cosine, cosine]),
                np.hstack([-sine, sine]),
                partner,
                15,
            )
        )

    def attend(
        self, inputs: tuple[str, ...], heads: int, kv_heads: int, causal: bool, bits: int = 8
    ) -> str:
        rows, cols = self.shapes[inputs[0]]
        table = np.floor(4095 * np.exp(-np.arange(200) / 24) + 0.5).astype(np.int64)
        base = self.base(inputs, rows, cols, bits)
        return self.add(ir.Attend(*base, heads, kv_heads, causal, 5, 8, table, 26, 25))

    def sum_rows(self, x: str, flags: str | None, bits: int = 8) -> str:
        cols = self.shapes[x][1]
        inputs = (x,) if flags is None else (x, flags)
        return self.add(ir.SumRows(*self.base(inputs, 1, cols, bits), 5, 4))

    def last_row(self, x: str) -> str:
        rows, cols = self.shapes[x]
        index = (rows - 1) * cols + np.arange(cols)[None, :]
        return self.add(ir.Gather(*self.base((x,), 1, cols, 16), index))

    def program(self, outputs: tuple[ir.Output, ...], form: str = "call") -> ir.Program:
        return narrow.run(
            ir.Program(self.sections, tuple(self.inputs), tuple(self.operations), outputs, (), form)
        )


def _attention(
    b: Builder, x: str, memory: str, heads: int, kv_heads: int, rope: bool, causal: bool,
    flags: str | None = None,
) -> str:  # fmt: skip
    d = b.shapes[x][1]
    size = d // heads
    bits = 10 if rope else 8
    q, k = b.linear(x, d, bits), b.linear(memory, kv_heads * size, bits)
    v = b.linear(memory, kv_heads * size)
    if rope:
        q, k = b.rotate(q, size), b.rotate(k, size)
    mixed = b.attend((q, k, v) if flags is None else (q, k, v, flags), heads, kv_heads, causal)
    return b.sum(_residual(b, x), b.linear(mixed, d, 14))


def _residual(b: Builder, normed: str) -> str:
    """The residual value a norm read."""
    return next(op.inputs[0] for op in b.operations if op.output.key == normed)


def _feed_forward(b: Builder, x: str, kind: str, swiglu: bool) -> str:
    d = b.shapes[x][1]
    normed = b.normalise(x, kind)
    hidden = b.lookup(b.linear(normed, 2 * d))
    if swiglu:
        hidden = b.multiply(hidden, b.linear(normed, 2 * d))
    return b.sum(x, b.linear(hidden, d, 14))


def tiny_decoder(
    seed: int = 0,
    norm: str = "rms",
    rope: bool = True,
    heads: int = 2,
    kv_heads: int = 1,
    swiglu: bool = True,
    d: int = 8,
    layers: int = 1,
    context: int = 8,
    vocab: int = 12,
) -> ir.Program:
    """Token in, logits out: one sequence section of ``context`` rows. Input ``input_ids``, output
    ``logits``; caches named ``k0``, ``v0``, ..."""
    b = Builder(seed, ("sequence",))
    x = b.embed(b.ids(context, vocab, "input_ids"), vocab, d)
    if not rope:
        x = b.sum(x, b.rows(context, d))
    for _ in range(layers):
        normed = b.normalise(x, norm)
        x = _attention(b, normed, normed, heads, kv_heads, rope, True)
        x = _feed_forward(b, x, norm, swiglu)
    logits = b.linear(b.normalise(x, norm), vocab, 14)
    return b.program((ir.Output(logits, "logits", "logits", (1, context, vocab)),), "prefill")


def tiny_encoder(
    seed: int = 0,
    tokens: bool = True,
    flags: bool = True,
    heads: int = 2,
    d: int = 8,
    rows: int = 6,
    classes: int = 5,
) -> ir.Program:
    """Classifier: one once section. Input ``input_ids`` (id 0 is padding when ``flags``) or
    ``image`` ``[rows, 4]``; output ``logits`` ``[1, classes]``: mean over rows, or the last row."""
    b = Builder(seed, ("once",))
    seen = None
    if tokens:
        ids = b.ids(rows, 12, "input_ids")
        seen = b.flag(ids, 12) if flags else None
        x = b.sum(b.embed(ids, 12, d), b.rows(rows, d))
    else:
        image = b.tensor(rows, 4, 12, 1 / 512, "image")
        narrow_image = b.add(ir.Rescale(*b.base((image,), rows, 4, 8, 1 / 32), 1, 4))
        x = b.sum(b.linear(narrow_image, d, 14), b.rows(rows, d))
    normed = b.normalise(x, "layer")
    x = _attention(b, normed, normed, heads, heads, False, False, seen)
    x = b.normalise(_feed_forward(b, x, "layer", False), "layer")
    pooled = b.sum_rows(x, seen) if tokens else b.last_row(x)
    logits = b.linear(pooled, classes, 12)
    return b.program((ir.Output(logits, "logits", "logits", (1, classes)),))


def tiny_encoder_decoder(
    seed: int = 0, heads: int = 2, d: int = 8, source: int = 6, target: int = 7, vocab: int = 12
) -> ir.Program:
    """Inputs ``src`` (0 is padding) and ``tgt``; output ``logits``: once, then sequence section."""
    b = Builder(seed, ("once", "sequence"))
    ids = b.ids(source, vocab, "src")
    seen = b.flag(ids, vocab)
    x = b.sum(b.embed(ids, vocab, d), b.rows(source, d))
    normed = b.normalise(x, "layer")
    x = _attention(b, normed, normed, heads, heads, False, False, seen)
    memory = b.normalise(_feed_forward(b, x, "layer", False), "layer")
    cross = (b.linear(memory, d), b.linear(memory, d))
    b.section = 1
    y = b.sum(b.embed(b.ids(target, vocab, "tgt"), vocab, d), b.rows(target, d))
    normed = b.normalise(y, "layer")
    y = _attention(b, normed, normed, heads, heads, False, True)
    query = b.linear(b.normalise(y, "layer"), d)
    mixed = b.attend((query, *cross, seen), heads, heads, False)
    y = b.sum(y, b.linear(mixed, d, 14))
    y = _feed_forward(b, y, "layer", False)
    logits = b.linear(b.normalise(y, "layer"), vocab, 14)
    return b.program((ir.Output(logits, "logits", "logits", (1, target, vocab)),))
