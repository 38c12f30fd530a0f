"""An LSTM with peepholes: its graph and its integers are what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwcompile.compiler.importing import import_graph
from hwcompile.passes import calibrate, choose_widths
from hwcompile.sim import float_reference, reference

ROWS, INPUTS, SIZE = 9, 5, 6


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_peepholes(tmp_path: Path, direction: str) -> None:
    ways = 2 if direction == "bidirectional" else 1
    rng = np.random.default_rng(1)
    shapes = {
        "w": (ways, 4 * SIZE, INPUTS),
        "r": (ways, 4 * SIZE, SIZE),
        "b": (ways, 8 * SIZE),
        "p": (ways, 3 * SIZE),
    }
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.6, s).astype(np.float32), n)
        for n, s in shapes.items()
    ]
    at = {"hidden_size": SIZE, "direction": direction}
    names = ["x", "w", "r", "b", "", "", "", "p"]
    nodes = [
        helper.make_node("Reshape", ["given", "shape"], ["x"]),
        helper.make_node("LSTM", names, ["h"], **at),
        helper.make_node("Reshape", ["h", "back"], ["y"]),
    ]
    weights.append(numpy_helper.from_array(np.array([ROWS, 1, INPUTS]), "shape"))
    weights.append(numpy_helper.from_array(np.array([1, ROWS, ways * SIZE]), "back"))
    given = helper.make_tensor_value_info("given", TensorProto.FLOAT, [1, ROWS, INPUTS])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, ROWS, ways * SIZE])
    graph = helper.make_graph(nodes, "g", [given], [made], weights)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    feeds = {"given": rng.standard_normal((4, ROWS, INPUTS)).astype(np.float32)}
    session = onnxruntime.InferenceSession(model.SerializeToString())
    wanted = np.concatenate([session.run(None, {"given": x[None]})[0] for x in feeds["given"]])
    net, _ = import_graph(tmp_path / "m.onnx")
    outputs, _ = float_reference.evaluate(net, feeds, True)
    assert np.allclose(outputs["y"], wanted, atol=1e-5)
    calibration = calibrate.run(net, lambda g, f: float_reference.evaluate(g, f, True)[1], feeds)

    def execute(program: object, values: object) -> dict[str, np.ndarray]:
        return reference.run(program, reference.quantise_inputs(program, values))  # type: ignore[arg-type]

    program = choose_widths.run(net, calibration, execute, activation_bits=12).program
    assert np.abs(reference.execute(program, feeds)["y"] - wanted).max() < 0.02
