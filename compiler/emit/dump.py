"""The representations as text, one line an operation: for ``inspect`` and ``--dump-ir``."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

import numpy as np

from hwcompile.compiler.ir import graph as float_ir
from hwcompile.compiler.ir import program as int_ir
from hwcompile.compiler.ir.chip import Chip
from hwcompile.compiler.ir.mapped import blocks
from hwcompile.compiler.names import label

_COMMON = ("output", "inputs", "section", "origin")


def graph_text(graph: float_ir.Graph) -> str:
    """A Graph as text."""
    lines = [f"graph form={graph.form} sections={','.join(graph.sections)}"]
    for given in graph.inputs:
        shape = "x".join(map(str, given.model_shape))
        lines.append(
            f"  {given.value.key} [{given.value.rows},{given.value.cols}] = input {given.kind} "
            f"{label(given.model_name)!r} {shape}"
        )
    lines += [_operation_line(op) for op in graph.operations]
    lines += [f"  output {o.kind} {o.value} {label(o.model_name)!r}" for o in graph.outputs]
    return "\n".join(lines) + "\n"


def program_text(program: int_ir.Program) -> str:
    """A Program as text, each value with its width, interval and scale."""
    lines = [f"program form={program.form} sections={','.join(program.sections)}"]
    for given in program.inputs:
        lines.append(f"  {_value(given.value)} = input {given.kind} {label(given.model_name)!r}")
    lines += [_operation_line(op) for op in program.operations]
    lines += [f"  output {o.kind} {o.value} {label(o.model_name)!r}" for o in program.outputs]
    return "\n".join(lines) + "\n"


def chip_text(chip: Chip) -> str:
    """A Chip as text: memories, ports, the micro-program."""
    lines = [f"chip slots={chip.slots} element_bits={chip.element_bits}"]
    lines += [f"  memory {m.name} {m.words}x{m.bits} {m.kind}" for m in chip.memories]
    lines += [f"  port {p.name} {p.direction} {p.kind} {p.bits}" for p in chip.ports]
    for section in chip.sections:
        lines.append(f"  section {section.kind}")
        for loop in section.loops:
            lines.append(f"    loop rows={loop.rows}")
            lines += [
                f"      {i.unit}.{i.select} -> {i.output} {i.space} cycles={i.cycles}"
                for i in loop.body
            ]
    return "\n".join(lines) + "\n"


def graph_facts(graph: float_ir.Graph) -> dict[str, Any]:
    """A Graph in numbers: form, inputs, operations by kind, weights and zeros of its matrices."""
    matrices = [op.weight for op in graph.operations if isinstance(op, float_ir.Linear)]
    return {
        "form": graph.form,
        "sections": list(graph.sections),
        "inputs": [
            {"name": i.model_name, "kind": i.kind, "shape": list(i.model_shape)}
            for i in graph.inputs
        ],
        "outputs": [{"name": o.model_name, "kind": o.kind} for o in graph.outputs],
        "operations": dict(sorted(Counter(type(op).__name__ for op in graph.operations).items())),
        "matrix_weights": sum(w.size for w in matrices),
        "matrix_zeros": sum(int((b == 0).sum()) for w in matrices for b in blocks(w)),
    }


def _value(value: float_ir.Value | int_ir.Value) -> str:
    text = f"{value.key} [{value.rows},{value.cols}]"
    if isinstance(value, int_ir.Value):
        text += f" i{value.bits} {value.low}..{value.high} x {value.scale:.6g}"
    return text


def _operation_line(op: float_ir.Operation | int_ir.Operation) -> str:
    details = [
        f"{f.name}={_short(getattr(op, f.name))}" for f in fields(op) if f.name not in _COMMON
    ]
    call = f"{type(op).__name__.lower()}({', '.join(op.inputs)})"
    line = f"  {_value(op.output)} = {' '.join([call, *details])}"
    return f"{line}  # {label(op.origin)}" if op.origin else line


def _short(x: Any) -> str:
    if isinstance(x, np.ndarray):
        return "array" + "x".join(map(str, x.shape))
    if isinstance(x, float_ir.Expression):
        return _expression(x)
    return f"{x:.6g}" if isinstance(x, float) else str(x)


def _expression(x: float_ir.Expression) -> str:
    if x.function == "constant":
        return f"{x.constant:.6g}"
    if not x.arguments:
        return x.function
    return f"{x.function}({', '.join(map(_expression, x.arguments))})"
