"""ONNX LSTM and GRU: each direction a Recurrent node of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hwcompile.compiler.frontend.builder import Builder, Unsupported
from hwcompile.compiler.frontend.call import Call, Operator
from hwcompile.compiler.ir.expressions import VARIABLE, constant
from hwcompile.compiler.ir.graph import Expression, FloatArray
from hwcompile.compiler.ir.recurrent import Layer
from hwcompile.compiler.ir.tensor_graph import Array

#: Activations without parameters, by their names in ONNX.
_FUNCTIONS: Mapping[str, Expression] = {
    "sigmoid": Expression("sigmoid", (VARIABLE,)),
    "tanh": Expression("tanh", (VARIABLE,)),
    "relu": Expression("max", (VARIABLE, constant(0.0))),
    "hardsigmoid": Expression(
        "min",
        (
            Expression(
                "max",
                (
                    Expression(
                        "add",
                        (Expression("mul", (VARIABLE, constant(0.2))), constant(0.5)),
                    ),
                    constant(0.0),
                ),
            ),
            constant(1.0),
        ),
    ),
}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}
_GATES = {"LSTM": 4, "GRU": 3}


def _operator(b: Builder, call: Call) -> list[str]:
    at = call.attributes
    if at.get("clip", 0.0) or at.get("input_forget", 0) or at.get("activation_alpha"):
        raise Unsupported("a clipped, coupled or parametrised recurrence", "use the plain one")
    x = call.inputs[0]
    if at.get("layout", 0):
        x = b.emit("Transpose", [x], {"perm": (1, 0, 2)})
    rows = b.shape(x)[0]
    if call.input(4) and (b.value(call.inputs[4], "lengths") != rows).any():
        raise Unsupported("sequences of different lengths", "pass no lengths")
    layers = _layers(b, call)
    made = [b.emit("Recurrent", [x], {"layer": layer}) for layer in layers]
    whole = [b.emit("Unsqueeze", [y], {"axes": (1,)}) for y in made]
    y = whole[0] if len(whole) == 1 else b.emit("Concat", whole, {"axis": 1})
    results = [y, *_last_states(b, call, x, layers, made)]
    if at.get("layout", 0):
        results[0] = b.emit("Transpose", [y], {"perm": (2, 0, 1, 3)})
        results[1:] = [b.emit("Transpose", [s], {"perm": (1, 0, 2)}) if s else s
                       for s in results[1:]]  # fmt: skip
    return results[: call.outputs]


def _last_states(b: Builder, call: Call, x: str, layers: list[Layer], made: list[str]) -> list[str]:
    """Y_h and Y_c ``[directions, batch, size]``."""
    rows = b.shape(x)[0]

    def last(layer: Layer, y: str) -> str:
        end = 0 if layer.reverse else rows - 1
        at = {"starts": (end,), "ends": (end + 1,), "axes": (0,), "steps": (1,)}
        return b.emit("Slice", [y], at)

    states = [[last(layer, y) for layer, y in zip(layers, made, strict=True)]]
    if call.op == "LSTM" and call.outputs > 2:
        cells = [b.emit("Recurrent", [x], {"layer": replace(layer, result="cell")})
                 for layer in layers]  # fmt: skip
        states.append([last(layer, y) for layer, y in zip(layers, cells, strict=True)])
    return [s[0] if len(s) == 1 else b.emit("Concat", s, {"axis": 0}) for s in states]


def _layers(b: Builder, call: Call) -> list[Layer]:
    at, gates = call.attributes, _GATES[call.op]
    weights, matrices = (b.value(call.inputs[i], "matrix").astype(np.float64) for i in (1, 2))
    directions, size = len(weights), matrices.shape[-1]
    names = at.get("activations") or _DEFAULTS[call.op] * directions
    functions = [_function(n) for n in names]
    each = len(functions) // directions
    biases = np.zeros((directions, 2 * gates * size))
    if call.input(3):
        biases = b.value(call.inputs[3], "bias").astype(np.float64)
    peepholes = None
    if call.input(7):
        peepholes = b.value(call.inputs[7], "peepholes").astype(np.float64)
    hidden = _initial(b, call.input(5), directions, size, at.get("layout", 0))
    cell = _initial(b, call.input(6), directions, size, at.get("layout", 0))

    def turned(array: Array) -> FloatArray:
        return np.ascontiguousarray(array.reshape(gates, size, -1).transpose(0, 2, 1))

    direction = at.get("direction", "forward")
    return [
        Layer(
            call.op,  # type: ignore[arg-type]
            turned(weights[d]),
            turned(matrices[d]),
            biases[d].reshape(2, gates, size)[0],
            biases[d].reshape(2, gates, size)[1],
            hidden[d],
            cell[d],
            tuple(functions[d * each : (d + 1) * each]),
            bool(at.get("linear_before_reset", 0)),
            d == 1 or direction == "reverse",
            peepholes=None if peepholes is None else peepholes[d].reshape(3, size),
        )
        for d in range(directions)
    ]


def _function(name: str) -> Expression:
    text = name.decode() if isinstance(name, bytes) else name
    if text.lower() not in _FUNCTIONS:
        known = ", ".join(_FUNCTIONS)
        raise Unsupported(f"a recurrence with {text}", f"use one of {known}")
    return _FUNCTIONS[text.lower()]


def _initial(b: Builder, key: str, directions: int, size: int, layout: int) -> FloatArray:
    """The initial state of each direction ``[directions, size]``: the same for every sample."""
    if not key:
        return np.zeros((directions, size))
    state = b.value(key, "initial state").astype(np.float64)
    state = np.moveaxis(state, 1, 0) if not layout else state
    if (state != state[:1]).any():
        raise Unsupported("an initial state for each sample", "use the same for all")
    return np.asarray(state[0], np.float64)


RECURRENT_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "LSTM"): _operator,
    ("", "GRU"): _operator,
}
