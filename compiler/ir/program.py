"""Program: the second representation. The network as exact integer operations.

The program is the contract: every operation has one integer meaning, written once in
:mod:`hwcompile.compiler.ir.operations`, and everything after it (chip, RTL, netlist) must equal it
bit for bit. Values are signed integer matrices ``[rows, cols]``; ``real = integer * scale``.

Sections work as in :mod:`hwcompile.compiler.ir.graph`: a ``sequence`` section can be executed row
by row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
SectionKind = Literal["once", "sequence"]


@dataclass(frozen=True, slots=True)
class Value:
    """An integer matrix of one sample.

    ``bits``: width of its two's complement storage. ``low``/``high``: proven interval, inside the
    width. ``scale``: real value of one unit. Ids and flags are non-negative and have scale 1.
    """

    key: str
    rows: int
    cols: int
    bits: int
    low: int
    high: int
    scale: float


@dataclass(frozen=True, slots=True)
class Input:
    """``ids``, ``flags`` or ``tensor`` as in the graph; a tensor is quantised on entry as
    ``clip(floor(x / scale + 0.5), low, high)``."""

    value: Value
    kind: Literal["ids", "flags", "tensor"]
    section: int
    model_name: str
    model_shape: tuple[int, ...]
    id_count: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    value: str
    kind: Literal["logits", "tensor"]
    model_name: str
    model_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """Base: ``output`` value, ``inputs`` keys, ``section`` index, ``origin`` text for reports."""

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
    """``out[r] = table[ids[r]]``; an id outside the table gives zeros. table ``[ids, cols]``."""

    table: IntArray


@dataclass(frozen=True, slots=True)
class Rows(Operation):
    """``out[r] = table[r]`` (in a sequence section r is the position). table ``[rows, cols]``."""

    table: IntArray


@dataclass(frozen=True, slots=True)
class Linear(Operation):
    """``acc[r, c] = sum_i x[r, i] * weight[i, c] + bias[c]`` exactly, then
    ``out = requantise(acc, multiplier[c], shift[c], bits)``.

    weight ``[n, m]``; bias, multiplier (>= 1), shift (may be negative: left shift) ``[m]``.
    """

    weight: IntArray
    bias: IntArray
    multiplier: IntArray
    shift: IntArray


@dataclass(frozen=True, slots=True)
class Rescale(Operation):
    """``out = requantise(x, multiplier, shift, bits)``."""

    multiplier: int
    shift: int


@dataclass(frozen=True, slots=True)
class Lookup(Operation):
    """``out = table[x - first]``; x lies in ``first .. first + len(table) - 1`` by its interval."""

    table: IntArray
    first: int


@dataclass(frozen=True, slots=True)
class Add(Operation):
    """``out = saturate(round_shift(a * multiplier_a + b * multiplier_b, shift), bits)``.

    An operand with one row is used for every row. On the residual stream both multipliers are 1
    and shift is 0.
    """

    multiplier_a: int = 1
    multiplier_b: int = 1
    shift: int = 0


@dataclass(frozen=True, slots=True)
class Multiply(Operation):
    """``out = requantise(a * b, multiplier, shift, bits)``; a one-row operand is broadcast."""

    multiplier: int
    shift: int


@dataclass(frozen=True, slots=True)
class Normalise(Operation):
    """Layer or RMS norm of each row of x, d columns::

        S = sum(x) (layer) or 0 (rms);  n_i = d * x_i - S;  V = d * sum(x^2) - S^2 + epsilon
        root = isqrt(V << 2 * root_fraction);  root == 0: normed_i = 0, else
        b = bit_length(root);  inverse = floor(2^(b + 15) / root)          (2^15 <= inverse <= 2^16)
        normed_i = round_shift(n_i * inverse, b + 15 - root_fraction - NORMED_FRACTION)
        out_i = saturate(round_shift(normed_i * gain_i + bias_i, shift), bits)

    ``gain``, ``bias``: ``[d]``. NORMED_FRACTION is 12: normed is the normalised value in Q12.
    """

    kind: Literal["layer", "rms"]
    epsilon: int
    root_fraction: int
    gain: IntArray
    bias: IntArray
    shift: int


@dataclass(frozen=True, slots=True)
class Rotate(Operation):
    """Rotary position::

        acc = x[r, c] * cosine[r, c % p] + x[r, partner[c]] * sine[r, c % p]
        out[r, c] = requantise(acc, 1, shift, bits)

    Tables ``[rows, p]`` in Q14 (p is the head size, or cols); r is the position.
    """

    cosine: IntArray
    sine: IntArray
    partner: IntArray
    shift: int


@dataclass(frozen=True, slots=True)
class Attend(Operation):
    """Attention over stored scores; inputs (q, k, v) or (q, k, v, key_flags). Each row and head::

        s_t = q . k_t + bias  for each visible key t;  top = max s_t
        index_t = min(round_shift((top - s_t) * multiplier, shift), len(exp_table) - 1)
        p_t = exp_table[index_t];  D = sum p_t;  A_j = sum_t p_t * v_tj
        reciprocal = floor(2^reciprocal_bits / D)
        out_j = saturate(round_shift(A_j * reciprocal, output_shift), bits)

    No visible key: out = 0. Head h reads kv head ``h // (heads // kv_heads)``. ``causal``: row r
    sees keys 0..r. ``exp_table`` is non-negative and not increasing, its entry 0 positive.
    ``bias`` is empty (none), or ``[g, rows, keys]``, g 1 or one for each head, or by distance
    ``[g, n]``: of row r and key t then entry ``r - t + n - rows``; n is rows where causal, else
    rows + keys - 1.
    """

    heads: int
    kv_heads: int
    causal: bool
    multiplier: int
    shift: int
    exp_table: IntArray
    reciprocal_bits: int
    output_shift: int
    bias: IntArray = field(default_factory=lambda: np.zeros((0, 0), np.int64))


@dataclass(frozen=True, slots=True)
class Gather(Operation):
    """``out.ravel() = concatenate([x.ravel() for x in inputs])[index]``; index ``[rows, cols]``."""

    index: IntArray


@dataclass(frozen=True, slots=True)
class Delay(Operation):
    """``out[r] = x[r - 1]``, row 0 is ``initial`` ``[cols]``: the state of a recurrent network.

    The input is made after it in the same row. The interval of the output holds that of the input.
    """

    initial: IntArray

    @property
    def reads(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class SumRows(Operation):
    """``out = requantise(sum of rows, multiplier, shift, bits)``; inputs (x,) or (x, row_flags)."""

    multiplier: int
    shift: int


@dataclass(frozen=True, slots=True)
class CacheTensor:
    """A cache of the model file: key or value of an Attend (by its output key), by ONNX name."""

    operation: str
    role: Literal["key", "value"]
    input_name: str
    output_name: str


@dataclass(frozen=True, slots=True)
class Program:
    """The whole integer program; ``operations`` in topological order, sections ascending."""

    sections: tuple[SectionKind, ...]
    inputs: tuple[Input, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Output, ...]
    caches: tuple[CacheTensor, ...] = ()
    form: Literal["call", "prefill", "kv", "step"] = "call"
    values: dict[str, Value] = field(init=False, compare=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.values.update({i.value.key: i.value for i in self.inputs})
        self.values.update({o.output.key: o.output for o in self.operations})
