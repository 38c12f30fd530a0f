"""Elementwise ONNX operators, activations and reductions."""

from __future__ import annotations

from collections.abc import Mapping
from math import pi, sqrt

from hwcompile.compiler.frontend.builder import Builder
from hwcompile.compiler.frontend.call import (
    Call,
    Operator,
    parameters,
    plain,
    scalar,
    with_scalar,
)
from hwcompile.compiler.ir import tensor_operations


def _relu(b: Builder, call: Call) -> list[str]:
    return [with_scalar(b, "Max", call.inputs[0], 0)]


def _gelu(b: Builder, x: str, approximate: bool) -> str:
    if approximate:
        cubic = with_scalar(b, "Mul", b.emit("Mul", [x, b.emit("Mul", [x, x])]), 0.044715)
        inner = b.emit("Tanh", [with_scalar(b, "Mul", b.emit("Add", [x, cubic]), sqrt(2 / pi))])
    else:
        inner = b.emit("Erf", [with_scalar(b, "Mul", x, sqrt(0.5))])
    return b.emit("Mul", [with_scalar(b, "Mul", x, 0.5), with_scalar(b, "Add", inner, 1.0)])


def _gelu_call(b: Builder, call: Call) -> list[str]:
    return [_gelu(b, call.inputs[0], call.attributes.get("approximate", "none") == "tanh")]


def _bias_gelu(approximate: bool) -> Operator:
    def operator(b: Builder, call: Call) -> list[str]:
        x = b.emit("Add", list(call.inputs[:2])) if call.input(1) else call.inputs[0]
        return [_gelu(b, x, approximate)]

    return operator


def _swish(default: float) -> Operator:
    def operator(b: Builder, call: Call) -> list[str]:
        x, alpha = call.inputs[0], call.attributes.get("alpha", default)
        return [b.emit("Mul", [x, b.emit("Sigmoid", [with_scalar(b, "Mul", x, alpha)])])]

    return operator


def _leaky(b: Builder, x: str, slope: str) -> str:
    positive, negative = with_scalar(b, "Max", x, 0), with_scalar(b, "Min", x, 0)
    return b.emit("Add", [positive, b.emit("Mul", [negative, slope])])


def _leaky_relu(b: Builder, call: Call) -> list[str]:
    x = call.inputs[0]
    return [_leaky(b, x, scalar(b, call.attributes.get("alpha", 0.01), x))]


def _prelu(b: Builder, call: Call) -> list[str]:
    return [_leaky(b, call.inputs[0], call.inputs[1])]


def _elu(b: Builder, x: str, alpha: float, gamma: float, inner: float = 1.0) -> str:
    grown = with_scalar(
        b, "Sub", b.emit("Exp", [with_scalar(b, "Mul", with_scalar(b, "Min", x, 0), inner)]), 1
    )
    total = b.emit("Add", [with_scalar(b, "Max", x, 0), with_scalar(b, "Mul", grown, alpha)])
    return total if gamma == 1.0 else with_scalar(b, "Mul", total, gamma)


def _elu_call(b: Builder, call: Call) -> list[str]:
    return [_elu(b, call.inputs[0], call.attributes.get("alpha", 1.0), 1.0)]


def _celu(b: Builder, call: Call) -> list[str]:
    alpha = call.attributes.get("alpha", 1.0)
    return [_elu(b, call.inputs[0], alpha, 1.0, 1 / alpha)]


def _selu(b: Builder, call: Call) -> list[str]:
    alpha = call.attributes.get("alpha", 1.67326319217681884765625)
    return [_elu(b, call.inputs[0], alpha, call.attributes.get("gamma", 1.05070102214813232421875))]


def _hard_sigmoid(b: Builder, x: str, alpha: float, beta: float) -> str:
    line = with_scalar(b, "Add", with_scalar(b, "Mul", x, alpha), beta)
    return with_scalar(b, "Min", with_scalar(b, "Max", line, 0), 1)


def _hard_sigmoid_call(b: Builder, call: Call) -> list[str]:
    at = call.attributes
    return [_hard_sigmoid(b, call.inputs[0], at.get("alpha", 0.2), at.get("beta", 0.5))]


def _hard_swish(b: Builder, call: Call) -> list[str]:
    x = call.inputs[0]
    return [b.emit("Mul", [x, _hard_sigmoid(b, x, 1 / 6, 0.5)])]


def _softplus(b: Builder, x: str) -> str:
    # max(x, 0) + log(1 + exp(-|x|)) never overflows.
    small = b.emit("Exp", [b.emit("Neg", [b.emit("Abs", [x])])])
    return b.emit(
        "Add", [with_scalar(b, "Max", x, 0), b.emit("Log", [with_scalar(b, "Add", small, 1)])]
    )


def _mish(b: Builder, call: Call) -> list[str]:
    x = call.inputs[0]
    return [b.emit("Mul", [x, b.emit("Tanh", [_softplus(b, x)])])]


def _softsign(b: Builder, call: Call) -> list[str]:
    x = call.inputs[0]
    return [b.emit("Div", [x, with_scalar(b, "Add", b.emit("Abs", [x]), 1)])]


def _clip(b: Builder, call: Call) -> list[str]:
    x, at = call.inputs[0], call.attributes
    low = call.input(1) or (scalar(b, at["min"], x) if "min" in at else "")
    high = call.input(2) or (scalar(b, at["max"], x) if "max" in at else "")
    for op, bound in (("Max", low), ("Min", high)):
        x = b.emit(op, [x, bound]) if bound else x
    return [x]


def _chain(op: str) -> Operator:
    def operator(b: Builder, call: Call) -> list[str]:
        x = call.inputs[0]
        for other in call.inputs[1:]:
            x = b.emit(op, [x, other])
        return [x]

    return operator


def _reduction(op: str) -> Operator:
    def operator(b: Builder, call: Call) -> list[str]:
        at = parameters(b, call, ("axes",))
        if not at.get("axes") and at.get("noop_with_empty_axes", 0):
            return [call.inputs[0]]
        return [b.emit(op, [call.inputs[0]], at)]

    return operator


def _mod(b: Builder, call: Call) -> list[str]:
    return [b.emit("Remainder" if call.attributes.get("fmod", 0) else "Mod", list(call.inputs))]


def _is_inf(b: Builder, call: Call) -> list[str]:
    x, at = call.inputs[0], call.attributes
    found = b.emit("IsInf", [x])
    for sign, op in (("detect_positive", "Less"), ("detect_negative", "Greater")):
        if not at.get(sign, 1):
            found = b.emit("And", [found, with_scalar(b, op, x, 0)])
    return [found]


def _mean(b: Builder, call: Call) -> list[str]:
    return [with_scalar(b, "Mul", _chain("Add")(b, call)[0], 1 / len(call.inputs))]


def _thresholded_relu(b: Builder, call: Call) -> list[str]:
    x = call.inputs[0]
    kept = with_scalar(b, "Greater", x, call.attributes.get("alpha", 1.0))
    return [b.emit("Where", [kept, x, scalar(b, 0, x)])]


def _shrink(b: Builder, call: Call) -> list[str]:
    x, bias, edge = (call.inputs[0], *(call.attributes.get(n, d) for n, d in _SHRINK))
    low = with_scalar(b, "Less", x, -edge)
    high = with_scalar(b, "Greater", x, edge)
    inner = b.emit("Where", [high, with_scalar(b, "Sub", x, bias), scalar(b, 0, x)])
    return [b.emit("Where", [low, with_scalar(b, "Add", x, bias), inner])]


_SHRINK = (("bias", 0.0), ("lambd", 0.5))

#: Elementwise operations under a name of our own.
_OWN = ("Remainder",)

ELEMENTWISE_OPERATORS: Mapping[tuple[str, str], Operator] = {
    **{("", op): plain(op) for op in tensor_operations.ELEMENTWISE if op not in _OWN},
    **{("", op): _chain(op) for op in ("Min", "Max")},
    **{("", op): _reduction(op) for op in tensor_operations.REDUCTIONS},
    ("", "Sum"): _chain("Add"),
    ("", "Mean"): _mean,
    ("", "Mod"): _mod,
    ("", "IsInf"): _is_inf,
    ("", "ThresholdedRelu"): _thresholded_relu,
    ("", "Shrink"): _shrink,
    ("", "ArgMax"): plain("ArgMax"),
    ("", "ArgMin"): plain("ArgMin"),
    ("", "Relu"): _relu,
    ("", "Gelu"): _gelu_call,
    ("", "Swish"): _swish(1.0),
    ("", "LeakyRelu"): _leaky_relu,
    ("", "PRelu"): _prelu,
    ("", "Elu"): _elu_call,
    ("", "Celu"): _celu,
    ("", "Selu"): _selu,
    ("", "HardSigmoid"): _hard_sigmoid_call,
    ("", "HardSwish"): _hard_swish,
    ("", "Softplus"): lambda b, call: [_softplus(b, call.inputs[0])],
    ("", "Softsign"): _softsign,
    ("", "Mish"): _mish,
    ("", "Clip"): _clip,
    ("com.microsoft", "Gelu"): _gelu_call,
    ("com.microsoft", "FastGelu"): _bias_gelu(True),
    ("com.microsoft", "BiasGelu"): _bias_gelu(False),
    ("com.microsoft", "QuickGelu"): _swish(1.702),
}
