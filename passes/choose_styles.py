"""Choose how each matrix is built: how many output columns share an adder tree.

A matrix's results leave through one requantiser, an element a cycle, and a phase lasts as many
cycles as the input has bits. So more trees than input bits save no time, and for the same time one
plane a cycle in several trees costs less than several planes in fewer: each matrix has a curve of
1, 2, .. ``x bits`` trees, more area for less time. The points of all matrices are taken at one
price of time (um2 a cycle): no other choice has less area in the same time. Which price:

* with a bound on the cycles of a sample: the lowest that keeps it, which is the least area;
* with a bound on area: the highest that keeps it, which is the least time;
* else: the one of the least area times time of the whole chip, all else of it estimated roughly.

What must NOT change: the results; a plan says only where time and area go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import MatrixPlan
from hwcompile.compiler.ir.weight_logic import IntArray

Style = Literal["auto", "parallel", "bitplane", "folded"]
AreaOf = Callable[[IntArray, int, int], float]
"""um2 of the block of a matrix ``[N, M]`` with inputs of so many bits in so many phases."""

# What the rest of a chip takes, about, in um2 of nangate45 cells on chips of some thousand weights:
# it weighs time against area, and decides nothing else.
_CHIP_UM2 = 10_000.0
_NORM_UM2 = 10_000.0
_ATTENTION_UM2, _LANE_UM2 = 8_000.0, 1_400.0
_LINEAR_UM2, _BANK_BIT_UM2 = 7_000.0, 7.0
_TABLE_BIT_UM2, _MEMORY_BIT_UM2 = 0.12, 0.6

_ROW_CYCLES = 10
"""Cycles of an operation's row beside its elements, about."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Bounds of a choice: ``cycles`` of one sample, ``area_um2`` of all cells; None: no bound."""

    cycles: float | None = None
    area_um2: float | None = None


NO_GOAL = Goal()


@dataclass(frozen=True, slots=True)
class _Point:
    """One way to build a matrix, and what it costs: um2, cycles of a whole sample."""

    plan: MatrixPlan
    area: float
    cycles: float


def choose_styles(
    program: ir.Program, area: AreaOf, style: Style = "auto", goal: Goal = NO_GOAL
) -> tuple[MatrixPlan, ...]:
    """A plan for each Linear in order. ``parallel``: all planes at once; ``bitplane``: none folded;
    ``folded``: all that can be; ``auto``: what the area and time of all points say.
    """
    matrices = [op for op in program.operations if isinstance(op, ir.Linear)]
    bits = [program.values[op.inputs[0]].bits for op in matrices]
    if style in ("parallel", "bitplane"):
        return tuple(
            MatrixPlan(op.output.key, style, 1, b if style == "parallel" else 1)
            for op, b in zip(matrices, bits, strict=True)
        )
    points = [_points(op, b, area, style == "folded") for op, b in zip(matrices, bits, strict=True)]
    return tuple(point.plan for point in _choose(points, program, goal))


def respin_styles(program: ir.Program, most: int) -> tuple[MatrixPlan, ...]:
    """A plan for each Linear, which does not depend on its weights: ``most`` phases or fewer."""
    matrices = [op for op in program.operations if isinstance(op, ir.Linear)]
    phases = [min(most, op.output.cols) for op in matrices]
    return tuple(
        MatrixPlan(op.output.key, "folded" if p > 1 else "bitplane", p)
        for op, p in zip(matrices, phases, strict=True)
    )


def _points(op: ir.Linear, bits: int, area: AreaOf, folded: bool) -> list[_Point]:
    """The curve of one matrix: phases for 1 .. ``bits`` trees, the least area first."""
    columns = op.output.cols
    most = max(1, min(columns // 2, bits)) if folded else min(columns, bits)
    phases = sorted({-(-columns // trees) for trees in range(1, most + 1)}, reverse=True)
    return [
        _Point(
            MatrixPlan(op.output.key, "folded" if p > 1 else "bitplane", p),
            area(op.weight, bits, p),
            op.output.rows * matrix_cycles(op, bits, p),
        )
        for p in phases
    ]


def _choose(points: Sequence[Sequence[_Point]], program: ir.Program, goal: Goal) -> list[_Point]:
    rest_area, rest_cycles = rest_um2(program), rest_of_cycles(program)

    def total(chosen: Iterable[_Point]) -> tuple[float, float]:
        chosen = list(chosen)
        area = rest_area + sum(p.area for p in chosen)
        return area, rest_cycles + sum(p.cycles for p in chosen)

    choices = [[_at(price, own) for own in points] for price in _prices(points)]
    totals = [total(chosen) for chosen in choices]
    numbers = range(len(choices))
    if goal.cycles is not None:
        most = goal.cycles
        kept = [n for n in numbers if totals[n][1] <= most] or [len(choices) - 1]
        return choices[min(kept, key=lambda n: totals[n])]
    if goal.area_um2 is not None:
        room = goal.area_um2
        kept = [n for n in numbers if totals[n][0] <= room] or [0]
        return choices[min(kept, key=lambda n: (totals[n][1], totals[n][0]))]
    return choices[min(numbers, key=lambda n: (totals[n][0] * totals[n][1], n))]


def _at(price: float, points: Sequence[_Point]) -> _Point:
    return min(points, key=lambda p: (p.area + price * p.cycles, p.cycles))


def _prices(points: Sequence[Sequence[_Point]]) -> list[float]:
    """All prices of a cycle at which some matrix changes, rising."""
    prices = {0.0}
    for own in points:
        for slow in own:
            for fast in own:
                if fast.cycles < slow.cycles and fast.area > slow.area:
                    prices.add((fast.area - slow.area) / (slow.cycles - fast.cycles))
    return sorted(prices)


# --- time and area, about -------------------------------------------------------------------------


def matrix_cycles(op: ir.Linear, bits: int, phases: int) -> int:
    """Cycles of a row, about: load the input, then phases at the pace of planes or results."""
    trees = -(-op.output.cols // phases)
    return len(op.weight) + phases * max(bits, trees) + _ROW_CYCLES


def rest_of_cycles(program: ir.Program) -> float:
    """Cycles of a whole sample in all that is no matrix, about."""
    total = 0.0
    for op in program.operations:
        if isinstance(op, ir.Linear):
            continue
        row: float = 2 * op.output.cols + _ROW_CYCLES
        if isinstance(op, ir.Attend):
            keys = program.values[op.inputs[1]].rows / (2 if op.causal else 1)
            size = program.values[op.inputs[0]].cols // op.heads
            row = op.heads * (2 * keys + 2 * size + _ROW_CYCLES)
        total += op.output.rows * row
    sent = [program.values[o.value] for o in program.outputs]
    return total + sum(value.rows * value.cols for value in sent)


def rest_um2(program: ir.Program) -> float:
    """Area of all that is no matrix, about, memories included."""
    total, lanes, stored = _CHIP_UM2, 0, 0
    for op in program.operations:
        if isinstance(op, ir.Attend):
            lanes = max(lanes, program.values[op.inputs[0]].cols // op.heads)
            kept = [program.values[key] for key in op.inputs[1:3]]
            stored += sum(v.rows * v.cols * v.bits for v in kept)
        elif isinstance(op, (ir.Embed, ir.Rows)):
            total += op.table.size * op.output.bits * _TABLE_BIT_UM2
    if lanes:
        total += _ATTENTION_UM2 + _LANE_UM2 * lanes
    if any(isinstance(op, ir.Normalise) for op in program.operations):
        total += _NORM_UM2
    banks = [
        len(op.weight) * program.values[op.inputs[0]].bits
        for op in program.operations
        if isinstance(op, ir.Linear)
    ]
    total += _LINEAR_UM2 + _BANK_BIT_UM2 * max(banks, default=0)
    return total + stored * _MEMORY_BIT_UM2
