"""Fused operators of com.microsoft, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from hwcompile.compiler.ir import graph as ir
from hwcompile.sim.float_reference import evaluate

MS = "com.microsoft"
T, D, V = 6, 32, 9
IDS = np.random.default_rng(6).integers(0, V, (1, T))


def _run(n: Any, feeds: dict[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(n.model().SerializeToString(), options)
    return session.run(["logits"], feeds)[0]


def _finish(n: Any, x: str, importer: Any, feeds: dict[str, Any]) -> ir.Graph:
    n.output(n.op("MatMul", x, n.weight(D, V)), "logits", [1, T, V])
    graph: ir.Graph = importer(n)
    made = evaluate(graph, {i.model_name: feeds[i.model_name] for i in graph.inputs})[0]
    np.testing.assert_allclose(made["logits"], _run(n, feeds), atol=2e-4)
    return graph


def _tokens(n: Any) -> str:
    n.input("ids", [1, T], "i")
    return str(n.op("Gather", n.weight(V, D, scale=1.0), "ids"))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("pairs", [0, 1])
def test_group_query_attention(net: Any, importer: Any, packed: bool, pairs: int) -> None:
    n, heads, kv_heads, size = net(), 2, 1, 16
    x = _tokens(n)
    widths = (heads * size, kv_heads * size, kv_heads * size)
    if packed:
        parts = [n.op("MatMul", x, n.weight(D, sum(widths))), "", ""]
    else:
        parts = [n.op("MatMul", x, n.weight(D, w)) for w in widths]
    angle = np.arange(32)[:, None] / 10 ** np.linspace(0, 2, size // 2)
    tables = [n.const(f(angle)) for f in (np.cos, np.sin)]
    lengths = n.const([T - 1], np.int32), n.const(T, np.int32)
    at = {"num_heads": heads, "kv_num_heads": kv_heads, "do_rotary": 1}
    y, _, _ = n.op(
        "GroupQueryAttention",
        *parts,
        "",
        "",
        *lengths,
        *tables,
        outputs=3,
        domain=MS,
        rotary_interleaved=pairs,
        **at,
    )
    graph = _finish(n, y, importer, {"ids": IDS})
    kinds = [type(op) for op in graph.operations]
    assert kinds.count(ir.Rotate) == 2 and graph.sections == ("sequence",)


def test_multi_head_attention_with_padding(net: Any, importer: Any) -> None:
    n = net()
    x = _tokens(n)
    n.input("mask", [1, T], "i")
    parts = [n.op("MatMul", x, n.weight(D, D)) for _ in range(3)]
    mask = n.op("Cast", "mask", to=6)
    y = n.op("MultiHeadAttention", *parts, n.weight(3 * D), mask, num_heads=4, domain=MS)
    feeds = {"ids": IDS, "mask": np.array([[1, 1, 1, 1, 0, 0]])}
    graph = _finish(n, y, importer, feeds)
    assert len(next(op for op in graph.operations if isinstance(op, ir.Attend)).inputs) == 4


def test_fused_attention_and_norms(net: Any, importer: Any) -> None:
    n = net()
    x = _tokens(n)
    y = n.op(
        "Attention", x, n.weight(D, 3 * D), n.weight(3 * D), num_heads=2, unidirectional=1,
        domain=MS,
    )  # fmt: skip
    z, _, _, total = n.op(
        "SkipLayerNormalization", y, x, n.weight(D), n.weight(D), n.weight(D), epsilon=1e-5,
        outputs=4, domain=MS,
    )  # fmt: skip
    z = n.op("BiasGelu", n.op("MatMul", z, n.weight(D, D)), n.weight(D), domain=MS)
    out, _, _, _ = n.op(
        "SkipSimplifiedLayerNormalization", z, total, n.weight(D), epsilon=1e-5, outputs=4,
        domain=MS,
    )  # fmt: skip
    graph = _finish(n, out, importer, {"ids": IDS})
    norms = [op.kind for op in graph.operations if isinstance(op, ir.Normalise)]
    assert norms == ["layer", "rms"]


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights(net: Any, importer: Any, bits: int) -> None:
    n, block = net(), 16
    x = _tokens(n)
    packed = n.random.integers(1, 256, (D, D // block, block * bits // 8)).astype(np.uint8)
    scale = n.random.uniform(0.01, 0.02, D).astype(np.float32).repeat(D // block)
    y = n.op(
        "MatMulNBits", x, n.const(packed, np.uint8), n.const(scale), K=D, N=D, bits=bits,
        block_size=block, domain=MS,
    )  # fmt: skip
    graph = _finish(n, y, importer, {"ids": IDS})
    grids = [op.grid_values for op in graph.operations if isinstance(op, ir.Linear)]
    assert grids[0] is not None and grids[1] is None
