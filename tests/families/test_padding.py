"""Padding masks of queries and keys, and positions counted by the mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.ir import graph as ir

T, D, V, PAD = 5, 6, 9, 1
IDS = np.array([[4, 7, 2, PAD, PAD]])
MASK = np.array([[1, 1, 1, 0, 0]])


def _attention(n: Any, x: str, seen: str) -> str:
    """One head over the keys of a bool mask."""
    q, k, v = (n.op("MatMul", x, n.weight(D, D)) for _ in range(3))
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 2, 1]))
    scores = n.op("Where", seen, scores, n.const(np.finfo(np.float32).min))
    return str(n.op("MatMul", n.op("Softmax", scores, axis=-1), v))


def _first_row(n: Any, x: str) -> Any:
    first = n.op("Gather", x, n.const(0, np.int64), axis=1)
    n.output(n.op("MatMul", first, n.weight(D, 3, scale=1.0)), "classes", [1, 3])
    return n


def _pair_mask(n: Any) -> str:
    seen = n.op("Cast", n.input("attention_mask", [1, T], "i"), to=9)
    return str(n.op("And", n.op("Unsqueeze", seen, n.ints(2)), n.op("Unsqueeze", seen, n.ints(1))))


def _tokens(n: Any) -> str:
    return str(n.op("Gather", n.weight(V, D, scale=1.0), n.input("ids", [1, T], "i")))


def test_a_mask_of_queries_and_keys(net: Any, agree: Any, quantised: Any, simulated: Any) -> None:
    n = net()
    x = _attention(n, _tokens(n), _pair_mask(n))
    graph = agree(_first_row(n, x), {"ids": IDS, "attention_mask": MASK})
    (attend,) = (op for op in graph.operations if isinstance(op, ir.Attend))
    assert attend.inputs[3] == graph.inputs[1].value.key
    simulated(quantised(graph))


def test_a_mask_of_pairs_elsewhere_is_refused(net: Any, importer: Any) -> None:
    n = net()
    _tokens(n)
    n.output(n.op("Cast", _pair_mask(n), to=1), "pairs", [1, T, T])
    with pytest.raises(ModelError, match="beside attention"):
        importer(n)


def _counted(n: Any) -> Any:
    """Positions PAD + 1, PAD + 2, ... of tokens, PAD of padding."""
    x = _tokens(n)
    mask = n.op("Cast", n.op("Not", n.op("Equal", "ids", n.const(PAD, np.int64))), to=6)
    sums = n.op("CumSum", mask, n.const(1, np.int64))
    places = n.op("Mul", n.op("Add", sums, n.const(0, np.int32)), mask)
    places = n.op("Add", n.op("Cast", places, to=7), n.const(PAD, np.int64))
    x = n.op("Add", x, n.op("Gather", n.weight(T + PAD + 1, D, scale=1.0), places))
    return _attention(n, x, n.op("Unsqueeze", n.op("Cast", mask, to=9), n.ints(1))), x


def test_positions_counted_by_the_mask(
    net: Any, agree: Any, quantised: Any, simulated: Any
) -> None:
    n = net()
    mixed, x = _counted(n)
    # Rows of padding too have the position of padding.
    n.output(n.op("MatMul", n.op("Add", mixed, x), n.weight(D, 3, scale=1.0)), "y", [1, T, 3])
    simulated(quantised(agree(n, {"ids": IDS})))


def test_a_count_alone_is_refused(net: Any, importer: Any) -> None:
    n = net()
    x = _tokens(n)
    n.input("mask", [1, T], "i")
    sums = n.op("Cast", n.op("CumSum", "mask", n.const(1, np.int64)), to=1)
    n.output(n.op("Mul", x, n.op("Unsqueeze", sums, n.ints(2))), "y", [1, T, D])
    with pytest.raises(ModelError, match="beside attention"):
        importer(n)
