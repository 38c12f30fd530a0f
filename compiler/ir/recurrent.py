"""LSTM and GRU layers of one direction, as ONNX defines them: parameters, and their meaning.

Gates are in ONNX's order: input, output, forget, cell for an LSTM; update, reset, hidden for a GRU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hwcompile.compiler.ir.expressions import evaluate as evaluate_expression
from hwcompile.compiler.ir.graph import Expression, FloatArray
from hwcompile.compiler.ir.tensor_graph import Array


@dataclass(frozen=True, slots=True)
class Layer:
    """``weight`` ``[gates, inputs, size]``, ``recurrent`` ``[gates, size, size]``; ``bias`` and
    ``recurrent_bias`` ``[gates, size]``; ``hidden`` and ``cell``: the initial state ``[size]``.

    ``peepholes`` ``[3, size]``: factors of the cell in the input, output and forget gate of an LSTM
    (the output gate sees the new cell), or none.
    ``functions``: of the gates, the candidate and (LSTM) the cell. ``reset_after``: a GRU whose
    reset gate acts after the matrix. ``reverse``: from the last row to the first. ``result``:
    which state is the output.
    """

    kind: Literal["LSTM", "GRU"]
    weight: FloatArray
    recurrent: FloatArray
    bias: FloatArray
    recurrent_bias: FloatArray
    hidden: FloatArray
    cell: FloatArray
    functions: tuple[Expression, ...]
    reset_after: bool
    reverse: bool
    result: Literal["hidden", "cell"] = "hidden"
    peepholes: FloatArray | None = None

    @property
    def size(self) -> int:
        """Width of the state."""
        return len(self.hidden)


def evaluate(attributes: Mapping[str, Any], x: Array) -> Array:
    """``attributes["layer"]`` on ``x`` ``[rows, batch, inputs]`` -> ``[rows, batch, size]``."""
    layer: Layer = attributes["layer"]
    h = np.broadcast_to(layer.hidden, (x.shape[1], layer.size))
    c = np.broadcast_to(layer.cell, h.shape)
    rows = []
    for row in x[::-1] if layer.reverse else x:
        inputs = [row @ w + b for w, b in zip(layer.weight, layer.bias, strict=True)]
        h, c = (_lstm if layer.kind == "LSTM" else _gru)(layer, inputs, h, c)
        rows.append(c if layer.result == "cell" else h)
    out = np.stack(rows[::-1] if layer.reverse else rows)
    return np.asarray(out, x.dtype)


def _lstm(
    layer: Layer, inputs: list[FloatArray], h: FloatArray, c: FloatArray
) -> tuple[FloatArray, FloatArray]:
    gate, candidate, out = layer.functions
    sums = [
        x + h @ r + b for x, r, b in zip(inputs, layer.recurrent, layer.recurrent_bias, strict=True)
    ]
    seen = np.zeros((3, layer.size)) if layer.peepholes is None else layer.peepholes
    i = evaluate_expression(gate, sums[0] + seen[0] * c)
    f = evaluate_expression(gate, sums[2] + seen[2] * c)
    c = f * c + i * evaluate_expression(candidate, sums[3])
    o = evaluate_expression(gate, sums[1] + seen[1] * c)
    return o * evaluate_expression(out, c), c


def _gru(
    layer: Layer, inputs: list[FloatArray], h: FloatArray, c: FloatArray
) -> tuple[FloatArray, FloatArray]:
    gate, candidate = layer.functions
    matrix, bias = layer.recurrent, layer.recurrent_bias
    z, r = (evaluate_expression(gate, inputs[i] + h @ matrix[i] + bias[i]) for i in (0, 1))
    if layer.reset_after:
        n = evaluate_expression(candidate, inputs[2] + r * (h @ matrix[2] + bias[2]))
    else:
        n = evaluate_expression(candidate, inputs[2] + (r * h) @ matrix[2] + bias[2])
    return (1 - z) * n + z * h, c
