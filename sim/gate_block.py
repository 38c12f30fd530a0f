"""A weight block's mapped netlist run on given inputs, all rows side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hwcompile.compiler.estimate.cells import CellLibrary
from hwcompile.compiler.estimate.netlist import Netlist
from hwcompile.compiler.ir.weight_logic import IntArray, WeightBlock, offset_planes
from hwcompile.sim.gate_simulation import GateSimulator


def simulate_block(
    netlist: Netlist,
    library: CellLibrary,
    block: WeightBlock,
    x: IntArray,
    watch: Callable[[GateSimulator], None] = lambda gates: None,
) -> IntArray:
    """Accumulators ``[rows, M]`` of the gates for signed ``x [rows, N]``.

    To be compared with ``weight_logic.evaluate(block, x)``, bit for bit. ``watch`` is called before
    each edge of the clock.
    """
    rows = len(x)
    planes = [_words(plane) for plane in offset_planes(x, block.x_bits, block.planes)]
    gates = GateSimulator(netlist, library, rows)
    columns: list[IntArray] = []
    steps = [(phase, cycle) for phase in range(block.phases) for cycle in range(block.cycles)]
    for number, (phase, cycle) in enumerate(steps * (1 + block.cuts), 1 - block.cuts):
        if block.phases > 1:
            gates.set("phase", [phase] * rows)
        gates.set("first", [int(cycle == 0)] * rows)
        gates.set("x", planes[cycle])
        watch(gates)
        gates.clock()
        if number > 0 and number % block.cycles == 0:
            columns.append(_accumulators(gates.get("acc"), block))
    return np.concatenate(columns, axis=1)[:, : block.outputs]


def _words(plane: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> list[int]:
    """Bits ``[N, rows]`` as one number a row."""
    packed = np.packbits(plane.T, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def _accumulators(values: list[int], block: WeightBlock) -> IntArray:
    width = block.acc_bits
    mask = (1 << width) - 1
    return np.array(
        [[value >> tree * width & mask for tree in range(block.trees)] for value in values],
        np.int64,
    )
