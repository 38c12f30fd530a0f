"""Operations that move elements: only index arrays change, or one Gather is emitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np

from hwcompile.compiler.frontend import forms
from hwcompile.compiler.frontend.attention import Scores
from hwcompile.compiler.frontend.builder import Unsupported
from hwcompile.compiler.frontend.forms import Form
from hwcompile.compiler.frontend.lowering import Handlers, Lowering, Tensor
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.tensor_graph import Array, Node
from hwcompile.compiler.ir.tensor_operations import OPERATIONS, STRUCTURAL


def _move(w: Lowering, node: Node) -> Tensor:
    def function(a: Array) -> Array:
        return STRUCTURAL[node.op](node.attributes, a)

    scores = w.scores(node.inputs[0])
    if scores is None:
        return forms.move(w.form(node.inputs[0]), function)
    return _move_scores(w, node, scores, function)


def _move_scores(
    w: Lowering, node: Node, scores: Scores, function: Callable[[Array], Array]
) -> Scores:
    """Only the axes before queries and keys may move: the same is done to q and k."""
    last = tuple(range(len(scores.shape)))[-2:]
    keeps = node.op != "Transpose" or tuple(node.attributes["perm"])[-2:] == last
    whole = prod(node.shape) == prod(scores.shape)
    if not keeps or not whole or node.shape[-2:] != scores.shape[-2:]:
        raise Unsupported("attention scores rearranged", "not supported")

    def alike(a: Array) -> Array:
        if node.op == "Transpose":
            return np.transpose(a, node.attributes["perm"])
        return a.reshape(*node.shape[:-2], a.shape[-2], a.shape[-1])

    def moved(form: Form) -> Form:
        wide = forms.expand(form, form.lead, (*scores.shape[:-2], *form.shape[-2:]))
        return forms.move(wide, alike)

    bias = forms.per_step(function, scores.bias)
    return replace(scores, q=moved(scores.q), k=moved(scores.k), shape=node.shape, bias=bias)


def _stack(w: Lowering, node: Node) -> Tensor:
    form, axis = w.form(node.inputs[0]), node.attributes["axis"]

    def stack(a: Array) -> Array:
        rows = np.broadcast_to(a, (w.graph.steps, *a.shape[1:])).take(0, axis + 1)
        return np.asarray(np.moveaxis(rows, 0, axis)[None])

    terms = tuple(
        replace(t, index=stack(t.index), coefficient=stack(t.coefficient)) for t in form.terms
    )
    return replace(form, terms=terms, offset=stack(form.offset))


def _concat(w: Lowering, node: Node) -> Tensor:
    parts, axis = [w.form(k) for k in node.inputs], node.attributes["axis"]
    lazy = forms.concatenate(parts, axis)
    if lazy is not None:
        return lazy
    lead, axis = max(f.lead for f in parts), axis % len(node.shape)
    start, keys, indices = 0, [], []
    for form in parts:
        wide = forms.expand(form, lead, form.shape)
        rows, cols = forms.rows_of(wide)
        key = w.m.matrix(wide, np.arange(rows * cols), rows, cols)
        index = np.arange(rows * cols).reshape(wide.offset.shape)
        if w.m.values[key].rows != rows:
            index = index % cols
        keys.append(key)
        indices.append(index + start)
        start += w.m.size(key)
    joined = np.concatenate(indices, axis + 1)
    rows, cols = lead * prod(node.shape[:-1]), node.shape[-1]
    made = w.m.emit(ir.Gather, rows, cols, tuple(keys), index=joined.reshape(rows, cols))
    return forms.bare(made, np.arange(rows * cols).reshape(lead, *node.shape))


def _pad(w: Lowering, node: Node) -> Tensor:
    form, at = w.form(node.inputs[0]), node.attributes
    pad = OPERATIONS["Pad"]

    def filled(array: Array, value: float) -> Array:
        return forms.per_step(lambda a: pad({**at, "value": value}, a), array)

    terms = tuple(
        replace(t, index=filled(t.index, 0), coefficient=filled(t.coefficient, 0))
        for t in form.terms
    )
    return replace(form, terms=terms, offset=filled(form.offset, at["value"] / form.gain))


STRUCTURE: Handlers = {
    **dict.fromkeys(STRUCTURAL, _move),
    "Stack": _stack,
    "Concat": _concat,
    "Pad": _pad,
}
