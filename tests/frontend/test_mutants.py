"""Graphs changed in one place are taken for what they are, not for what they were."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import mutants
from benchmarks.mutants import Mutant, judge

RNG = np.random.default_rng(1)


def model(
    nodes: list[onnx.NodeProto], shape: list[int], weights: dict[str, float]
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in weights.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def norm(power: float = 2.0, epsilon: float = 1e-5, mean: str = "ReduceMean") -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=[-1]),
        node("Sub", ["x", "m"], ["c"]),
        node("Pow", ["c", "power"], ["s"]),
        node(mean, ["s"], ["v"], axes=[-1]),
        node("Add", ["v", "epsilon"], ["e"]),
        node("Sqrt", ["e"], ["r"]),
        node("Div", ["c", "r"], ["y"]),
    ]
    return model(nodes, [1, 3, 8], {"power": power, "epsilon": epsilon})


def gelu(root: float = 2**0.5, half: float = 0.5, one: float = 1.0) -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("Div", ["x", "root"], ["a"]),
        node("Erf", ["a"], ["b"]),
        node("Add", ["b", "one"], ["c"]),
        node("Mul", ["x", "c"], ["d"]),
        node("Mul", ["d", "half"], ["y"]),
    ]
    return model(nodes, [1, 3, 8], {"root": root, "half": half, "one": one})


def attention(scale: float = 8**-0.5) -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "q"], ["a"]),
        node("MatMul", ["x", "k"], ["b"]),
        node("Transpose", ["b"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["a", "t"], ["s"]),
        node("Mul", ["s", "scale"], ["z"]),
        node("Softmax", ["z"], ["p"], axis=-1),
        node("MatMul", ["p", "x"], ["y"]),
    ]
    made = model(nodes, [1, 5, 8], {"scale": scale})
    for name in ("q", "k"):
        weight = RNG.standard_normal((8, 8)).astype(np.float32)
        made.graph.initializer.append(numpy_helper.from_array(weight, name))
    return made


def verdict(made: onnx.ModelProto) -> Mutant:
    shape = [d.dim_value for d in made.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": RNG.standard_normal(shape).astype(np.float32)}
    return judge("test", "by hand", made, feeds)


def test_a_norm_with_another_epsilon_is_a_norm_with_that_epsilon() -> None:
    for epsilon in (1e-12, 1e-5, 0.3):
        found = verdict(norm(epsilon=epsilon))
        assert (found.verdict, found.kinds) == ("same", ("Normalise",))


@pytest.mark.parametrize(
    "wrong", [norm(power=4.0), norm(power=1.0), norm(mean="ReduceMax"), norm(mean="ReduceL2")]
)
def test_what_is_not_quite_a_norm_is_computed_as_it_stands(wrong: onnx.ModelProto) -> None:
    assert verdict(wrong).verdict in ("same", "refused")


@pytest.mark.parametrize("made", [gelu(), gelu(root=1.5), gelu(half=0.6), gelu(one=0.9)])
def test_a_wrong_gelu_is_a_function_of_its_own(made: onnx.ModelProto) -> None:
    found = verdict(made)
    assert (found.verdict, found.kinds) == ("same", ("Unary",))


@pytest.mark.parametrize("scale", [8**-0.5, 0.1, 1.7, -0.5])
def test_attention_keeps_its_own_scale(scale: float) -> None:
    found = verdict(attention(scale))
    assert found.verdict == "same"
    assert "Attend" in found.kinds


def test_a_careless_recogniser_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwcompile.passes.fuse_norms._TOLERANCE", 1e3)
    assert verdict(norm(power=4.0)).verdict == "false positive"


def test_mutants_differ_in_one_place() -> None:
    made = gelu()
    changed = list(mutants.mutants(made, 0, 100))
    assert len(changed) == len({m.SerializeToString() for _, m in changed}) > 5
    assert all(m.SerializeToString() != made.SerializeToString() for _, m in changed)
