"""Graph: the first representation. A trained network as float operations on matrices.

Every value of a Graph is a float matrix ``[rows, cols]`` for one sample. Rows are time (tokens,
patches); columns are features, heads side by side (column = head * head_size + element). No ONNX
type, axis order or name survives past the front-end; reshapes, transposes, splits and
concatenations are gone, or are one explicit :class:`Gather`.

A graph has one or two sections. Operations of a ``sequence`` section act on one row at a time and
see earlier rows only through causal attention or a :class:`Delay`, so that a chip can run it token
by token with a KV cache, and a program can run it on all rows at once with the same result.
Operations of a ``once`` section see all rows. A decoder is one ``sequence`` section whatever form
its file had (prefill, kv,
step); an encoder-decoder is ``once`` (the source) followed by ``sequence`` (the target).

Weights and tables of a file with too many to load are read-only maps of it (``ir.mapped``), in the
element type of the file. Such a graph can be inspected; nothing is computed with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SectionKind = Literal["once", "sequence"]
InputKind = Literal["ids", "flags", "tensor"]

HIDDEN = -1e30
"""A bias that hides a key."""


@dataclass(frozen=True, slots=True)
class Value:
    """A float matrix of one sample. ``key`` is made by us (``v0``, ``v1``, ...)."""

    key: str
    rows: int
    cols: int


@dataclass(frozen=True, slots=True)
class Input:
    """A graph input.

    ``ids``: token ids ``[rows, 1]`` in ``0 .. id_count - 1``. ``flags``: 0/1 per row ``[rows, 1]``.
    ``tensor``: floats; ``low``/``high`` when the graph proves a range, else None.
    ``model_name`` and ``model_shape`` are the ONNX input's own (batch axis first); they only ever
    name arrays in npz files.
    """

    value: Value
    kind: InputKind
    section: int
    model_name: str
    model_shape: tuple[int, ...]
    id_count: int = 0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """A graph output. ``logits``: the chip also gives the arg-max of each row.

    ``grid_scale``: the file rounds the output to multiples of it; 0 when it does not round.
    """

    value: str
    kind: Literal["logits", "tensor"]
    model_name: str
    model_shape: tuple[int, ...]
    grid_scale: float = 0.0


# --- elementwise functions of one variable ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expression:
    """A scalar function of one variable ``x``: a tree of named numpy-like functions.

    ``function`` is ``"x"`` (the variable), ``"constant"`` (``constant`` holds it) or one of
    ``EXPRESSION_FUNCTIONS`` applied to ``arguments``.
    """

    function: str
    arguments: tuple[Expression, ...] = ()
    constant: float = 0.0


# --- operations ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Operation:
    """Base of all operations: one output matrix. ``origin`` is free text for reports (escaped)."""

    output: Value
    inputs: tuple[str, ...]
    section: int
    origin: str

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs that must be made before it."""
        return self.inputs


@dataclass(frozen=True, slots=True)
class Embed(Operation):
    """``out[r] = table[ids[r]]``; inputs (ids,)."""

    table: FloatArray


@dataclass(frozen=True, slots=True)
class Rows(Operation):
    """``out[r] = table[r]``: constant rows (positions, class tokens); no inputs."""

    table: FloatArray


@dataclass(frozen=True, slots=True)
class Linear(Operation):
    """``out = x @ weight + bias``; weight ``[n, m]``, bias ``[m]``.

    ``grid``: the integer weights and per-column scales when the file carries quantised or ternary
    weights (``weight == grid_values * grid_scale``), else None.
    """

    weight: FloatArray
    bias: FloatArray
    grid_values: IntArray | None = None
    grid_scale: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Unary(Operation):
    """``out = f(x)`` elementwise."""

    function: Expression


@dataclass(frozen=True, slots=True)
class Add(Operation):
    """``out = a + b``; an operand with one row is used for every row."""


@dataclass(frozen=True, slots=True)
class Multiply(Operation):
    """``out = a * b``; an operand with one row is used for every row."""


@dataclass(frozen=True, slots=True)
class Normalise(Operation):
    """Layer norm (mean removed) or RMS norm over the columns of each row, then gain and bias."""

    kind: Literal["layer", "rms"]
    gain: FloatArray
    bias: FloatArray
    epsilon: float


@dataclass(frozen=True, slots=True)
class Rotate(Operation):
    """Rotary position: ``out[r, c] = x[r, c] * cosine[r, c] + x[r, partner[c]] * sine[r, c]``.

    Tables are ``[rows, cols]``; the sign of the rotation is in ``sine``.
    """

    cosine: FloatArray
    sine: FloatArray
    partner: IntArray


@dataclass(frozen=True, slots=True)
class Attend(Operation):
    """Softmax attention. inputs (q, k, v) or (q, k, v, key_flags).

    Head ``h`` of q uses head ``h // (heads // kv_heads)`` of k and v; ``scores = scale * q @ k.T``.
    A key whose flag is 0 is not seen; ``causal``: row r sees keys 0..r only. A row that sees
    nothing gives 0. ``bias`` ``[1 or heads, rows, keys]`` is added to the scores, ``HIDDEN`` where
    a key is not to be seen (never all of a row); empty: none.
    """

    heads: int
    kv_heads: int
    scale: float
    causal: bool
    bias: FloatArray = field(default_factory=lambda: np.zeros((0, 0, 0)))


@dataclass(frozen=True, slots=True)
class Gather(Operation):
    """``out.ravel() = concatenate([x.ravel() for x in inputs])[index]``; index ``[rows, cols]``."""

    index: IntArray


@dataclass(frozen=True, slots=True)
class Delay(Operation):
    """The state of a recurrent network: ``out[r] = x[r - 1]``, row 0 is ``initial`` ``[cols]``.

    Its input is made after it, from it: row by row the two hold, matrix by matrix they cannot.
    """

    initial: FloatArray

    @property
    def reads(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class MeanRows(Operation):
    """Mean over rows, ``[1, cols]``; inputs (x,) or (x, row_flags): mean over the flagged rows."""


@dataclass(frozen=True, slots=True)
class Flag(Operation):
    """``out[r] = 0 if ids[r] == absent else 1``: which source tokens are no padding."""

    absent: int


@dataclass(frozen=True, slots=True)
class CacheTensor:
    """How a file with caches names one: for loading and for returning caches under ``run``.

    ``operation`` is the output key of the :class:`Attend` it belongs to.
    """

    operation: str
    role: Literal["key", "value"]
    input_name: str
    output_name: str


@dataclass(frozen=True, slots=True)
class Graph:
    """A whole network. ``operations`` is in topological order, sections ascending."""

    sections: tuple[SectionKind, ...]
    inputs: tuple[Input, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Output, ...]
    caches: tuple[CacheTensor, ...] = ()
    form: Literal["call", "prefill", "kv", "step"] = "call"
