"""Narrow: the width of every value from its proven interval.

1. The interval of an output is the interval rule of its operation over the intervals of its inputs,
   cut at the saturation limits of its declared width.
2. Its width becomes the least whose symmetric range holds that interval.

Results never change: a value saturates at its own width, and the new limits lie outside every
result that was possible before. Inputs keep their intervals, which are part of the contract with
the user.
"""

from __future__ import annotations

from dataclasses import replace

from hwcompile.compiler.ir import operations
from hwcompile.compiler.ir.program import Input, Operation, Program, Value


def width(low: int, high: int) -> int:
    """Least width (at least 2) whose symmetric range holds ``low .. high``."""
    return max(max(-low, high, 1).bit_length() + 1, 2)


def run(program: Program) -> Program:
    """The same program with least widths and proven intervals; scales and results unchanged."""
    values: dict[str, Value] = {}
    inputs = tuple(_narrow_input(given) for given in program.inputs)
    values.update({given.value.key: given.value for given in inputs})
    done: list[Operation] = []
    for op in program.operations:
        output = _narrow_value(op, tuple(values[key] for key in op.reads))
        values[output.key] = output
        done.append(replace(op, output=output))
    return replace(program, inputs=inputs, operations=tuple(done))


def _narrow_input(given: Input) -> Input:
    value = given.value
    return replace(given, value=replace(value, bits=width(value.low, value.high)))


def _narrow_value(op: Operation, inputs: tuple[Value, ...]) -> Value:
    most = operations.limit(op.output.bits)
    low, high = operations.spec(op).interval(op, inputs)
    low, high = max(min(low, most), -most), max(min(high, most), -most)
    return replace(op.output, low=low, high=high, bits=width(low, high))
