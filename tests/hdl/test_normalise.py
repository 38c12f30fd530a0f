from pathlib import Path

import numpy as np

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl.normalise import NormaliseUnit
from hwcompile.hdl.unit import Task, Widths
from hwcompile.sim.unit_bench import cases, check_unit, run_cases

WIDTHS = Widths(element=16, address=10, row=4)
RNG = np.random.default_rng(3)


def task(
    kind: str, cols: int, bits: int, fraction: int, epsilon: int, shift: int, out: int = 8
) -> Task:
    reach = (1 << (bits - 1)) - 1
    x = ir.Value("x", 2, cols, bits, -reach, reach, 1.0)
    most = (1 << (out - 1)) - 1
    y = ir.Value("y", 2, cols, out, -most, most, 1.0)
    gain, bias = RNG.integers(-120, 121, cols), RNG.integers(-3000, 3000, cols)
    op = ir.Normalise(y, ("x",), 0, "", kind, epsilon, fraction, gain, bias, shift)  # type: ignore[arg-type]
    return Task(op, (x,))


def test_layer_and_rms_of_several_sizes(tmp_path: Path) -> None:
    tasks = [
        task("layer", 16, 12, 4, 25, 13),
        task("rms", 16, 12, 6, 7, 12),
        task("layer", 5, 14, 8, 0, 15, 12),
        task("rms", 3, 8, 3, 0, 10),
        task("layer", 1, 8, 0, 0, 9),
        task("rms", 6, 9, 4, 3, 11),
    ]
    unit = NormaliseUnit(tasks, WIDTHS)
    rng = np.random.default_rng(0)
    small = [np.array([[0, 0, 1, 0, 0], [7, 7, 7, 7, 7]])]
    made = cases(unit, 2, small, rng)
    made += cases(unit, 3, [np.array([[0, 0, 0], [0, -1, 0]])], rng)
    made += cases(unit, 0, [rng.integers(-2, 3, (2, 16))], rng)
    assert not check_unit(unit, tmp_path, made).failures


def test_no_element_below_zero(tmp_path: Path) -> None:
    tasks = []
    for cols, high in ((5, 255), (1, 1)):
        made = task("rms", cols, 9, 3, 0, 12)
        tasks.append(Task(made.operation, (ir.Value("x", 2, cols, 9, 0, high, 1.0),)))
    assert not check_unit(NormaliseUnit(tasks, WIDTHS), tmp_path / "two").failures
    assert not check_unit(NormaliseUnit(tasks[1:], WIDTHS), tmp_path / "one").failures


def test_left_shift(tmp_path: Path) -> None:
    tasks = [task("rms", 7, 6, 5, 1, -2, out=16), task("rms", 7, 6, 2, 1, 0, out=16)]
    unit = NormaliseUnit(tasks, WIDTHS)
    assert not check_unit(unit, tmp_path, count=3).failures


def test_root_that_fills_its_bits(tmp_path: Path) -> None:
    """Rows of great variance: the root's leading one is the top bit of its register."""
    good = task("layer", 8, 8, 0, 0, 11)
    unit = NormaliseUnit([good], WIDTHS)
    rng = np.random.default_rng(0)
    made = []
    for _ in range(10):
        row = rng.permutation(np.repeat([-1, 1], 4) * rng.integers(100, 128, 8))
        made += cases(unit, 0, [np.stack([row, -row])], rng)
    assert not run_cases(unit, made, tmp_path).failures


def test_flipped_gain_is_red(tmp_path: Path) -> None:
    good = task("layer", 8, 10, 4, 3, 12)
    unit = NormaliseUnit([good], WIDTHS)
    made = cases(unit, 0, [RNG.integers(-500, 500, (2, 8))], RNG)
    good.operation.gain[6] ^= 16
    assert run_cases(NormaliseUnit([good], WIDTHS), made, tmp_path).failures
