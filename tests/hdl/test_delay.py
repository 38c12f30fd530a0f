from dataclasses import replace
from pathlib import Path

import numpy as np

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl.delay import DelayUnit
from hwcompile.hdl.unit import Task, Widths
from hwcompile.sim.unit_bench import cases, check_unit, run_cases

WIDTHS = Widths(element=12, address=9, row=4)


def task(rows: int, bits: int, initial: list[int]) -> Task:
    reach = (1 << (bits - 1)) - 1
    x = ir.Value("x", rows, len(initial), bits, -reach, reach, 1.0)
    op = ir.Delay(replace(x, key="y"), ("x",), 0, "", np.array(initial, np.int64))
    return Task(op, (x,))


def test_the_row_before_and_the_initial_state(tmp_path: Path) -> None:
    tasks = [task(3, 8, [0] * 4), task(4, 12, [5, -7, 2000]), task(2, 3, [3])]
    result = check_unit(DelayUnit(tasks, WIDTHS), tmp_path, count=1)
    assert not result.failures and result.passed == 5 * (3 + 4 + 2)


def test_another_initial_state_is_red(tmp_path: Path) -> None:
    good, bad = (DelayUnit([task(2, 8, [x, 0])], WIDTHS) for x in (1, 2))
    made = cases(good, 0, [np.array([[5, 6], [7, 8]])], np.random.default_rng(0))
    result = run_cases(bad, made, tmp_path)
    assert result.passed == 1 and "write 0" in result.failures[0]
