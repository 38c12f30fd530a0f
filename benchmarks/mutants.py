"""Mutated graphs: is what is no norm, GELU or attention any more still taken for one?

The expanded node tests are changed in one place: a constant by half of it, an attribute, an
operator by one of its like. Each mutant is imported, and the Graph's float64 evaluation compared
with onnxruntime on the same file. A mutant whose numbers differ was recognised as something it is
not: a false positive.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from hwcompile.compiler.errors import HwcompileError
from hwcompile.compiler.importing import import_graph
from hwcompile.sim import float_reference

Array = NDArray[Any]
TOLERANCE = 1e-3
_SWAPS = {
    **{"Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "Max": "Min", "Min": "Max"},
    **{"Sqrt": "Abs", "Reciprocal": "Neg", "Erf": "Tanh", "Tanh": "Sigmoid", "Sigmoid": "Tanh"},
    **{"Exp": "Softplus", "ReduceMean": "ReduceMax", "ReduceSum": "ReduceMean", "Neg": "Abs"},
    **{"ReduceMax": "ReduceMin", "Greater": "Less", "Less": "Greater"},
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """What became of one: ``verdict`` is same, refused, no oracle or false positive."""

    test: str
    change: str
    verdict: str
    kinds: tuple[str, ...] = ()


def mutants(model: onnx.ModelProto, seed: int, count: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    """At most ``count`` models changed in one place, with what was changed."""
    sites: list[tuple[str, int, str]] = []
    for i, node in enumerate(model.graph.node):
        if node.op_type in _SWAPS:
            sites.append(("operator", i, node.op_type))
        if node.op_type == "Constant" and _scales(node.attribute[0]):
            sites.append(("constant", i, node.output[0]))
        if node.op_type not in ("Constant", "Cast"):
            sites += [
                ("attribute", i, a.name)
                for a in node.attribute
                if a.type == onnx.AttributeProto.FLOAT
            ]
    for i, tensor in enumerate(model.graph.initializer):
        if tensor.data_type == onnx.TensorProto.FLOAT:
            sites.append(("weight", i, tensor.name))
    chosen = random.Random(seed).sample(sites, min(count, len(sites)))
    for kind, i, name in chosen:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        if kind == "operator":
            changed.graph.node[i].op_type = _SWAPS[name]
        elif kind == "constant":
            _scale(changed.graph.node[i].attribute[0])
        elif kind == "attribute":
            for attribute in changed.graph.node[i].attribute:
                if attribute.name == name:
                    attribute.f = attribute.f * 1.5 + 0.1
        else:
            _scale_tensor(changed.graph.initializer[i])
        yield f"{kind} {name}", changed


def _scales(attribute: onnx.AttributeProto) -> bool:
    if attribute.type == onnx.AttributeProto.FLOAT:
        return True
    is_tensor = attribute.type == onnx.AttributeProto.TENSOR
    return is_tensor and attribute.t.data_type == onnx.TensorProto.FLOAT


def _scale(attribute: onnx.AttributeProto) -> None:
    if attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = attribute.f * 1.5 + 0.1
    else:
        _scale_tensor(attribute.t)


def _scale_tensor(tensor: onnx.TensorProto) -> None:
    array = numpy_helper.to_array(tensor) * np.float32(1.5) + np.float32(0.1)
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))


def judge(test: str, change: str, model: onnx.ModelProto, feeds: dict[str, Array]) -> Mutant:
    """One mutant, imported and compared."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory(prefix="hwcompile-mutant-") as folder:
        path = Path(folder) / "mutant.onnx"
        onnx.save(model, path)
        try:
            graph = import_graph(path)[0]
        except HwcompileError:
            return Mutant(test, change, "refused")
        try:
            session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
            names = [o.name for o in session.get_outputs()]
            expected = dict(zip(names, session.run(names, feeds), strict=True))
        except Exception:  # onnxruntime has its own classes for each way to fail
            return Mutant(test, change, "no oracle")
    found = float_reference.evaluate(graph, feeds)[0]
    kinds = tuple(sorted({type(op).__name__ for op in graph.operations}))
    same = all(_near(found[name], expected[name]) for name in expected)
    return Mutant(test, change, "same" if same else "false positive", kinds)


def _near(found: Array, expected: Array) -> bool:
    a, b = (np.asarray(x, np.float64).reshape(-1) for x in (found, expected))
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    return a.size == 0 or bool(np.abs(a - b).max() <= TOLERANCE * max(float(np.abs(b).max()), 1e-2))


def markdown(found: Sequence[Mutant]) -> list[str]:
    """Lines for the page of the node tests."""
    verdicts = ("same", "refused", "no oracle")
    same, refused, unknown = (sum(m.verdict == v for m in found) for v in verdicts)
    wrong = [m for m in found if m.verdict == "false positive"]
    judged = same + len(wrong)
    norms = sum("Normalise" in m.kinds for m in found)
    attends = sum("Attend" in m.kinds for m in found)
    return [
        "",
        "## Mutants",
        "",
        "Expanded tests changed in one place, imported and compared with onnxruntime",
        "([how](../../benchmarks/mutants.py)): of",
        f"{len(found)} mutants {refused} are refused, {unknown} onnxruntime does not run,",
        f"{judged} were compared: **{len(wrong)} false positives**. {norms} still hold a norm,",
        f"{attends} an attention.",
        *(f"* {m.test}, {m.change}: {', '.join(m.kinds)}" for m in wrong),
    ]
