"""LSTM and GRU layers become matrices, tables, products and states.

Every gate has matrices of its own, so that its sum has a scale of its own. The state that is added
to over time (the cell of an LSTM, the hidden state of a GRU) is only ever summed and multiplied.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hwcompile.compiler.frontend import forms
from hwcompile.compiler.frontend.builder import Unsupported
from hwcompile.compiler.frontend.lowering import Handlers, Lowering, Tensor
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.expressions import constant
from hwcompile.compiler.ir.graph import Expression, FloatArray
from hwcompile.compiler.ir.recurrent import Layer
from hwcompile.compiler.ir.tensor_graph import Array, Node


def _recurrent(w: Lowering, node: Node) -> Tensor:
    layer: Layer = node.attributes["layer"]
    x = w.form(node.inputs[0])
    batch = x.shape[1]
    if batch != 1:
        raise Unsupported(f"a recurrence over {batch} sequences at a time", "export with batch 1")
    turn: Callable[[Array], Array] = (lambda a: a[::-1]) if layer.reverse else (lambda a: a)
    x = forms.move(x, turn)
    rows, cols = forms.rows_of(x)
    key = w.m.matrix(x, np.arange(rows * cols), rows, cols)
    memo = (key, id(layer.weight))
    if memo not in w.layers:
        w.layers[memo] = (_lstm if layer.kind == "LSTM" else _gru)(w, layer, key)
    made = w.layers[memo][layer.result]
    shape = (x.lead, *x.shape[:-1], layer.size)
    out = forms.bare(made, np.arange(rows * layer.size).reshape(shape))
    return forms.move(out, turn)


def _lstm(w: Lowering, layer: Layer, x: str) -> dict[str, str]:
    gate, candidate, out = layer.functions
    inputs = _matrices(w, x, layer.weight, layer.bias + layer.recurrent_bias)
    rows = w.m.values[x].rows
    h, c = w.m.delay(layer.hidden, rows), w.m.delay(layer.cell, rows)
    kept = _matrices(w, h, layer.recurrent, np.zeros_like(layer.bias))
    sums = [w.m.binary(ir.Add, *pair) for pair in zip(inputs, kept, strict=True)]
    i, f = (w.m.unary(_peep(w, layer, n, sums[n], c), gate) for n in (0, 2))
    added = w.m.binary(ir.Multiply, i, w.m.unary(sums[3], candidate))
    cell = w.m.binary(ir.Add, w.m.binary(ir.Multiply, f, c), added)
    o = w.m.unary(_peep(w, layer, 1, sums[1], cell), gate)
    hidden = w.m.binary(ir.Multiply, o, w.m.unary(cell, out))
    w.m.keep(h, hidden)
    w.m.keep(c, cell)
    return {"hidden": hidden, "cell": cell}


def _peep(w: Lowering, layer: Layer, gate: int, total: str, cell: str) -> str:
    """The sum of a gate, with what it sees of the cell."""
    if layer.peepholes is None:
        return total
    # A diagonal matrix: constant factors are weights like others, and work row by row.
    seen = _matrices(w, cell, np.diag(layer.peepholes[gate])[None], np.zeros((1, layer.size)))
    return w.m.binary(ir.Add, total, seen[0])


def _gru(w: Lowering, layer: Layer, x: str) -> dict[str, str]:
    gate, candidate = layer.functions
    after = np.array([0.0, 0.0, 1.0 if layer.reset_after else 0.0])[:, None]
    inputs = _matrices(w, x, layer.weight, layer.bias + (1 - after) * layer.recurrent_bias)
    h = w.m.delay(layer.hidden, w.m.values[x].rows)
    direct = 3 if layer.reset_after else 2
    kept = _matrices(w, h, layer.recurrent[:direct], (after * layer.recurrent_bias)[:direct])
    update, reset = (w.m.binary(ir.Add, inputs[i], kept[i]) for i in (0, 1))
    r = w.m.unary(reset, gate)
    if layer.reset_after:
        seen = w.m.binary(ir.Multiply, r, kept[2])
    else:
        part = w.m.binary(ir.Multiply, r, h)
        seen = _matrices(w, part, layer.recurrent[2:], np.zeros((1, layer.size)))[0]
    n = w.m.unary(w.m.binary(ir.Add, inputs[2], seen), candidate)
    rest = Expression("sub", (constant(1.0), gate))
    fresh = w.m.binary(ir.Multiply, w.m.unary(update, rest), n)
    old = w.m.binary(ir.Multiply, w.m.unary(update, gate), h)
    hidden = w.m.binary(ir.Add, old, fresh)
    w.m.keep(h, hidden)
    return {"hidden": hidden}


def _matrices(w: Lowering, x: str, weights: FloatArray, biases: FloatArray) -> list[str]:
    rows = w.m.values[x].rows
    return [
        w.m.emit(ir.Linear, rows, len(b), (x,), weight=np.ascontiguousarray(m), bias=b)
        for m, b in zip(weights, biases, strict=True)
    ]


RECURRENT: Handlers = {"Recurrent": _recurrent}
