"""Weight blocks measured: mapped area, own timing, nets, energy, each netlist simulated."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.estimate.netlist import Netlist, flatten, read_netlist
from hwcompile.compiler.estimate.netlist_statistics import netlist_statistics, sink_counts
from hwcompile.compiler.estimate.synthesis import synthesise
from hwcompile.compiler.estimate.targets import Target
from hwcompile.compiler.estimate.timing import analyse_timing
from hwcompile.compiler.ir.operations import limit
from hwcompile.compiler.ir.program import Linear, Value
from hwcompile.compiler.ir.weight_logic import IntArray, WeightBlock
from hwcompile.hdl.linear import Linear as LinearUnit
from hwcompile.hdl.linear import plan_linear
from hwcompile.hdl.matrix_block import PhaseDecode, matrix_block_verilog
from hwcompile.sim.gate_block import simulate_block
from hwcompile.sim.gate_simulation import GateSimulator, Words
from hwcompile.sim.unit_bench import unit_verilog

FloatArray = NDArray[np.float64]
Watch = Callable[[GateSimulator], None]

SUPPLY_V = 1.1
INTERNAL_FACTOR = 2.0
"""Energy inside cells, as a multiple of that of nets: a proxy, the same for every block."""

KINDS = ("g8", "g4", "t60")
KIND_NAMES = {"g8": "int8", "g4": "int4", "t60": "ternary"}


@dataclass(frozen=True, slots=True)
class BlockMeasure:
    """One mapped block. ``area_um2``: its cells but those of ``buffer_area_um2``: the buffer trees
    of wide nets, in the netlist, and the clock's, estimated.

    ``critical_ns``: own timing, buffers in. ``pins``, ``nets``, ``fan_out``, ``fan_out_mean``: of
    the flat netlist, trees in. ``energy_pj``: of one product W x, zero-delay toggles.
    ``exact``: whether the netlist gave W x on every row tried.
    """

    area_um2: float
    by_kind: Mapping[str, float]
    buffer_area_um2: float
    critical_ns: float
    cells: int
    nets: int
    pins: int
    fan_out: int
    fan_out_mean: float
    energy_pj: float
    exact: bool
    seconds: float


def random_matrix(kind: str, shape: tuple[int, int], seed: int = 0) -> IntArray:
    """int8 (``g8``) and int4 (``g4``): gaussian, each column scaled to its greatest; ``t60``:
    ternary, 60 % zeros.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind), *shape])
    if kind == "t60":
        return rng.choice([-1, 0, 1], shape, p=[0.2, 0.6, 0.2]).astype(np.int64)
    w = rng.standard_normal(shape)
    scaled = np.rint(w / np.abs(w).max(0) * (127 if kind == "g8" else 7))
    return np.asarray(scaled, np.int64)


def measure_block(
    block: WeightBlock,
    weight: IntArray,
    target: Target,
    decode: PhaseDecode = "local",
    respin: bool = False,
    rows: int = 64,
    cache: Path | None = None,
) -> BlockMeasure:
    """Map a block to ``target``, and run the netlist on ``rows`` rows, corners among them."""
    x = corner_rows(rows, block.inputs, block.x_bits)

    def run(netlist: Netlist, watch: Watch) -> bool:
        acc = simulate_block(netlist, target.library, block, x, watch)
        return np.array_equal(acc + block.correction, x @ weight)

    text = matrix_block_verilog(block, "block", decode, respin)
    return measure_verilog(text, target, run, rows, block.phases * block.cycles, cache)


def corner_rows(rows: int, inputs: int, x_bits: int) -> IntArray:
    """Random signed inputs ``[rows, inputs]``; the first rows are the least and the greatest."""
    half = 1 << (x_bits - 1)
    x = np.random.default_rng(0).integers(-half, half, (rows, inputs))
    x[0], x[1] = -half, half - 1
    return x


def measure_verilog(
    text: str,
    target: Target,
    run: Callable[[Netlist, Watch], bool],
    rows: int,
    clocks: int,
    cache: Path | None = None,
) -> BlockMeasure:
    """Map module ``block`` of a Verilog text. ``run`` drives its netlist, a clock a ``watch``, and
    says whether it gave what it should on ``rows`` rows; one product takes ``clocks`` cycles.
    """
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "block.v"
        source.write_text(text)
        result = synthesise([source], "block", target, cache=cache)
        modules = {
            name: read_netlist(module.netlist_json, name, target.library)
            for name, module in result.modules.items()
        }
        netlist = flatten("block", modules)
        report = analyse_timing(result, target)
        timing = report.modules["block"]
    capacitance = _capacitance(netlist, target)
    activity = _Activity(capacitance)
    exact = run(netlist, activity)
    joules = (activity.femtofarads / rows) * INTERNAL_FACTOR
    joules += clocks * 2 * timing.clock_capacitance_ff
    found = netlist_statistics(netlist, target.library)
    clock = sum(
        result.instances[name] * module.clock_buffer_area_um2
        for name, module in report.modules.items()
    )
    return BlockMeasure(
        area_um2=result.area_um2 - result.tree_area_um2,
        by_kind=result.area_by_kind,
        buffer_area_um2=result.tree_area_um2 + clock,
        critical_ns=report.critical_ns,
        cells=found.cells,
        nets=found.nets,
        pins=found.pins,
        fan_out=found.fan_out_max,
        fan_out_mean=found.fan_out_mean,
        energy_pj=joules * 0.5 * SUPPLY_V**2 / 1000,
        exact=exact,
        seconds=time.process_time() - began,
    )


def unit_area(
    block: WeightBlock, weight: IntArray, target: Target, cache: Path | None = None
) -> tuple[float, int]:
    """um2 of the linear unit around a block (input bank, plane and control registers, capture,
    constants of each column, requantiser; buffer trees apart), and the cycles of a row in it.
    """
    x = Value("x", 1, block.inputs, block.x_bits, -limit(block.x_bits), limit(block.x_bits), 1.0)
    y = Value("y", 1, block.outputs, 8, -127, 127, 1.0)
    rng = np.random.default_rng(0)
    shift = rng.integers(6, 10, block.outputs)
    bias = rng.integers(-500, 500, block.outputs)
    op = Linear(y, ("x",), 0, "", weight, bias, np.ones_like(shift), shift)
    unit = LinearUnit([plan_linear(0, op, x, block, "block")], 16, 12)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = [unit_verilog(unit, "unit", folder), folder / "block.v"]
        sources[1].write_text(matrix_block_verilog(block, "block"))
        result = synthesise(sources, "unit", target, black_boxes=["block"], cache=cache)
    return result.area_um2 - result.tree_area_um2, unit.cycles(0, reuse=False)


def _capacitance(netlist: Netlist, target: Target) -> FloatArray:
    """fF of each net: pins, and wire for each."""
    total: FloatArray = np.zeros(netlist.net_count)
    total += sink_counts(netlist, target.library) * target.value("wire_ff_per_sink")
    for gate in netlist.gates:
        for pin, farads in target.library.cells[gate.cell].inputs.items():
            if pin in gate.pins:
                total[gate.pins[pin]] += farads
    return total


class _Activity:
    """Adds up the capacitance that toggles from one cycle to the next."""

    def __init__(self, capacitance: FloatArray) -> None:
        self.capacitance = capacitance
        self.femtofarads = 0.0
        self._last: Words | None = None

    def __call__(self, gates: GateSimulator) -> None:
        values = gates.settled()
        if self._last is not None:
            toggles = np.bitwise_count(values ^ self._last).sum(1)
            self.femtofarads += float(toggles @ self.capacitance)
        self._last = values.copy()
