"""LSTM and GRU: as language models token by token, as classifiers over all rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.ir import graph as ir
from hwcompile.sim import reference

T, D, H, V = 5, 6, 4, 9
GATES = {"LSTM": 4, "GRU": 3}
IDS = np.random.default_rng(2).integers(0, V, (1, T))
IMAGE = np.random.default_rng(3).standard_normal((1, T, D)).astype(np.float32)


def _layer(n: Any, x: str, kind: str, width: int, outputs: int = 1, **at: Any) -> Any:
    directions, gates = 2 if at.get("direction") == "bidirectional" else 1, GATES[kind]
    return n.op(
        kind,
        x,
        n.weight(directions, gates * H, width),
        n.weight(directions, gates * H, H),
        n.weight(directions, 2 * gates * H),
        hidden_size=H,
        outputs=outputs,
        **at,
    )


def _language_model(n: Any, kind: str, layers: int = 1, **at: Any) -> Any:
    x = n.op("Gather", n.weight(V, D, scale=1.0), n.input("input_ids", [1, T], "i"))
    x = n.op("Transpose", x, perm=[1, 0, 2])
    for i in range(layers):
        x = n.op("Squeeze", _layer(n, x, kind, H if i else D, **at), n.ints(1))
    x = n.op("MatMul", n.op("Transpose", x, perm=[1, 0, 2]), n.weight(H, V, scale=2.0))
    n.output(x, "logits", [1, T, V])
    return n


@pytest.mark.parametrize(
    ("kind", "layers", "at"),
    [
        ("LSTM", 1, {}),
        ("LSTM", 2, {}),
        ("GRU", 2, {"linear_before_reset": 1}),
        ("GRU", 1, {"linear_before_reset": 0}),
    ],
)
def test_a_language_model_is_a_sequence(
    net: Any, agree: Any, quantised: Any, simulated: Any, kind: str, layers: int, at: Any
) -> None:
    graph = agree(_language_model(net(), kind, layers, **at), {"input_ids": IDS})
    assert graph.sections == ("sequence",) and graph.outputs[0].kind == "logits"
    program = quantised(graph)
    whole = reference.run(program, reference.quantise_inputs(program, {"input_ids": IDS}))
    stepper = reference.Stepper(program)
    steps = [stepper.step(int(token)) for token in IDS[0]]
    assert np.array_equal(np.stack(steps), whole["logits"][0])
    if layers > 1:
        simulated(program)


def _classifier(n: Any, pick: Callable[[Any, Any], str], width: int, **at: Any) -> Any:
    x = n.op("Transpose", n.input("x", [1, T, D]), perm=[1, 0, 2])
    picked = pick(n, _layer(n, x, "LSTM", D, outputs=3, **at))
    n.output(n.op("MatMul", picked, n.weight(width, 3, scale=2.0)), "classes", [1, 3])
    return n


def _last_state(n: Any, outputs: Any) -> str:
    return str(n.op("Squeeze", outputs[1], n.ints(0)))


def _both_states(n: Any, outputs: Any) -> str:
    return str(n.op("Add", _last_state(n, outputs), n.op("Squeeze", outputs[2], n.ints(0))))


def _both_directions(n: Any, outputs: Any) -> str:
    return str(n.op("Reshape", n.op("Transpose", outputs[1], perm=[1, 0, 2]), n.ints(1, -1)))


@pytest.mark.parametrize(
    ("pick", "width", "at"),
    [
        (_last_state, H, {}),
        (_both_states, H, {"direction": "reverse"}),
        (_both_directions, 2 * H, {"direction": "bidirectional"}),
    ],
)
def test_a_classifier_scans_all_rows(
    net: Any, agree: Any, quantised: Any, simulated: Any, pick: Any, width: int, at: Any
) -> None:
    graph = agree(_classifier(net(), pick, width, **at), {"x": IMAGE})
    assert graph.sections == ("once",)
    layers = 2 if at.get("direction") == "bidirectional" else 1
    assert sum(isinstance(op, ir.Delay) for op in graph.operations) == 2 * layers
    program = quantised(graph)
    if at.get("direction") != "reverse":
        simulated(program)


def test_the_initial_state_is_kept(net: Any, agree: Any, quantised: Any, simulated: Any) -> None:
    n = net()
    x = n.op("Transpose", n.input("x", [1, T, D]), perm=[1, 0, 2])
    weights = (n.weight(1, 3 * H, D), n.weight(1, 3 * H, H))
    y = n.op("GRU", x, *weights, "", "", n.weight(1, 1, H, scale=1.0), hidden_size=H)
    y = n.op("Transpose", n.op("Squeeze", y, n.ints(1)), perm=[1, 0, 2])
    n.output(y, "states", [1, T, H])
    simulated(quantised(agree(n, {"x": IMAGE})))


def test_states_in_and_out_are_kept_by_the_chip(net: Any, importer: Any) -> None:
    n = net()
    x = n.op("Gather", n.weight(V, D, scale=1.0), n.input("input_ids", [1, "time"], "i"))
    x = n.op("Transpose", x, perm=[1, 0, 2])
    h, c = (n.input(name, [1, 1, H]) for name in ("h", "c"))
    weights = (n.weight(1, 4 * H, D), n.weight(1, 4 * H, H))
    y, last, cell = n.op("LSTM", x, *weights, "", "", h, c, hidden_size=H, outputs=3)
    y = n.op("Transpose", n.op("Squeeze", y, n.ints(1)), perm=[1, 0, 2])
    n.output(n.op("MatMul", y, n.weight(H, V)), "logits", [1, "time", V])
    n.output(last, "h_out", [1, 1, H])
    n.output(cell, "c_out", [1, 1, H])
    graph = importer(n, {"input_ids": (1, T)})
    assert graph.sections == ("sequence",)
    assert [o.model_name for o in graph.outputs] == ["logits"]
    assert [i.model_name for i in graph.inputs] == ["input_ids"]


def test_lengths_are_refused(net: Any, importer: Any) -> None:
    n = net()
    x = n.op("Transpose", n.input("x", [1, T, D]), perm=[1, 0, 2])
    weights = (n.weight(1, 3 * H, D), n.weight(1, 3 * H, H))
    y = n.op("GRU", x, *weights, "", n.const([T - 1], np.int32), hidden_size=H)
    n.output(y, "states", [T, 1, 1, H])
    with pytest.raises(ModelError, match="different lengths"):
        importer(n)
