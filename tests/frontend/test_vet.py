"""Malformed and hostile files end in a ModelError that names what is wrong, and in nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwcompile.compiler.errors import ExitCode, ModelError
from hwcompile.compiler.frontend import load_model
from hwcompile.compiler.importing import import_graph

FLOAT = TensorProto.FLOAT


def info(name: str, shape: list[Any], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, Any] | None = None,
    shape: list[Any] | None = None,
    opset: int = 18,
    outputs: list[str] | None = None,
) -> onnx.ModelProto:
    given = {"w": np.ones((4, 4), np.float32)} if weights is None else weights
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in given.items()]
    outs = [info(n, [1, 4]) for n in (["y"] if outputs is None else outputs)]
    graph = helper.make_graph(nodes, "g", [info("x", shape or [1, 4])], outs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(op: str, *inputs: str, out: str = "y", **at: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [out], **at)


MATMUL = node("MatMul", "x", "w")


def _cycle() -> onnx.ModelProto:
    return model([node("Add", "x", "b", out="a"), node("Relu", "a", out="b"), node("Relu", "b")])


def _twice() -> onnx.ModelProto:
    return model([node("Relu", "x"), node("Tanh", "x")])


def _loop() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL)],
        [info("d", [], TensorProto.BOOL)],
    )
    count = numpy_helper.from_array(np.int64(1 << 62), "n")
    m = model([helper.make_node("Loop", ["n", ""], [], body=body), MATMUL])
    m.graph.initializer.append(count)
    return m


def _circular_functions() -> onnx.ModelProto:
    m = model([helper.make_node("F", ["x"], ["y"], domain="own")])
    ids = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    for name, other in (("F", "G"), ("G", "F")):
        body = [helper.make_node(other, ["a"], ["b"], domain="own")]
        m.functions.append(helper.make_function("own", name, ["a"], ["b"], body, ids))
    m.opset_import.append(helper.make_opsetid("own", 1))
    return m


def _scale(value: float) -> onnx.ModelProto:
    weights = {"w": np.ones((4, 4), np.float32), "s": np.float32(value), "z": np.uint8(3)}
    return model(
        [node("QuantizeLinear", "x", "s", "z", out="q"),
         node("DequantizeLinear", "q", "s", "z", out="d"), node("MatMul", "d", "w")],
        weights,
    )  # fmt: skip


def _lying_length() -> onnx.ModelProto:
    m = model([MATMUL])
    m.graph.initializer[0].dims[0] = 400
    return m


def _negative_dims() -> onnx.ModelProto:
    m = model([MATMUL])
    m.graph.initializer[0].dims[0] = -4
    return m


def _bomb(op: str) -> onnx.ModelProto:
    big = np.asarray([1 << 25, 1 << 26], np.int64)
    nodes = [node("ConstantOfShape", "s", out="c")]
    if op == "Expand":
        nodes = [node("Expand", "w", "s", out="c")]
    if op == "Range":
        nodes = [node("Range", "z", "m", "o", out="c")]
    nodes += [node("ReduceSum", "c", out="t", keepdims=0), node("Add", "x", "t")]
    weights = {
        "s": big,
        "w": np.ones((1, 1), np.float32),
        "z": np.float32(0),
        "m": np.float32(1e12),
        "o": np.float32(1),
    }
    return model(nodes, weights)


CASES: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "cycle": (_cycle, "cycle"),
    "made twice": (_twice, "twice"),
    "undefined": (lambda: model([node("Add", "x", "nowhere")]), "undefined"),
    "no outputs": (lambda: model([MATMUL], outputs=[]), "no outputs"),
    "output never made": (lambda: model([MATMUL], outputs=["z"]), "never made"),
    "future opset": (lambda: model([MATMUL], opset=9999), "opset 9999"),
    "old opset": (lambda: model([MATMUL], opset=9), "opset 9"),
    "unknown operator": (lambda: model([node("Frobnicate", "x")]), "Frobnicate"),
    "loop": (_loop, "Loop"),
    "random": (lambda: model([node("RandomNormalLike", "x")]), "random"),
    "not a number": (
        lambda: model([MATMUL], {"w": np.full((4, 4), np.nan, np.float32)}),
        "NaN",
    ),
    "infinite weight": (
        lambda: model([MATMUL], {"w": np.asarray([[1, np.inf]] * 4, np.float32)}),
        "infinity",
    ),
    "zero dimension": (lambda: model([MATMUL], shape=[0, 4]), "below 1"),
    "inner sizes differ": (lambda: model([MATMUL], {"w": np.ones((9, 4), np.float32)}), "fit"),
    "types differ": (lambda: model([MATMUL], {"w": np.ones((4, 4), np.int64)}), "types differ"),
    "missing attribute": (lambda: model([node("Cast", "x")]), "Cast"),
    "zero scale": (lambda: _scale(0.0), "scale"),
    "subnormal scale": (lambda: _scale(1e-42), "scale"),
    "lying length": (_lying_length, "shape says"),
    "negative dimension of a weight": (_negative_dims, "negative"),
    "circular functions": (_circular_functions, "circle"),
    "constant bomb": (lambda: _bomb("ConstantOfShape"), "limit"),
    "expand bomb": (lambda: _bomb("Expand"), "limit"),
    "range bomb": (lambda: _bomb("Range"), "limit"),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile_graphs_are_refused(tmp_path: Path, case: str) -> None:
    make, text = CASES[case]
    path = tmp_path / "m.onnx"
    path.write_bytes(make().SerializeToString())
    for entry in (load_model, import_graph):
        with pytest.raises(ModelError, match=text) as caught:
            entry(path)
        assert caught.value.code == ExitCode.MODEL and caught.value.hint


def test_minus_infinity_beside_numbers_is_a_mask_unless_a_weight_is_there(tmp_path: Path) -> None:
    mixed = np.asarray([[0, -np.inf, -1, -2]] * 4, np.float32)
    path = tmp_path / "m.onnx"
    path.write_bytes(model([MATMUL], {"w": mixed}).SerializeToString())
    load_model(path)
    with pytest.raises(ModelError, match="finite"):
        import_graph(path)


@pytest.mark.parametrize("data", [b"", b"hello, this is no model", b"\x08\x0a\x12\xff\xff"])
def test_files_that_are_no_models(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        load_model(path)
    with pytest.raises(ModelError):
        load_model(tmp_path / "absent.onnx")


def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    data = model([MATMUL]).SerializeToString()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(ModelError):
        load_model(path)


def test_every_bad_node_is_listed_once(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    nodes = [
        node("Frobnicate", "x", out="a", name="first\n\x1b[31m"),
        node("NonZero", "x", out="b"),
        MATMUL,
    ]
    path.write_bytes(model(nodes).SerializeToString())
    with pytest.raises(ModelError) as caught:
        load_model(path)
    message = caught.value.message
    assert "2 nodes" in message and "Frobnicate" in message and "NonZero" in message
    assert "\x1b" not in message and "first\\u000a\\u001b[31m" in message


# --- external data -----------------------------------------------------------------------------


def _external(path: Path, location: str, **entries: int) -> None:
    m = model([MATMUL])
    tensor = m.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    path.write_bytes(m.SerializeToString())


def test_external_data_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 8 + np.eye(4, dtype=np.float32).tobytes())
    _external(tmp_path / "m.onnx", "w.bin", offset=8, length=64)
    loaded = load_model(tmp_path / "m.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), np.eye(4))


@pytest.mark.parametrize(
    ("location", "entries"),
    [
        ("../w.bin", {}),
        ("/etc/hostname", {}),
        ("sub/../../w.bin", {}),
        ("absent.bin", {}),
        ("w.bin", {"offset": -4}),
        ("w.bin", {"offset": 60, "length": 64}),
        ("w.bin", {"length": 1 << 40}),
        ("w.bin", {"length": 8}),
        ("link.bin", {}),
        ("linked/w.bin", {}),
    ],
)
def test_external_data_elsewhere_is_refused(
    tmp_path: Path, location: str, entries: dict[str, int]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "w.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "linked").symlink_to(tmp_path)
    _external(folder / "m.onnx", location, **entries)
    with pytest.raises(ModelError, match="external data"):
        load_model(folder / "m.onnx")
