"""ONNX operators of quantised files.

A quantised activation stands for the number it represents: quantising and dequantising it is the
identity here (the chip chooses its own activation grid), and integer operators become float ones.
A grid that has no negative numbers is a ReLU, which quantisers use to drop the ReLU before it.
Quantised weights become ``grid * scale`` and are found again as a grid later.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import onnx

from hwcompile.compiler.frontend.builder import Builder, Unsupported
from hwcompile.compiler.frontend.call import Call, Operator, concat, swap_last, with_scalar
from hwcompile.compiler.frontend.external import element_bits
from hwcompile.compiler.frontend.narrow_types import NARROW_FLOATS, round_to_type
from hwcompile.compiler.frontend.window_operators import WINDOW_OPERATORS
from hwcompile.compiler.ir.tensor_graph import Array

#: A step of an activation that only the range of a mask explains (its range is beyond 1e4).
_MASK_STEP = 1e4 / 255


def _is_number(b: Builder, key: str) -> bool:
    """Whether a tensor is an activation that stands for its float value already."""
    return not b.is_constant(key) and b.types[key].dtype.kind == "f"


def _parameter(b: Builder, key: str, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """Scale or zero point as an array that broadcasts against ``shape``."""
    array = b.value(key, "scale").astype(np.float32)
    if block:
        return np.repeat(array, block, axis).take(range(shape[axis]), axis)
    if array.size == 1:
        return array.reshape(())
    return array.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])


def _note_blocks(b: Builder, block: int) -> None:
    b.notes.append(
        f"{b.origin}: weights with a scale for every {block} rows: re-scaled to one a column"
    )


def _real(b: Builder, operand: tuple[str, ...], axis: int = 1, block: int = 0) -> str:
    """The float value of a quantised tensor; ``operand``: its key, scale and zero point ("")."""
    x, scale, zero = operand
    if _is_number(b, x):
        return x
    shape = b.shape(x)
    factor = _parameter(b, scale, shape, axis, block)
    offset = _parameter(b, zero, shape, axis, block) if zero else np.float32(0)
    if b.is_constant(x):
        q = b.value(x, "weight").astype(np.float32)
        if block and block < shape[axis]:
            _note_blocks(b, block)
        return b.constant(np.asarray((q - offset) * factor, np.float32))
    y = b.emit("Cast", [x], {"to": np.dtype(np.float32)})
    y = b.emit("Sub", [y, b.constant(np.asarray(offset, np.float32))])
    return b.emit("Mul", [y, b.constant(np.asarray(factor, np.float32))])


def onto(b: Builder, x: str, zero: str) -> str:
    """``x`` on the half line its grid covers, when the zero point is the grid's first or last."""
    if not zero or b.value(zero, "zero point").size != 1:
        return x
    point, limits = b.value(zero, "zero point").reshape(()), np.iinfo(np.uint8)
    if point.dtype.kind in "iu":
        limits = np.iinfo(point.dtype)
    if int(point) == limits.min:
        return with_scalar(b, "Max", x, 0.0)
    return with_scalar(b, "Min", x, 0.0) if int(point) == limits.max else x


def dequantised(b: Builder, x: str, scale: str, zero: str, axis: int) -> str:
    """The float value of a quantised tensor with its scale and zero point (``""``: none)."""
    return _real(b, (x, scale, zero), axis)


def _dequantize(b: Builder, call: Call) -> list[str]:
    axis, block = call.attributes.get("axis", 1), call.attributes.get("block_size", 0)
    return [_real(b, (call.inputs[0], call.inputs[1], call.input(2)), axis, block)]


def _quantiser_note(b: Builder, call: Call) -> str:
    scale = b.value(call.inputs[1], "scale") if b.is_constant(call.inputs[1]) else np.zeros(1)
    if scale.astype(np.float64).max(initial=0.0) > _MASK_STEP:
        return (
            f"warning: {b.origin}: one step is {float(scale.max()):.3g}: the file was quantised "
            "through a mask of minus infinity, which ruins it; compiled without that rounding, "
            "the design is better than the file, and differs from it"
        )
    return f"{b.origin}: activation quantiser taken for the identity: the chip rounds by itself"


def _quantize(b: Builder, call: Call) -> list[str]:
    x = call.inputs[0]
    if not b.is_constant(x):
        note = _quantiser_note(b, call)
        b.notes.append(note)
        if note.startswith("warning"):
            return [x]
        return [onto(b, x, call.input(2)) if call.input(2) else with_scalar(b, "Max", x, 0.0)]
    at = call.attributes
    axis, block = at.get("axis", 1), at.get("block_size", 0)
    code = at.get("like", 0) or at.get("output_dtype", 0) or onnx.TensorProto.UINT8
    if call.input(2) and not at.get("like", 0):
        code = onnx.helper.np_dtype_to_tensor_dtype(b.types[call.inputs[2]].dtype)
    scale = _parameter(b, call.inputs[1], b.shape(x), axis, block)
    if code in NARROW_FLOATS:
        grid = round_to_type(b.value(x, "weight") / scale, code, bool(at.get("saturate", 1)))
        return [b.constant(grid)]
    offset = _parameter(b, call.inputs[2], b.shape(x), axis, block) if call.input(2) else 0
    return [b.constant(_grid(b.value(x, "weight"), scale, offset, code))]


def _grid(x: Array, scale: Array, offset: Array | float, code: int) -> Array:
    """Constants as the integers of an ONNX type, nearest even."""
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    bits = element_bits(onnx.TensorProto(data_type=code))
    low = 0 if "uint" in dtype.name else -(1 << bits - 1)
    high = low + (1 << bits) - 1
    held = dtype if bits >= 8 else np.dtype(np.int8)
    return np.clip(np.rint(x / scale) + offset, low, high).astype(held)


def _stored(b: Builder, x: str, scale: str, zero: str) -> str:
    """The result of an integer operator: what its grid makes of a constant, or of activations."""
    if not b.is_constant(x):
        return onto(b, x, zero)
    kind = b.value(zero, "zero point").dtype if zero else np.dtype(np.uint8)
    factor = b.value(scale, "scale").astype(np.float32)
    offset = b.value(zero, "zero point").astype(np.float32) if zero else 0.0
    code = onnx.helper.np_dtype_to_tensor_dtype(kind)
    return b.constant(_grid(b.value(x, "operand"), factor, offset, code))


def _dynamic_quantize(b: Builder, call: Call) -> list[str]:
    x = call.inputs[0]
    if b.is_constant(x):
        array = b.value(x, "operand")
        low, high = min(array.min(initial=0), 0), max(array.max(initial=0), 0)
        step = np.float32((high - low) / 255 or 1)
        point = np.clip(np.rint(-low / step), 0, 255)
        grid = _grid(array, np.asarray(step), point, onnx.TensorProto.UINT8)
        found = [b.constant(grid), b.constant(step), b.constant(np.uint8(point))]
        return found[: call.outputs]
    b.notes.append(f"{b.origin}: activation quantiser taken for the identity")
    one, zero = b.constant(np.float32(1)), b.constant(np.uint8(0))
    return [x, one, zero][: call.outputs]


def _integer_operand(b: Builder, x: str, zero: str) -> str:
    """``x - zero`` in float, for integer products whose scale is applied by the file."""
    return _real(b, (x, b.constant(np.float32(1)), zero), axis=-1)


def _matmul_integer(b: Builder, call: Call) -> list[str]:
    left = _integer_operand(b, call.inputs[0], call.input(2))
    right = _integer_operand(b, call.inputs[1], call.input(3))
    return [b.emit("MatMul", [left, right])]


def _qlinear_matmul(b: Builder, call: Call) -> list[str]:
    i = call.inputs
    left, right = _real(b, i[0:3], axis=-2), _real(b, i[3:6], axis=-1)
    return [_stored(b, b.emit("MatMul", [left, right]), i[6], i[7])]


def _qlinear_conv(b: Builder, call: Call) -> list[str]:
    i = call.inputs
    inputs = [_real(b, i[0:3]), _real(b, i[3:6], axis=0)]
    if call.input(8):
        inputs.append(_accumulator(b, i[8], i[1], i[4]))
    conv = Call("Conv", tuple(inputs), call.attributes, 1, call.version)
    return [_stored(b, WINDOW_OPERATORS["", "Conv"](b, conv)[0], i[6], i[7])]


def _accumulator(b: Builder, bias: str, scale_a: str, scale_b: str) -> str:
    """An int32 bias, whose scale is the product of the operands' scales."""
    scale = b.value(scale_a, "scale").reshape(-1) * b.value(scale_b, "scale").reshape(-1)
    value = b.value(bias, "bias").astype(np.float32) * scale
    return b.constant(value.astype(np.float32))


def _qgemm(b: Builder, call: Call) -> list[str]:
    i, at = call.inputs, call.attributes
    left, right = (
        _real(b, i[0:3], axis=-2),
        _real(b, i[3:6], axis=0 if at.get("transB", 0) else 1),
    )
    left = swap_last(b, left) if at.get("transA", 0) else left
    right = swap_last(b, right) if at.get("transB", 0) else right
    out = b.emit("MatMul", [left, right])
    if at.get("alpha", 1.0) != 1.0:
        out = with_scalar(b, "Mul", out, at["alpha"])
    if call.input(6):
        out = b.emit("Add", [out, _accumulator(b, i[6], i[1], i[4])])
    return [onto(b, out, call.input(8))]


def _qlinear_binary(op: str) -> Operator:
    def operator(b: Builder, call: Call) -> list[str]:
        i = call.inputs
        return [onto(b, b.emit(op, [_real(b, i[0:3]), _real(b, i[3:6])]), call.input(7))]

    return operator


def _qlinear_unary(op: str) -> Operator:
    return lambda b, call: [b.emit(op, [_real(b, call.inputs[0:3])])]


def _qlinear_softmax(b: Builder, call: Call) -> list[str]:
    return [b.emit("Softmax", [_real(b, call.inputs[0:3])], {"axis": -1})]


def _qlinear_concat(b: Builder, call: Call) -> list[str]:
    i = call.inputs
    parts = tuple(_real(b, i[n : n + 3]) for n in range(2, len(i), 3))
    return concat(b, Call("Concat", parts, call.attributes, 1, call.version))


def _matmul_nbits(b: Builder, call: Call) -> list[str]:
    """com.microsoft MatMulNBits: blocks of packed weights along K, one scale a block."""
    at = call.attributes
    k, n, bits, block = at["K"], at["N"], at.get("bits", 4), at["block_size"]
    if bits not in (4, 8) or call.input(4):
        raise Unsupported(f"packed weights of {bits} bits or with an index", "use 4 or 8 bits")
    blocks = -(-k // block)
    packed = b.value(call.inputs[1], "weight").reshape(n, blocks, -1)
    q = unpacked(packed, bits)[:, :, :block].astype(np.float32)
    scale = b.value(call.inputs[2], "scale").astype(np.float32).reshape(n, blocks, 1)
    zero: Array = np.full((n, blocks), 1 << bits - 1, np.float32)
    if call.input(3):
        given = b.value(call.inputs[3], "zero point")
        whole = given.dtype.kind == "f" or prod(given.shape) == n * blocks
        zero = given if whole else unpacked(given.reshape(n, -1), bits)[:, :blocks]
        zero = zero.astype(np.float32).reshape(n, blocks)
    weight = ((q - zero[:, :, None]) * scale).reshape(n, -1)[:, :k]
    if blocks > 1:
        _note_blocks(b, block)
    out = b.emit("MatMul", [call.inputs[0], b.constant(np.ascontiguousarray(weight.T))])
    return [b.emit("Add", [out, call.inputs[5]]) if call.input(5) else out]


def unpacked(packed: Array, bits: int) -> Array:
    """Low bits first, along the last axis."""
    if bits == 8:
        return packed
    pairs = np.stack([packed & 15, packed >> 4], axis=-1)
    return pairs.reshape(*packed.shape[:-1], -1)


QUANTISED_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "QuantizeLinear"): _quantize,
    ("", "DequantizeLinear"): _dequantize,
    ("", "DynamicQuantizeLinear"): _dynamic_quantize,
    ("", "MatMulInteger"): _matmul_integer,
    ("", "QLinearMatMul"): _qlinear_matmul,
    ("", "QLinearConv"): _qlinear_conv,
    ("com.microsoft", "QuantizeLinear"): _quantize,
    ("com.microsoft", "DequantizeLinear"): _dequantize,
    ("com.microsoft", "QGemm"): _qgemm,
    ("com.microsoft", "QLinearAdd"): _qlinear_binary("Add"),
    ("com.microsoft", "QLinearMul"): _qlinear_binary("Mul"),
    ("com.microsoft", "QLinearSigmoid"): _qlinear_unary("Sigmoid"),
    ("com.microsoft", "QLinearSoftmax"): _qlinear_softmax,
    ("com.microsoft", "QLinearConcat"): _qlinear_concat,
    ("com.microsoft", "MatMulNBits"): _matmul_nbits,
}
