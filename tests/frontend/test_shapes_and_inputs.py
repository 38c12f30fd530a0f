"""Patches, pools, batches, open dimensions, quantised files: what surrounds the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from hwcompile.compiler.errors import ModelError, UsageError
from hwcompile.compiler.frontend import describe_inputs
from hwcompile.compiler.ir import graph as ir
from hwcompile.sim.float_reference import evaluate

IMAGE = np.random.default_rng(2).standard_normal((1, 3, 8, 8)).astype(np.float32)


def test_patches_and_class_token(net: Any, agree: Any) -> None:
    n = net()
    n.input("image", [1, 3, 8, 8])
    x = n.op("Conv", "image", n.weight(10, 3, 4, 4), n.weight(10), strides=[4, 4])
    x = n.op("Transpose", n.op("Reshape", x, n.ints(1, 10, 4)), perm=[0, 2, 1])
    x = n.op("Concat", n.weight(1, 1, 10), x, axis=1)
    x = n.op("Add", x, n.weight(1, 5, 10))
    first = n.op("Gather", x, n.const(0, np.int64), axis=1)
    n.output(n.op("Gemm", first, n.weight(6, 10), n.weight(6), transB=1), "y", [1, 6])
    graph = agree(n, {"image": IMAGE})
    assert graph.sections == ("once",) and graph.outputs[0].kind == "tensor"
    assert graph.form == "call"


def test_convolution_with_border_groups_and_pools(net: Any, agree: Any) -> None:
    n = net()
    n.input("image", [1, 3, 8, 8])
    x = n.op("Conv", "image", n.weight(6, 3, 3, 3), n.weight(6), pads=[1, 1, 1, 1])
    x = n.op("MaxPool", n.op("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
    x = n.op("Conv", x, n.weight(4, 3, 3, 3), group=2, strides=[1, 1])
    x = n.op("GlobalAveragePool", n.op("Relu", x))
    n.output(n.op("Flatten", x), "y", [1, 4])
    agree(n, {"image": IMAGE})


@pytest.mark.parametrize("way", ["clip", "plain"])
def test_mean_over_flagged_rows(net: Any, agree: Any, way: str) -> None:
    n = net()
    n.input("ids", [1, 6], "i")
    n.input("attention_mask", [1, 6], "i")
    x = n.op("Gather", n.weight(9, 8), "ids")
    mask = n.op("Cast", n.op("Unsqueeze", "attention_mask", n.ints(2)), to=1)
    mask = n.op("Expand", mask, n.ints(1, 6, 8))
    total = n.op("ReduceSum", n.op("Mul", x, mask), n.ints(1), keepdims=0)
    count = n.op("ReduceSum", mask, n.ints(1), keepdims=0)
    if way == "clip":
        count = n.op("Clip", count, n.const(1e-9))
    y = n.op("Div", total, count)
    length = n.op("ReduceL2", y, n.ints(1))
    n.output(n.op("Div", y, n.op("Max", length, n.const(1e-12))), "y", [1, 8])
    feeds = {
        "ids": np.array([[1, 2, 3, 4, 0, 0]]),
        "attention_mask": np.array([[1, 1, 1, 1, 0, 0]]),
    }
    graph = agree(n, feeds)
    kinds = [type(op) for op in graph.operations]
    assert kinds == [ir.Embed, ir.MeanRows, ir.Normalise]
    assert [i.kind for i in graph.inputs] == ["ids", "flags"]


def test_mean_over_all_rows(net: Any, agree: Any) -> None:
    n = net()
    n.input("x", [1, 6, 8])
    y = n.op("ReduceMean", n.op("MatMul", "x", n.weight(8, 4)), n.ints(1), keepdims=0)
    n.output(y, "y", [1, 4])
    graph = agree(n, {"x": np.random.default_rng(0).standard_normal((1, 6, 8)).astype(np.float32)})
    assert [type(op) for op in graph.operations] == [ir.Linear, ir.MeanRows]


def test_a_fixed_batch_becomes_one_sample(net: Any, importer: Any) -> None:
    n = net()
    n.input("x", [2, 6, 8])
    y = n.op("Reshape", n.op("MatMul", "x", n.weight(8, 4)), n.ints(2, 12, 2))
    y = n.op("Add", y, n.const(np.ones((2, 1, 2))))
    n.output(y, "y", [2, 12, 2])
    graph = importer(n)
    x = np.random.default_rng(0).standard_normal((2, 6, 8)).astype(np.float32)
    expected = ReferenceEvaluator(n.model()).run(None, {"x": x})[0]
    assert graph.inputs[0].model_shape == (1, 6, 8)
    np.testing.assert_allclose(evaluate(graph, {"x": x})[0]["y"], expected, atol=1e-5)


def _open(net: Any, table: bool) -> Any:
    n = net()
    n.input("ids", ["batch", "rows"], "i")
    x = n.op("Gather", n.weight(9, 8), "ids")
    if table:
        end = n.op("Gather", n.op("Shape", "ids"), n.ints(1))
        x = n.op("Add", x, n.op("Slice", n.weight(17, 8), n.ints(0), end, n.ints(0)))
    n.output(n.op("MatMul", x, n.weight(8, 4)), "y", ["batch", "rows", 4])
    return n


def test_the_table_says_how_long(net: Any, importer: Any) -> None:
    assert importer(_open(net, True)).inputs[0].model_shape == (1, 17)


def test_an_open_dimension_is_asked_for(net: Any, importer: Any) -> None:
    with pytest.raises(ModelError) as caught:
        importer(_open(net, False))
    assert "ids" in caught.value.message and "--shape ids=1x64" in caught.value.hint
    assert importer(_open(net, False), {"ids": (1, 5)}).inputs[0].model_shape == (1, 5)
    with pytest.raises(ModelError, match="no input"):
        importer(_open(net, False), {"nobody": (1, 5)})


def test_bitnet_quantisers_are_the_identity(net: Any, importer: Any) -> None:
    n = net()
    n.input("x", [1, 4, 32])
    scale = n.op("ReduceMax", n.op("Abs", "x"), n.ints(-1))
    scale = n.op("Div", n.const(127.0), n.op("Clip", scale, n.const(1e-5)))
    q = n.op("Round", n.op("Mul", "x", scale))
    q = n.op("Clip", q, n.const(-128.0), n.const(127.0))
    ternary = n.random.integers(-1, 2, (32, 8)).astype(np.float32)
    y = n.op("MatMul", q, n.const(ternary))
    n.output(n.op("Mul", y, n.op("Div", n.const(0.07), scale)), "y", [1, 4, 8])
    graph = importer(n)
    (op,) = graph.operations
    assert isinstance(op, ir.Linear) and op.grid_values is not None and op.grid_scale is not None
    np.testing.assert_array_equal(op.grid_values, ternary)
    np.testing.assert_allclose(op.grid_values * op.grid_scale, op.weight, rtol=1e-5)
    np.testing.assert_allclose(op.grid_scale, 0.07, rtol=1e-5)


def test_another_rounding_is_refused(net: Any, importer: Any) -> None:
    n = net()
    n.input("x", [1, 4, 8])
    y = n.op("Mul", n.op("Round", n.op("Mul", "x", n.const(8.0))), n.op("Sigmoid", "x"))
    n.output(n.op("MatMul", y, n.weight(8, 2)), "y", [1, 4, 2])
    graph = importer(n)
    # A round by itself is a function of one variable, kept exactly: never taken for the identity.
    assert [type(op) for op in graph.operations] == [ir.Unary, ir.Linear]


def test_quantised_weights_are_a_grid(net: Any, agree: Any) -> None:
    n = net(21)
    n.input("x", [1, 4, 16])
    stored = n.random.integers(-127, 128, (16, 12)).astype(np.int8)
    scale = n.random.uniform(0.01, 0.02, 12).astype(np.float32)
    zero = n.const(np.zeros(12), np.int8)
    weight = n.op("DequantizeLinear", n.const(stored, np.int8), n.const(scale), zero, axis=1)
    n.output(n.op("MatMul", "x", weight), "y", [1, 4, 12])
    x = np.random.default_rng(0).standard_normal((1, 4, 16)).astype(np.float32)
    (op,) = agree(n, {"x": x}).operations
    assert isinstance(op, ir.Linear) and op.grid_values is not None and op.grid_scale is not None
    np.testing.assert_allclose(op.grid_values * op.grid_scale, op.weight, atol=1e-6)


def test_activation_quantisers_keep_their_half_line(net: Any, importer: Any) -> None:
    n = net(21)
    n.input("x", [1, 4, 8])
    grid = (n.const(0.05), n.const(0, np.uint8))
    y = n.op("DequantizeLinear", n.op("QuantizeLinear", "x", *grid), *grid)
    n.output(n.op("MatMul", y, n.weight(8, 2)), "y", [1, 4, 2])
    graph = importer(n)
    x = np.linspace(-2, 2, 32, dtype=np.float32).reshape(1, 4, 8)
    expected = ReferenceEvaluator(n.model()).run(None, {"x": x})[0]
    np.testing.assert_allclose(evaluate(graph, {"x": x})[0]["y"], expected, atol=0.15)


def test_missing_and_long_inputs_are_named(net: Any, importer: Any) -> None:
    graph = importer(_open(net, True))
    with pytest.raises(UsageError, match="ids"):
        evaluate(graph, {})


def test_inputs_are_described(net: Any, tmp_path: Any) -> None:
    import onnx

    onnx.save(_open(net, True).model(), tmp_path / "m.onnx")
    assert describe_inputs(tmp_path / "m.onnx") == (("ids", ("batch", "rows"), "int64"),)


def test_a_batch_that_mixes_samples_is_refused(net: Any, importer: Any) -> None:
    n = net()
    n.input("x", [2, 2, 8])
    y = n.op("Transpose", n.op("MatMul", "x", n.weight(8, 4)), perm=[1, 0, 2])
    n.output(y, "y", [2, 2, 4])
    with pytest.raises(ModelError, match="not independent"):
        importer(n)


def test_ids_that_count_from_a_later_row(net: Any, agree: Any) -> None:
    n = net()
    n.input("ids", [1, 4], "i")
    x = n.op("Gather", n.weight(9, 8), n.op("Add", "ids", n.const(2, np.int64)))
    n.output(n.op("MatMul", x, n.weight(8, 3)), "y", [1, 4, 3])
    graph = agree(n, {"ids": np.array([[0, 6, 3, 1]])})
    assert graph.inputs[0].id_count == 7
