from dataclasses import replace
from pathlib import Path

import numpy as np

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl.lookup import LookupUnit
from hwcompile.hdl.unit import Task, Widths
from hwcompile.sim.unit_bench import cases, check_unit, run_cases

WIDTHS = Widths(element=12, address=10, row=4)
RNG = np.random.default_rng(1)


def task(x: ir.Value, first: int, last: int, bits: int) -> Task:
    reach = (1 << (bits - 1)) - 1
    output = ir.Value("y", x.rows, x.cols, bits, -reach, reach, 1.0)
    table = RNG.integers(-reach, reach + 1, last - first + 1)
    return Task(ir.Lookup(output, (x.key,), 0, "", table, first), (x,))


def tasks() -> list[Task]:
    signed = ir.Value("x", 2, 5, 8, -100, 127, 1.0)
    narrow = ir.Value("x", 2, 1, 5, -15, 12, 1.0)
    positive = ir.Value("x", 2, 3, 8, 0, 90, 1.0)
    return [task(signed, -127, 127, 8), task(narrow, -15, 12, 10), task(positive, 0, 90, 6)]


def test_equals_meaning(tmp_path: Path) -> None:
    result = check_unit(LookupUnit(tasks(), WIDTHS), tmp_path)
    assert not result.failures
    assert result.passed == 3 * 8 * 2


def test_whole_word_is_the_index(tmp_path: Path) -> None:
    x = ir.Value("x", 2, 4, 8, -127, 127, 1.0)
    assert not check_unit(LookupUnit([task(x, -127, 127, 8)], WIDTHS), tmp_path).failures


def test_flipped_table_entry_is_red(tmp_path: Path) -> None:
    good = tasks()[0]
    table = good.operation.table.copy()
    table[3 + 127] ^= 1
    unit = LookupUnit([good], WIDTHS)
    bad = LookupUnit([Task(replace(good.operation, table=table), good.inputs)], WIDTHS)
    row = np.array([[5, 3, -2, 3, 0], [1, 2, 4, 5, 6]])
    made = cases(unit, 0, [row], RNG)
    assert not run_cases(unit, made, tmp_path / "good").failures
    result = run_cases(bad, made, tmp_path / "bad")
    assert result.passed == 1
    assert len(result.failures) == 1 and "write 1" in result.failures[0]
