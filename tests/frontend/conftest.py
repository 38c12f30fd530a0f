"""A small writer of ONNX models, and the check that a Graph is the same function as its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from hwcompile.compiler.frontend import load_model
from hwcompile.compiler.importing import import_model
from hwcompile.compiler.ir.graph import Graph
from hwcompile.sim.float_reference import evaluate

_TYPES = {"f": TensorProto.FLOAT, "i": TensorProto.INT64, "b": TensorProto.BOOL}


class Net:
    """An ONNX graph written line by line; every method returns the name of a tensor."""

    def __init__(self, opset: int = 18) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(7)
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"n{self._count}"

    def input(self, name: str, shape: list[Any], kind: str = "f") -> str:
        self.inputs.append(helper.make_tensor_value_info(name, _TYPES[kind], shape))
        return name

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = self._name()
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def ints(self, *value: int) -> str:
        return self.const(value, np.int64)

    def weight(self, *shape: int, scale: float = 0.4) -> str:
        return self.const(self.random.standard_normal(shape) * scale)

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **at: Any) -> Any:
        names = [self._name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **at))
        return names[0] if outputs == 1 else names

    def output(self, tensor: str, name: str, shape: list[Any]) -> None:
        self.nodes.append(helper.make_node("Identity", [tensor], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "net", self.inputs, self.outputs, self.weights)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


Importer = Callable[..., Graph]
Agree = Callable[..., Graph]


@pytest.fixture
def net() -> type[Net]:
    return Net


@pytest.fixture
def importer(tmp_path: Path) -> Importer:
    """Imports a Net or model: ``importer(net, shapes)``."""

    def run(
        model: Net | onnx.ModelProto, shapes: dict[str, tuple[int, ...]] | None = None
    ) -> Graph:
        path = tmp_path / "model.onnx"
        onnx.save(model.model() if isinstance(model, Net) else model, path)
        return import_model(load_model(path, shapes), shapes or {}, check=True)[0]

    return run


@pytest.fixture
def agree(importer: Importer) -> Agree:
    """Imports a Net and requires the Graph to compute what the ONNX reference evaluator does."""

    def run(model: Net, feeds: dict[str, Any], tolerance: float = 1e-4) -> Graph:
        graph = importer(model)
        names = [o.model_name for o in graph.outputs]
        expected = dict(
            zip(names, ReferenceEvaluator(model.model()).run(names, feeds), strict=True)
        )
        outputs, _ = evaluate(graph, {i.model_name: feeds[i.model_name] for i in graph.inputs})
        for name, value in expected.items():
            assert outputs[name].shape == value.shape
            np.testing.assert_allclose(outputs[name], value, atol=tolerance, rtol=tolerance)
        return graph

    return run
