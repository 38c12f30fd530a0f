"""Masks and positions of other families, down to the chip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir import program

T, H, S, V = 6, 3, 5, 9
D = H * S
IDS = np.random.default_rng(3).integers(0, V, (1, T))
DISTANCE = np.arange(T)[:, None] - np.arange(T)[None, :]
CAUSAL = np.where(DISTANCE >= 0, 0.0, -1e30)


def _decoder(n: Any, bias: np.ndarray) -> Any:
    """Tokens, one attention with an additive mask or bias ``[heads, T, T]``, logits."""
    x = n.op("Gather", n.weight(V, D, scale=1.0), n.input("ids", [1, T], "i"))

    def heads(weight: str) -> str:
        split = n.op("Reshape", n.op("MatMul", x, weight), n.ints(1, T, -1, S))
        return str(n.op("Transpose", split, perm=[0, 2, 1, 3]))

    q, k, v = (heads(n.weight(D, D)) for _ in range(3))
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = n.op("Mul", scores, n.const(S**-0.5))
    weights = n.op("Softmax", n.op("Add", scores, n.const(bias)), axis=-1)
    mixed = n.op("Transpose", n.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    mixed = n.op("Reshape", mixed, n.ints(1, T, D))
    n.output(n.op("MatMul", mixed, n.weight(D, V, scale=1.0)), "logits", [1, T, V])
    return n


def _window() -> np.ndarray:
    return np.where((DISTANCE >= 0) & (DISTANCE < 3), 0.0, np.finfo(np.float32).min)[None]


def _alibi() -> np.ndarray:
    return CAUSAL - 0.5 ** np.arange(1, H + 1)[:, None, None] * np.abs(DISTANCE)


def _relative() -> np.ndarray:
    """Buckets of distance, both ways, as in T5."""
    table = np.random.default_rng(1).standard_normal((5, H))
    return np.moveaxis(table[np.clip(DISTANCE, -2, 2) + 2], -1, 0)


def _blocks() -> np.ndarray:
    blocks = np.arange(T) // 2
    return np.where(blocks[:, None] == blocks[None, :], 0.0, -1e9)[None]


@pytest.mark.parametrize(
    ("bias", "section", "table"),
    [
        (_window, "sequence", (1, T)),
        (_alibi, "sequence", (H, T)),
        (_relative, "once", (H, 2 * T - 1)),
        (_blocks, "once", (1, T, T)),
    ],
)
def test_masks_and_biases(
    net: Any,
    agree: Any,
    quantised: Any,
    simulated: Any,
    bias: Callable[[], np.ndarray],
    section: str,
    table: tuple[int, ...],
) -> None:
    graph = agree(_decoder(net(), bias()), {"ids": IDS})
    assert graph.sections == (section,)
    made = quantised(graph)
    (attend,) = (op for op in made.operations if isinstance(op, program.Attend))
    assert attend.bias.shape == table and attend.causal == (section == "sequence")
    simulated(made)


def test_hidden_keys_have_no_weight(net: Any, importer: Any, quantised: Any) -> None:
    made = quantised(importer(_decoder(net(), _window())))
    (attend,) = (op for op in made.operations if isinstance(op, program.Attend))
    q, k = (made.values[key] for key in attend.inputs[:2])
    reach = S * max(-q.low, q.high) * max(-k.low, k.high)
    nearest = int(attend.bias.max()) - int(attend.bias.min()) - 2 * reach
    steps = (nearest * attend.multiplier) >> attend.shift
    assert steps >= len(attend.exp_table) - 1 and attend.exp_table[-1] == 0
    assert ir.HIDDEN < -1e29
