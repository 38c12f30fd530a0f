from pathlib import Path

from amaranth.back import rtlil

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl.elementwise import ElementwiseUnit
from hwcompile.hdl.unit import Task, Widths
from hwcompile.sim.unit_bench import check_unit

WIDTHS = Widths(element=16, address=10, row=4)
ROWS = 2


def value(key: str, cols: int, bits: int, low: int | None = None, rows: int = ROWS) -> ir.Value:
    reach = (1 << (bits - 1)) - 1
    return ir.Value(key, rows, cols, bits, -reach if low is None else low, reach, 1.0)


def rescale(cols: int, bits: tuple[int, int], multiplier: int, shift: int) -> Task:
    x, y = value("x", cols, bits[0]), value("y", cols, bits[1])
    return Task(ir.Rescale(y, ("x",), 0, "", multiplier, shift), (x,))


def add(cols: int, bits: tuple[int, int, int], *constants: int) -> Task:
    a, b, y = (value(k, cols, n) for k, n in zip("aby", bits, strict=True))
    return Task(ir.Add(y, ("a", "b"), 0, "", *constants), (a, b))


def multiply(cols: int, bits: tuple[int, int, int], multiplier: int, shift: int) -> Task:
    a, b, y = (value(k, cols, n) for k, n in zip("aby", bits, strict=True))
    return Task(ir.Multiply(y, ("a", "b"), 0, "", multiplier, shift), (a, b))


def multipliers(unit: ElementwiseUnit) -> int:
    return rtlil.convert(unit, emit_src=False).count("cell $mul")


def test_every_kind_in_one_unit(tmp_path: Path) -> None:
    one_row = add(4, (12, 8, 12))
    broadcast = Task(one_row.operation, (one_row.inputs[0], value("b", 4, 8, rows=1)))
    tasks = [
        rescale(5, (12, 8), 21845, 18),
        rescale(1, (8, 16), 3, -4),
        rescale(2, (8, 8), 1, 0),
        add(3, (12, 12, 12)),
        add(1, (8, 8, 10), 300, 77, 9),
        add(2, (8, 8, 8), -5, 3, -1),
        multiply(4, (8, 10, 8), 12345, 20),
        multiply(1, (6, 6, 16), 1, 0),
        broadcast,
    ]
    assert not check_unit(ElementwiseUnit(tasks, WIDTHS), tmp_path).failures


def test_residual_add_has_no_multiplier(tmp_path: Path) -> None:
    unit = ElementwiseUnit([add(6, (14, 14, 14)), add(3, (9, 14, 14))], WIDTHS)
    assert multipliers(unit) == 0
    assert not check_unit(unit, tmp_path, count=2).failures


def test_rescale_alone_reads_once(tmp_path: Path) -> None:
    tasks = [
        rescale(6, (14, 8), 9, 5),
        Task(rescale(1, (8, 8), 7, 3).operation, (value("x", 1, 8, low=0),)),
    ]
    unit = ElementwiseUnit(tasks, WIDTHS)
    assert unit.operands == ("a", "d")
    assert multipliers(unit) == 1
    assert not check_unit(unit, tmp_path, count=2).failures
