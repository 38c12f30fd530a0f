"""Meaning of the scalar expressions of a :class:`~hwcompile.compiler.ir.graph.Unary`.

``EXPRESSION_FUNCTIONS`` names every function an expression may hold with its numpy meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.special import erf

from hwcompile.compiler.ir.graph import Expression, FloatArray

VARIABLE = Expression("x")


def constant(value: float) -> Expression:
    """The expression of a number."""
    return Expression("constant", constant=float(value))


def _sigmoid(x: FloatArray) -> FloatArray:
    # The two branches keep exp from overflowing for large |x|.
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


EXPRESSION_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "min": np.minimum,
    "max": np.maximum,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "reciprocal": np.reciprocal,
    "exp": np.exp,
    "log": np.log,
    "erf": erf,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "equal": np.equal,
    "not": np.logical_not,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "mod": np.mod,
    "fmod": np.fmod,
    "tan": np.tan,
    "isinf": np.isinf,
    "isnan": np.isnan,
    "where": np.where,
}


def evaluate(expression: Expression, x: FloatArray) -> FloatArray:
    """The expression at every element of ``x``; same shape, float64, no warnings for bad arguments.

    >>> square = Expression("mul", (VARIABLE, VARIABLE))
    >>> float(evaluate(square, np.asarray(3.0)))
    9.0
    """
    x = np.asarray(x, np.float64)
    memo: dict[int, Any] = {}

    def visit(e: Expression) -> Any:
        if e.function == "x":
            return x
        if e.function == "constant":
            return np.float64(e.constant)
        if id(e) not in memo:
            memo[id(e)] = EXPRESSION_FUNCTIONS[e.function](*map(visit, e.arguments))
        return memo[id(e)]

    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(visit(expression), np.float64), x.shape)


def substitute(expression: Expression, inner: Expression) -> Expression:
    """``expression`` with its variable replaced by ``inner``: the composition of the two."""
    if expression.function == "x":
        return inner
    if not expression.arguments:
        return expression
    arguments = tuple(substitute(a, inner) for a in expression.arguments)
    return Expression(expression.function, arguments)


def affine(scale: float, offset: float) -> Expression:
    """``scale * x + offset``, without the parts that do nothing."""
    e = VARIABLE if scale == 1.0 else Expression("mul", (VARIABLE, constant(scale)))
    return e if offset == 0.0 else Expression("add", (e, constant(offset)))


def as_affine(expression: Expression) -> tuple[float, float] | None:
    """``(scale, offset)`` when the expression is built of affine steps only, else None."""
    if expression.function == "x":
        return 1.0, 0.0
    if expression.function == "constant":
        return 0.0, expression.constant
    parts = [as_affine(a) for a in expression.arguments]
    if any(p is None for p in parts):
        return None
    match expression.function, parts:
        case "neg", [(s, o)]:
            return -s, -o
        case "add", [(s, o), (t, p)]:
            return s + t, o + p
        case "sub", [(s, o), (t, p)]:
            return s - t, o - p
        case "mul", [(s, o), (0.0, p)]:
            return s * p, o * p
        case "mul", [(0.0, o), (t, p)]:
            return t * o, p * o
        case "div", [(s, o), (0.0, p)] if p != 0.0:
            return s / p, o / p
        case "pow", [(s, o), (0.0, 1.0)]:
            return s, o
    return None
