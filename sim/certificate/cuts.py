"""Rows of registers in front of the accumulators, proven to delay all inputs alike.

Where every way from an input to an accumulator passes the same number of registers, and what comes
back from the accumulators passes none, the next accumulators are the same function of the inputs
that many cycles ago and of the present accumulators as they were of both in one cycle, had there
been wires in place of the registers. So the rest of the proof is that of the circuit with wires.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwcompile.sim.certificate.circuit import Circuit, UnreadableCircuit, in_order
from hwcompile.sim.certificate.kernels import ALL, cycles_late


def without_cuts(circuit: Circuit, cuts: int) -> Circuit:
    """The circuit with wires in place of all registers that the port ``acc`` does not show.

    Raises:
        UnreadableCircuit: a register that may stand still, has another clock or holds a constant;
            bits of different cycles meet; or the inputs are not ``cuts`` cycles late.
    """
    shown = np.isin(circuit.state, circuit.outputs["acc"] >> 1)
    moved = ~shown
    if (circuit.enable[moved] != 1).any() or (
        circuit.clock[moved] != circuit.inputs["clk"][0]
    ).any():
        raise _refused(circuit, "a register of a cut does not take a new value in every cycle")
    count = int(moved.sum())
    none = np.full(count, -1, np.int64)
    wired = replace(
        circuit,
        kind=np.concatenate([circuit.kind, np.full(count, ALL, np.int64)]),
        start=np.concatenate([circuit.start, circuit.start[-1] + 1 + np.arange(count)]),
        operands=np.concatenate([circuit.operands, circuit.next_value[moved]]),
        out=np.concatenate([circuit.out, circuit.state[moved]]),
        carry=np.concatenate([circuit.carry, none]),
        table=np.concatenate([circuit.table, none]),
        state=circuit.state[shown],
        next_value=circuit.next_value[shown],
        enable=circuit.enable[shown],
        clock=circuit.clock[shown],
    )
    wired = in_order(wired)
    late = np.full(circuit.nets, -1, np.int64)
    for name, literals in circuit.inputs.items():
        late[literals >> 1] = -1 if name == "clk" else 0
    late[wired.state] = cuts
    registers = np.isin(wired.out, circuit.state[moved])
    mixed = cycles_late(
        *(wired.start, wired.operands, wired.out, wired.carry, registers.astype(np.int64), late)
    )
    if mixed >= 0:
        raise _refused(circuit, f"bit {wired.out[mixed]} depends on bits of different cycles")
    if (late[circuit.state[moved]] < 0).any():
        raise _refused(circuit, "a register of a cut holds a constant")
    ends = late[np.concatenate([wired.next_value, wired.enable]) >> 1]
    if ((ends >= 0) & (ends != cuts)).any():
        found = int(ends[(ends >= 0) & (ends != cuts)][0])
        raise _refused(circuit, f"an accumulator takes what is {found} cycles late, not {cuts}")
    return wired


def _refused(circuit: Circuit, text: str) -> UnreadableCircuit:
    return UnreadableCircuit(f"weight block {circuit.name}: {text}", "rebuild the bundle")
