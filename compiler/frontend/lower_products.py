"""Matrix products, attention, norms and tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwcompile.compiler.frontend import attention, forms, padding
from hwcompile.compiler.frontend.builder import Unsupported
from hwcompile.compiler.frontend.forms import Form
from hwcompile.compiler.frontend.lowering import Handlers, Lowering, Tensor
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.graph import IntArray
from hwcompile.compiler.ir.mapped import is_mapped
from hwcompile.compiler.ir.tensor_graph import Node


def _matmul(w: Lowering, node: Node) -> Tensor:
    left, right = node.inputs
    scores = w.scores(left)
    if scores is not None:
        flags = w.pairs.get(scores.flags, scores.flags)
        out, made = attention.attend(w.m, replace(scores, flags=flags), w.form(right))
        w.attends.append((made, scores.key, right))
        return out
    weight, first = w.large_weight(right), w.large_weight(left)
    if weight is not None:
        return w.linear(left, weight)
    if first is not None:
        out = w.linear(_turn(w, right), np.swapaxes(first, -1, -2))
        return forms.move(out, lambda x: np.swapaxes(x, -1, -2))
    a, b = w.form(left), w.form(right)
    if not b.terms:
        return w.linear(left, forms.without_gain(b).offset)
    if not a.terms:
        turned = _turn(w, right)
        weight = np.swapaxes(forms.without_gain(a).offset, -1, -2)
        out = w.linear(turned, weight)
        return forms.move(out, lambda x: np.swapaxes(x, -1, -2))
    if len(a.shape) < 2 or len(b.shape) < 2:
        raise Unsupported("a product with a vector", "not supported")
    return attention.product(a, b, right)


def _turn(w: Lowering, key: str) -> str:
    form = w.form(key)
    if len(form.shape) < 2:
        raise Unsupported("a product with a vector", "not supported")
    turned = f"{key} turned"
    w.tensors[turned] = forms.move(form, lambda x: np.swapaxes(x, -1, -2))
    return turned


def _norm(w: Lowering, node: Node) -> Tensor:
    groups = _groups(w, w.form(node.inputs[0]))
    if groups is not None:
        return _norm_groups(w, node, *groups)
    settled, made = w.settled(node.inputs[0])
    return forms.bare(_normalise(w, node, made), settled.terms[0].index)


def _normalise(w: Lowering, node: Node, x: str) -> str:
    value, at = w.m.values[x], node.attributes
    return w.m.emit(
        ir.Normalise,
        value.rows,
        value.cols,
        (x,),
        kind=at["kind"],
        gain=np.asarray(at["gain"], np.float64),
        bias=np.asarray(at["bias"], np.float64),
        epsilon=float(at["epsilon"]),
    )


def _groups(w: Lowering, form: Form) -> tuple[str, IntArray, IntArray] | None:
    """Rows of a tensor that are groups of columns (heads) of a matrix with fewer rows.

    The matrix, the columns of each group ``[groups, size]`` and the place of every row of the
    tensor as ``row * groups + group``; None for anything else.
    """
    term = form.terms[0] if len(form.terms) == 1 else None
    if term is None or not forms.is_plain(form):
        return None
    value, size = w.m.values[term.base], form.shape[-1]
    index: IntArray = term.index.reshape(-1, size)
    groups = len(index) // value.rows
    if groups < 2 or value.rows < 2 or groups * value.rows != len(index):
        return None
    rows, columns = index // value.cols, index % value.cols
    order = np.lexsort((columns[:, 0], rows[:, 0]))
    laid: IntArray = columns[order].reshape(-1, groups, size)
    even = np.array_equal(rows[order, 0], np.repeat(np.arange(value.rows), groups))
    if not even or (rows != rows[:, :1]).any() or (laid != laid[:1]).any():
        return None
    place = np.empty(len(index), np.int64)
    place[order] = np.arange(len(index))
    return term.base, laid[0], place


def _norm_groups(w: Lowering, node: Node, base: str, columns: IntArray, place: IntArray) -> Form:
    """A norm of each head by itself: one Normalise a head, then heads side by side again."""
    rows, (groups, size) = w.m.values[base].rows, columns.shape
    first = np.arange(rows)[:, None]
    parts = [
        _normalise(w, node, w.m.pick(base, first * w.m.values[base].cols + c)) for c in columns
    ]
    local = first[:, :, None] * size + np.arange(size)
    index = (np.arange(groups)[:, None] * rows * size + local).reshape(rows, groups * size)
    made = w.m.emit(ir.Gather, rows, groups * size, tuple(parts), index=index)
    shape = (w.form(node.inputs[0]).lead, *node.shape)
    return forms.bare(made, (place[:, None] * size + np.arange(size)).reshape(shape))


def _softmax(w: Lowering, node: Node) -> Tensor:
    scores = w.scores(node.inputs[0])
    if scores is None:
        raise Unsupported("a softmax outside attention", "leave it to the host")
    return replace(scores, soft=True)


def _gather(w: Lowering, node: Node) -> Tensor:
    table = w.graph.constants.get(node.inputs[0])
    if table is None or table.timed or node.attributes.get("axis", 0):
        raise Unsupported("rows chosen by data", "only tables are indexed by token ids")
    form = w.form(node.inputs[1])
    chosen = padding.positions(w, table.array, form)
    if chosen is not None:
        return chosen
    given = w.inputs.get(form.terms[0].base if len(form.terms) == 1 else "")
    shift = forms.uniform(form.offset)
    straight = replace(form, offset=np.zeros(form.offset.shape))
    if given is None or shift is None or not forms.is_plain(straight) or shift % 1 or shift < 0:
        raise Unsupported("a table indexed by something computed", "index by an input")
    # Ids that count from a later row of the table use the rest of it.
    rest = table.array[int(shift) :].reshape(len(table.array) - int(shift), -1)
    wide = rest if is_mapped(rest) else np.asarray(rest, np.float64)
    form = straight
    rows = form.offset.size
    ids = w.m.matrix(form, np.arange(rows), rows, 1)
    w.note_ids(given, len(wide))
    out = w.m.emit(ir.Embed, rows, wide.shape[1], (ids,), table=wide)
    shape = (form.lead, *form.shape, *table.array.shape[1:])
    return forms.bare(out, np.arange(rows * wide.shape[1]).reshape(shape))


PRODUCTS: Handlers = {
    "MatMul": _matmul,
    "Norm": _norm,
    "Softmax": _softmax,
    "Gather": _gather,
}
