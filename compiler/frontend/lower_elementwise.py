"""Elementwise operations on forms and scores: what is linear stays a form, the rest is emitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwcompile.compiler.frontend import attention, forms
from hwcompile.compiler.frontend.builder import Unsupported
from hwcompile.compiler.frontend.forms import Form
from hwcompile.compiler.frontend.lowering import Handlers, Lowering, Tensor
from hwcompile.compiler.ir.expressions import VARIABLE, constant
from hwcompile.compiler.ir.graph import Expression
from hwcompile.compiler.ir.tensor_graph import Node


def _add(w: Lowering, node: Node) -> Tensor:
    for a, b in (node.inputs, node.inputs[::-1]):
        scores = w.scores(a)
        if scores is not None:
            if scores.soft:
                raise Unsupported("a sum with attention weights", "not supported")
            return attention.add_mask(scores, w.form(b), frozenset(w.flags))
    return w.sum(*(w.form(k) for k in node.inputs))


def _subtract(w: Lowering, node: Node) -> Tensor:
    scores = w.scores(node.inputs[0])
    if scores is not None and not scores.soft:
        bias = w.form(node.inputs[1])
        return attention.add_mask(scores, replace(bias, gain=-bias.gain), frozenset(w.flags))
    a, b = (w.form(k) for k in node.inputs)
    return w.sum(a, replace(b, gain=-b.gain))


def _multiply(w: Lowering, node: Node) -> Tensor:
    for a, b in (node.inputs, node.inputs[::-1]):
        scores = w.scores(a)
        if scores is not None:
            factor = w.form(b)
            if factor.terms or factor.offset.size != 1 or scores.soft:
                raise Unsupported("attention scores times a tensor", "not supported")
            return attention.scaled(scores, factor.gain * float(factor.offset.reshape(-1)[0]))
    return w.product(*(w.form(k) for k in node.inputs))


def _divide(w: Lowering, node: Node) -> Tensor:
    if node.inputs[1] in w.graph.constants:
        by = w.graph.constants[node.inputs[1]]
        if (by.array == 0).any():
            raise Unsupported("a division by zero", "check the model")
        array = 1.0 / np.asarray(by.array if by.timed else by.array[None], np.float64)
        scores = w.scores(node.inputs[0])
        if scores is not None:
            if array.size != 1 or scores.soft:
                raise Unsupported("attention scores divided by a tensor", "not supported")
            return attention.scaled(scores, float(array.reshape(-1)[0]))
        return forms.scale(w.form(node.inputs[0]), array)
    inverse = w.function(node.inputs[1], Expression("reciprocal", (VARIABLE,)))
    return w.product(w.form(node.inputs[0]), inverse)


def _power(w: Lowering, node: Node) -> Tensor:
    if node.inputs[1] in w.graph.constants:
        exponent = w.graph.constants[node.inputs[1]].array
        if exponent.size == 1:
            power = constant(float(exponent.reshape(-1)[0]))
            return w.function(node.inputs[0], Expression("pow", (VARIABLE, power)))
    raise Unsupported("a power that is no constant", "not supported")


def _extreme(w: Lowering, node: Node) -> Tensor:
    """max(a, b) = a + relu(b - a), min(a, b) = a - relu(a - b)."""
    a, b = (w.form(k) for k in node.inputs)
    return larger(w, a, b) if node.op == "Max" else _smaller(w, a, b)


def larger(w: Lowering, a: Form, b: Form) -> Form:
    relu = Expression("max", (VARIABLE, constant(0.0)))
    return w.sum(a, w.apply(w.sum(b, replace(a, gain=-a.gain)), relu))


def _smaller(w: Lowering, a: Form, b: Form) -> Form:
    relu = Expression("max", (VARIABLE, constant(0.0)))
    over = w.apply(w.sum(a, replace(b, gain=-b.gain)), relu)
    return w.sum(a, replace(over, gain=-over.gain))


def _function_node(w: Lowering, node: Node) -> Tensor:
    return w.function(node.inputs[0], node.attributes["expression"])


def _negate(w: Lowering, node: Node) -> Tensor:
    form = w.form(node.inputs[0])
    return replace(form, gain=-form.gain)


def _cast(w: Lowering, node: Node) -> Tensor:
    return w.tensors[node.inputs[0]]


ELEMENTWISE: Handlers = {
    "Add": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
    "Pow": _power,
    "Max": _extreme,
    "Min": _extreme,
    "Neg": _negate,
    "Cast": _cast,
    "Function": _function_node,
}
