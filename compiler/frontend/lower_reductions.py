"""Means, sums and maxima over rows or columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from hwcompile.compiler.frontend import forms
from hwcompile.compiler.frontend.builder import Unsupported
from hwcompile.compiler.frontend.forms import Form
from hwcompile.compiler.frontend.lower_elementwise import larger
from hwcompile.compiler.frontend.lowering import Handlers, Lowering, Tensor
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.tensor_graph import Array, Node


def _reduce(w: Lowering, node: Node) -> Tensor:
    form = w.form(node.inputs[0])
    rank = len(form.shape)
    axes = node.attributes.get("axes")
    reduced = sorted({a % rank for a in axes} if axes else range(rank))
    kept = [a for a in range(rank) if a not in reduced]
    count = prod(form.shape[a] for a in reduced)
    turned = forms.move(form, lambda x: x.transpose(*reduced, *kept).reshape(count, -1))
    if node.op == "ReduceMax":
        out = _greatest(w, turned, count)
    elif reduced == [rank - 1] and prod(form.shape[:-1]) > 1:
        weight = np.full((count, 1), 1.0 if node.op == "ReduceSum" else 1.0 / count)
        out = w.linear(node.inputs[0], weight[None])
    else:
        out = _mean(w, turned, count, node.op == "ReduceSum")
    return forms.move(out, lambda x: x.reshape(node.shape))


def _masked_mean(w: Lowering, node: Node) -> Tensor:
    form, mask = (w.form(k) for k in node.inputs)
    axis = node.attributes["axis"]
    rows = form.shape[axis]
    flag = mask.terms[0].base if len(mask.terms) == 1 else ""
    straight = flag in w.flags and forms.is_whole(mask, rows) and form.lead == 1
    if not straight or (mask.terms[0].index.reshape(-1) != np.arange(rows)).any():
        raise Unsupported("a mean over rows chosen in another way", "use a padding mask")
    if not forms.is_plain(mask):
        raise Unsupported("a mean over rows without their flag", "use a padding mask")
    turned = forms.move(form, lambda x: np.moveaxis(x, axis, 0).reshape(rows, -1))
    cols = turned.shape[1]
    key = w.m.matrix(turned, np.arange(rows * cols), rows, cols)
    made = w.m.emit(ir.MeanRows, 1, cols, (key, flag))
    return forms.bare(made, np.arange(cols).reshape(1, *node.shape))


def _mean(w: Lowering, turned: Form, count: int, total: bool) -> Form:
    if turned.lead > 1:
        raise Unsupported("a mean inside a step", "not supported")
    cols = turned.shape[1]
    key = w.m.matrix(turned, np.arange(count * cols), count, cols)
    made = w.m.emit(ir.MeanRows, 1, cols, (key,))
    mean = forms.bare(made, np.arange(cols).reshape(1, 1, cols))
    return replace(mean, gain=float(count)) if total else mean


def _greatest(w: Lowering, turned: Form, count: int) -> Form:
    out = forms.move(turned, lambda x: x[:1])
    for i in range(1, count):
        out = larger(w, out, forms.move(turned, _RowOf(i)))
    return out


@dataclass(frozen=True, slots=True)
class _RowOf:
    """Picks one row, kept as a matrix."""

    row: int

    def __call__(self, x: Array) -> Array:
        return x[self.row : self.row + 1]


REDUCTIONS: Handlers = {
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "ReduceMax": _reduce,
    "MaskedMean": _masked_mean,
}
