from pathlib import Path

import numpy as np
from amaranth.back import rtlil

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl.gather import GatherUnit
from hwcompile.hdl.unit import Task, Widths
from hwcompile.sim.unit_bench import check_unit, gather_addresses

WIDTHS = Widths(element=8, address=9, row=4)


def task(index: np.ndarray, *shapes: tuple[int, int]) -> Task:
    inputs = tuple(ir.Value(f"x{i}", *s, 8, -127, 127, 1.0) for i, s in enumerate(shapes))
    output = ir.Value("y", *index.shape, 8, -127, 127, 1.0)
    op = ir.Gather(output, tuple(v.key for v in inputs), 0, "", index)
    return Task(op, inputs, gather_addresses(op, inputs))


def plain() -> Task:
    return task(np.arange(8, 20).reshape(3, 4), (6, 4))


def test_any_index_of_several_inputs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    patches = np.arange(64).reshape(2, 4, 2, 4).transpose(0, 2, 1, 3).reshape(4, 16)
    tasks = [
        plain(),
        task(rng.integers(0, 22, (3, 5)), (2, 5), (4, 3)),
        task(patches, (8, 8)),
        task(np.arange(12).reshape(3, 4).T, (3, 4)),
        task(np.array([[7]]), (3, 4)),
    ]
    assert not check_unit(GatherUnit(tasks, WIDTHS), tmp_path, count=1).failures


def test_plain_range_has_no_table(tmp_path: Path) -> None:
    unit = GatherUnit([plain()], WIDTHS)
    assert "memory" not in rtlil.convert(unit, emit_src=False)
    assert not check_unit(unit, tmp_path, count=1).failures
