from dataclasses import replace
from pathlib import Path

import numpy as np

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl.attend import AttendUnit
from hwcompile.hdl.unit import Task, Widths
from hwcompile.sim.unit_bench import Case, Simulator, cases, check_unit, run_cases

WIDTHS = Widths(element=12, address=10, row=4, key_address=7)


def value(key: str, rows: int, cols: int, bits: int, low: int | None = None) -> ir.Value:
    reach = (1 << (bits - 1)) - 1
    return ir.Value(key, rows, cols, bits, -reach if low is None else low, reach, 1.0)


def task(
    *,
    rows: int = 6,
    keys: int = 6,
    heads: int = 2,
    kv_heads: int = 2,
    size: int = 4,
    value_size: int = 4,
    bits: tuple[int, int, int, int] = (8, 8, 8, 8),
    causal: bool = True,
    flags: bool = False,
    multiplier: int = 21,
    shift: int = 9,
    table: int = 64,
    top: int = 255,
    reciprocal_bits: int = 20,
    output_shift: int = 20,
    bias: np.ndarray | None = None,
) -> Task:
    exp_table = np.floor(top * np.exp(-np.arange(table) / 12) + 0.5).astype(np.int64)
    inputs = [
        value("q", rows, heads * size, bits[0]),
        value("k", keys, kv_heads * size, bits[1]),
        value("v", keys, kv_heads * value_size, bits[2]),
    ]
    if flags:
        inputs.append(ir.Value("flags", keys, 1, 2, 0, 1, 1.0))
    op = ir.Attend(
        value("y", rows, heads * value_size, bits[3]),
        tuple(v.key for v in inputs),
        0,
        "",
        heads,
        kv_heads,
        causal,
        multiplier,
        shift,
        exp_table,
        reciprocal_bits,
        output_shift,
        np.zeros((0, 0), np.int64) if bias is None else bias,
    )
    return Task(op, tuple(inputs))


def some(unit: AttendUnit, select: int, seed: int, **full: int) -> list[Case]:
    """Cases of random inputs; ``full`` sets a whole input (q, k, v or flags) to one number."""
    rng = np.random.default_rng(seed)
    inputs = [
        np.full((v.rows, v.cols), full[v.key])
        if v.key in full
        else rng.integers(v.low, v.high + 1, (v.rows, v.cols))
        for v in unit.tasks[select].inputs
    ]
    return cases(unit, select, inputs, rng)


def test_causal(tmp_path: Path) -> None:
    unit = AttendUnit([task()], WIDTHS)
    assert unit.operands == ("a", "b", "d", "row")
    assert not check_unit(unit, tmp_path, count=2).failures


def test_tasks_of_different_shape_in_one_unit(tmp_path: Path) -> None:
    tasks = [
        task(size=5, value_size=3, heads=4, rows=4, keys=4, bits=(8, 6, 7, 9)),
        task(causal=False, flags=True, rows=2, keys=5, heads=1, kv_heads=1, shift=4, table=7),
        task(causal=False, rows=2, keys=3, value_size=6, top=1, reciprocal_bits=9, shift=-1),
        task(flags=True, shift=0, multiplier=1, table=256, output_shift=17),
        task(rows=1, keys=1, size=6, value_size=1, table=1, output_shift=-1, reciprocal_bits=3),
    ]
    unit = AttendUnit(tasks, WIDTHS)
    rng = np.random.default_rng(0)
    made = some(unit, 1, 1, flags=0) + some(unit, 3, 2, flags=0) + some(unit, 3, 3, flags=1)
    for select in (1, 3):
        q, k, v = tasks[select].inputs[:3]
        for visible in range(k.rows):
            flags = np.zeros((k.rows, 1), np.int64)
            flags[visible] = 1
            inputs = [rng.integers(x.low, x.high + 1, (x.rows, x.cols)) for x in (q, k, v)]
            made += cases(unit, select, [*inputs, flags], rng)
    assert not check_unit(unit, tmp_path, made, count=3).failures


def test_a_bias_by_distance_and_by_row_and_key(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    tasks = [
        task(bias=rng.integers(-30000, 30000, (2, 6))),
        task(causal=False, rows=3, keys=5, bias=rng.integers(-900, 900, (1, 7))),
        task(),
        task(causal=False, rows=3, keys=5, bias=rng.integers(-90000, 9, (2, 3, 5)), flags=True),
        task(heads=3, kv_heads=1, bias=rng.integers(-9000, 0, (3, 6, 6))),
    ]
    assert not check_unit(AttendUnit(tasks, WIDTHS), tmp_path, count=2).failures


def test_another_bias_is_red(tmp_path: Path) -> None:
    line = np.arange(12).reshape(2, 6) * 900
    unit, bad = (AttendUnit([task(bias=b)], WIDTHS) for b in (line, np.roll(line, 1, 1)))
    assert run_cases(bad, some(unit, 0, 5), tmp_path).failures


def test_wide_values_wait_for_their_output(tmp_path: Path) -> None:
    unit = AttendUnit([task(heads=3, kv_heads=1, size=1, value_size=14, rows=3, keys=3)], WIDTHS)
    assert not check_unit(unit, tmp_path, count=2).failures


def test_head_of_sixteen_on_verilator(tmp_path: Path) -> None:
    simulator: Simulator = "verilator"
    unit = AttendUnit([task(heads=2, size=16, value_size=16)], WIDTHS)
    assert not check_unit(unit, tmp_path, count=2, simulator=simulator).failures


def test_flipped_weight_is_red(tmp_path: Path) -> None:
    good = task(size=2, value_size=2, bits=(3, 3, 8, 8), shift=4)
    unit = AttendUnit([good], WIDTHS)
    made = some(unit, 0, 5)
    assert not run_cases(unit, made, tmp_path / "good").failures
    table = good.operation.exp_table.copy()
    table[0] ^= 8
    bad = Task(replace(good.operation, exp_table=table), good.inputs)
    assert run_cases(AttendUnit([bad], WIDTHS), made, tmp_path / "bad").failures
