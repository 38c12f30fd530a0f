"""Small random Graphs of realistic structure, for tests of the passes from float to integers."""

from __future__ import annotations

import numpy as np

from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.graph import Expression

X = Expression("x")
SILU = Expression("mul", (X, Expression("sigmoid", (X,))))


class Network:
    """Appends operations to a graph; every method returns the key of its result."""

    def __init__(self, seed: int, sections: tuple[ir.SectionKind, ...] = ("sequence",)) -> None:
        self.random = np.random.default_rng(seed)
        self.sections = sections
        self.inputs: list[ir.Input] = []
        self.operations: list[ir.Operation] = []
        self.shapes: dict[str, tuple[int, int]] = {}

    def base(
        self, inputs: tuple[str, ...], rows: int, cols: int
    ) -> tuple[ir.Value, tuple[str, ...], int, str]:
        key = f"v{len(self.shapes)}"
        self.shapes[key] = (rows, cols)
        return ir.Value(key, rows, cols), inputs, 0, f"part {key}"

    def add(self, op: ir.Operation) -> str:
        self.operations.append(op)
        return op.output.key

    def input(self, kind: ir.InputKind, rows: int, cols: int, name: str, count: int = 0) -> str:
        value = self.base((), rows, cols)[0]
        shape = (1, rows) if kind == "ids" else (1, rows, cols)
        self.inputs.append(ir.Input(value, kind, 0, name, shape, count))
        return value.key

    def linear(self, x: str, cols: int, **grid: np.ndarray) -> str:
        rows, n = self.shapes[x]
        weight = self.random.normal(size=(n, cols)) / n**0.5
        if grid:
            weight = grid["grid_values"] * grid["grid_scale"]
        bias = self.random.normal(size=cols) * 0.1
        return self.add(ir.Linear(*self.base((x,), rows, cols), weight, bias, **grid))

    def normalise(self, x: str, kind: str) -> str:
        rows, d = self.shapes[x]
        gain = self.random.uniform(0.5, 1.5, d)
        bias = self.random.normal(size=d) * 0.1 if kind == "layer" else np.zeros(d)
        return self.add(ir.Normalise(*self.base((x,), rows, d), kind, gain, bias, 1e-5))

    def attend(
        self, x: str, heads: int, kv_heads: int, rope: bool, causal: bool, *flags: str
    ) -> str:
        rows, d = self.shapes[x]
        size = d // heads
        q, k, v = (
            self.linear(x, d),
            self.linear(x, kv_heads * size),
            self.linear(x, kv_heads * size),
        )
        if rope:
            q, k = self.rotate(q, size), self.rotate(k, size)
        base = self.base((q, k, v, *flags), rows, d)
        return self.add(ir.Attend(*base, heads, kv_heads, size**-0.5, causal))

    def rotate(self, x: str, size: int) -> str:
        rows, cols = self.shapes[x]
        half = size // 2
        angle = np.arange(rows)[:, None] * 0.3 ** np.arange(half)
        cosine = np.tile(np.cos(angle), 2 * cols // size)
        sine = np.tile(np.hstack([-np.sin(angle), np.sin(angle)]), cols // size)
        head = np.arange(cols) // size * size
        partner = head + (np.arange(cols) - head + half) % size
        return self.add(ir.Rotate(*self.base((x,), rows, cols), cosine, sine, partner))

    def feed_forward(self, x: str, swiglu: bool) -> str:
        rows, d = self.shapes[x]
        hidden = self.add(ir.Unary(*self.base((self.linear(x, 3 * d),), rows, 3 * d), SILU))
        if swiglu:
            hidden = self.add(ir.Multiply(*self.base((hidden, self.linear(x, 3 * d)), rows, 3 * d)))
        return self.linear(hidden, d)

    def sum(self, a: str, b: str) -> str:
        return self.add(ir.Add(*self.base((a, b), *self.shapes[a])))

    def graph(self, output: str, kind: str, name: str = "logits") -> ir.Graph:
        rows, cols = self.shapes[output]
        outputs = (ir.Output(output, kind, name, (1, rows, cols)),)
        form = "prefill" if "sequence" in self.sections else "call"
        return ir.Graph(
            self.sections, tuple(self.inputs), tuple(self.operations), outputs, (), form
        )


def decoder(
    seed: int = 0,
    norm: str = "rms",
    rope: bool = True,
    kv_heads: int = 1,
    swiglu: bool = True,
    d: int = 16,
    context: int = 12,
    vocab: int = 20,
) -> ir.Graph:
    """A causal language model of one layer: input ``input_ids``, output ``logits``."""
    n = Network(seed)
    ids = n.input("ids", context, 1, "input_ids", vocab)
    x = n.add(ir.Embed(*n.base((ids,), context, d), n.random.normal(size=(vocab, d))))
    if not rope:
        x = n.sum(x, n.add(ir.Rows(*n.base((), context, d), n.random.normal(size=(context, d)))))
    mixed = n.attend(n.normalise(x, norm), 2, kv_heads, rope, True)
    x = n.sum(x, n.linear(mixed, d))
    x = n.sum(x, n.feed_forward(n.normalise(x, norm), swiglu))
    return n.graph(n.linear(n.normalise(x, norm), vocab), "logits")


def encoder(seed: int = 0, rows: int = 6, d: int = 16, classes: int = 5) -> ir.Graph:
    """A classifier: padding (id 0), norms after the sums, a mean over what is no padding."""
    n = Network(seed, ("once",))
    ids = n.input("ids", rows, 1, "input_ids", 20)
    seen = n.add(ir.Flag(*n.base((ids,), rows, 1), 0))
    x = n.add(ir.Embed(*n.base((ids,), rows, d), n.random.normal(size=(20, d))))
    x = n.normalise(n.sum(x, n.linear(n.attend(x, 2, 2, False, False, seen), d)), "layer")
    x = n.normalise(n.sum(x, n.feed_forward(x, False)), "layer")
    pooled = n.add(ir.MeanRows(*n.base((x, seen), 1, d)))
    return n.graph(n.linear(pooled, classes), "tensor")


def image_model(seed: int = 0, rows: int = 6, d: int = 16) -> ir.Graph:
    """Tensor in, tensor out: patches, a class row in front, a plain mean of all rows."""
    n = Network(seed, ("once",))
    image = n.input("tensor", rows, 4, "image")
    patches = n.linear(image, d)
    front = n.add(ir.Rows(*n.base((), 1, d), n.random.normal(size=(1, d))))
    index = np.arange((rows + 1) * d).reshape(rows + 1, d)
    x = n.add(ir.Gather(*n.base((front, patches), rows + 1, d), index))
    x = n.sum(x, n.linear(n.attend(n.normalise(x, "layer"), 2, 2, False, False), d))
    pooled = n.add(ir.MeanRows(*n.base((n.normalise(x, "layer"),), 1, d)))
    return n.graph(n.linear(pooled, 4), "tensor", "features")
