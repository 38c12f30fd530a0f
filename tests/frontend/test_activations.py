"""Every activation is one function of one variable, whatever it is written with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hwcompile.compiler.ir import graph as ir

X = np.linspace(-6, 6, 40, dtype=np.float32).reshape(1, 5, 8)


def _erf_gelu(n: Any, x: str) -> str:
    e = n.op("Erf", n.op("Div", x, n.const(np.sqrt(2.0))))
    return n.op("Mul", n.op("Mul", x, n.op("Add", e, n.const(1.0))), n.const(0.5))


def _tanh_gelu(n: Any, x: str) -> str:
    cubic = n.op("Mul", n.op("Pow", x, n.const(3.0)), n.const(0.044715))
    inner = n.op("Mul", n.op("Add", x, cubic), n.const(np.sqrt(2 / np.pi)))
    half = n.op("Mul", x, n.const(0.5))
    return n.op("Mul", half, n.op("Add", n.op("Tanh", inner), n.const(1.0)))


def _quick_gelu(n: Any, x: str) -> str:
    return n.op("Mul", x, n.op("Sigmoid", n.op("Mul", x, n.const(1.702))))


def _silu(n: Any, x: str) -> str:
    return n.op("Mul", x, n.op("Sigmoid", x))


def _squared_relu(n: Any, x: str) -> str:
    return n.op("Pow", n.op("Relu", x), n.const(2.0))


def _clip(n: Any, x: str) -> str:
    return n.op("Clip", x, n.const(-1.5), n.const(2.0))


def _piecewise(n: Any, x: str) -> str:
    return n.op("Where", n.op("Greater", x, n.const(1.0)), x, n.op("Sin", x))


WRITTEN: list[Callable[..., str]] = [
    _erf_gelu,
    _tanh_gelu,
    _quick_gelu,
    _silu,
    _squared_relu,
    _clip,
    _piecewise,
]


def _with_activation(net: Any, opset: int, write: Callable[..., str]) -> Any:
    n = net(opset)
    x = n.input("x", [1, 5, 8])
    y = write(n, n.op("MatMul", x, n.const(np.eye(8))))
    n.output(n.op("MatMul", y, n.weight(8, 3)), "y", [1, 5, 3])
    return n


@pytest.mark.parametrize("write", WRITTEN)
def test_written_out(net: Any, agree: Any, write: Callable[..., str]) -> None:
    graph = agree(_with_activation(net, 18, write), {"x": X})
    assert [type(op) for op in graph.operations] == [ir.Linear, ir.Unary, ir.Linear]


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Relu", {}),
        ("Gelu", {}),
        ("Gelu", {"approximate": "tanh"}),
        ("LeakyRelu", {"alpha": 0.2}),
        ("Elu", {"alpha": 0.7}),
        ("Celu", {"alpha": 1.3}),
        ("Selu", {}),
        ("HardSigmoid", {}),
        ("HardSwish", {}),
        ("Softplus", {}),
        ("Softsign", {}),
        ("Mish", {}),
        ("Tanh", {}),
        ("Exp", {}),
    ],
)
def test_operators(net: Any, agree: Any, op: str, attributes: dict[str, Any]) -> None:
    graph = agree(_with_activation(net, 20, lambda n, x: n.op(op, x, **attributes)), {"x": X})
    assert [type(o) for o in graph.operations] == [ir.Linear, ir.Unary, ir.Linear]


def test_gated_product_keeps_two_branches(net: Any, agree: Any) -> None:
    n = net()
    x = n.input("x", [1, 5, 8])
    both = n.op("MatMul", x, n.weight(8, 20))
    gate, up = n.op("Split", both, n.ints(10, 10), axis=-1, outputs=2)
    n.output(n.op("MatMul", n.op("Mul", _silu(n, gate), up), n.weight(10, 4)), "y", [1, 5, 4])
    graph = agree(n, {"x": X})
    kinds = [type(o) for o in graph.operations]
    # The fused product falls apart into gate and up: no gather stays.
    assert kinds.count(ir.Linear) == 3 and ir.Gather not in kinds


def test_affine_steps_fold_into_products(net: Any, agree: Any) -> None:
    n = net()
    x = n.input("x", [1, 5, 8])
    y = n.op("Mul", n.op("MatMul", n.op("Mul", x, n.const(0.3)), n.weight(8, 6)), n.const(2.5))
    y = n.op("Sub", n.op("Add", n.op("Div", y, n.const(4.0)), n.weight(6)), n.const(1.0))
    n.output(n.op("Neg", y), "y", [1, 5, 6])
    graph = agree(n, {"x": X})
    assert [type(o) for o in graph.operations] == [ir.Linear]
