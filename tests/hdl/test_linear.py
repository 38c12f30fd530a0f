"""The linear unit with several matrices against the meaning of Linear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwcompile.compiler.ir import operations
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.program import IntArray
from hwcompile.hdl.cells import PRIMITIVES
from hwcompile.hdl.linear import Linear, LinearPlan, plan_linear
from hwcompile.hdl.matrix_block import matrix_block_verilog
from hwcompile.passes.lower_weights import lower_weights
from hwcompile.sim.unit_bench import Case, Result, corner_inputs, run_cases, unit_verilog
from tests.paces import pace

ELEMENT_BITS = 16
Matrix = tuple[ir.Linear, ir.Value, tuple[int, int, int]]
"""Operation, input, and its block: phases, planes, most rows of registers."""


def _matrix(
    rng: np.random.Generator,
    n: int,
    m: int,
    phases: int,
    *,
    planes: int = 1,
    x_bits: int = 8,
    most: int = 127,
    out_bits: int = 8,
    shift: tuple[int, int] = (0, 9),
    multiplier: int = 1,
    cuts: int = 0,
) -> Matrix:
    reach = operations.limit(x_bits)
    x = ir.Value("x", 1, n, x_bits, -reach - 1, reach, 1.0)
    out = ir.Value(
        "y", 1, m, out_bits, -operations.limit(out_bits), operations.limit(out_bits), 1.0
    )
    op = ir.Linear(
        out,
        ("x",),
        0,
        "",
        rng.integers(-most, most + 1, (n, m)),
        rng.integers(-500, 500, m),
        rng.integers(1, multiplier + 1, m),
        rng.integers(shift[0], shift[1] + 1, m),
    )
    return op, x, (phases, planes, cuts)


def _build(matrices: Sequence[Matrix], folder: Path) -> tuple[Linear, list[Path]]:
    plans: list[LinearPlan] = []
    files = dict(PRIMITIVES)
    for number, (op, x, (phases, planes, cuts)) in enumerate(matrices):
        wanted = pace(most_cuts=cuts) if cuts else None
        block = lower_weights(op.weight, x.bits, phases, planes=planes, pace=wanted)
        assert block.cuts == cuts
        files[f"block{number}"] = matrix_block_verilog(block, f"block{number}")
        plans.append(plan_linear(number, op, x, block, f"block{number}"))
    unit = Linear(plans, ELEMENT_BITS, 12)
    sources = [unit_verilog(unit, "unit", folder)]
    for name, text in files.items():
        sources.append(folder / f"{name}.v")
        sources[-1].write_text(text)
    return unit, sources


def _cases(unit: Linear, matrices: Sequence[Matrix], rng: np.random.Generator) -> list[Case]:
    made = []
    for select, (op, x, _) in enumerate(matrices):
        for (row,) in corner_inputs([x], rng, 2):
            expected = operations.spec(op).meaning(op, (row,), 0, 1)[0]
            for reuse in (0, 1):
                made.append(_case(unit, select, row, expected, reuse, rng))
    return made


def _case(
    unit: Linear,
    select: int,
    row: IntArray,
    expected: IntArray,
    reuse: int,
    rng: np.random.Generator,
) -> Case:
    a, d = int(rng.integers(0, 9)), 1000
    data = [int(v) for v in rng.integers(-99, 99, 1400)]
    if not reuse:  # a reused row is not in the memory any more
        data[a : a + row.size] = [int(v) for v in row.ravel()]
    return Case(
        select,
        {"a": a, "d": d, "reuse": reuse},
        data,
        [int(v) for v in expected],
        unit.cycles(select, bool(reuse)),
        [],
        [],
    )


def _run(matrices: Sequence[Matrix], folder: Path) -> Result:
    unit, sources = _build(matrices, folder)
    made = _cases(unit, matrices, np.random.default_rng(1))
    return run_cases(unit, made, folder, sources=sources)  # type: ignore[arg-type]


def test_several_matrices(tmp_path: Path) -> None:
    """Different sizes, phases and widths; shifts of every sign; few and many trees."""
    rng = np.random.default_rng(0)
    matrices = [
        _matrix(rng, 7, 11, 4),
        _matrix(rng, 20, 5, 1, x_bits=10, most=1, shift=(-2, 3), out_bits=12),
        _matrix(rng, 3, 26, 2, most=7, shift=(1, 4)),
        _matrix(rng, 1, 1, 1),
    ]
    result = _run(matrices, tmp_path)
    assert result.failures == ()
    assert result.passed == 4 * 6 * 2


def test_several_planes_a_cycle(tmp_path: Path) -> None:
    """Units of which each block takes another number of planes of another width."""
    rng = np.random.default_rng(4)
    matrices = [
        _matrix(rng, 7, 11, 4, planes=2),
        _matrix(rng, 20, 5, 1, planes=3, x_bits=10, most=1, out_bits=12),
        _matrix(rng, 3, 6, 6, planes=8, most=7),
        _matrix(rng, 4, 2, 1, planes=8),
        _matrix(rng, 9, 5, 5, x_bits=5),
    ]
    assert _run(matrices, tmp_path).failures == ()


def test_rows_of_registers_in_some_blocks(tmp_path: Path) -> None:
    """One and two beside none; one phase and several; fewer and more trees than planes."""
    rng = np.random.default_rng(6)
    matrices = [
        _matrix(rng, 7, 11, 4, cuts=1),
        _matrix(rng, 7, 11, 4),
        _matrix(rng, 12, 26, 2, planes=4, cuts=2),
        _matrix(rng, 20, 5, 1, x_bits=10, out_bits=12, cuts=1),
        _matrix(rng, 9, 6, 3, planes=8, cuts=2),
    ]
    assert _run(matrices, tmp_path).failures == ()


def test_one_plane_is_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    assert _run([_matrix(rng, 5, 7, 7, planes=8)], tmp_path).failures == ()


def test_multipliers(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    matrices = [
        _matrix(rng, 6, 9, 3, multiplier=(1 << 15) - 1, shift=(14, 24)),
        _matrix(rng, 9, 4, 1, shift=(-1, 7)),
    ]
    assert _run(matrices, tmp_path).failures == ()


def test_one_wrong_constant_is_seen(tmp_path: Path) -> None:
    """The unit is compared with operations that differ from its own in one number each."""
    rng = np.random.default_rng(3)
    matrix = _matrix(rng, 5, 4, 2, shift=(2, 4), out_bits=16)
    unit, sources = _build([matrix], tmp_path)
    changes = {
        "none": {},
        "weight": {"weight": _changed(matrix[0].weight, (2, 1), 1)},
        "sign": {"weight": _changed(matrix[0].weight, (3, 2), -2 * matrix[0].weight[3, 2])},
        "shift": {"shift": _changed(matrix[0].shift, (3,), 1)},
        "bias": {"bias": _changed(matrix[0].bias, (0,), 64)},
    }
    groups = [
        _cases(unit, [(replace(matrix[0], **change), *matrix[1:])], np.random.default_rng(1))
        for change in changes.values()
    ]
    made = [case for group in groups for case in group]
    failures = run_cases(unit, made, tmp_path, sources=sources).failures  # type: ignore[arg-type]
    numbers = [int(line.split()[1].rstrip(",")) for line in failures]
    red = {list(changes)[number // len(groups[0])] for number in numbers}
    assert red == {"weight", "sign", "shift", "bias"}


def _changed(x: IntArray, at: tuple[int, ...], by: int) -> IntArray:
    x = x.copy()
    x[at] += by
    return x
