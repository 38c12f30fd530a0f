"""Meaning of the operations of a TensorGraph in numpy, as ONNX defines them.

Attributes are normalised by the front-end: what newer opsets take as constant inputs (axes, shape,
starts, ...) and older ones as attributes arrives here as an attribute of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from scipy.special import erf

from hwcompile.compiler.ir import recurrent
from hwcompile.compiler.ir.expressions import EXPRESSION_FUNCTIONS
from hwcompile.compiler.ir.mapped import is_mapped
from hwcompile.compiler.ir.tensor_graph import Array

Attributes = Mapping[str, Any]
Meaning = Callable[..., Array]


def _divide(a: Array, b: Array) -> Array:
    if np.issubdtype(np.result_type(a, b), np.integer):
        return np.asarray(np.trunc(np.true_divide(a, b)), np.result_type(a, b))
    return np.divide(a, b)


#: Elementwise operations: (meaning, name of the function in a scalar Expression).
ELEMENTWISE: Mapping[str, tuple[Meaning, str]] = {
    "Add": (np.add, "add"),
    "Sub": (np.subtract, "sub"),
    "Mul": (np.multiply, "mul"),
    "Div": (_divide, "div"),
    "Pow": (lambda a, b: np.power(a, b).astype(a.dtype), "pow"),
    "Min": (np.minimum, "min"),
    "Max": (np.maximum, "max"),
    "Neg": (np.negative, "neg"),
    "Abs": (np.abs, "abs"),
    "Sign": (np.sign, "sign"),
    "Sqrt": (np.sqrt, "sqrt"),
    "Reciprocal": (lambda a: 1 / a, "reciprocal"),
    "Exp": (np.exp, "exp"),
    "Log": (np.log, "log"),
    "Erf": (erf, "erf"),
    "Tanh": (np.tanh, "tanh"),
    "Sigmoid": (EXPRESSION_FUNCTIONS["sigmoid"], "sigmoid"),
    "Sin": (np.sin, "sin"),
    "Cos": (np.cos, "cos"),
    "Floor": (np.floor, "floor"),
    "Ceil": (np.ceil, "ceil"),
    "Round": (np.rint, "round"),
    "Less": (np.less, "less"),
    "LessOrEqual": (np.less_equal, "less_equal"),
    "Greater": (np.greater, "greater"),
    "GreaterOrEqual": (np.greater_equal, "greater_equal"),
    "Equal": (np.equal, "equal"),
    "Not": (np.logical_not, "not"),
    "And": (np.logical_and, "and"),
    "Or": (np.logical_or, "or"),
    "Xor": (np.logical_xor, "xor"),
    "Mod": (np.mod, "mod"),
    "Remainder": (np.fmod, "fmod"),
    "Tan": (np.tan, "tan"),
    "IsNaN": (np.isnan, "isnan"),
    "IsInf": (np.isinf, "isinf"),
    "Where": (np.where, "where"),
}


def _extreme(function: Callable[..., Array], largest: bool) -> Callable[..., Array]:
    """Largest or smallest; of nothing, the other end of what the type holds."""

    def reduce(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
        if x.size:
            return np.asarray(function(x, axis=axis, keepdims=keepdims))
        if x.dtype.kind in "iu":
            limits = np.iinfo(x.dtype)
            empty: Any = limits.min if largest else limits.max
        else:
            empty = (not largest) if x.dtype.kind == "b" else (-np.inf if largest else np.inf)
        return np.asarray(function(x, axis=axis, keepdims=keepdims, initial=empty))

    return reduce


def _log_sum_exp(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    if not x.size:
        return np.asarray(np.log(np.sum(x, axis=axis, keepdims=keepdims)))
    most = np.max(x, axis=axis, keepdims=True)
    shift = np.where(np.isfinite(most), most, 0)
    total = np.log(np.sum(np.exp(x - shift), axis=axis, keepdims=True)) + shift
    return np.asarray(total if keepdims else np.squeeze(total, axis))


REDUCTIONS: Mapping[str, Callable[..., Array]] = {
    "ReduceMean": np.mean,
    "ReduceSum": np.sum,
    "ReduceMax": _extreme(np.max, True),
    "ReduceMin": _extreme(np.min, False),
    "ReduceLogSum": lambda x, axis, keepdims: np.log(np.sum(x, axis=axis, keepdims=keepdims)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceProd": np.prod,
    "ReduceSumSquare": lambda x, axis, keepdims: np.sum(x * x, axis=axis, keepdims=keepdims),
    "ReduceL1": lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims),
    "ReduceL2": lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
}


def resolve_shape(shape: tuple[int, ...], like: tuple[int, ...], allowzero: int) -> list[int]:
    """The target of a Reshape with 0 (copy) and -1 (rest) filled in."""
    out = [like[i] if d == 0 and not allowzero else d for i, d in enumerate(shape)]
    if -1 in out:
        rest = prod(d for d in out if d != -1)
        out[out.index(-1)] = prod(like) // rest if rest else 0
    return out


def _reshape(at: Attributes, x: Array) -> Array:
    return x.reshape(resolve_shape(at["shape"], x.shape, at.get("allowzero", 0)))


def _flatten(at: Attributes, x: Array) -> Array:
    axis = at.get("axis", 1)
    return x.reshape(prod(x.shape[: axis if axis >= 0 else axis + x.ndim]), -1)


def _unsqueeze(at: Attributes, x: Array) -> Array:
    rank = x.ndim + len(at["axes"])
    axes = {a % rank for a in at["axes"]}
    if len(axes) != len(at["axes"]):
        raise ValueError("repeated axes")
    sizes = iter(x.shape)
    return x.reshape([1 if i in axes else next(sizes) for i in range(rank)])


def _squeeze(at: Attributes, x: Array) -> Array:
    axes = at.get("axes")
    return np.squeeze(x, None if axes is None else tuple(axes))


def _expand(at: Attributes, x: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(at["shape"])))


def _slice(at: Attributes, x: Array) -> Array:
    axes = at.get("axes") or tuple(range(len(at["starts"])))
    steps = at.get("steps") or (1,) * len(axes)
    where = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, at["starts"], at["ends"], steps, strict=True):
        size = x.shape[axis]
        stop = None if step < 0 and end < -size else end
        where[axis] = slice(start, stop, step)
    return x[tuple(where)]


def _reduce(function: Callable[..., Array]) -> Callable[[Attributes, Array], Array]:
    def meaning(at: Attributes, x: Array) -> Array:
        axes = at.get("axes")
        if not axes and at.get("noop_with_empty_axes", 0):
            return x
        result = function(
            x, axis=tuple(axes) if axes else None, keepdims=bool(at.get("keepdims", 1))
        )
        return np.asarray(result, x.dtype)

    return meaning


def _softmax(at: Attributes, x: Array) -> Array:
    axis = at.get("axis", -1)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True), x.dtype)


def _arg(function: Callable[..., Array]) -> Callable[[Attributes, Array], Array]:
    """Index of the first (or last) largest or smallest element along an axis."""

    def meaning(at: Attributes, x: Array) -> Array:
        axis, keep = at.get("axis", 0), bool(at.get("keepdims", 1))
        if not at.get("select_last_index", 0):
            return np.asarray(function(x, axis=axis, keepdims=keep), np.int64)
        last = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis, keepdims=keep)
        return np.asarray(last, np.int64)

    return meaning


def _norm(at: Attributes, x: Array) -> Array:
    y = x - x.mean(-1, keepdims=True) if at["kind"] == "layer" else x
    y = y / np.sqrt((y * y).mean(-1, keepdims=True) + at["epsilon"])
    return np.asarray(y * at["gain"] + at["bias"], x.dtype)


def _gather_nd(at: Attributes, x: Array, index: Array) -> Array:
    shared = at.get("batch_dims", 0)
    batch = [
        np.arange(n).reshape([-1 if i == axis else 1 for i in range(index.ndim - 1)])
        for axis, n in enumerate(index.shape[:shared])
    ]
    return np.asarray(x[(*batch, *np.moveaxis(index, -1, 0))])


#: Reductions of the scatter operators, applied in place.
_SCATTERED: Mapping[str, Any] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def _scatter_nd(at: Attributes, x: Array, index: Array, update: Array) -> Array:
    out = x.copy()
    return _scatter(at, out, tuple(np.moveaxis(index, -1, 0)), update)


def _scatter(at: Attributes, out: Array, where: tuple[Array, ...], update: Array) -> Array:
    function = _SCATTERED.get(at.get("reduction", "none"))
    if function is None:
        out[where] = update
    else:
        function.at(out, where, update)
    return out


def _scatter_elements(at: Attributes, x: Array, index: Array, update: Array) -> Array:
    axis = at.get("axis", 0) % x.ndim
    where: list[Array] = list(np.indices(index.shape))
    where[axis] = np.where(index < 0, index + x.shape[axis], index)
    return _scatter(at, x.copy(), tuple(where), update)


def _tensor_scatter(at: Attributes, x: Array, update: Array, index: Array | None = None) -> Array:
    out, axis = x.copy(), at.get("axis", -2) % x.ndim
    for b in range(x.shape[0]):
        rows = np.arange(update.shape[axis]) + (0 if index is None else int(index[b]))
        if at.get("mode", "linear") == "circular":
            rows %= x.shape[axis]
        target = np.moveaxis(out[b], axis - 1, 0)
        target[rows] = np.moveaxis(update[b], axis - 1, 0)
    return out


def _trilu(at: Attributes, x: Array) -> Array:
    return np.triu(x, at.get("k", 0)) if at.get("upper", 1) else np.tril(x, at.get("k", 0))


def _cumsum(at: Attributes, x: Array) -> Array:
    axis, flip = at["axis"], bool(at.get("reverse", 0))
    y = np.flip(x, axis) if flip else x
    total = np.cumsum(y, axis=axis, dtype=x.dtype)
    if at.get("exclusive", 0):
        total = total - y
    return np.flip(total, axis) if flip else total


def _function(at: Attributes, x: Array) -> Array:
    from hwcompile.compiler.ir.expressions import evaluate as evaluate_expression

    return evaluate_expression(at["expression"], x).astype(x.dtype)


def _concat(at: Attributes, *xs: Array) -> Array:
    return np.concatenate(xs, axis=at["axis"])


def _pad(at: Attributes, x: Array) -> Array:
    if at.get("mode", "constant") != "constant":
        raise ValueError("Pad other than constant")
    pads, axes = at["pads"], at.get("axes") or range(x.ndim)
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        widths[axis] = (pads[i], pads[i + len(pads) // 2])
    return np.pad(x, widths, constant_values=at.get("value", 0))


#: Operations that only move elements: the same meaning serves values and index arrays.
STRUCTURAL: Mapping[str, Callable[..., Array]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Transpose": lambda at, x: np.transpose(x, at.get("perm")),
    "Expand": _expand,
    "Slice": _slice,
    "Tile": lambda at, x: np.tile(x, at["repeats"]),
    "Take": lambda at, x: np.take(x, at["indices"], axis=at.get("axis", 0)),
    "TakeElements": lambda at, x: np.take_along_axis(x, at["indices"], at.get("axis", 0)),
}

OPERATIONS: Mapping[str, Callable[..., Array]] = {
    **{name: (lambda at, *xs, f=f: f(*xs)) for name, (f, _) in ELEMENTWISE.items()},
    **{name: _reduce(f) for name, f in REDUCTIONS.items()},
    **STRUCTURAL,
    "Identity": lambda at, x: x,
    "Cast": lambda at, x: x.astype(at["to"]),
    "MatMul": lambda at, a, b: np.matmul(a, b),
    "Softmax": _softmax,
    "ArgMax": _arg(np.argmax),
    "ArgMin": _arg(np.argmin),
    "Norm": _norm,
    "Function": _function,
    "Concat": _concat,
    "Gather": lambda at, x, index: np.take(x, index, axis=at.get("axis", 0)),
    "GatherElements": lambda at, x, index: np.take_along_axis(x, index, at.get("axis", 0)),
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
    "ScatterElements": _scatter_elements,
    "TensorScatter": _tensor_scatter,
    "Trilu": _trilu,
    "CumSum": _cumsum,
    "Pad": _pad,
    "Stack": lambda at, x: x,
    "Recurrent": recurrent.evaluate,
}


def evaluate(op: str, attributes: Attributes, arrays: list[Array]) -> Array:
    """One operation on concrete arrays. Raises ValueError or IndexError if they do not fit."""
    with np.errstate(all="ignore"):
        result = OPERATIONS[op](attributes, *arrays)
    return result if is_mapped(result) else np.asarray(result)
