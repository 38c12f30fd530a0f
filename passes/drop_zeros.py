"""Drop zeros: what zero weights make unnecessary goes; the rest are counted.

1. A column of a matrix without weights is a constant: what it becomes further on is added to the
   biases of the matrices that read it, whose weights for it become zero.
2. A column that no matrix reads is removed from everything that makes it.
3. Zeros that stay are counted by layer: they cost nothing in weight logic.

A column stays when anything but matrices and operations by column reads it. Results never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.ir import operations
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.program import IntArray, Program
from hwcompile.passes import narrow

BoolArray = NDArray[np.bool_]

_BY_COLUMN = (ir.Lookup, ir.Rescale, ir.Add, ir.Multiply)
_MOVABLE = (ir.Linear, ir.Embed, ir.Rows, *_BY_COLUMN)


@dataclass(frozen=True, slots=True)
class Dropped:
    """The program, whether columns were removed, and one line a matrix for the report."""

    program: Program
    changed: bool
    lines: tuple[str, ...]


def run(program: Program) -> Dropped:
    """The same function without dead columns."""
    folded = _fold_constants(program)
    shrunk = narrow.run(_remove_dead(folded))
    before = [op for op in program.operations if isinstance(op, ir.Linear)]
    after = [op for op in shrunk.operations if isinstance(op, ir.Linear)]
    pairs = tuple(zip(before, after, strict=True))
    changed = any(a.weight.shape != b.weight.shape for a, b in pairs)
    return Dropped(shrunk, changed, tuple(_line(a, b) for a, b in pairs))


def _line(before: ir.Linear, after: ir.Linear) -> str:
    zeros = int((after.weight == 0).sum())
    text = f"{before.origin}: {zeros} of {after.weight.size} weights are zero"
    if before.weight.shape != after.weight.shape:
        old, new = ("x".join(map(str, op.weight.shape)) for op in (before, after))
        text += f", {old} became {new}"
    return text


# --- columns that are constant --------------------------------------------------------------------


def _fold_constants(program: Program) -> Program:
    known: dict[str, tuple[BoolArray, IntArray]] = {}
    done: list[ir.Operation] = []
    for op in program.operations:
        if isinstance(op, ir.Linear) and op.inputs[0] in known:
            op = _fold_into(op, *known[op.inputs[0]])
        constant = _constant_columns(op, known)
        if constant is not None:
            known[op.output.key] = constant
        done.append(op)
    return replace(program, operations=tuple(done))


def _fold_into(op: ir.Linear, fixed: BoolArray, value: IntArray) -> ir.Linear:
    weight = np.where(fixed[:, None], 0, op.weight)
    moved = np.where(fixed, value, 0) @ op.weight
    return replace(op, weight=weight, bias=np.asarray(op.bias + moved, np.int64))


def _constant_columns(
    op: ir.Operation, known: Mapping[str, tuple[BoolArray, IntArray]]
) -> tuple[BoolArray, IntArray] | None:
    """Which columns of the output are the same in every row and sample, and their values."""
    if isinstance(op, ir.Linear):
        fixed = ~op.weight.any(0)
        row = operations.requantise(op.bias, op.multiplier, op.shift, op.output.bits)
    elif isinstance(op, _BY_COLUMN) and all(key in known for key in op.inputs):
        fixed = np.all([known[key][0] for key in op.inputs], axis=0)
        rows = tuple(known[key][1][None, :] for key in op.inputs)
        row = operations.spec(op).meaning(op, rows, 0, 1)[0]
    else:
        return None
    # Columns that vary hold a stand-in, kept inside the domain of any table.
    row = np.clip(row, op.output.low, op.output.high)
    return (np.asarray(fixed, np.bool_), row) if fixed.any() else None


# --- columns that nothing reads -------------------------------------------------------------------


def _remove_dead(program: Program) -> Program:
    group = _groups(program)
    kept: dict[str, BoolArray] = {}
    for key, value in program.values.items():
        kept.setdefault(group[key], np.zeros(value.cols, bool))
    makers = {op.output.key: op for op in program.operations}
    fixed = {group[output.value] for output in program.outputs}
    fixed |= {group[key] for key in program.values if not isinstance(makers.get(key), _MOVABLE)}
    for op in program.operations:
        for key in op.inputs:
            if isinstance(op, ir.Linear):
                kept[group[key]] |= op.weight.any(1)
            elif not isinstance(op, _BY_COLUMN):
                fixed.add(group[key])
    # A matrix of no columns is no hardware: one column stays.
    dead = {
        root: ~mask
        for root, mask in kept.items()
        if root not in fixed and not mask.all() and mask.any()
    }
    if not dead:
        return program
    keep = {key: ~dead[group[key]] for key in program.values if group[key] in dead}
    return replace(program, operations=tuple(_shrink(op, keep) for op in program.operations))


def _groups(program: Program) -> dict[str, str]:
    """Root of every value: values joined by operations by column keep the same columns."""
    parent = {key: key for key in program.values}

    def root(key: str) -> str:
        while parent[key] != key:
            key = parent[key]
        return key

    for op in program.operations:
        if isinstance(op, _BY_COLUMN):
            for key in op.inputs:
                parent[root(key)] = root(op.output.key)
    return {key: root(key) for key in program.values}


def _shrink(op: ir.Operation, keep: Mapping[str, BoolArray]) -> ir.Operation:
    if isinstance(op, ir.Linear) and op.inputs[0] in keep:
        op = replace(op, weight=np.ascontiguousarray(op.weight[keep[op.inputs[0]]]))
    columns = keep.get(op.output.key)
    if columns is None:
        return op
    output = replace(op.output, cols=int(columns.sum()))
    if isinstance(op, ir.Linear):
        return replace(
            op,
            output=output,
            weight=np.ascontiguousarray(op.weight[:, columns]),
            bias=op.bias[columns],
            multiplier=op.multiplier[columns],
            shift=op.shift[columns],
        )
    if isinstance(op, (ir.Embed, ir.Rows)):
        return replace(op, output=output, table=np.ascontiguousarray(op.table[:, columns]))
    return replace(op, output=output)
