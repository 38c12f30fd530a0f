"""A behavioural model of a weight block: the same module and ports, from the matrix itself.

A block is thousands of single-bit adders, which simulators build slowly. Its certificate proves
that its Verilog computes the matrix; the simulation of a large chip may then take this model in
its place, and spends its time on everything else. One multiply-accumulate loop a plane::

    acc[g] = offset[column] + sum over planes j of 2^j * sum_i x[i] * weight[i, column]

The offset makes the result what the block's accumulator holds: ``W x - correction``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwcompile.compiler.ir.program import IntArray


def block_model_verilog(
    name: str, weight: IntArray, correction: IntArray, x_bits: int, phases: int, acc_bits: int
) -> str:
    """The model of the block ``name``: ``weight [N, M]``, ``correction [M]`` as in the block."""
    inputs, outputs = weight.shape
    trees = -(-outputs // phases)
    offset = -correction - (weight.sum(0) << x_bits - 1)
    bits = max(2, int(max(abs(int(weight.min())), abs(int(weight.max())))).bit_length() + 1)
    steps = max(1, (x_bits - 1).bit_length())
    width = max(acc_bits, int(np.abs(offset).max()).bit_length() + 1)
    phase_bits = (phases - 1).bit_length()
    ports = ["input  wire clk", "input  wire en", "input  wire first"]
    if phases > 1:
        ports.append(f"input  wire [{phase_bits - 1}:0] phase")
    ports += [f"input  wire [{inputs - 1}:0] x", f"output wire [{trees * acc_bits - 1}:0] acc"]
    lines = [
        f"// Simulation model of {name}: y = W x, {inputs} inputs, {outputs} outputs.",
        f"module {name} (",
        ",\n".join(f"    {port}" for port in ports),
        ");",
        f"  reg [{steps - 1}:0] plane;",
        f"  wire [{steps - 1}:0] now = first ? {steps}'d0 : plane + {steps}'d1;",
        "  always @(posedge clk) if (en) plane <= now;",
    ]
    for tree in range(trees):
        columns = [k * trees + tree for k in range(phases) if k * trees + tree < outputs]
        words = [f"{bits * inputs}'h{_packed(weight[:, c], bits):x}" for c in columns]
        starts = [f"{width}'h{int(offset[c]) & ((1 << width) - 1):x}" for c in columns]
        lines.append(f"  reg signed [{width - 1}:0] a{tree}, s{tree};")
        lines += _by_phase(f"[{bits * inputs - 1}:0] w{tree}", phase_bits, words)
        lines += _by_phase(f"signed [{width - 1}:0] o{tree}", phase_bits, starts)
        lines += _accumulate(tree, inputs, bits)
        lines.append(f"  assign acc[{tree * acc_bits} +: {acc_bits}] = a{tree}[{acc_bits - 1}:0];")
    return "\n".join([*lines, "endmodule", ""])


def _by_phase(signal: str, phase_bits: int, values: Sequence[str]) -> list[str]:
    """A signal that takes the value of the phase; the last one in later phases."""
    if len(values) == 1:
        return [f"  wire {signal} = {values[0]};"]
    name = signal.split()[-1]
    labels = [f"{phase_bits}'d{k}" for k in range(len(values) - 1)] + ["default"]
    cases = [
        f"      {label}: {name} = {value};" for label, value in zip(labels, values, strict=True)
    ]
    return [f"  reg {signal};", "  always @*", "    case (phase)", *cases, "    endcase"]


def _packed(column: IntArray, bits: int) -> int:
    """Elements side by side, element 0 in the low bits."""
    return sum((int(w) & ((1 << bits) - 1)) << bits * i for i, w in enumerate(column))


def _accumulate(tree: int, inputs: int, bits: int) -> list[str]:
    return [
        f"  integer i{tree};",
        "  always @(posedge clk) if (en) begin",
        f"    s{tree} = 0;",
        f"    for (i{tree} = 0; i{tree} < {inputs}; i{tree} = i{tree} + 1)",
        f"      if (x[i{tree}]) s{tree} = s{tree} + $signed(w{tree}[{bits} * i{tree} +: {bits}]);",
        f"    a{tree} <= (first ? o{tree} : a{tree}) + (s{tree} <<< now);",
        "  end",
    ]
