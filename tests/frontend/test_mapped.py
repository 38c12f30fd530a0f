"""Large files: their weights stay in the file, and the graph is the one a small file gives."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.synthetic_llama import SPECS, write
from hwcompile.compiler.cli import main
from hwcompile.compiler.emit import dump
from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.frontend import external
from hwcompile.compiler.importing import import_graph
from hwcompile.compiler.ir.graph import Linear
from hwcompile.compiler.ir.mapped import blocks, is_mapped
from hwcompile.passes import load_weights

SPEC = replace(SPECS["toy"], layers=1, hidden=64, intermediate=256)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is as one of many GB."""
    vet = importlib.import_module("hwcompile.compiler.frontend.vet")
    monkeypatch.setattr(vet, "MAX_LOADED_BYTES", 0)
    monkeypatch.setattr(external, "MAP_BYTES", 64)
    monkeypatch.setattr(load_weights, "MOST", 0)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_mapped_file_gives_the_graph_of_a_loaded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, dtype: str
) -> None:
    write(SPEC, tmp_path / "m.onnx", dtype)
    loaded, _ = import_graph(tmp_path / "m.onnx")
    request.getfixturevalue("large")
    mapped, log = import_graph(tmp_path / "m.onnx")
    assert dump.graph_text(mapped) == dump.graph_text(loaded)
    assert dump.graph_facts(mapped) == dump.graph_facts(loaded)
    pairs = list(zip(loaded.operations, mapped.operations, strict=True))
    weights = [(a.weight, b.weight) for a, b in pairs if isinstance(b, Linear)]
    assert len(weights) == 8
    assert all(is_mapped(b) and b.dtype == dtype for _, b in weights)
    assert all(np.allclose(a, np.asarray(b, np.float64), atol=1e-6) for a, b in weights)
    assert any("stay in their file" in line for record in log for line in record.lines)


def test_few_weights_of_a_large_file_are_loaded(
    tmp_path: Path, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_weights, "MOST", 1 << 20)
    write(SPEC, tmp_path / "m.onnx")
    graph, _ = import_graph(tmp_path / "m.onnx")
    weights = [op.weight for op in graph.operations if isinstance(op, Linear)]
    assert not any(is_mapped(w) for w in weights)
    assert all(w.dtype == np.float64 for w in weights)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_found(
    tmp_path: Path, large: None, dtype: str, value: float
) -> None:
    write(SPEC, tmp_path / "m.onnx", dtype)
    data = np.memmap(tmp_path / "m.data", dtype, "r+")
    data[-1] = value
    data.flush()
    with pytest.raises(ModelError, match="head holds NaN or infinity"):
        import_graph(tmp_path / "m.onnx")


def test_a_file_cannot_name_an_absolute_place(tmp_path: Path, large: None) -> None:
    write(SPEC, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = str(tmp_path / "m.data")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="leaves the folder"):
        import_graph(tmp_path / "m.onnx")


def test_a_mask_in_a_large_file_is_read(tmp_path: Path, large: None) -> None:
    mask = np.triu(np.full((8, 8), -np.inf, np.float32), 1)
    (tmp_path / "d").write_bytes(mask.tobytes())
    tensor = TensorProto(name="mask", data_type=TensorProto.FLOAT, dims=[8, 8])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="d")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 8])
    graph = helper.make_graph([helper.make_node("Add", ["x", "mask"], ["y"])], "g", [x], [y])
    graph.initializer.append(tensor)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    vet = importlib.import_module("hwcompile.compiler.frontend.vet")
    assert not external.stays_in_files(vet.vet(tmp_path / "m.onnx"))


def test_inspect_takes_it_and_compile_says_why_not(
    tmp_path: Path, large: None, capsys: pytest.CaptureFixture[str]
) -> None:
    write(SPEC, tmp_path / "m.onnx")
    path = str(tmp_path / "m.onnx")
    assert main(["inspect", path, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["matrix_weights"] == SPEC.weights
    assert main([path, "-o", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().err
    assert f"{SPEC.weights:,} weights in 8 matrices" in said
    assert "hwcompile estimate" in said
    assert not (tmp_path / "out").exists()


def test_blocks_cover_a_map_in_any_layout(tmp_path: Path) -> None:
    np.arange(60, dtype=np.float32).tofile(tmp_path / "x")
    whole = np.memmap(tmp_path / "x", np.float32, "r", shape=(6, 10))
    for view in (whole, whole.T, whole[:, 2:7], whole.reshape(3, 2, 10)):
        assert is_mapped(view)
        parts = list(blocks(view, 8))
        assert len(parts) > 1
        assert sum(float(p.sum()) for p in parts) == float(np.asarray(view).sum())
    assert not is_mapped(whole + 1)
    assert not is_mapped(whole.astype(np.float64))
