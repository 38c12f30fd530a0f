"""Random supported graphs of every family, each from a seed of its own.

Sizes are small and odd, structure is as in real networks and beside it: what the quantiser and the
chip may meet, not what trains well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.expressions import affine, constant
from hwcompile.compiler.ir.graph import Expression, FloatArray
from hwcompile.passes.choose_styles import Style
from hwcompile.passes.needs import Widths
from hwcompile.passes.quantise import QuantiseOptions, WeightKind

X = Expression("x")
Draw = Callable[["Sketch"], None]


def _f(name: str, *arguments: Expression) -> Expression:
    return Expression(name, arguments)


FUNCTIONS: tuple[Expression, ...] = (
    _f("max", X, constant(0.0)),
    _f("tanh", X),
    _f("sigmoid", X),
    _f("mul", X, _f("sigmoid", X)),
    _f("mul", X, _f("mul", constant(0.5), _f("add", constant(1.0), _f("erf", affine(0.7, 0.0))))),
    _f("abs", X),
    _f("mul", X, X),
    _f("reciprocal", _f("add", constant(1.0), _f("mul", X, X))),
    _f("exp", _f("min", X, constant(2.0))),
    _f("sign", X),
    _f("where", _f("less", X, constant(0.0)), affine(0.01, 0.0), X),
    _f("sin", X),
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A graph with how to compile it. ``seed`` draws it again.

    ``cache_port``: only for decoders whose keys and values are of one width.
    """

    seed: int
    family: str
    graph: ir.Graph
    options: QuantiseOptions
    style: Style
    logits_port: bool
    cache_port: bool


class Sketch:
    """A graph in the making; methods append operations and return the key of the result."""

    def __init__(self, rng: np.random.Generator, sections: tuple[ir.SectionKind, ...]) -> None:
        self.rng = rng
        self.sections = sections
        self.section = 0
        self.inputs: list[ir.Input] = []
        self.operations: list[ir.Operation] = []
        self.outputs: list[ir.Output] = []
        self.shapes: dict[str, tuple[int, int]] = {}
        self.sparsity = self.pick(0.0, 0.0, 0.3, 0.8)
        self.grid = self.pick("", "", "", "ternary", "int4", "int8", "mixed")

    # -- chance

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def size(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def scale(self, decades: float = 1.0) -> float:
        return float(10.0 ** self.rng.uniform(-decades, decades))

    # -- parts

    def rows(self, key: str) -> int:
        return self.shapes[key][0]

    def cols(self, key: str) -> int:
        return self.shapes[key][1]

    def value(self, rows: int, cols: int) -> ir.Value:
        key = f"v{len(self.shapes)}"
        self.shapes[key] = (rows, cols)
        return ir.Value(key, rows, cols)

    def base(
        self, inputs: tuple[str, ...], rows: int, cols: int
    ) -> tuple[ir.Value, tuple[str, ...], int, str]:
        value = self.value(rows, cols)
        return value, inputs, self.section, f"part {value.key}"

    def add(self, op: ir.Operation) -> str:
        self.operations.append(op)
        return op.output.key

    def input(self, kind: ir.InputKind, rows: int, cols: int = 1, count: int = 0) -> str:
        value = self.value(rows, cols)
        shape = (1, rows, cols) if kind == "tensor" else (1, rows)
        low, high = self.pick((None, None), (0.0, 1.0), (-3.0, 2.0)) if kind == "tensor" else (
            None,
            None,
        )  # fmt: skip
        name = f"input_{len(self.inputs)}"
        self.inputs.append(ir.Input(value, kind, self.section, name, shape, count, low, high))
        return value.key

    def output(self, key: str, kind: Literal["logits", "tensor"]) -> None:
        name = f"output_{len(self.outputs)}"
        self.outputs.append(ir.Output(key, kind, name, (1, *self.shapes[key])))

    def embed(self, ids: str, count: int, cols: int, scale: float) -> str:
        table = self.rng.normal(size=(count, cols)) * scale
        return self.add(ir.Embed(*self.base((ids,), self.rows(ids), cols), table))

    def constant(self, rows: int, cols: int, scale: float) -> str:
        table = self.rng.normal(size=(rows, cols)) * scale
        return self.add(ir.Rows(*self.base((), rows, cols), table))

    def linear(self, x: str, cols: int) -> str:
        rows, n = self.shapes[x]
        bias = self.rng.normal(size=cols) * self.pick(0.0, 0.1, 1.0)
        kind = self.pick("", "ternary", "int8") if self.grid == "mixed" else self.grid
        base = self.base((x,), rows, cols)
        if kind:
            most = {"ternary": 1, "int4": 7, "int8": 127}[kind]
            least = -most - (kind != "ternary" and self.chance(0.3))
            integers = self._holes(self.rng.integers(least, most + 1, (n, cols)))
            scales = self.rng.uniform(0.5, 2.0, cols) / (most * n**0.5)
            return self.add(ir.Linear(*base, integers * scales, bias, integers, scales))
        weight = self._holes(self.rng.normal(size=(n, cols)) * self.scale(0.5) / n**0.5)
        return self.add(ir.Linear(*base, weight, bias))

    def _holes(self, weight: Any) -> Any:
        """Zeros here and there, and sometimes whole rows, columns or all of it."""
        weight = np.where(self.rng.random(weight.shape) < self.sparsity, 0, weight)
        if self.chance(0.15):
            weight[:, self.rng.integers(weight.shape[1])] = 0
        if self.chance(0.15):
            weight[self.rng.integers(weight.shape[0])] = 0
        return weight * 0 if self.chance(0.02) else weight

    def unary(self, x: str, function: Expression | None = None) -> str:
        function = function or self.pick(*FUNCTIONS)
        return self.add(ir.Unary(*self.base((x,), *self.shapes[x]), function))

    def sum(self, a: str, b: str) -> str:
        rows = max(self.rows(a), self.rows(b))
        return self.add(ir.Add(*self.base((a, b), rows, self.cols(a))))

    def product(self, a: str, b: str) -> str:
        rows = max(self.rows(a), self.rows(b))
        return self.add(ir.Multiply(*self.base((a, b), rows, self.cols(a))))

    def normalise(self, x: str, kind: str | None = None) -> str:
        d = self.cols(x)
        kind = kind or self.pick("layer", "rms")
        gain = self.rng.uniform(0.5, 1.5, d) * self.pick(1.0, 1.0, -1.0, 20.0)
        if self.chance(0.1):
            gain[self.rng.integers(d)] = 0.0
        bias = self.rng.normal(size=d) * self.pick(0.0, 0.3)
        epsilon = self.pick(1e-12, 1e-5, 1e-2)
        base = self.base((x,), *self.shapes[x])
        return self.add(
            ir.Normalise(*base, "rms" if kind == "rms" else "layer", gain, bias, epsilon)
        )

    def rotate(self, x: str, size: int, interleaved: bool, part: int) -> str:
        """Rotary position of the first ``part`` elements of each head."""
        rows, cols = self.shapes[x]
        half = part // 2
        angle = np.arange(rows)[:, None] * 0.3 ** np.arange(half)
        at = np.arange(part)
        other = (at ^ 1) if interleaved else (at + half) % part
        turn = at // 2 if interleaved else at % half
        sign = np.where(other > at, -1.0, 1.0)
        cosine, sine = np.ones((rows, size)), np.zeros((rows, size))
        cosine[:, :part] = np.cos(angle)[:, turn]
        sine[:, :part] = np.sin(angle)[:, turn] * sign
        partner = np.concatenate([other, np.arange(part, size)])
        heads = cols // size
        partner = (np.arange(heads)[:, None] * size + partner).ravel()
        tables = np.tile(cosine, heads), np.tile(sine, heads)
        return self.add(ir.Rotate(*self.base((x,), rows, cols), *tables, partner))

    def gather(self, inputs: tuple[str, ...], index: Any) -> str:
        index = np.asarray(index, np.int64)
        return self.add(ir.Gather(*self.base(inputs, *index.shape), index))

    def attend(
        self, x: str, memory: str, heads: Heads, causal: bool, rope: tuple[bool, int] | None,
        flags: str | None = None,
    ) -> str:  # fmt: skip
        q = self.linear(x, heads.count * heads.size)
        k = self.linear(memory, heads.kv_count * heads.size)
        v = k
        if heads.value_size != heads.size or not self.chance(0.05):
            v = self.linear(memory, heads.kv_count * heads.value_size)
        if rope is not None:
            q, k = (self.rotate(y, heads.size, *rope) for y in (q, k))
        inputs = (q, k, v) if flags is None else (q, k, v, flags)
        base = self.base(inputs, self.rows(x), heads.count * heads.value_size)
        scale = heads.size**-0.5 * self.pick(1.0, 1.0, 0.2, 5.0)
        bias = self._bias(heads.count, self.rows(x), self.rows(memory), causal)
        return self.add(ir.Attend(*base, heads.count, heads.kv_count, scale, causal, bias))

    def _bias(self, heads: int, rows: int, keys: int, causal: bool) -> FloatArray:
        if not self.chance(0.25):
            return np.zeros((0, 0, 0))
        distance = np.arange(rows)[:, None] - np.arange(keys)[None, :]
        groups = self.pick(1, heads)
        slope = self.rng.uniform(0.1, 1.0, (groups, 1, 1))
        kind = self.pick("window", "distance", "table", "pairs")
        if kind == "window":
            hidden = np.abs(distance) > self.size(0, keys)
            if rows != keys:
                hidden[:, 0] = False
            return np.where(hidden, ir.HIDDEN, 0.0)[None]
        if kind == "distance":
            return np.asarray(-slope * np.abs(distance)[None])
        if kind == "table":
            line = self.rng.normal(size=(groups, rows + keys - 1))
            return np.asarray(line[:, distance + keys - 1])
        return self.rng.normal(size=(groups, rows, keys)) * slope

    def feed_forward(self, x: str) -> str:
        d = self.cols(x)
        hidden = self.size(1, 2 * d + 1)
        y = self.unary(self.linear(x, hidden))
        if self.chance(0.4):
            y = self.product(y, self.linear(x, hidden))
        return self.linear(y, d)

    def graph(self) -> ir.Graph:
        form: Literal["prefill", "call"] = "prefill" if "sequence" in self.sections else "call"
        return ir.Graph(
            self.sections,
            tuple(self.inputs),
            tuple(self.operations),
            tuple(self.outputs),
            (),
            form,
        )


@dataclass(frozen=True, slots=True)
class Heads:
    """Shape of an attention; the elements of a value may differ from those of a key."""

    count: int
    kv_count: int
    size: int
    value_size: int


def _heads(s: Sketch, rope: bool) -> Heads:
    kv_count = s.size(1, 3)
    count = kv_count * s.size(1, 3 if kv_count == 1 else 2)
    size = 2 * s.size(1, 3) if rope else s.size(1, 6)
    value_size = size if s.chance(0.8) else s.size(1, 6)
    return Heads(count, kv_count, size, value_size)


def _block(
    s: Sketch, x: str, memory: str | None, heads: Heads, causal: bool,
    rope: tuple[bool, int] | None, flags: str | None,
) -> str:  # fmt: skip
    """Attention and feed-forward with norms before, after or none; residuals or none."""
    norm = s.pick("layer", "rms")
    place = s.pick("before", "before", "after", "none")
    d = s.cols(x)

    def mix(y: str) -> str:
        return s.linear(s.attend(y, memory or y, heads, causal, rope, flags), d)

    def wrap(y: str, part: Callable[[str], str]) -> str:
        made = part(s.normalise(y, norm) if place == "before" else y)
        if s.chance(0.9):
            made = s.sum(y, made) if s.chance(0.5) else s.sum(made, y)
        return s.normalise(made, norm) if place == "after" else made

    if s.chance(0.15) and memory is None:  # both at once
        normed = s.normalise(x, norm)
        return s.sum(x, s.sum(mix(normed), s.feed_forward(normed)))
    x = wrap(x, mix)
    return wrap(x, s.feed_forward) if s.chance(0.8) else x


def _positions(s: Sketch, x: str, scale: float) -> str:
    return s.sum(x, s.constant(s.rows(x), s.cols(x), scale))


def _rope(s: Sketch, size: int) -> tuple[bool, int]:
    return s.chance(0.5), size if s.chance(0.7) else 2 * s.size(1, size // 2)


def decoder(s: Sketch) -> None:
    """Tokens to logits, token by token."""
    d, context, vocabulary = s.size(1, 9), s.size(1, 9), s.size(2, 11)
    rope, scale = s.chance(0.5), s.scale()
    heads = _heads(s, rope)
    turn = _rope(s, heads.size) if rope else None
    x = s.embed(s.input("ids", context, 1, vocabulary), vocabulary, d, scale)
    if not rope or s.chance(0.2):
        x = _positions(s, x, scale)
    if s.chance(0.1):
        x = s.product(x, s.constant(1, d, 1.0))
    for _ in range(s.size(1, 2)):
        x = _block(s, x, None, heads, True, turn, None)
    if s.chance(0.1):
        x = s.gather((x,), _own_columns(s, s.rows(x), d, s.size(1, d)))
    hidden = s.normalise(x) if s.chance(0.8) else x
    s.output(s.linear(hidden, vocabulary), "logits")
    if s.chance(0.1):
        s.output(hidden, "tensor")


def _own_columns(s: Sketch, rows: int, cols: int, count: int) -> Any:
    chosen = s.rng.permutation(cols)[:count]
    return np.arange(rows)[:, None] * cols + chosen


def _source(s: Sketch, rows: int, d: int) -> tuple[str, str | None]:
    """Rows of a once section, and flags of those that count."""
    kind = s.pick("ids", "ids", "flags", "tensor")
    if kind == "tensor":
        return _positions(s, s.linear(s.input("tensor", rows, s.size(1, 5)), d), 1.0), None
    count = s.size(2, 9)
    ids = s.input("ids", rows, 1, count)
    seen = None
    if kind == "flags":
        seen = s.input("flags", rows)
    elif s.chance(0.7):
        seen = s.add(ir.Flag(*s.base((ids,), rows, 1), s.size(0, count - 1)))
    scale = s.scale()
    return _positions(s, s.embed(ids, count, d, scale), scale), seen


def encoder(s: Sketch) -> None:
    """A classifier, or all rows, of tokens or of a matrix."""
    rows, d = s.size(1, 7), s.size(1, 9)
    heads = _heads(s, False)
    x, seen = _source(s, rows, d)
    if seen is None and s.chance(0.3):  # a class row in front
        front = s.constant(1, d, 1.0)
        x = s.gather((front, x), np.arange((rows + 1) * d).reshape(rows + 1, d))
    for _ in range(s.size(1, 2)):
        x = _block(s, x, None, heads, False, None, seen)
    pooled = x
    match s.pick("mean", "mean", "row", "all"):
        case "mean":
            inputs = (x,) if seen is None or s.chance(0.2) else (x, seen)
            pooled = s.add(ir.MeanRows(*s.base(inputs, 1, d)))
        case "row":
            row = s.size(0, s.rows(x) - 1)
            pooled = s.gather((x,), row * d + np.arange(d)[None, :])
    s.output(s.linear(pooled, s.size(1, 6)), s.pick("tensor", "logits"))


def encoder_decoder(s: Sketch) -> None:
    """A source of which a sequence is written."""
    source, target, d, vocabulary = s.size(1, 6), s.size(1, 6), s.size(1, 7), s.size(2, 8)
    heads = _heads(s, False)
    x, seen = _source(s, source, d)
    x = _block(s, x, None, heads, False, None, seen)
    size = heads.count * heads.size
    k, v = s.linear(x, heads.kv_count * heads.size), s.linear(x, heads.kv_count * heads.value_size)
    if s.chance(0.2):
        s.output(s.linear(x, 2), "tensor")
    s.section = 1
    y = s.embed(s.input("ids", target, 1, vocabulary), vocabulary, d, 1.0)
    y = _block(s, _positions(s, y, 1.0), None, heads, True, None, None)
    q = s.linear(s.normalise(y), size)
    inputs = (q, k, v) if seen is None else (q, k, v, seen)
    base = s.base(inputs, target, heads.count * heads.value_size)
    none = np.zeros((0, 0, 0))
    mixed = s.add(ir.Attend(*base, heads.count, heads.kv_count, heads.size**-0.5, False, none))
    y = s.sum(y, s.linear(mixed, d))
    s.outputs.insert(0, ir.Output("", "logits", "logits", ()))
    logits = s.linear(s.normalise(y), vocabulary)
    s.outputs[0] = ir.Output(logits, "logits", "logits", (1, target, vocabulary))


def tensors(s: Sketch) -> None:
    """Matrices in, matrices out: a random net of everything that works on them."""
    rows, cols = s.size(1, 6), s.size(1, 8)
    values = [s.input("tensor", rows, cols) for _ in range(s.size(1, 2))]
    for _ in range(s.size(2, 9)):
        x = s.pick(*values)
        values.append(_step(s, x, values))
    unread = [v for v in values if not any(v in op.inputs for op in s.operations)]
    made = [v for v in unread if v not in {i.value.key for i in s.inputs}]
    for key in made[-2:]:
        s.output(key, "tensor")
    read = {i.value.key for i in s.inputs if i.value.key not in unread}
    s.inputs = [i for i in s.inputs if i.value.key in read]


def _step(s: Sketch, x: str, values: list[str]) -> str:
    rows, cols = s.shapes[x]
    match s.pick("linear", "unary", "add", "multiply", "normalise", "gather", "mean", "attend"):
        case "linear":
            return s.linear(x, s.size(1, 8))
        case "unary":
            return s.unary(x)
        case "normalise":
            return s.normalise(x)
        case "gather":
            other = s.pick(*values)
            shape = (s.pick(rows, s.size(1, 6)), s.size(1, 8))
            count = rows * cols + s.rows(other) * s.cols(other)
            return s.gather((x, other), s.rng.integers(0, count, shape))
        case "mean":
            return s.add(ir.MeanRows(*s.base((x,), 1, cols)))
        case "attend":
            same = [v for v in values if v != x or s.chance(0.5)] or [x]
            return s.attend(x, s.pick(*same), _heads(s, False), False, None)
        case binary:
            same = [
                v
                for v in values
                if s.cols(v) == cols and (s.rows(v) == rows or 1 in (s.rows(v), rows))
            ]
            other = s.pick(*same, s.constant(s.pick(1, rows), cols, s.scale()))
            return s.sum(x, other) if binary == "add" else s.product(x, other)


def convolution(s: Sketch) -> None:
    """Layers of patches with borders of zeros, functions, means over pools or over all."""
    side, channels = s.size(2, 4), s.size(1, 3)
    x = s.input("tensor", side * side, channels)
    for _ in range(s.size(1, 2)):
        x = s.unary(s.linear(_patches(s, x, side), s.size(1, 5)))
        if s.chance(0.3):
            x = s.normalise(x)
        if side > 2 and s.chance(0.4):
            side //= 2
            x = _pool(s, x, side)
    if s.chance(0.7):
        x = s.add(ir.MeanRows(*s.base((x,), 1, s.cols(x))))
    else:
        x = s.gather((x,), np.arange(s.rows(x) * s.cols(x))[None, :])
    s.output(s.linear(x, s.size(1, 5)), "tensor")


def _patches(s: Sketch, x: str, side: int) -> str:
    channels, reach = s.cols(x), 1
    zero = s.add(ir.Rows(*s.base((), 1, channels), np.zeros((1, channels))))
    index = []
    for r in range(side):
        for c in range(side):
            line: list[int] = []
            for dr in range(-reach, reach + 1):
                for dc in range(-reach, reach + 1):
                    inside = 0 <= r + dr < side and 0 <= c + dc < side
                    at = (r + dr) * side + c + dc if inside else side * side
                    line.extend(at * channels + i for i in range(channels))
            index.append(line)
    return s.gather((x, zero), index)


def _pool(s: Sketch, x: str, side: int) -> str:
    """The sum of 2 x 2 rows of a square of twice the side (a last odd row and column left out)."""
    cols = s.cols(x)
    wide = round(s.rows(x) ** 0.5)
    corners = []
    for dr, dc in ((0, 0), (0, 1), (1, 0), (1, 1)):
        rows = [(2 * r + dr) * wide + 2 * c + dc for r in range(side) for c in range(side)]
        corners.append(s.gather((x,), np.array(rows)[:, None] * cols + np.arange(cols)))
    return s.sum(s.sum(corners[0], corners[1]), s.sum(corners[2], corners[3]))


def recurrent(s: Sketch) -> None:
    """A state: as a language model or over a matrix, gated or plain."""
    rows, d, h = s.size(1, 6), s.size(1, 6), s.size(1, 6)
    vocabulary = s.size(2, 8)
    words = s.sections == ("sequence",)
    if words:
        x = s.embed(s.input("ids", rows, 1, vocabulary), vocabulary, d, s.scale(0.5))
    else:
        x = s.input("tensor", rows, d)
    for _ in range(s.size(1, 2)):
        x = _state(s, x, h)
    if words:
        s.output(s.linear(x, vocabulary), "logits")
        return
    if s.chance(0.5):
        x = s.gather((x,), (rows - 1) * h + np.arange(h)[None, :])
    s.output(s.linear(x, s.size(1, 5)), "tensor")


def _state(s: Sketch, x: str, h: int) -> str:
    rows = s.rows(x)
    at = len(s.operations)
    base = s.base((), rows, h)
    state = base[0].key
    initial = s.rng.normal(size=h) * s.pick(0.0, 0.5)
    s.operations.append(ir.Delay(*base, initial))

    def gate(function: str) -> str:
        return s.unary(s.sum(s.linear(x, h), s.linear(state, h)), _f(function, X))

    made = gate("tanh")
    if s.chance(0.6):
        made = s.sum(s.product(gate("sigmoid"), made), s.product(gate("sigmoid"), state))
    s.operations[at] = ir.Delay(base[0], (made,), base[2], base[3], initial)
    return made


FAMILIES: Mapping[str, tuple[tuple[tuple[ir.SectionKind, ...], ...], Draw, float]] = {
    "decoder": ((("sequence",),), decoder, 0.3),
    "encoder": ((("once",),), encoder, 0.2),
    "encoder-decoder": ((("once", "sequence"),), encoder_decoder, 0.12),
    "tensors": ((("once",),), tensors, 0.16),
    "convolution": ((("once",),), convolution, 0.1),
    "recurrent": ((("sequence",), ("once",)), recurrent, 0.12),
}
"""Sections to choose from, what draws them, and the share of graphs."""

_WEIGHTS: tuple[WeightKind, ...] = ("auto", "int8", "int6", "int4", "int3", "int2", "ternary")
_STYLES: tuple[Style, ...] = ("auto", "bitplane", "folded", "parallel")


def draw(seed: int, family: str | None = None) -> Drawn:
    """The graph of a seed."""
    rng = np.random.default_rng(seed)
    chosen = str(rng.choice(list(FAMILIES), p=[share for _, _, share in FAMILIES.values()]))
    chosen = family or chosen
    sections, sketch, _ = FAMILIES[chosen]
    s = Sketch(rng, sections[int(rng.integers(len(sections)))])
    while not s.outputs:
        s = Sketch(rng, s.sections)
        sketch(s)
    graph = s.graph()
    weights = _WEIGHTS[int(rng.integers(len(_WEIGHTS)))] if s.chance(0.5) else "auto"
    bits = s.pick(8, 8, 8, 4, 6, 9, 10, 12)
    widths = Widths(narrow=bits, score=bits, table=min(bits, 10), rotary=bits + 3)
    attends = [op for op in graph.operations if isinstance(op, ir.Attend)]
    shapes = {s.cols(key) for op in attends for key in op.inputs[1:3]}
    loadable = graph.sections == ("sequence",) and len(shapes) == 1 and chosen == "decoder"
    return Drawn(
        seed=seed,
        family=chosen,
        graph=graph,
        options=QuantiseOptions(weights, widths),
        style=_STYLES[int(rng.integers(len(_STYLES)))],
        logits_port=s.chance(0.9),
        cache_port=loadable and s.chance(0.3),
    )
