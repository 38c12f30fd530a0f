"""Files with caches become the same sequence as their prefill form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.ir import graph as ir
from hwcompile.sim.float_reference import evaluate

T, H, S, V = 7, 2, 4, 9
D = H * S
IDS = np.random.default_rng(5).integers(0, V, (1, T))


def _heads(n: Any, x: str) -> str:
    y = n.op("MatMul", x, n.weight(D, D))
    return n.op("Transpose", n.op("Reshape", y, n.ints(1, -1, H, S)), perm=[0, 2, 1, 3])


def _rest(n: Any, x: str, q: str, k: str, v: str, mask: Callable[[str], str]) -> str:
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 1, 3, 2]))
    p = n.op("Softmax", mask(n.op("Mul", scores, n.const(0.5))), axis=-1)
    out = n.op("Transpose", n.op("MatMul", p, v), perm=[0, 2, 1, 3])
    out = n.op("Reshape", out, n.ints(1, -1, D))
    out = n.op("Add", x, n.op("MatMul", out, n.weight(D, D)))
    return str(n.op("MatMul", out, n.weight(D, V)))


def _one_hot(n: Any, cache: str, new: str) -> str:
    hot = n.op("Cast", n.op("Equal", n.const(np.arange(T), np.int64), "position"), to=1)
    hot = n.op("Unsqueeze", n.op("Unsqueeze", hot, n.ints(0, 1)), n.ints(3))
    kept = n.op("Mul", cache, n.op("Sub", n.const(1.0), hot))
    return str(n.op("Add", kept, n.op("Mul", hot, new)))


def _where(n: Any, cache: str, new: str) -> str:
    hot = n.op("Equal", n.const(np.arange(T).reshape(1, 1, T, 1), np.int64), "position")
    return str(n.op("Where", hot, new, cache))


def _scatter(n: Any, cache: str, new: str) -> str:
    """Rows first, so that the position is the index."""
    first = n.op("Transpose", cache, perm=[2, 0, 1, 3])
    row = n.op("Transpose", new, perm=[2, 0, 1, 3])
    out = n.op("ScatterND", first, n.op("Unsqueeze", "position", n.ints(1)), row)
    return str(n.op("Transpose", out, perm=[1, 2, 0, 3]))


def _elements(n: Any, cache: str, new: str) -> str:
    index = n.op("Reshape", "position", n.ints(1, 1, 1, 1))
    index = n.op("Expand", index, n.ints(1, H, 1, S))
    return str(n.op("ScatterElements", cache, index, new, axis=2))


def _wrong(n: Any, cache: str, new: str) -> str:
    hot = n.op("Equal", n.const(np.arange(T).reshape(1, 1, T, 1), np.int64), "position")
    return str(n.op("Where", hot, n.op("Add", new, cache), cache))


def _step(net: Any, update: Callable[[Any, str, str], str]) -> Any:
    n = net()
    n.input("token", [1, 1], "i")
    n.input("position", [1], "i")
    caches = [n.input(name, [1, H, T, S]) for name in ("cache_k", "cache_v")]
    x = n.op("Gather", n.weight(V, D), "token")
    x = n.op("Add", x, n.op("Gather", n.weight(T, D), "position"))
    q, k, v = (_heads(n, x) for _ in range(3))
    k, v = update(n, caches[0], k), update(n, caches[1], v)
    seen = n.op("LessOrEqual", n.const(np.arange(T), np.int64), "position")
    out = _rest(n, x, q, k, v, lambda s: n.op("Where", seen, s, n.const(-1e9)))
    n.output(out, "logits", [1, 1, V])
    n.output(k, "cache_k_out", [1, H, T, S])
    n.output(v, "cache_v_out", [1, H, T, S])
    return n


@pytest.mark.parametrize("update", [_one_hot, _where, _scatter, _elements])
def test_step_form(net: Any, importer: Any, update: Callable[[Any, str, str], str]) -> None:
    n = _step(net, update)
    graph = importer(n)
    assert graph.form == "step" and graph.sections == ("sequence",)
    assert [(c.role, c.input_name, c.output_name) for c in graph.caches] == [
        ("key", "cache_k", "cache_k_out"),
        ("value", "cache_v", "cache_v_out"),
    ]
    (attend,) = (op for op in graph.operations if isinstance(op, ir.Attend))
    assert attend.causal and {c.operation for c in graph.caches} == {attend.output.key}
    assert [i.model_name for i in graph.inputs] == ["token"]
    reference = ReferenceEvaluator(n.model())
    caches = [np.zeros((1, H, T, S), np.float32)] * 2
    rows = []
    for t in range(T):
        feeds = {"token": IDS[:, t : t + 1], "position": np.array([t])}
        feeds |= dict(zip(("cache_k", "cache_v"), caches, strict=True))
        logits, *caches = reference.run(None, feeds)
        rows.append(logits[0])
    outputs, _ = evaluate(graph, {"token": IDS})
    np.testing.assert_allclose(outputs["logits"], np.stack(rows, 1), atol=1e-4)


def test_another_cache_update_is_refused(net: Any, importer: Any) -> None:
    with pytest.raises(ModelError, match="cache_k"):
        importer(_step(net, _wrong))


def _kv(net: Any, extra: bool) -> Any:
    """Keys and values concatenated; positions from the past length, or from inputs (``extra``)."""
    n = net()
    n.input("input_ids", [1, "seq"], "i")
    pasts = [n.input(f"past.{r}", [1, H, "past", S]) for r in ("key", "value")]
    rows = n.op("Gather", n.op("Shape", "input_ids"), n.const(1, np.int64))
    start = n.op("Gather", n.op("Shape", pasts[0]), n.const(2, np.int64))
    end = n.op("Add", start, rows)
    if extra:
        n.input("attention_mask", [1, "total"], "i")
        n.input("position_ids", [1, "seq"], "i")
        where = n.op("Gather", n.weight(T, D), "position_ids")
    else:
        ends = [n.op("Unsqueeze", e, n.ints(0)) for e in (start, end)]
        where = n.op("Slice", n.weight(T, D), *ends, n.ints(0))
    x = n.op("Add", n.op("Gather", n.weight(V, D), "input_ids"), where)
    q, k, v = (_heads(n, x) for _ in range(3))
    k, v = n.op("Concat", pasts[0], k, axis=2), n.op("Concat", pasts[1], v, axis=2)
    one, zero = n.const(1, np.int64), n.const(0, np.int64)
    query = n.op("Unsqueeze", n.op("Range", start, end, one), n.ints(1))
    seen = n.op("LessOrEqual", n.op("Range", zero, end, one), query)
    if extra:
        given = n.op("Cast", n.op("Unsqueeze", "attention_mask", n.ints(1)), to=9)
        seen = n.op("And", seen, given)
    out = _rest(n, x, q, k, v, lambda s: n.op("Where", seen, s, n.const(-1e9)))
    n.output(out, "logits", [1, "seq", V])
    n.output(k, "present.key", [1, H, "total", S])
    n.output(v, "present.value", [1, H, "total", S])
    return n


@pytest.mark.parametrize("extra", [False, True])
def test_kv_form(net: Any, importer: Any, extra: bool) -> None:
    n = _kv(net, extra)
    graph = importer(n)
    assert graph.form == "kv" and len(graph.caches) == 2
    assert [i.model_name for i in graph.inputs] == ["input_ids"]
    # The context is the length of the position table.
    assert graph.inputs[0].value.rows == T
    empty = np.zeros((1, H, 0, S), np.float32)
    feeds: dict[str, Any] = {"input_ids": IDS, "past.key": empty, "past.value": empty}
    if extra:
        feeds |= {"attention_mask": np.ones((1, T), np.int64), "position_ids": np.arange(T)[None]}
    expected = ReferenceEvaluator(n.model()).run(["logits"], feeds)[0]
    outputs, _ = evaluate(graph, {"input_ids": IDS})
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-4)


def test_shorter_sequences_are_prefixes(net: Any, importer: Any) -> None:
    graph = importer(_kv(net, False))
    full, _ = evaluate(graph, {"input_ids": IDS})
    part, _ = evaluate(graph, {"input_ids": IDS[:, :3]})
    np.testing.assert_allclose(part["logits"], full["logits"][:, :3], atol=1e-9)
