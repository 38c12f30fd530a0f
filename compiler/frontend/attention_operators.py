"""ONNX attention and rotary position operators."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
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
from hwcompile.compiler.ir.tensor_graph import Array


def _attention(b: Builder, call: Call) -> list[str]:
    """ai.onnx Attention (opset 23, 24)."""
    q, k, v = call.inputs[:3]
    at, lengths = call.attributes, call.input(6)
    if lengths and not b.is_constant(lengths):
        raise Unsupported("key lengths given as an input", "mask padding instead")
    flat = len(b.shape(q)) == 3
    if flat:
        q = split_heads(b, q, at["q_num_heads"])
        k, v = (split_heads(b, x, at["kv_num_heads"]) for x in (k, v))
    k, v, past = _with_past(b, call, k, v, 4)
    rows, keys = b.shape(q)[2], b.shape(k)[2]
    mask = _as_long_as(b, call.input(3), keys)
    hidden = _hidden(b, lengths, keys) if lengths else ""
    ends = b.value(lengths, "lengths").reshape(-1, 1, 1, 1) - rows if lengths else past
    causal = ends if at.get("is_causal", 0) else None
    scale, cap = at.get("scale", 0.0), at.get("softcap", 0.0)
    out, seen = _attend(b, q, k, v, mask, causal, scale, cap, hidden)
    shown = seen[at.get("qk_matmul_output_mode", 0)]
    return [join_heads(b, out) if flat else out, k, v, shown][: max(call.outputs, 1)]


def _as_long_as(b: Builder, mask: str, keys: int) -> str:
    """The mask with the keys behind its end hidden."""
    missing = keys - b.shape(mask)[-1] if mask and b.shape(mask) else 0
    if missing <= 0:
        return mask
    boolean = b.types[mask].dtype == np.bool_
    at = {"pads": (0, missing), "axes": (-1,), "value": False if boolean else HIDDEN}
    return b.emit("Pad", [mask], at)


def _hidden(b: Builder, lengths: str, keys: int) -> str:
    """The additive mask ``[batch, 1, 1, keys]`` of the keys behind the length of each sample."""
    behind = np.arange(keys) >= b.value(lengths, "lengths").reshape(-1, 1, 1, 1)
    return b.constant(np.where(behind, HIDDEN, 0.0).astype(np.float32))


def _with_past(b: Builder, call: Call, k: str, v: str, first: int) -> tuple[str, str, int]:
    """Keys and values behind the cached ones (inputs ``first`` and next), and the cached length."""
    if not call.input(first):
        return k, v, 0
    past_k, past_v = call.inputs[first : first + 2]
    join = [
        concat(b, Call("Concat", pair, {"axis": 2}, 1, call.version))[0]
        for pair in ((past_k, k), (past_v, v))
    ]
    return join[0], join[1], b.shape(past_k)[2]


def _attend(
    b: Builder,
    q: str,
    k: str,
    v: str,
    mask: str,
    causal: int | Array | None,
    scale: float,
    cap: float = 0.0,
    hidden: str = "",
) -> tuple[str, tuple[str, ...]]:
    """Attention on ``[batch, heads, rows, size]``; ``causal``: rows cached before query 0.

    ``mask``: key of a bool (seen) or additive tensor, or "". ``scale`` 0: 1 / sqrt(size).
    ``hidden``: an additive mask more. Returns the result, and what the scores were: scaled, capped,
    masked, and as weights. A query that sees no key has the weights 0.
    """
    product = b.emit("MatMul", [q, swap_last(b, _repeat_heads(b, k, q))])
    raw = scores = with_scalar(b, "Mul", product, scale or 1 / sqrt(b.shape(q)[-1]))
    if cap:
        scores = b.emit("Tanh", [with_scalar(b, "Mul", scores, 1 / cap)])
        scores = with_scalar(b, "Mul", scores, cap)
    capped = scores
    added = [hidden] if hidden else []
    if causal is not None:
        rows, keys = b.shape(q)[2], b.shape(k)[2]
        visible = np.arange(keys)[None, :] <= causal + np.arange(rows)[:, None]
        added.insert(0, b.constant(np.where(visible, 0.0, HIDDEN).astype(np.float32)))
    for bias in added:
        scores = b.emit("Add", [scores, bias])
    if mask and b.types[mask].dtype == np.bool_:
        scores = b.emit("Where", [mask, scores, scalar(b, HIDDEN, scores)])
    elif mask:
        scores = b.emit("Add", [scores, mask])
    weights = _without_blind(b, b.emit("Softmax", [scores], {"axis": -1}), [*added, mask])
    out = b.emit("MatMul", [weights, _repeat_heads(b, v, q)])
    return out, (raw, capped, scores, weights)


def _without_blind(b: Builder, weights: str, masks: list[str]) -> str:
    """The weights with the rows 0 whose every key is hidden by masks that are constant."""
    seen: Array = np.ones((), np.bool_)
    for mask in masks:
        constant = b.constants.get(mask)
        if constant is None or constant.timed:
            continue
        array = constant.array
        seen = seen & (array if array.dtype == np.bool_ else array > HIDDEN / 2)
    if seen.ndim == 0 or seen.any(-1).all():
        return weights
    some = b.constant(seen.any(-1, keepdims=True))
    return b.emit("Where", [some, weights, scalar(b, 0.0, weights)])


def _repeat_heads(b: Builder, x: str, q: str) -> str:
    batch, heads, rows, size = b.shape(x)
    factor = b.shape(q)[1] // heads
    if factor == 1:
        return x
    x = b.emit("Unsqueeze", [x], {"axes": (2,)})
    x = b.emit("Expand", [x], {"shape": (batch, heads, factor, rows, size)})
    return b.emit("Reshape", [x], {"shape": (batch, heads * factor, rows, size)})


# --- com.microsoft ------------------------------------------------------------------------------


def _part(b: Builder, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
    at = {"starts": (start,), "ends": (end,), "axes": (axis,), "steps": (step,)}
    return b.emit("Slice", [x], at)


def _group_query(b: Builder, call: Call) -> list[str]:
    """com.microsoft GroupQueryAttention: causal, keys and values perhaps packed behind queries."""
    at, q = call.attributes, call.inputs[0]
    heads, kv_heads = at["num_heads"], at["kv_num_heads"]
    if at.get("softcap", 0.0) or call.input(10):
        raise Unsupported("soft-capped or biased attention", "use plain attention")
    if call.input(1):
        k, v = call.inputs[1:3]
    else:
        size = b.shape(q)[-1] // (heads + 2 * kv_heads)
        ends = (0, heads * size, (heads + kv_heads) * size, (heads + 2 * kv_heads) * size)
        q, k, v = (_part(b, q, 2, s, e) for s, e in pairwise(ends))
    q, k, v = split_heads(b, q, heads), split_heads(b, k, kv_heads), split_heads(b, v, kv_heads)
    if at.get("do_rotary", 0):
        tables = [_rows_of_table(b, call.inputs[i], b.shape(q)[2]) for i in (7, 8)]
        even = bool(at.get("rotary_interleaved", 0))
        q, k = (_rotate(b, x, tables[0], tables[1], even) for x in (q, k))
    k, v, past = _with_past(b, call, k, v, 3)
    window = _window(b, at.get("local_window_size", -1), b.shape(q)[2], b.shape(k)[2], past)
    out, _ = _attend(b, q, k, v, "", past, at.get("scale", 0.0), hidden=window)
    return [join_heads(b, out), k, v][: max(call.outputs, 1)]


def _window(b: Builder, size: int, rows: int, keys: int, past: int) -> str:
    """The additive mask of the keys that lie ``size`` or more rows behind, or ``""``."""
    if size <= 0:
        return ""
    behind = past + np.arange(rows)[:, None] - np.arange(keys)[None, :] >= size
    return b.constant(np.where(behind, HIDDEN, 0.0).astype(np.float32))


def _rows_of_table(b: Builder, table: str, rows: int) -> str:
    """The first rows of a cosine or sine table, which also bounds the sequence length."""
    length = b.shape(table)[0]
    for name, size in b.open_sizes.items():
        if size == rows:
            b.limits.setdefault(name, []).append(length)
    return _part(b, table, 0, 0, rows)


def _multi_head(b: Builder, call: Call) -> list[str]:
    """com.microsoft MultiHeadAttention with separate queries, keys and values."""
    at, heads = call.attributes, call.attributes["num_heads"]
    if any(call.input(i) for i in (6, 7)) or not (call.input(1) and call.input(2)):
        raise Unsupported("packed or cached attention operands", "export plain attention")
    parts = list(call.inputs[:3])
    if call.input(3):
        end, biased = 0, []
        for x in parts:
            start, end = end, end + b.shape(x)[-1]
            biased.append(b.emit("Add", [x, _part(b, call.inputs[3], 0, start, end)]))
        parts = biased
    q, k, v = (split_heads(b, x, heads) for x in parts)
    mask = _key_mask(b, call.input(4)) or call.input(5)
    if call.input(4) and call.input(5):
        raise Unsupported("two masks", "use one")
    causal = 0 if at.get("unidirectional", 0) else None
    return [join_heads(b, _attend(b, q, k, v, mask, causal, at.get("scale", 0.0))[0])]


def _fused_attention(b: Builder, call: Call) -> list[str]:
    """com.microsoft Attention: the projection of queries, keys and values inside."""
    at = call.attributes
    if any(call.input(i) for i in (4, 5, 6)) or "qkv_hidden_sizes" in at or at.get("do_rotary", 0):
        raise Unsupported("cached, biased or rotated fused attention", "export plain attention")
    x = b.emit("MatMul", list(call.inputs[:2]))
    if call.input(2):
        x = b.emit("Add", [x, call.inputs[2]])
    size = b.shape(x)[-1] // 3
    q, k, v = (
        split_heads(b, _part(b, x, 2, i * size, (i + 1) * size), at["num_heads"]) for i in range(3)
    )
    causal = 0 if at.get("unidirectional", 0) else None
    out, _ = _attend(b, q, k, v, _key_mask(b, call.input(3)), causal, at.get("scale", 0.0))
    return [join_heads(b, out)][: call.outputs]


def _key_mask(b: Builder, mask: str) -> str:
    """The additive form of a 0/1 mask of keys ``[batch, keys]``."""
    if not mask:
        return ""
    if len(b.shape(mask)) != 2:
        raise Unsupported("a mask that is not [batch, keys]", "use a key padding mask")
    x = b.emit("Cast", [mask], {"to": np.dtype(np.float32)})
    x = with_scalar(b, "Mul", with_scalar(b, "Sub", x, 1.0), -HIDDEN)
    return b.emit("Unsqueeze", [x], {"axes": (1, 2)})


# --- rotary positions ---------------------------------------------------------------------------


def _rotary(b: Builder, call: Call) -> list[str]:
    """ai.onnx RotaryEmbedding (opset 23) on [batch, heads, rows, size] or [batch, rows, cols]."""
    x, cosine, sine = call.inputs[:3]
    return [_rotary_with(b, call, x, cosine, sine, call.input(3))]


def _rotary_contrib(b: Builder, call: Call) -> list[str]:
    """com.microsoft RotaryEmbedding: the positions come second."""
    x, positions, cosine, sine = call.inputs[:4]
    if b.shape(positions) == (1,):
        rows = b.shape(x)[-2]
        positions = b.emit("Add", [positions, b.constant(np.arange(rows, dtype=np.int64))])
        positions = b.emit("Unsqueeze", [positions], {"axes": (0,)})
    return [_rotary_with(b, call, x, cosine, sine, positions)]


def _rotary_with(b: Builder, call: Call, x: str, cosine: str, sine: str, positions: str) -> str:
    at, flat = call.attributes, len(b.shape(x)) == 3
    if flat:
        heads = at.get("num_heads", 0) or b.shape(x)[-1] // (2 * b.shape(cosine)[-1])
        x = split_heads(b, x, heads)
    if positions:
        cosine, sine = (b.emit("Gather", [t, positions], {"axis": 0}) for t in (cosine, sine))
    cosine, sine = (b.emit("Unsqueeze", [t], {"axes": (1,)}) for t in (cosine, sine))
    turned = _rotate(
        b, x, cosine, sine, bool(at.get("interleaved", 0)), at.get("rotary_embedding_dim", 0)
    )
    return join_heads(b, turned) if flat else turned


def _rotate(b: Builder, x: str, cosine: str, sine: str, even: bool, width: int = 0) -> str:
    """Rotation of ``[batch, heads, rows, size]``: pairs are neighbours (``even``) or half apart."""
    size = b.shape(x)[-1]
    width = width or 2 * b.shape(cosine)[-1]
    half = width // 2
    one = _part(b, x, 3, 0, width, 2) if even else _part(b, x, 3, 0, half)
    two = _part(b, x, 3, 1, width, 2) if even else _part(b, x, 3, half, width)
    real = b.emit("Sub", [b.emit("Mul", [one, cosine]), b.emit("Mul", [two, sine])])
    imag = b.emit("Add", [b.emit("Mul", [one, sine]), b.emit("Mul", [two, cosine])])
    if even:
        pair = [b.emit("Unsqueeze", [t], {"axes": (4,)}) for t in (real, imag)]
        shape = (*b.shape(x)[:3], width)
        turned = b.emit("Reshape", [b.emit("Concat", pair, {"axis": 4})], {"shape": shape})
    else:
        turned = b.emit("Concat", [real, imag], {"axis": 3})
    if width != size:
        turned = b.emit("Concat", [turned, _part(b, x, 3, width, size)], {"axis": 3})
    return turned


ATTENTION_OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "Attention"): _attention,
    ("", "RotaryEmbedding"): _rotary,
    ("com.microsoft", "RotaryEmbedding"): _rotary_contrib,
    ("com.microsoft", "GroupQueryAttention"): _group_query,
    ("com.microsoft", "MultiHeadAttention"): _multi_head,
    ("com.microsoft", "Attention"): _fused_attention,
}
