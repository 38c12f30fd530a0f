"""How fast a weight block's logic is in the cells of a target, before anything is mapped.

Adders are cells of the target at the load of an adder's input; what stands in front of the leaves
is counted in delays of a NAND that drives four others. The counts are fitted to mapped blocks: with
them the model is within 10 % of the timing of the folded netlists of ``docs/results/styles.md``.
"""

from __future__ import annotations

from collections.abc import Mapping

from hwcompile.compiler.estimate.cells import Cell, CellLibrary, Output
from hwcompile.compiler.estimate.targets import Target
from hwcompile.compiler.ir.weight_logic import GateKind
from hwcompile.hdl.matrix_block import PhaseDecode
from hwcompile.passes.cut_trees import Pace

_LEAF, _PHASE_BIT, _DIGIT = 4.2, 1.6, 0.37
"""NAND delays to a leaf under phases: at least, for a phase bit, for a digit of the place."""
_SHARED, _RAILS = 6.5, 10.0
"""And more of them where one decoder serves the block, and for shared rails of a re-spin form."""
_PLAIN_LEAF = 4.0
"""NAND delays to a leaf without phases: the gate that selects the block, and the inverter."""


def pace_of(
    target: Target, period_ns: float, decode: PhaseDecode = "local", respin: bool = False
) -> Pace:
    """The pace of blocks in ``target``'s cells that should keep ``period_ns``."""
    library = target.library
    wire = target.value("wire_ff_per_sink")
    nand, flip_flop = library.nand2, library.flip_flop
    step = nand.outputs[0].slowest_ns(4 * (_pin_ff(nand) + wire))
    wide = 0.0 if decode == "local" else _RAILS + _SHARED if respin else _SHARED
    gates = _gate_ns(library, wire, step)
    return Pace(
        period_ns=period_ns,
        gate_ns=gates,
        leaf_ns=_launch_ns(flip_flop, wire) + step * _PLAIN_LEAF,
        decode_ns=step * (_LEAF - _PLAIN_LEAF + wide),
        phase_bit_ns=step * _PHASE_BIT,
        digit_ns=step * _DIGIT,
        launch_ns=_launch_ns(flip_flop, wire),
        setup_ns=flip_flop.setup_ns,
        buffer_ns=step,
        fan_out=int(target.value("sinks_per_buffer")),
    )


def _gate_ns(
    library: CellLibrary, wire: float, step: float
) -> Mapping[GateKind, tuple[float, ...]]:
    """Sum and carry of the adder cells, or of the gates that stand for them."""
    full: tuple[float, ...] = (4 * step, 2 * step)
    half: tuple[float, ...] = (2 * step, step)
    if library.full_adder is not None:
        adder = library.full_adder
        cell = library.cell(adder.cell)
        load = _pin_ff(cell) + wire
        full = tuple(_output(cell, name).slowest_ns(load) for name in (adder.sum, adder.carry))
        if library.half_adder is not None:
            other = library.half_adder
            cell = library.cell(other.cell)
            half = tuple(_output(cell, name).slowest_ns(load) for name in (other.sum, other.carry))
    return {
        "full_adder": full,
        "half_adder": half,
        "xor": half[:1],
        "inverter": (step,),
        "register": (0.0,),
    }


def _output(cell: Cell, name: str) -> Output:
    return next(out for out in cell.outputs if out.name == name)


def _pin_ff(cell: Cell) -> float:
    return max(cell.inputs.values())


def _launch_ns(flip_flop: Cell, wire: float) -> float:
    """Clock to output of a register in front of an adder."""
    return flip_flop.outputs[0].slowest_ns(2 * _pin_ff(flip_flop) + wire)
