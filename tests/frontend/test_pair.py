"""An encoder and a decoder exported apart become one model, in either order, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwcompile.compiler.cli import main
from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.frontend import load_models
from hwcompile.compiler.importing import import_model
from hwcompile.sim import float_reference

ROWS, SIZE, WORDS = 6, 8, 11
Node = helper.make_node


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, list[Any]],
    tables: tuple[str, ...],
    opset: int = 17,
) -> Path:
    rng = np.random.default_rng(len(path.stem))
    shapes = {"words": (WORDS, SIZE), "head": (SIZE, WORDS)}
    weights = [
        numpy_helper.from_array(
            rng.standard_normal(shapes.get(n, (SIZE, SIZE))).astype(np.float32), n
        )
        for n in tables
    ]
    given = [helper.make_tensor_value_info(n, kind, dims) for n, (kind, dims) in inputs.items()]
    made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in outputs.items()]
    graph = helper.make_graph(nodes, "g", given, made, weights)
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def encoder(folder: Path, out: str = "memory", rows: int = ROWS, opset: int = 17) -> Path:
    nodes = [
        Node("Gather", ["words", "src"], ["x"]),
        Node("MatMul", ["x", "w"], ["h"]),
        Node("Tanh", ["h"], [out]),
    ]
    given = {"src": (TensorProto.INT64, [1, rows])}
    path = folder / "encoder.onnx"
    return save(path, nodes, given, {out: [1, rows, SIZE]}, ("words", "w"), opset)


def decoder(folder: Path, memory: str = "memory", ids: str = "tgt", rows: Any = ROWS) -> Path:
    nodes = [
        Node("Gather", ["words", ids], ["x"]),
        Node("MatMul", ["x", "q"], ["a"]),
        Node("Transpose", [memory], ["t"], perm=[0, 2, 1]),
        Node("MatMul", ["a", "t"], ["s"]),
        Node("Softmax", ["s"], ["p"], axis=-1),
        Node("MatMul", ["p", memory], ["c"]),
        Node("Add", ["x", "c"], ["y"]),
        Node("MatMul", ["y", "head"], ["logits"]),
    ]
    given = {
        memory: (TensorProto.FLOAT, [1, rows, SIZE]),
        ids: (TensorProto.INT64, [1, 4]),
    }
    path = folder / "decoder.onnx"
    return save(path, nodes, given, {"logits": [1, 4, WORDS]}, ("words", "q", "head"))


def expected(first: Path, second: Path, src: Any, own: Any) -> Any:
    memory = onnxruntime.InferenceSession(first).run(None, {"src": src})[0]
    session = onnxruntime.InferenceSession(second)
    fed = {i.name: own if i.type == "tensor(int64)" else memory for i in session.get_inputs()}
    return session.run(None, fed)[0]


@pytest.mark.parametrize(
    ("memory", "ids", "own"),
    [
        ("memory", "tgt", "tgt"),
        ("encoder_hidden_states", "tgt", "tgt"),
        ("memory", "src", "decoder_src"),
    ],
)
def test_the_pair_is_the_two_files_one_after_the_other(
    tmp_path: Path, memory: str, ids: str, own: str
) -> None:
    first, second = encoder(tmp_path), decoder(tmp_path, memory, ids)
    src, tgt = np.arange(ROWS)[None], np.asarray([[3, 1, 4, 1]])
    want = expected(first, second, src, tgt)
    for paths in ((first, second), (second, first)):
        model = load_models(paths, {})
        onnx.checker.check_model(model)
        graph, _ = import_model(model, {})
        assert [i.model_name for i in graph.inputs] == ["src", own]
        got = float_reference.evaluate(graph, {"src": src, own: tgt})[0]["logits"]
        assert np.allclose(got, want, atol=1e-5)


def test_open_rows_take_the_length_of_the_encoder(tmp_path: Path) -> None:
    model = load_models((encoder(tmp_path), decoder(tmp_path, rows="rows")), {})
    assert import_model(model, {})[0].outputs[0].model_name == "logits"


def test_two_opsets_become_one(tmp_path: Path) -> None:
    model = load_models((encoder(tmp_path, opset=14), decoder(tmp_path)), {})
    assert [o.version for o in model.opset_import] == [17]


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    first, second = encoder(tmp_path, rows=5), decoder(tmp_path)
    with pytest.raises(ModelError, match="memory 1x5x8; the second takes memory 1x6x8"):
        load_models((first, second), {})
    with pytest.raises(ModelError, match="no pair"):
        load_models((first, first), {})


def test_the_command_line_refuses_a_misfit_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(encoder(tmp_path, rows=5)), str(decoder(tmp_path))]
    assert main([*files, "-o", str(tmp_path / "out"), "--no-progress"]) == 3
    assert "no pair" in capsys.readouterr().err
    assert main(["compile", *files, files[0]]) == 2
    assert not (tmp_path / "out").exists()
