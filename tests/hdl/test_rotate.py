from pathlib import Path

import numpy as np

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl.rotate import RotateUnit, coefficient_columns
from hwcompile.hdl.unit import Task, Widths
from hwcompile.sim.unit_bench import cases, check_unit, run_cases

WIDTHS = Widths(element=12, address=10, row=4)
ROWS = 5


def task(heads: int, size: int, bits: int, shift: int, *, neighbours: bool = False) -> Task:
    """Positions of ``heads`` heads; the partner is half a head away, or the neighbour."""
    reach = (1 << (bits - 1)) - 1
    cols = heads * size
    x = ir.Value("x", ROWS, cols, bits, -reach, reach, 1.0)
    y = ir.Value("y", ROWS, cols, 8, -127, 127, 1.0)
    pair = np.arange(size) // 2 if neighbours else np.arange(size) % (size // 2)
    angle = np.arange(ROWS)[:, None] / 30.0 ** (2 * pair / size)[None, :]
    first = np.arange(size) % 2 == 0 if neighbours else np.arange(size) < size // 2
    cosine = np.rint(16384 * np.cos(angle)).astype(np.int64)
    sine = np.rint(16384 * np.where(first, -1, 1) * np.sin(angle)).astype(np.int64)
    column = np.arange(cols)
    partner = column ^ 1 if neighbours else column - column % size + (column + size // 2) % size
    return Task(ir.Rotate(y, ("x",), 0, "", cosine, sine, partner, shift), (x,))


def arbitrary(cols: int, period: int) -> Task:
    rng = np.random.default_rng(4)
    x = ir.Value("x", ROWS, cols, 8, -128, 100, 1.0)
    y = ir.Value("y", ROWS, cols, 12, -2047, 2047, 1.0)
    cosine, sine = rng.integers(-300, 300, (2, ROWS, period))
    op = ir.Rotate(y, ("x",), 0, "", cosine, sine, rng.permutation(cols), 3)
    return Task(op, (x,))


def test_query_and_key_share_the_tables(tmp_path: Path) -> None:
    unit = RotateUnit([task(4, 6, 8, 14), task(2, 6, 8, 14)], WIDTHS)
    assert not check_unit(unit, tmp_path, count=3).failures


def test_other_partners_and_periods(tmp_path: Path) -> None:
    tasks = [
        task(2, 4, 10, 15, neighbours=True),
        arbitrary(6, 3),
        arbitrary(1, 1),
        task(1, 2, 8, 0),
    ]
    assert not check_unit(RotateUnit(tasks, WIDTHS), tmp_path, count=3).failures


def test_columns_are_stored_once() -> None:
    op = task(1, 8, 8, 14).operation
    assert isinstance(op, ir.Rotate)
    stored, places, negated = coefficient_columns(op)
    assert stored.shape == (ROWS, 8)
    again = stored[:, places] * np.where(negated, -1, 1)
    assert (again[:, ::2] == op.cosine).all() and (again[:, 1::2] == op.sine).all()


def test_flipped_sine_is_red(tmp_path: Path) -> None:
    good = task(1, 4, 8, 14)
    unit = RotateUnit([good], WIDTHS)
    made = cases(unit, 0, [np.full((ROWS, 4), 120)], np.random.default_rng(0))
    assert isinstance(good.operation, ir.Rotate)
    good.operation.sine[3, 1] ^= 1 << 10
    assert len(run_cases(RotateUnit([good], WIDTHS), made, tmp_path).failures) == 1
