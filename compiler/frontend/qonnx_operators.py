"""QONNX: quantisers of any width (Brevitas, FINN), whose weights are integers times a scale.

A quantiser of weights is computed; one of activations is left to the chip's own grids, but for what
it never lets through: an unsigned one is a ReLU.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwcompile.compiler.frontend.builder import Builder, Unsupported
from hwcompile.compiler.frontend.call import Call, Operator, with_scalar

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")

_ROUNDINGS = {
    "ROUND": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "ROUND_TO_ZERO": np.trunc,
}


def _quant(b: Builder, call: Call) -> list[str]:
    """Quant (x, scale, zero point, bit width)."""
    x, at = call.inputs[0], call.attributes
    scale, zero, width = (
        np.asarray(b.value(k, "quantiser")).astype(np.float64) for k in call.inputs[1:4]
    )
    if width.size != 1 or width.min() < 2 or (scale <= 0).any():
        raise Unsupported("a quantiser of that width or scale", "use widths of 2 bits and more")
    bits, signed, narrow = width.item(), bool(at.get("signed", 1)), bool(at.get("narrow", 0))
    low = -(2.0 ** (bits - 1)) + narrow if signed else 0.0
    high = 2.0 ** (bits - 1) - 1 if signed else 2.0**bits - 1 - narrow
    if b.is_constant(x):
        rounding = _ROUNDINGS.get(at.get("rounding_mode", "ROUND").upper())
        if rounding is None:
            raise Unsupported("a quantiser that rounds in another way", "round to nearest")
        steps = np.clip(rounding(b.value(x, "weight") / scale + zero), low, high)
        return [b.constant(np.asarray((steps - zero) * scale, np.float32))]
    b.notes.append(f"{b.origin}: activation quantiser of {bits:g} bits taken for the identity")
    return [with_scalar(b, "Max", x, 0.0) if not signed and (zero == 0).all() else x]


def _bipolar(b: Builder, call: Call) -> list[str]:
    """BipolarQuant (x, scale): one of two values, by sign."""
    x = call.inputs[0]
    scale = np.asarray(b.value(call.inputs[1], "scale"), np.float32)
    if b.is_constant(x):
        return [b.constant(np.where(b.value(x, "weight") >= 0, scale, -scale))]
    if scale.size != 1:
        raise Unsupported("a sign of activations with a scale a channel", "use one scale")
    # The sign of 0 is positive here.
    sign = with_scalar(b, "Sub", with_scalar(b, "Mul", _positive(b, x), 2.0), 1.0)
    return [with_scalar(b, "Mul", sign, float(scale.reshape(())))]


def _positive(b: Builder, x: str) -> str:
    """1 where ``x`` is at least 0, else 0."""
    return b.emit("Sign", [with_scalar(b, "Add", b.emit("Sign", [x]), 1.0)])


QONNX_OPERATORS: Mapping[tuple[str, str], Operator] = {
    **{(domain, "Quant"): _quant for domain in DOMAINS},
    **{(domain, "BipolarQuant"): _bipolar for domain in DOMAINS},
}
