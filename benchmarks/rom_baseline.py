"""The baseline of weight logic: multipliers in lanes, and the weights as a synthesised table.

A lane makes one output at a time: an input a cycle, times the weight that the table holds for it.
``lanes`` outputs are made side by side, so that a product takes ``N * ceil(M / lanes)`` cycles. It
is measured as the styles are, and is no style of the compiler.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.blocks import BlockMeasure, Watch, corner_rows, measure_verilog
from hwcompile.compiler.estimate.netlist import Netlist
from hwcompile.compiler.estimate.targets import Target
from hwcompile.compiler.ir.weight_logic import IntArray
from hwcompile.sim.gate_simulation import GateSimulator


def rom_cycles(shape: tuple[int, int], lanes: int) -> int:
    """Cycles of a product."""
    return shape[0] * -(-shape[1] // lanes)


def rom_verilog(weight: IntArray, lanes: int, x_bits: int) -> str:
    """Module ``block``: the word of ``address`` = group * N + input, a multiplier a lane."""
    inputs, outputs = weight.shape
    bits = int(np.abs(weight).max()).bit_length() + 1
    acc_bits = _acc_bits(weight, x_bits)
    words = rom_cycles(weight.shape, lanes)
    address = max(1, (words - 1).bit_length())
    padded = np.zeros((inputs, lanes * -(-outputs // lanes)), np.int64)
    padded[:, :outputs] = weight
    lines = [
        f"module block (input clk, input first, input signed [{x_bits - 1}:0] x,",
        f"  input [{address - 1}:0] address, output reg [{lanes * acc_bits - 1}:0] acc);",
        f"  reg [{lanes * bits - 1}:0] word;",
        "  always @* case (address)",
    ]
    for place in range(words):
        group, row = divmod(place, inputs)
        lane_weights = padded[row, group * lanes : (group + 1) * lanes]
        value = sum((int(w) & ((1 << bits) - 1)) << (bits * n) for n, w in enumerate(lane_weights))
        lines.append(f"    {address}'d{place}: word = {lanes * bits}'h{value:x};")
    lines += [f"    default: word = {lanes * bits}'bx;", "  endcase"]
    for n in range(lanes):
        here = f"acc[{(n + 1) * acc_bits - 1}:{n * acc_bits}]"
        lines += [
            f"  wire signed [{bits - 1}:0] w{n} = word[{(n + 1) * bits - 1}:{n * bits}];",
            f"  wire signed [{acc_bits - 1}:0] product{n} = x * w{n};",
            f"  always @(posedge clk) {here} <= (first ? {acc_bits}'d0 : {here}) + product{n};",
        ]
    return "\n".join([*lines, "endmodule", ""])


def measure_rom(
    weight: IntArray, lanes: int, target: Target, rows: int = 64, cache: Path | None = None
) -> BlockMeasure:
    """Map the baseline of a matrix, and run the netlist on ``rows`` rows of 8-bit inputs."""
    x_bits = 8
    x = corner_rows(rows, len(weight), x_bits)
    acc_bits = _acc_bits(weight, x_bits)

    def run(netlist: Netlist, watch: Watch) -> bool:
        gates = GateSimulator(netlist, target.library, rows)
        made = []
        for place in range(rom_cycles(weight.shape, lanes)):
            row = place % len(weight)
            gates.set("address", [place] * rows)
            gates.set("first", [int(row == 0)] * rows)
            gates.set("x", [int(v) & 0xFF for v in x[:, row]])
            watch(gates)
            gates.clock()
            if row == len(weight) - 1:
                made.append([_words(value, lanes, acc_bits) for value in gates.get("acc")])
        found = np.concatenate(np.array(made), axis=1)[:, : weight.shape[1]]
        return np.array_equal(found, x @ weight)

    text = rom_verilog(weight, lanes, x_bits)
    return measure_verilog(text, target, run, rows, rom_cycles(weight.shape, lanes), cache)


def _acc_bits(weight: IntArray, x_bits: int) -> int:
    return int(np.abs(weight).sum(0).max() << (x_bits - 1)).bit_length() + 1


def _words(value: int, lanes: int, bits: int) -> list[int]:
    words = [value >> n * bits & ((1 << bits) - 1) for n in range(lanes)]
    return [w - ((w >> bits - 1) << bits) for w in words]
