"""Conditions and masks: forms that are 0 or 1, and what they hide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hwcompile.compiler.frontend import attention, forms, padding
from hwcompile.compiler.frontend.attention import Scores
from hwcompile.compiler.frontend.builder import Unsupported
from hwcompile.compiler.frontend.forms import Form
from hwcompile.compiler.frontend.lowering import Handlers, Lowering, Tensor
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.tensor_graph import Node
from hwcompile.compiler.ir.tensor_operations import ELEMENTWISE


def _not(w: Lowering, node: Node) -> Tensor:
    form = w.form(node.inputs[0])
    return w.sum(forms.constant(np.ones((1,))), replace(form, gain=-form.gain))


def _compare(w: Lowering, node: Node) -> Tensor:
    """A comparison of flags or token ids with a number: a form that is 0 or 1."""
    for place, key in enumerate(node.inputs):
        c = w.graph.constants.get(key)
        if c is None or c.array.size != 1 or c.timed:
            continue
        form, number = w.form(node.inputs[1 - place]), float(c.array.reshape(-1)[0])
        test = _Test(node.op, number, place == 0)
        base = form.terms[0].base if len(form.terms) == 1 else ""
        given = w.inputs.get(base)
        if given is not None and given.kind == "ids" and forms.is_plain(form):
            return _compare_ids(w, form, given, number, test)
        return w.of_flag(form, test)
    raise Unsupported("a comparison inside the network", "compare with a constant")


def _compare_ids(
    w: Lowering, form: Form, given: ir.Input, number: float, test: Callable[[float], float]
) -> Form:
    """One id is told from all others: padding."""
    absent = int(number)
    # Only near the number does a comparison change: one id below, and those beside it, tell all.
    known = {0, *range(max(absent - 2, 0), absent + 4)}
    for guess in (absent, absent - 1, absent + 1):
        others = sorted(known - {guess})
        if guess >= 0 and all(test(i) != test(guess) for i in others):
            absent = guess
            break
    else:
        raise Unsupported("a comparison that splits token ids", "compare with one padding id")
    made = w.m.emit(ir.Flag, given.value.rows, 1, (given.value.key,), absent=absent)
    w.flags.add(made)
    flag = replace(form, terms=(replace(form.terms[0], base=made),))
    return w.of_flag(flag, lambda x: float(test(absent) != bool(x)))


def _and(w: Lowering, node: Node) -> Tensor:
    return w.product(*(w.form(k) for k in node.inputs))


def _or(w: Lowering, node: Node) -> Tensor:
    a, b = (w.form(k) for k in node.inputs)
    both = w.product(a, b)
    return w.sum(w.sum(a, b), replace(both, gain=-both.gain))


def _where(w: Lowering, node: Node) -> Tensor:
    condition = w.form(node.inputs[0])
    ones = forms.constant(np.ones((1,)))
    opposite = w.sum(ones, replace(condition, gain=-condition.gain))
    for kept, other, hidden in (
        (node.inputs[1], node.inputs[2], opposite),
        (node.inputs[2], node.inputs[1], condition),
    ):
        scores = w.scores(kept)
        if scores is not None:
            return _where_scores(w, scores, hidden, other)
    a, b = (_finite(w.form(k)) for k in node.inputs[1:])
    if not a.terms and not b.terms:
        difference = forms.without_gain(a).offset - forms.without_gain(b).offset
        return w.sum(forms.scale(condition, difference), b)
    if condition.terms:
        raise Unsupported("a choice that depends on data", "only masks are supported")
    kept_a = forms.scale(a, forms.without_gain(condition).offset)
    return w.sum(kept_a, forms.scale(b, forms.without_gain(opposite).offset))


def _where_scores(w: Lowering, scores: Scores, hidden: Form, other: str) -> Scores:
    fill = forms.without_gain(w.form(other))
    if fill.terms:
        raise Unsupported("attention scores mixed with a tensor", "only masks are supported")
    if scores.soft:
        # Weights of keys a softmax has hidden are 0 already.
        if (fill.offset == 0).all() and not hidden.terms:
            shown = ~forms.align(hidden.offset != 0, scores.lead, scores.shape)
            if not shown.any(-1).all():
                raise Unsupported("attention of rows that see nothing", "leave these rows out")
            if ((scores.bias == -np.inf) | shown).all():
                return scores
        raise Unsupported("attention weights changed after the softmax", "mask before it")
    if (fill.offset > attention.HIDES_BELOW).any():
        raise Unsupported("masked scores that are not minus infinity", "use -inf")
    return attention.hide(scores, hidden, frozenset(w.flags))


def _finite(form: Form) -> Form:
    if form.terms or np.isfinite(form.offset).all():
        return form
    return forms.constant(np.clip(forms.without_gain(form).offset, -1e30, 1e30))


@dataclass(frozen=True, slots=True)
class _Test:
    """A comparison with a number: 1.0 where it holds."""

    op: str
    number: float
    number_first: bool

    def __call__(self, x: float) -> float:
        pair = (self.number, x) if self.number_first else (x, self.number)
        return float(ELEMENTWISE[self.op][0](*pair))


def _cumsum(w: Lowering, node: Node) -> Tensor:
    at, form = node.attributes, w.form(node.inputs[0])
    if at.get("exclusive", 0) or at.get("reverse", 0):
        raise Unsupported("a running sum in another order", "count from the first row")
    return padding.count(w, form, at["axis"] % len(form.shape))


MASKS: Handlers = {
    "CumSum": _cumsum,
    "Not": _not,
    "Equal": _compare,
    "Less": _compare,
    "LessOrEqual": _compare,
    "Greater": _compare,
    "GreaterOrEqual": _compare,
    "And": _and,
    "Or": _or,
    "Where": _where,
}
