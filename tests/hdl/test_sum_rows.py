from pathlib import Path

import numpy as np

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl.sum_rows import SumRowsUnit
from hwcompile.hdl.unit import Task, Widths
from hwcompile.sim.unit_bench import cases, check_unit

WIDTHS = Widths(element=12, address=10, row=4)


def task(rows: int, cols: int, multiplier: int, shift: int, *, flags: bool = False) -> Task:
    x = ir.Value("x", rows, cols, 8, -100, 127, 1.0)
    y = ir.Value("y", 1, cols, 8, -127, 127, 1.0)
    inputs = (x, ir.Value("flags", rows, 1, 2, 0, 1, 1.0)) if flags else (x,)
    return Task(ir.SumRows(y, tuple(v.key for v in inputs), 0, "", multiplier, shift), inputs)


def test_with_and_without_flags(tmp_path: Path) -> None:
    tasks = [
        task(6, 5, 341, 11),
        task(5, 3, 100, 9, flags=True),
        task(1, 1, 1, -2),
        task(1, 2, 1, 0, flags=True),
    ]
    unit = SumRowsUnit(tasks, WIDTHS)
    rng = np.random.default_rng(0)
    made = []
    for flags in (0, 1):
        x = rng.integers(-100, 128, (5, 3))
        made += cases(unit, 1, [x, np.full((5, 1), flags)], rng)
    assert not check_unit(unit, tmp_path, made).failures


def test_no_flags_no_operand(tmp_path: Path) -> None:
    unit = SumRowsUnit([task(4, 3, 1, 2)], WIDTHS)
    assert unit.operands == ("a", "d")
    assert not check_unit(unit, tmp_path, count=2).failures
