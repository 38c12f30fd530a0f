"""The outline of a graph: what was recognised, what repeats, as text, JSON and SVG."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwcompile.compiler.cli import main
from hwcompile.compiler.emit import outline_text
from hwcompile.compiler.emit.outline import Block, Region, outline
from hwcompile.compiler.importing import import_graph

MODEL = Path(__file__).parents[2] / "examples" / "tiny" / "tiny.onnx"


def stack(path: Path, layers: int, activation: str = "Gelu") -> Path:
    """Layers of a norm, a matrix and an activation, then a last matrix."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for i in range(layers):
        weights.append(numpy_helper.from_array(np.ones(8, np.float32), f"g{i}"))
        w = rng.standard_normal((8, 8)).astype(np.float32)
        weights.append(numpy_helper.from_array(w, f"w{i}"))
        nodes += [
            helper.make_node("LayerNormalization", [x, f"g{i}"], [f"n{i}"], axis=-1),
            helper.make_node("MatMul", [f"n{i}", f"w{i}"], [f"h{i}"]),
            helper.make_node(activation, [f"h{i}"], [f"a{i}"], name=f"/layers.{i}/act"),
        ]
        x = f"a{i}"
    head = rng.standard_normal((8, 3)).astype(np.float32)
    weights.append(numpy_helper.from_array(head, "head"))
    nodes.append(helper.make_node("MatMul", [x, "head"], ["<b>&y"]))
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8])
    made = helper.make_tensor_value_info("<b>&y", TensorProto.FLOAT, [1, 4, 3])
    graph = helper.make_graph(nodes, "g", [given], [made], weights)
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def test_layers_that_repeat_are_folded_and_named(tmp_path: Path) -> None:
    found = outline(import_graph(stack(tmp_path / "m.onnx", 4))[0])
    ((kind, body),) = found.sections
    assert kind == "once"
    block, last = body
    assert isinstance(block, Block) and isinstance(last, Region)
    assert block.count == 4
    names = [r.recognised for r in block.body if isinstance(r, Region)]
    assert names == ["layer norm, epsilon 1e-05", "matrix 8 x 8", "GELU"]
    assert (last.recognised, last.weights) == ("matrix 8 x 3", 24)


def test_a_layer_of_another_size_is_not_folded_in(tmp_path: Path) -> None:
    found = outline(import_graph(stack(tmp_path / "m.onnx", 1))[0])
    assert all(isinstance(item, Region) for item in found.sections[0][1])


@pytest.mark.parametrize(
    ("operator", "name"), [("Relu", "ReLU"), ("Mish", "a function of one number (a table)")]
)
def test_functions_are_named_by_their_values(tmp_path: Path, operator: str, name: str) -> None:
    graph = import_graph(stack(tmp_path / "m.onnx", 2, operator))[0]
    assert f"= {name} of" in outline_text.as_text(outline(graph), graph, "m.onnx")


def test_the_picture_is_well_formed_whatever_the_names(tmp_path: Path) -> None:
    graph = import_graph(stack(tmp_path / "m.onnx", 3))[0]
    drawn = outline_text.as_svg(outline(graph), graph, "<script>.onnx")
    root = ET.fromstring(drawn)
    words = [e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "3 times" in words and any("<b>&y" in w for w in words)
    assert "<script>" not in drawn


def test_formats_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(MODEL)
    assert main(["inspect", model]) == 0
    assert "attention of" in capsys.readouterr().out
    assert main(["inspect", model, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["outline"]["sections"]
    file = tmp_path / "drawn.svg"
    assert main(["inspect", model, "--format", "svg", "-o", str(file)]) == 0
    assert file.read_text().startswith("<svg")
    assert main(["inspect", model, "-o", str(tmp_path / "no" / "where.txt")]) == 7


def test_every_bad_node_is_listed_with_its_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stack(tmp_path / "m.onnx", 2, "Gelo")
    assert main(["inspect", str(path), "--format", "json"]) == 3
    said = capsys.readouterr()
    problems = json.loads(said.out)["problems"]
    assert [p["place"] for p in problems] == ["layers.0", "layers.1"]
    assert problems[0]["hint"] == "is it Gelu?"
    assert "2 nodes cannot be compiled" in said.err
