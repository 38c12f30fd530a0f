"""Attention is followed from scores to output: scales, masks and head layouts of every spelling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.ir import graph as ir

T, D, H = 6, 12, 3
S = D // H
IDS = np.random.default_rng(3).integers(0, 11, (1, T))


def split(n: Any, x: str, heads: int = H, rows: int = T) -> str:
    shape = n.ints(1, rows, heads, -1)
    return n.op("Transpose", n.op("Reshape", x, shape), perm=[0, 2, 1, 3])


def join(n: Any, x: str, cols: int = D) -> str:
    return n.op("Reshape", n.op("Transpose", x, perm=[0, 2, 1, 3]), n.ints(1, -1, cols))


def swap(n: Any, x: str) -> str:
    return n.op("Transpose", x, perm=[0, 1, 3, 2])


def tokens(n: Any) -> str:
    n.input("ids", [1, T], "i")
    x = n.op("Gather", n.weight(11, D, scale=1.0), "ids")
    return n.op("Add", x, n.weight(T, D))


def projected(n: Any, x: str, cols: int = D) -> str:
    return n.op("Add", n.op("MatMul", x, n.weight(D, cols)), n.weight(cols))


def attention(n: Any, x: str, mask: Callable[[Any, str], str]) -> str:
    q, k, v = (split(n, projected(n, x)) for _ in range(3))
    scores = n.op("Div", n.op("MatMul", q, swap(n, k)), n.const(np.sqrt(S)))
    weights = n.op("Softmax", mask(n, scores), axis=-1)
    return join(n, n.op("MatMul", weights, v))


def finish(n: Any, x: str) -> Any:
    n.output(n.op("MatMul", x, n.weight(D, 11)), "logits", [1, T, 11])
    return n


def attends(graph: ir.Graph) -> list[ir.Attend]:
    return [op for op in graph.operations if isinstance(op, ir.Attend)]


TRIANGLE = np.tril(np.ones((T, T), bool))


def _where(n: Any, s: str) -> str:
    return n.op("Where", n.const(~TRIANGLE, bool), n.const(-np.inf), s)


def _where_kept(n: Any, s: str) -> str:
    return n.op("Where", n.const(TRIANGLE[None, None], bool), s, n.const(-3.4e38))


def _additive(n: Any, s: str) -> str:
    return n.op("Add", s, n.const(np.where(TRIANGLE, 0.0, -1e9)[None, None]))


def _trilu(n: Any, s: str) -> str:
    ones = n.op("ConstantOfShape", n.ints(T, T), value=_tensor(1.0))
    seen = n.op("Trilu", ones, upper=0)
    return n.op("Where", n.op("Equal", seen, n.const(0.0)), n.const(-1e9), s)


def _computed(n: Any, s: str) -> str:
    row = n.op("Range", *(n.const(v, np.int64) for v in (0, T, 1)))
    seen = n.op("LessOrEqual", row, n.op("Unsqueeze", row, n.ints(1)))
    return n.op("Where", seen, s, n.const(-np.inf))


def _guarded(n: Any, s: str) -> str:
    p = n.op("Softmax", _where(n, s), axis=-1)
    return n.op("Where", n.op("IsNaN", p), n.const(0.0), p)


def _tensor(value: float) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.asarray([value], np.float32))


@pytest.mark.parametrize("mask", [_where, _where_kept, _additive, _trilu, _computed])
def test_causal_masks(net: Any, agree: Any, mask: Callable[[Any, str], str]) -> None:
    n = net()
    graph = agree(finish(n, attention(n, tokens(n), mask)), {"ids": IDS})
    (op,) = attends(graph)
    assert op.causal and op.heads == op.kv_heads == H
    assert graph.sections == ("sequence",) and graph.form == "prefill"
    assert graph.outputs[0].kind == "logits" and graph.inputs[0].id_count == 11


def test_nan_guard_is_nothing(net: Any, agree: Any) -> None:
    n = net()
    x = tokens(n)
    q, k, v = (split(n, projected(n, x)) for _ in range(3))
    p = _guarded(n, n.op("MatMul", q, swap(n, k)))
    graph = agree(finish(n, join(n, n.op("MatMul", p, v))), {"ids": IDS})
    assert attends(graph)[0].causal


@pytest.mark.parametrize("where", ["q", "k", "both", "mul", "none"])
def test_scale_is_folded_from_anywhere(net: Any, agree: Any, where: str) -> None:
    n = net()
    x = tokens(n)
    q, k, v = (split(n, projected(n, x)) for _ in range(3))
    kt = swap(n, k)
    if where in ("q", "both"):
        q = n.op("Mul", q, n.const(0.6))
    if where in ("k", "both"):
        kt = n.op("Div", kt, n.const(1.7))
    scores = n.op("MatMul", q, kt)
    if where == "mul":
        scores = n.op("Mul", n.const(0.45), scores)
    out = join(n, n.op("MatMul", n.op("Softmax", scores, axis=-1), v))
    graph = agree(finish(n, out), {"ids": IDS})
    expected = {"q": 0.6, "k": 1 / 1.7, "both": 0.6 / 1.7, "mul": 0.45, "none": 1.0}[where]
    assert attends(graph)[0].scale == pytest.approx(expected)
    assert not [op for op in graph.operations if isinstance(op, ir.Unary | ir.Multiply)]


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_shared_key_heads(net: Any, agree: Any, kv_heads: int) -> None:
    n, heads, size = net(), 4, 3
    x = tokens(n)
    q = split(n, projected(n, x), heads)
    pair = []
    for _ in range(2):
        y = split(n, projected(n, x, kv_heads * size), kv_heads)
        y = n.op("Unsqueeze", y, n.ints(2))
        y = n.op("Expand", y, n.ints(1, kv_heads, heads // kv_heads, T, size))
        pair.append(n.op("Reshape", y, n.ints(1, heads, T, size)))
    scores = _where(n, n.op("MatMul", q, swap(n, pair[0])))
    out = join(n, n.op("MatMul", n.op("Softmax", scores, axis=-1), pair[1]))
    (op,) = attends(agree(finish(n, out), {"ids": IDS}))
    assert (op.heads, op.kv_heads) == (4, kv_heads)


def test_one_key_head_by_broadcast(net: Any, agree: Any) -> None:
    n = net()
    x = tokens(n)
    q = split(n, projected(n, x))
    k, v = (split(n, projected(n, x, S), 1) for _ in range(2))
    scores = _where(n, n.op("MatMul", q, swap(n, k)))
    out = join(n, n.op("MatMul", n.op("Softmax", scores, axis=-1), v))
    assert attends(agree(finish(n, out), {"ids": IDS}))[0].kv_heads == 1


@pytest.mark.parametrize("way", ["split", "reshape"])
def test_fused_projection_falls_apart(net: Any, agree: Any, way: str) -> None:
    n = net()
    y = projected(n, tokens(n), 3 * D)
    if way == "split":
        q, k, v = (split(n, p) for p in n.op("Split", y, n.ints(D, D, D), axis=2, outputs=3))
    else:
        y = n.op("Transpose", n.op("Reshape", y, n.ints(1, T, 3, H, S)), perm=[2, 0, 3, 1, 4])
        q, k, v = (n.op("Gather", y, n.const(i, np.int64), axis=0) for i in range(3))
    scores = _where(n, n.op("MatMul", q, swap(n, k)))
    graph = agree(
        finish(n, join(n, n.op("MatMul", n.op("Softmax", scores, axis=-1), v))), {"ids": IDS}
    )
    kinds = [type(op) for op in graph.operations]
    assert kinds.count(ir.Linear) == 4 and ir.Gather not in kinds


def test_heads_beside_the_batch(net: Any, agree: Any) -> None:
    """The layout of torch's own attention: rows first, heads folded into the batch axis."""
    n = net()
    x = n.op("Transpose", tokens(n), perm=[1, 0, 2])
    q, k, v = (
        n.op("Transpose", n.op("Reshape", projected(n, x), n.ints(T, H, S)), perm=[1, 0, 2])
        for _ in range(3)
    )
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 2, 1]))
    scores = n.op("Add", scores, n.const(np.where(TRIANGLE, 0.0, -np.inf)[None]))
    out = n.op("MatMul", n.op("Softmax", scores, axis=-1), v)
    out = n.op("Reshape", n.op("Transpose", out, perm=[1, 0, 2]), n.ints(T, 1, D))
    out = n.op("Transpose", out, perm=[1, 0, 2])
    assert attends(agree(finish(n, out), {"ids": IDS}))[0].causal


def test_einsum(net: Any, agree: Any) -> None:
    n = net()
    x = tokens(n)
    q, k, v = (n.op("Reshape", projected(n, x), n.ints(1, T, H, S)) for _ in range(3))
    scores = _where(n, n.op("Einsum", q, k, equation="bqhd,bkhd->bhqk"))
    out = n.op("Einsum", n.op("Softmax", scores, axis=-1), v, equation="bhqk,bkhd->bqhd")
    agree(finish(n, n.op("Reshape", out, n.ints(1, T, D))), {"ids": IDS})


@pytest.mark.parametrize("way", ["additive", "where", "bool", "input", "positive"])
def test_padding_of_keys(net: Any, agree: Any, way: str) -> None:
    n, ids = net(), IDS.copy()
    ids[0, -2:] = 0
    feeds: dict[str, Any] = {"ids": ids}
    x = tokens(n)
    if way == "input":
        n.input("attention_mask", [1, T], "i")
        feeds["attention_mask"] = (ids != 0).astype(np.int64)
        seen = n.op("Cast", "attention_mask", to=9)
    elif way == "positive":
        seen = n.op("Greater", "ids", n.ints(0))
    else:
        seen = n.op("Not", n.op("Equal", "ids", n.const(0, np.int64)))
    seen = n.op("Unsqueeze", seen, n.ints(1, 2))

    def mask(n: Any, s: str) -> str:
        if way == "additive":
            off = n.op("Sub", n.const(1.0), n.op("Cast", seen, to=1))
            return n.op("Add", s, n.op("Mul", off, n.const(-3.4e38)))
        if way == "bool":
            both = n.op("And", seen, n.const(np.ones((T, T), bool), bool))
            return n.op("Where", both, s, n.const(-1e9))
        return n.op("Where", n.op("Not", seen), n.const(-1e9), s)

    graph = agree(finish(n, attention(n, x, mask)), feeds)
    (op,) = attends(graph)
    assert len(op.inputs) == 4 and not op.causal and graph.sections == ("once",)


def test_a_padding_id_of_any_size_is_told_at_once(net: Any, agree: Any) -> None:
    n = net()
    x = tokens(n)
    seen = n.op("Not", n.op("Equal", "ids", n.const(1 << 40, np.int64)))
    seen = n.op("Unsqueeze", seen, n.ints(1, 2))
    mask = lambda n, s: n.op("Where", seen, s, n.const(-1e9))  # noqa: E731
    agree(finish(n, attention(n, x, mask)), {"ids": IDS})


def test_causal_and_padding_together(net: Any, agree: Any) -> None:
    n, ids = net(), IDS.copy()
    ids[0, 4:] = 0
    x = tokens(n)
    seen = n.op("Not", n.op("Equal", "ids", n.const(0, np.int64)))
    seen = n.op("Unsqueeze", seen, n.ints(1, 2))
    both = n.op("And", n.const(TRIANGLE[None, None], bool), seen)
    graph = agree(
        finish(n, attention(n, x, lambda n, s: n.op("Where", both, s, n.const(-1e9)))), {"ids": ids}
    )
    (op,) = attends(graph)
    assert op.causal and len(op.inputs) == 4


def test_encoder_and_decoder_are_two_sections(net: Any, agree: Any) -> None:
    n = net()
    n.input("src", [1, 4], "i")
    memory = n.op("Gather", n.weight(9, D), "src")
    memory = n.op("Relu", n.op("MatMul", memory, n.weight(D, D)))
    x = tokens(n)
    x = n.op("Add", x, attention(n, x, _where))
    q = split(n, projected(n, x))
    k, v = (split(n, projected(n, memory), rows=4) for _ in range(2))
    cross = n.op("MatMul", n.op("Softmax", n.op("MatMul", q, swap(n, k)), axis=-1), v)
    x = n.op("Add", x, join(n, cross))
    x = n.op("Add", x, attention(n, x, _where))
    graph = agree(finish(n, x), {"src": IDS[:, :4] % 9, "ids": IDS})
    assert graph.sections == ("once", "sequence")
    assert [i.section for i in graph.inputs] == [0, 1]
    assert [op.causal for op in attends(graph)] == [True, False, True]
    sections = [op.section for op in graph.operations]
    assert sections == sorted(sections)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_operator(net: Any, agree: Any, causal: int) -> None:
    n = net(23)
    x = tokens(n)
    q, k, v = projected(n, x), projected(n, x, S), projected(n, x, S)
    out = n.op("Attention", q, k, v, q_num_heads=H, kv_num_heads=1, is_causal=causal)
    (op,) = attends(agree(finish(n, out), {"ids": IDS}))
    assert op.kv_heads == 1 and op.causal == bool(causal)


@pytest.mark.parametrize(
    "mask", [np.triu(np.ones((T, T), bool)), np.tril(np.ones((T, T), bool), 1)]
)
def test_other_masks_hide_keys(net: Any, agree: Any, mask: Any) -> None:
    n = net()
    x = attention(n, tokens(n), lambda n, s: n.op("Where", n.const(mask, bool), s, n.const(-1e9)))
    (op,) = attends(agree(finish(n, x), {"ids": IDS}))
    assert not op.causal and np.array_equal(op.bias[0] == ir.HIDDEN, ~mask)


def test_a_bias_on_scores(net: Any, agree: Any) -> None:
    n = net()
    bias = np.random.default_rng(0).standard_normal((H, T, T))

    def biased(n: Any, s: str) -> str:
        return _additive(n, n.op("Add", s, n.const(bias)))

    (op,) = attends(agree(finish(n, attention(n, tokens(n), biased)), {"ids": IDS}))
    assert op.causal and np.allclose(op.bias[:, *np.tril_indices(T)], bias[:, *np.tril_indices(T)])


def test_a_mask_without_effect_is_no_mask(net: Any, agree: Any) -> None:
    n = net()
    n.input("attention_mask", [1, T], "i")
    x = tokens(n)
    off = n.op("Sub", n.const(1.0), n.op("Cast", "attention_mask", to=1))
    off = n.op("Unsqueeze", n.op("Mul", off, n.const(0.0)), n.ints(1, 2))
    graph = agree(
        finish(n, attention(n, x, lambda n, s: n.op("Add", s, off))),
        {"ids": IDS, "attention_mask": np.array([[1, 1, 1, 0, 0, 0]])},
    )
    assert len(attends(graph)[0].inputs) == 3


def test_a_mask_of_queries_is_refused(net: Any, importer: Any) -> None:
    n = net()
    n.input("attention_mask", [1, T], "i")
    x = tokens(n)
    seen = n.op("Unsqueeze", n.op("Cast", "attention_mask", to=9), n.ints(1, 3))
    with pytest.raises(ModelError, match="padding mask"):
        importer(finish(n, attention(n, x, lambda n, s: n.op("Where", seen, s, n.const(-1e9)))))
