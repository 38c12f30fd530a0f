"""Operators of com.microsoft that stand for several others: embeddings and quantised products."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwcompile.compiler.frontend.attention_operators import ATTENTION_OPERATORS
from hwcompile.compiler.frontend.builder import Builder, Unsupported
from hwcompile.compiler.frontend.call import Call, Operator
from hwcompile.compiler.frontend.norm_operators import NORM_OPERATORS
from hwcompile.compiler.frontend.quantised_operators import dequantised, onto, unpacked
from hwcompile.compiler.frontend.recurrent_operators import RECURRENT_OPERATORS
from hwcompile.compiler.frontend.window_operators import WINDOW_OPERATORS
from hwcompile.compiler.ir.tensor_graph import Array


def _embed_layer_norm(b: Builder, call: Call) -> list[str]:
    """EmbedLayerNormalization: token, position and segment rows, and a norm.

    The mask stands for its own number of tokens, which attention takes as a mask of keys.
    """
    ids, segments = call.inputs[0], call.input(1)
    rows = b.shape(ids)[-1]
    positions = call.input(8) or b.constant(np.arange(rows, dtype=np.int64)[None])
    total = b.emit("Gather", [call.inputs[2], ids], {"axis": 0})
    tables = [(call.inputs[3], positions)] + ([(call.inputs[4], segments)] if segments else [])
    for table, index in tables:
        total = b.emit("Add", [total, b.emit("Gather", [table, index], {"axis": 0})])
    epsilon = call.attributes.get("epsilon", 1e-12)
    norm = Call("LayerNormalization", (total, *call.inputs[5:7]), {"epsilon": epsilon}, 1, 17)
    (out,) = NORM_OPERATORS["", "LayerNormalization"](b, norm)
    return [out, call.input(7), total][: call.outputs]


def _quantised_product(a_scale: int, b_scale: int, zeros: tuple[int, int], bias: int) -> Operator:
    """A product of operands of which the right one is quantised; places of its inputs."""

    def operator(b: Builder, call: Call) -> list[str]:
        left = call.inputs[0]
        if a_scale:
            left = dequantised(b, left, call.inputs[a_scale], call.input(zeros[0]), -1)
        right = dequantised(b, call.inputs[1], call.inputs[b_scale], call.input(zeros[1]), -1)
        out = b.emit("MatMul", [left, right])
        return [b.emit("Add", [out, call.inputs[bias]]) if call.input(bias) else out]

    return operator


def _quantised_attention(b: Builder, call: Call) -> list[str]:
    """QAttention: Attention with quantised input and weights."""
    if call.input(8):
        raise Unsupported("cached fused attention", "export plain attention")
    i = call.inputs
    x = dequantised(b, i[0], i[3], call.input(6), -1)
    weight = dequantised(b, i[1], i[4], call.input(7), -1)
    plain = Call("Attention", (x, weight, i[2], call.input(5)), call.attributes, 1, call.version)
    return ATTENTION_OPERATORS["com.microsoft", "Attention"](b, plain)


def _block_table(b: Builder, call: Call) -> list[str]:
    """GatherBlockQuantized: rows of a table of packed blocks, one scale a block."""
    at = call.attributes
    bits, block = at.get("bits", 4), at.get("block_size", 128)
    data = b.value(call.inputs[0], "table")
    axis = at.get("quantize_axis", 1) % data.ndim
    if axis != data.ndim - 1 or at.get("gather_axis", 0):
        raise Unsupported("a packed table along another axis", "pack its columns")
    scale = b.value(call.inputs[2], "scale").astype(np.float32)
    packed = data.dtype == np.uint8
    table = unpacked(data, bits) if packed else data
    zero: Array = np.asarray(1 << bits - 1 if packed else 0, np.float32)
    if call.input(3):
        given = b.value(call.inputs[3], "zero point")
        zero = (unpacked(given, bits) if packed else given)[..., : scale.shape[-1]]
        zero = np.repeat(zero.astype(np.float32), block, -1)[..., : table.shape[-1]]
    factor = np.repeat(scale, block, -1)[..., : table.shape[-1]]
    real = b.constant(((table.astype(np.float32) - zero) * factor).astype(np.float32))
    return [b.emit("Gather", [real, call.inputs[1]], {"axis": 0})]


def _quantised_lstm(b: Builder, call: Call) -> list[str]:
    """DynamicQuantizeLSTM: weights quantised and turned."""
    i = call.inputs
    matrices = []
    for place, scale in ((1, 8), (2, 10)):
        q = b.value(i[place], "matrix").astype(np.float32)
        factor, zero = (b.value(i[scale + k], "scale").astype(np.float32) for k in (0, 1))
        wide = [x.reshape(len(q), 1, -1) for x in (factor, zero)]
        matrices.append(b.constant(((q - wide[1]) * wide[0]).transpose(0, 2, 1).copy()))
    plain = Call("LSTM", (i[0], *matrices, *i[3:8]), call.attributes, call.outputs, call.version)
    return RECURRENT_OPERATORS["", "LSTM"](b, plain)


def _quantised_pool(op: str) -> Operator:
    def operator(b: Builder, call: Call) -> list[str]:
        i, at = call.inputs, call.attributes
        if at.get("channels_last", 0):
            raise Unsupported("a pool with the channels last", "use channels first")
        x = dequantised(b, i[0], i[1], call.input(2), 1)
        (out,) = WINDOW_OPERATORS["", op](b, Call(op, (x,), at, 1, call.version))
        return [onto(b, out, call.input(4))]

    return operator


CONTRIB_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("com.microsoft", "EmbedLayerNormalization"): _embed_layer_norm,
    ("com.microsoft", "DynamicQuantizeMatMul"): _quantised_product(0, 2, (9, 3), 4),
    ("com.microsoft", "MatMulIntegerToFloat"): _quantised_product(2, 3, (4, 5), 6),
    ("com.microsoft", "QAttention"): _quantised_attention,
    ("com.microsoft", "GatherBlockQuantized"): _block_table,
    ("com.microsoft", "DynamicQuantizeLSTM"): _quantised_lstm,
    ("com.microsoft", "QLinearAveragePool"): _quantised_pool("AveragePool"),
    ("com.microsoft", "QLinearGlobalAveragePool"): _quantised_pool("GlobalAveragePool"),
}
