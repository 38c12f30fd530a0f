"""The node tests of the onnx package: one operator a model, with inputs and expected outputs.

An ``_expanded`` test is the same function written in other operators; it counts for the operator it
expands.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.backend.test.loader import load_model_tests

Array = NDArray[Any]
LOWEST_OPSET = 13


@dataclass(frozen=True, slots=True)
class Case:
    """One test. ``operator``: domain and name of what it tests; ``expanded``: not as one node."""

    name: str
    operator: tuple[str, str]
    expanded: bool
    model: onnx.ModelProto
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    rtol: float
    atol: float


def load_cases() -> list[Case]:
    """All node tests, in order of name.

    A model that asks for an opset before 13, because its operator has not changed since, is taken
    as one of opset 13.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = {test.name: test for test in load_model_tests(kind="node")}
    return [_case(tests[name], tests) for name in sorted(tests)]


def _case(test: Any, tests: Mapping[str, Any]) -> Case:
    plain, marker, _ = test.name.partition("_expanded")
    node = tests[plain].model.graph.node[0]
    domain = "" if node.domain == "ai.onnx" else node.domain
    given, wanted = test.data_sets[0]
    graph = test.model.graph
    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = max(opset.version, LOWEST_OPSET)
    return Case(
        test.name,
        (domain, node.op_type),
        bool(marker),
        model,
        {v.name: _array(x) for v, x in zip(graph.input, given, strict=False)},
        {v.name: _array(x) for v, x in zip(graph.output, wanted, strict=False)},
        test.rtol,
        test.atol,
    )


def _array(value: Any) -> Any:
    """The numbers of a tensor; what is no tensor (sequences, absent options) stays as it is."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, (np.ndarray, np.generic, float, int)) else value


def claimed(case: Case, highest: int) -> bool:
    """Whether a test is about what opsets up to ``highest`` define.

    Tests are written for the newest form of an operator. One of a later opset counts when the
    checker accepts its model as one of opset ``highest``, which is what the model is then.
    """
    versions = [o for o in case.model.opset_import if o.domain in ("", "ai.onnx")]
    if all(o.version <= highest for o in versions):
        return True
    for opset in versions:
        opset.version = highest
    case.model.ir_version = min(case.model.ir_version, onnx.IR_VERSION)
    try:
        onnx.checker.check_model(case.model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True
