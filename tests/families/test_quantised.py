"""Quantised files of every kind against onnxruntime, and what stays exact of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from hwcompile.compiler.frontend import load_model
from hwcompile.compiler.importing import import_model
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir import program
from hwcompile.sim.float_reference import evaluate

MS, QONNX = "com.microsoft", "qonnx.custom_op.general"
T, D, V = 4, 32, 9
X = np.random.default_rng(5).standard_normal((1, T, D)).astype(np.float32)


def _onnxruntime(n: Any, feeds: dict[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(n.model().SerializeToString(), options)
    return session.run(["y"], feeds)[0]


def _near(n: Any, importer: Any, feeds: dict[str, Any], tolerance: float) -> ir.Graph:
    """The graph, whose results are those of the file up to what its quantisers round."""
    graph: ir.Graph = importer(n)
    made = evaluate(graph, {i.model_name: feeds[i.model_name] for i in graph.inputs})[0]["y"]
    expected = _onnxruntime(n, feeds)
    error = ((made.reshape(expected.shape) - expected) ** 2).mean() / expected.var()
    assert error < tolerance
    return graph


def _grids(graph: ir.Graph) -> list[Any]:
    return [op.grid_values for op in graph.operations if isinstance(op, ir.Linear)]


def _done(n: Any, y: str, cols: int) -> Any:
    n.output(y, "y", [1, T, cols])
    return n


def test_products_with_quantised_weights(net: Any, importer: Any) -> None:
    n = net()
    x = n.input("x", [1, T, D])
    weight = n.random.integers(-127, 128, (D, D))
    scale = n.random.uniform(0.001, 0.003, D)
    q = n.const(weight, np.int8), n.const(scale), n.const(np.zeros(D), np.int8)
    x = n.op("DynamicQuantizeMatMul", x, *q, n.weight(D), domain=MS)
    integers, step, zero = n.op("DynamicQuantizeLinear", x, outputs=3)
    x = n.op("MatMulIntegerToFloat", integers, q[0], step, q[1], zero, q[2], domain=MS)
    graph = _near(_done(n, x, D), importer, {"x": X}, 1e-3)
    for grid in _grids(graph):
        assert np.array_equal(np.abs(grid), np.abs(weight))


@pytest.mark.parametrize("blocks", [1, 2])
def test_asymmetric_blocks_of_four_bits(net: Any, importer: Any, blocks: int) -> None:
    n = net(21)
    x = n.input("x", [1, T, D])
    data = helper.make_tensor(
        "packed", onnx.TensorProto.UINT4, (D, V), n.random.integers(0, 16, D * V)
    )
    zero = helper.make_tensor(
        "zero", onnx.TensorProto.UINT4, (blocks, V), n.random.integers(0, 16, blocks * V)
    )
    n.weights += [data, zero]
    scale = n.const(n.random.uniform(0.01, 0.03, (blocks, V)))
    weight = n.op("DequantizeLinear", "packed", scale, "zero", axis=0, block_size=D // blocks)
    graph = _near(_done(n, n.op("MatMul", x, weight), V), importer, {"x": X}, 1e-9)
    # One scale a column is a grid; several are not.
    assert (_grids(graph)[0] is not None) == (blocks == 1)


@pytest.mark.parametrize(("kind", "zero"), [(np.uint8, 131), (np.uint16, 33000), (np.int8, -4)])
def test_activations_unsigned_and_of_16_bits(net: Any, importer: Any, kind: Any, zero: int) -> None:
    n = net(21)
    point = n.const(zero, kind), n.const(8.0 / np.iinfo(kind).max)
    steps = n.op("QuantizeLinear", n.input("x", [1, T, D]), point[1], point[0])
    x = n.op("DequantizeLinear", steps, point[1], point[0])
    _near(_done(n, n.op("MatMul", x, n.weight(D, V)), V), importer, {"x": X}, 1e-3)


def test_unsigned_weights_with_a_zero_point(
    net: Any, importer: Any, quantised: Any, simulated: Any
) -> None:
    n = net()
    steps = n.random.integers(0, 256, (D, V))
    steps[0, :2] = 0, 255
    scale, zero = n.const(0.004), n.const(113, np.uint8)
    weight = n.op("DequantizeLinear", n.const(steps, np.uint8), scale, zero)
    graph = _near(_done(n, n.op("MatMul", n.input("x", [1, T, D]), weight), V), importer,
                  {"x": X}, 1e-9)  # fmt: skip
    assert np.array_equal(_grids(graph)[0], steps - 113)
    made = quantised(graph)
    (matrix,) = (op for op in made.operations if isinstance(op, program.Linear))
    assert np.array_equal(np.abs(matrix.weight), np.abs(steps - 113))
    simulated(made)


def test_quantised_attention_and_embeddings(net: Any, importer: Any) -> None:
    n = net()
    ids, mask = n.input("ids", [1, T], "i"), n.input("mask", [1, T], "i")
    ids, mask = n.op("Cast", ids, to=6), n.op("Cast", mask, to=6)
    tables = [n.weight(rows, D, scale=1.0) for rows in (V, T)]
    x, counts = n.op(
        "EmbedLayerNormalization", ids, "", *tables, "", n.weight(D, scale=1.0), n.weight(D),
        mask, outputs=2, domain=MS,
    )  # fmt: skip
    steps, scale, zero = n.op("DynamicQuantizeLinear", x, outputs=3)
    weight = n.const(n.random.integers(-127, 128, (D, 3 * D)), np.int8)
    y = n.op(
        "QAttention", steps, weight, n.weight(3 * D), scale, n.const(0.002), counts, zero,
        n.const(0, np.int8), num_heads=4, domain=MS,
    )  # fmt: skip
    feeds = {"ids": np.array([[4, 2, 7, 0]]), "mask": np.array([[1, 1, 1, 0]])}
    graph = _near(_done(n, y, D), importer, feeds, 1e-3)
    (attend,) = (op for op in graph.operations if isinstance(op, ir.Attend))
    assert len(attend.inputs) == 4 and all(g is not None for g in _grids(graph))


def test_packed_embeddings(net: Any, importer: Any) -> None:
    n = net(21)
    ids = n.input("ids", [1, T], "i")
    data = n.const(n.random.integers(0, 256, (V, D // 2)), np.uint8)
    scale = n.const(n.random.uniform(0.1, 0.2, (V, D // 16)))
    x = n.op("GatherBlockQuantized", data, ids, scale, block_size=16, bits=4, domain=MS)
    _near(_done(n, x, D), importer, {"ids": np.array([[4, 2, 7, 0]])}, 1e-9)


def test_sliding_window_of_grouped_queries(net: Any, importer: Any) -> None:
    n = net()
    x = n.input("x", [1, T, D])
    parts = [n.op("MatMul", x, n.weight(D, w)) for w in (D, D // 2, D // 2)]
    lengths = n.const([T - 1], np.int32), n.const(T, np.int32)
    y, _, _ = n.op(
        "GroupQueryAttention", *parts, "", "", *lengths, outputs=3, domain=MS, num_heads=2,
        kv_num_heads=1, local_window_size=2,
    )  # fmt: skip
    graph = _near(_done(n, y, D), importer, {"x": X}, 1e-9)
    (attend,) = (op for op in graph.operations if isinstance(op, ir.Attend))
    assert attend.causal and (attend.bias == ir.HIDDEN).sum() == 3


def _qonnx(n: Any, **at: int) -> onnx.ModelProto:
    x = n.op("Quant", n.input("x", [1, T, D]), n.const(0.02), n.const(0.0), n.const(8.0),
             domain=QONNX, signed=1, narrow=0)  # fmt: skip
    weight = n.op("Quant", n.weight(D, D), n.const(0.1), n.const(0.0), n.const(3.0),
                  domain=QONNX, signed=1, narrow=1)  # fmt: skip
    y = n.op("Quant", n.op("MatMul", x, weight), n.const(0.05), n.const(0.0), n.const(6.0),
             domain=QONNX, signed=0, narrow=0)  # fmt: skip
    model: onnx.ModelProto = _done(n, y, D).model()
    model.opset_import.append(helper.make_opsetid(QONNX, 1))
    return model


def test_qonnx_weights_are_a_grid_and_unsigned_activations_a_relu(net: Any, importer: Any) -> None:
    n = net()
    graph = importer(_qonnx(n))
    weight = next(w for w in n.weights if list(w.dims) == [D, D])
    steps = np.clip(np.rint(onnx.numpy_helper.to_array(weight) / np.float32(0.1)), -3, 3)
    assert np.array_equal(np.abs(_grids(graph)[0]), np.abs(steps))
    made = evaluate(graph, {"x": X})[0]["y"]
    np.testing.assert_allclose(made, np.maximum(X @ (steps * 0.1), 0), atol=1e-4)


def test_quantised_through_a_mask_is_warned_of(net: Any, tmp_path: Any) -> None:
    n = net()
    x = n.input("x", [1, T, D])
    q, k, v = (n.op("MatMul", x, n.weight(D, D)) for _ in range(3))
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 2, 1]))
    hidden = np.triu(np.full((1, T, T), -1e9), 1)
    grid = n.const(1e9 / 255), n.const(255, np.uint8)
    scores = n.op("DequantizeLinear", n.op("QuantizeLinear", n.op("Add", scores, n.const(hidden)),
                                           *grid), *grid)  # fmt: skip
    y = n.op("MatMul", n.op("Softmax", scores, axis=-1), v)
    onnx.save(_done(n, y, D).model(), tmp_path / "masked.onnx")
    _, log = import_model(load_model(tmp_path / "masked.onnx", {}), {})
    assert any("warning" in line and "mask" in line for r in log for line in r.lines)
