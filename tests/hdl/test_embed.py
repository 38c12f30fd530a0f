from pathlib import Path

import numpy as np

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl.embed import EmbedUnit
from hwcompile.hdl.unit import Task, Widths
from hwcompile.sim.unit_bench import cases, check_unit

WIDTHS = Widths(element=10, address=10, row=4)
RNG = np.random.default_rng(2)


def value(rows: int, cols: int, bits: int) -> ir.Value:
    reach = (1 << (bits - 1)) - 1
    return ir.Value("y", rows, cols, bits, -reach, reach, 1.0)


def embed(ids: int, cols: int) -> Task:
    table = RNG.integers(-127, 128, (ids, cols))
    inputs = (ir.Value("ids", 4, 1, 8, 0, ids - 1, 1.0),)
    return Task(ir.Embed(value(4, cols, 8), ("ids",), 0, "", table), inputs)


def rows(count: int, cols: int) -> Task:
    table = RNG.integers(-255, 256, (count, cols))
    return Task(ir.Rows(value(count, cols, 9), (), 0, "", table))


def test_equals_meaning(tmp_path: Path) -> None:
    unit = EmbedUnit([embed(10, 5), rows(4, 8), embed(3, 1), rows(1, 1)], WIDTHS)
    assert unit.operands == ("a", "d", "row")
    rng = np.random.default_rng(0)
    unknown = cases(unit, 0, [np.array([[-1], [10], [15], [9]])], rng)
    unknown += cases(unit, 2, [np.array([[3], [-128], [500], [2]])], rng)
    assert not check_unit(unit, tmp_path, unknown).failures


def test_rows_alone_reads_nothing(tmp_path: Path) -> None:
    unit = EmbedUnit([rows(6, 3)], WIDTHS)
    assert unit.operands == ("d", "row") and not unit.reads
    assert not check_unit(unit, tmp_path, count=1).failures
