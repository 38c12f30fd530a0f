"""Choose how each matrix is built: how many output columns share an adder tree.

The rule for one sequence at a time, least area first:

1. A matrix's results leave through one requantiser, an element a cycle, and a phase lasts as many
   cycles as the input has bits. So many trees (``x bits``) can share phases without loss of time:
   ``phases = ceil(columns / x bits)``.
2. While all matrices of a row still take less time than its attention at full context, the
   number of trees is halved: folding until matrix time meets attention time.
3. A matrix with no more columns than trees is not folded: ``bitplane``.

What must NOT change: the results; a plan says only where time and area go.
"""

from __future__ import annotations

from typing import Literal

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import MatrixPlan

Style = Literal["auto", "parallel", "bitplane", "folded"]


def choose_styles(program: ir.Program, style: Style = "auto") -> tuple[MatrixPlan, ...]:
    """A plan for each Linear in order. ``parallel``: all planes at once; ``bitplane``: none folded;
    ``folded``: all that can be.
    """
    matrices = [op for op in program.operations if isinstance(op, ir.Linear)]
    if style == "parallel":
        bits = [program.values[op.inputs[0]].bits for op in matrices]
        return tuple(
            MatrixPlan(op.output.key, "parallel", 1, b)
            for op, b in zip(matrices, bits, strict=True)
        )
    if style == "bitplane":
        return tuple(MatrixPlan(op.output.key, "bitplane", 1) for op in matrices)
    halvings = 0
    attention = attention_cycles(program)
    while any(_trees(program, op, halvings) > 1 for op in matrices):
        following = sum(matrix_cycles(program, op, halvings + 1) for op in matrices)
        if following > attention:
            break
        halvings += 1
    return tuple(_plan(program, op, halvings, style) for op in matrices)


def _plan(program: ir.Program, op: ir.Linear, halvings: int, style: Style) -> MatrixPlan:
    trees = _trees(program, op, halvings)
    if style == "folded":
        trees = min(trees, max(1, op.output.cols // 2))
    phases = -(-op.output.cols // trees)
    return MatrixPlan(op.output.key, "folded" if phases > 1 else "bitplane", phases)


def _trees(program: ir.Program, op: ir.Linear, halvings: int) -> int:
    bits = program.values[op.inputs[0]].bits
    return max(1, min(op.output.cols, bits >> halvings))


def matrix_cycles(program: ir.Program, op: ir.Linear, halvings: int = 0) -> int:
    """Cycles of a row, about: load the input, then phases at the pace of planes or results."""
    trees = _trees(program, op, halvings)
    bits = program.values[op.inputs[0]].bits
    return len(op.weight) + -(-op.output.cols // trees) * max(bits, trees)


def attention_cycles(program: ir.Program) -> int:
    """Cycles of all attention of a row at full context, about: each head passes its keys twice."""
    total = 0
    for op in program.operations:
        if isinstance(op, ir.Attend):
            keys = program.values[op.inputs[1]].rows
            size = program.values[op.inputs[0]].cols // op.heads
            total += op.heads * (2 * keys + 2 * size)
    return total
