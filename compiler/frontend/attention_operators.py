"""ONNX attention and rotary position operators."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import numpy as np

from hwcompile.compiler.frontend.builder import Builder, Unsupported
from hwcompile.compiler.frontend.call import (
    HIDDEN,
    Call,
    Operator,
    concat,
    join_heads,
    scalar,
    split_heads,
    swap_last,
    with_scalar,
)


def _attention(b: Builder, call: Call) -> list[str]:
    """ai.onnx Attention (opset 23, 24)."""
    q, k, v = call.inputs[:3]
    at = call.attributes
    if at.get("softcap", 0.0) or (at.get("qk_matmul_output_mode", 0) and call.outputs > 3):
        raise Unsupported("soft-capped attention scores", "export without softcap")
    flat = len(b.shape(q)) == 3
    if flat:
        q = split_heads(b, q, at["q_num_heads"])
        k = split_heads(b, k, at["kv_num_heads"])
        v = split_heads(b, v, at["kv_num_heads"])
    past = b.shape(call.inputs[4])[2] if call.input(4) else 0
    if call.input(4):
        k = concat(b, Call("Concat", (call.inputs[4], k), {"axis": 2}, 1, call.version))[0]
        v = concat(b, Call("Concat", (call.inputs[5], v), {"axis": 2}, 1, call.version))[0]
    presents = [k, v]
    mask = call.input(3)
    if at.get("is_causal", 0):
        rows, keys = b.shape(q)[2], b.shape(k)[2]
        visible = np.arange(keys)[None, :] <= past + np.arange(rows)[:, None]
        causal = b.constant(np.where(visible, 0.0, HIDDEN).astype(np.float32))
        scores_mask = [causal]
    else:
        scores_mask = []
    scale = at.get("scale", 1 / sqrt(b.shape(q)[-1]))
    scores = with_scalar(
        b, "Mul", b.emit("MatMul", [q, swap_last(b, _repeat_heads(b, k, q))]), scale
    )
    for m in scores_mask:
        scores = b.emit("Add", [scores, m])
    if mask:
        scores = _mask_scores(b, scores, mask)
    out = b.emit("MatMul", [b.emit("Softmax", [scores], {"axis": -1}), _repeat_heads(b, v, q)])
    return [join_heads(b, out) if flat else out, *presents][: max(call.outputs, 1)]


def _mask_scores(b: Builder, scores: str, mask: str) -> str:
    if b.types[mask].dtype == np.bool_:
        return b.emit("Where", [mask, scores, scalar(b, HIDDEN, scores)])
    return b.emit("Add", [scores, mask])


def _repeat_heads(b: Builder, x: str, q: str) -> str:
    batch, heads, rows, size = b.shape(x)
    factor = b.shape(q)[1] // heads
    if factor == 1:
        return x
    x = b.emit("Unsqueeze", [x], {"axes": (2,)})
    x = b.emit("Expand", [x], {"shape": (batch, heads, factor, rows, size)})
    return b.emit("Reshape", [x], {"shape": (batch, heads * factor, rows, size)})


def _rotary(b: Builder, call: Call) -> list[str]:
    """ai.onnx RotaryEmbedding (opset 23) on [batch, heads, rows, size] or [batch, rows, cols]."""
    x, cosine, sine = call.inputs[:3]
    at, flat = call.attributes, len(b.shape(call.inputs[0])) == 3
    if flat:
        x = split_heads(b, x, at["num_heads"])
    size = b.shape(x)[-1]
    if call.input(3):
        cosine, sine = (b.emit("Gather", [t, call.inputs[3]], {"axis": 0}) for t in (cosine, sine))
    cosine, sine = (b.emit("Unsqueeze", [t], {"axes": (1,)}) for t in (cosine, sine))
    width = at.get("rotary_embedding_dim", 0) or size

    def part(start: int, end: int, step: int = 1) -> str:
        return b.emit(
            "Slice", [x], {"starts": (start,), "ends": (end,), "axes": (3,), "steps": (step,)}
        )

    even = bool(at.get("interleaved", 0))
    one = part(0, width, 2) if even else part(0, width // 2)
    two = part(1, width, 2) if even else part(width // 2, width)
    real = b.emit("Sub", [b.emit("Mul", [one, cosine]), b.emit("Mul", [two, sine])])
    imag = b.emit("Add", [b.emit("Mul", [one, sine]), b.emit("Mul", [two, cosine])])
    if even:
        pair = [b.emit("Unsqueeze", [t], {"axes": (4,)}) for t in (real, imag)]
        shape = (*b.shape(x)[:3], width)
        turned = b.emit("Reshape", [b.emit("Concat", pair, {"axis": 4})], {"shape": shape})
    else:
        turned = b.emit("Concat", [real, imag], {"axis": 3})
    if width != size:
        turned = b.emit("Concat", [turned, part(width, size)], {"axis": 3})
    return [join_heads(b, turned) if flat else turned]


ATTENTION_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "Attention"): _attention,
    ("", "RotaryEmbedding"): _rotary,
}
