"""The proof of one weight block.

For every state of the control inputs (phase, first) the gates are specialised, so that adders and
single inputs under a sign remain, and each accumulator's next value is written as a linear form of
the inputs and of itself. What must hold of these forms, and why the block is then the matrix, is in
docs/certificate.md.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.errors import MismatchError
from hwcompile.sim.certificate.circuit import Circuit, read_circuit
from hwcompile.sim.certificate.cuts import without_cuts
from hwcompile.sim.certificate.kernels import FINE, LOST_CARRY

IntArray = NDArray[np.int64]

MOST_BITS = 62
"""Widest accumulator: its forms are computed modulo a power of two in 64-bit words."""


class NotProven(MismatchError):
    """The block is not its matrix; the message names output column and input."""


@dataclass(frozen=True, slots=True)
class BlockShape:
    """How a block is driven.

    ``x_bits`` of each input in offset binary, ``planes`` bits of every input a cycle, lowest first;
    ``phases``: output columns that share an output tree; ``cuts``: cycles from an input to the
    accumulator beside the one that an accumulator takes.
    """

    x_bits: int
    phases: int = 1
    planes: int = 1
    cuts: int = 0

    @property
    def cycles(self) -> int:
        """Cycles of one phase."""
        return -(-self.x_bits // self.planes)


@dataclass(frozen=True, slots=True)
class BlockProof:
    """For all ``x``: ``x @ weight = acc + correction`` (``[M]``), and no sum leaves its width.

    ``greatest``: of each column, the greatest value that its accumulator takes. ``seconds``: time
    to read and to prove.
    """

    module: str
    inputs: int
    correction: IntArray
    greatest: IntArray
    adders: int
    seconds: float


def prove_block(
    files: Sequence[Path], module: str, weight: IntArray, shape: BlockShape
) -> BlockProof:
    """Prove that ``module`` of the Verilog ``files`` computes ``x @ weight`` (``[N, M]``).

    Raises:
        NotProven: it does not, or it is built in a way that the proof does not understand.
        UnreadableCircuit: likewise, already when it is read.
        ToolError: Yosys is missing or fails.
    """
    began = time.monotonic()
    circuit = read_circuit(files, module)
    correction, greatest = prove_circuit(circuit, weight, shape)
    seconds = time.monotonic() - began
    return BlockProof(module, len(weight), correction, greatest, circuit.adders, seconds)


def prove_circuit(
    circuit: Circuit, weight: IntArray, shape: BlockShape
) -> tuple[IntArray, IntArray]:
    """Correction and greatest accumulator ``[M]`` of a block already read. Raises NotProven."""
    return _Proof(circuit, np.asarray(weight, np.int64), shape).run()


class _Proof:
    def __init__(self, circuit: Circuit, weight: IntArray, shape: BlockShape) -> None:
        self.circuit, self.weight, self.shape = circuit, weight, shape
        self.inputs, self.outputs = weight.shape
        self.trees = -(-self.outputs // shape.phases)
        self._check_ports()
        if shape.cuts:
            self.circuit = circuit = without_cuts(circuit, shape.cuts)
        self.value = np.empty(circuit.nets, np.int64)
        self.maker = np.empty(circuit.nets, np.int64)
        self.register = np.full(circuit.nets, -1, np.int64)
        self.register[circuit.state] = np.arange(len(circuit.state))
        self.input_of = np.full(circuit.nets, -1, np.int64)
        self.input_of[circuit.inputs["x"] >> 1] = np.arange(self.inputs * shape.planes)

    def fail(self, text: str) -> NotProven:
        return NotProven(f"weight block {self.circuit.name}: {text}", "rebuild the bundle")

    def _check_ports(self) -> None:
        inputs, outputs, shape = self.circuit.inputs, self.circuit.outputs, self.shape
        wanted = {"clk": 1, "first": 1, "x": self.inputs * shape.planes}
        if "en" in inputs and not shape.cuts:  # without it, every cycle is accumulated
            wanted["en"] = 1
        if shape.phases > 1:
            wanted["phase"] = (shape.phases - 1).bit_length()
        found = {name: len(bits) for name, bits in inputs.items()}
        if found != wanted:
            raise self.fail(f"input ports {found}, expected {wanted}")
        if list(outputs) != ["acc"] or len(outputs["acc"]) % self.trees:
            raise self.fail(f"outputs {list(outputs)} are not {self.trees} accumulators")
        if len(outputs["acc"]) // self.trees > MOST_BITS:
            raise self.fail(f"accumulators of more than {MOST_BITS} bits")

    def run(self) -> tuple[IntArray, IntArray]:
        accumulators = self._accumulators()
        if "en" in self.circuit.inputs:
            self._check_hold(accumulators)
        constants = np.zeros((2, self.shape.phases * self.trees), np.int64)
        for phase in range(self.shape.phases):
            for first in (0, 1):
                self._state(enable=1, first=first, phase=phase)
                columns = slice(phase * self.trees, (phase + 1) * self.trees)
                constants[first, columns] = self._check_state(accumulators, phase, first)
        if (constants[0] != constants[1]).any():
            at = int(np.argmax(constants[0] != constants[1]))
            raise self.fail(f"output column {at}: another constant when first is 1")
        constant = constants[0, : self.outputs]
        greatest = self._check_range(accumulators, constant)
        return self._correction(constant), greatest

    # What the nets are in a state.

    def _state(self, enable: int, first: int | None = None, phase: int | None = None) -> None:
        """Specialise to a state; control inputs that are None stay unknown."""
        c = self.circuit
        self.value[:] = 2 * np.arange(c.nets)
        self.maker[:] = -1
        for name, number in (("en", enable), ("first", first), ("phase", phase)):
            nets = c.inputs.get(name, np.zeros(0, np.int64)) >> 1
            if number is not None:
                self.value[nets] = number >> np.arange(len(nets)) & 1
        c.specialise(self.value, self.maker)

    def _read(self, literals: IntArray) -> IntArray:
        read: IntArray = self.value[literals >> 1] ^ (literals & 1)
        return read

    def _accumulators(self) -> IntArray:
        """Literals of the accumulators ``[trees, bits]``: each a register or a constant."""
        self._state(enable=1)
        found = self._read(self.circuit.outputs["acc"]).reshape(self.trees, -1)
        strange = (found == 1) | (found > 1) & (self.register[found >> 1] < 0)
        if strange.any():
            tree, bit = np.argwhere(strange)[0].tolist()
            raise self.fail(f"bit {bit} of accumulator {tree} is neither a register nor 0")
        registers = found[found > 1] >> 1
        if len(np.unique(registers)) < len(registers):
            raise self.fail("two bits of the accumulators are one register")
        clock = self.circuit.clock[self.register[registers]]
        if (clock != self.circuit.inputs["clk"][0]).any():
            raise self.fail("an accumulator is not clocked by clk")
        # Zeros above change no value, and leave room for the part that shifts.
        room = max(0, self._lower_bits + self.shape.planes - found.shape[1])
        return np.pad(found, ((0, 0), (0, room)))

    def _next(self, accumulators: IntArray) -> IntArray:
        """Literals of the accumulators after the clock edge, in the present state."""
        circuit = self.circuit
        if not len(circuit.state):
            return accumulators
        at = self.register[accumulators >> 1]
        after = self._read(circuit.next_value[at]) ^ (accumulators & 1)
        enable = self._read(circuit.enable[at])
        enable[accumulators < 2] = 0
        if (enable > 1).any():
            raise self.fail("an accumulator's enable depends on data")
        return np.where(enable == 1, after, accumulators)

    def _check_hold(self, accumulators: IntArray) -> None:
        self._state(enable=0)
        changed = self._next(accumulators) != accumulators
        if changed.any():
            tree, bit = np.argwhere(changed)[0].tolist()
            raise self.fail(f"accumulator {tree} bit {bit} changes although en is 0")

    # The forms.

    def _check_state(self, accumulators: IntArray, phase: int, first: int) -> IntArray:
        """Next values in one state against matrix and feedback; the constants ``[trees]``."""
        planes, lower = self.shape.planes, self._lower_bits
        column = phase * self.trees + np.arange(self.trees)
        live = np.flatnonzero(column < self.outputs)
        after = self._next(accumulators)
        kept = after[live, :lower] != accumulators[live, planes : planes + lower]
        if kept.any():
            at, bit = np.argwhere(kept)[0].tolist()
            raise self.fail(f"output column {column[live[at]]}: bit {bit} is not shifted down")
        bits = accumulators.shape[1] - lower
        words = np.ascontiguousarray(after[live, lower:]).ravel()
        start = np.arange(len(live) + 1) * bits
        widths = self._widths(accumulators)
        constant = np.zeros(self.trees, np.int64)
        constant[live], terms = self._forms(words, start, widths[live], column[live])
        terms[0] = live[terms[0]]
        self._check_terms(accumulators, terms, widths, column, first)
        return constant

    @property
    def _lower_bits(self) -> int:
        """Bits of an accumulator below its upper part."""
        return self.shape.planes * (self.shape.cycles - 1)

    def _widths(self, accumulators: IntArray) -> IntArray:
        """Width of each upper part: up to its highest register."""
        upper = accumulators[:, self._lower_bits :] > 1
        place = 1 + np.arange(upper.shape[1])
        widths: IntArray = (upper * place).max(1, initial=0)
        return widths

    def _forms(
        self, words: IntArray, start: IntArray, widths: IntArray, column: IntArray
    ) -> tuple[IntArray, IntArray]:
        outcome, word, net, constants, terms = self.circuit.linear_forms(
            self.value, self.maker, words, start, widths
        )
        if outcome != FINE:
            what = (
                "an adder's carry does not count twice its sum"
                if outcome == LOST_CARRY
                else "it depends on a gate of two data bits"
            )
            raise self.fail(f"output column {column[word]}: {what} (bit {net})")
        return constants, np.array(terms, np.int64).reshape(-1, 3).T.copy()

    def _check_terms(
        self,
        accumulators: IntArray,
        terms: IntArray,
        widths: IntArray,
        column: IntArray,
        first: int,
    ) -> None:
        """Coefficients of inputs must be those of the matrix, of the accumulator its shift."""
        tree, net, amount = terms
        x = self.input_of[net]
        state = self.register[net]
        other = (x < 0) & (state < 0)
        if other.any():
            at = int(np.argmax(other))
            raise self.fail(
                f"output column {column[tree[at]]} depends on bit {net[at]}, which is neither an "
                "input nor an accumulator"
            )
        self._check_weights(tree[x >= 0], x[x >= 0], amount[x >= 0], widths, column)
        back = state >= 0
        self._check_feedback(accumulators, tree[back], net[back], amount[back], column, first)

    def _check_weights(
        self, tree: IntArray, x: IntArray, amount: IntArray, widths: IntArray, column: IntArray
    ) -> None:
        live = np.flatnonzero(column < self.outputs)
        planes, inputs = self.shape.planes, self.inputs
        found = np.zeros((planes * inputs, self.trees), np.int64)
        found[x, tree] = amount
        plane = np.repeat(np.arange(planes), inputs)
        weight = np.tile(self.weight[:, column[live]], (planes, 1)) << plane[:, None]
        wrong = (found[:, live] - weight) & ((1 << widths[live]) - 1)
        if wrong.any():
            row, at = np.argwhere(wrong)[0].tolist()
            bits = int(widths[live[at]])
            got = balanced(int(found[row, live[at]]), bits, int(weight[row, at]))
            raise self.fail(
                f"output column {column[live[at]]}, input {row % inputs}"
                + (f" plane {plane[row]}" if planes > 1 else "")
                + f": expected coefficient {weight[row, at]}, found {got}"
            )

    def _check_feedback(
        self,
        accumulators: IntArray,
        tree: IntArray,
        net: IntArray,
        amount: IntArray,
        column: IntArray,
        first: int,
    ) -> None:
        lower, planes = self._lower_bits, self.shape.planes
        place = np.full((self.circuit.nets,), -1, np.int64)
        owner = np.full((self.circuit.nets,), -1, np.int64)
        upper = accumulators[:, lower:]
        trees, bits = np.nonzero(upper > 1)
        owner[upper[trees, bits] >> 1] = trees
        place[upper[trees, bits] >> 1] = bits
        wanted = np.left_shift(1, np.maximum(place[net] - planes, 0))
        wrong = (owner[net] != tree) | (place[net] < planes) | (amount != wanted) | (first == 1)
        if wrong.any():
            at = int(np.argmax(wrong))
            what = "although first is 1" if first else "not as its value shifted down"
            raise self.fail(
                f"output column {column[tree[at]]}: bit {place[net[at]]} of accumulator "
                f"{owner[net[at]]} comes back with coefficient {amount[at]}, {what}"
            )
        if not first:
            counted = np.bincount(tree, minlength=self.trees)
            due = (upper[:, planes:] > 1).sum(1)
            short = (counted != due) & (column < self.outputs)
            if self.shape.cycles > 1 and short.any():
                at = int(np.argmax(short))
                raise self.fail(f"output column {column[at]}: a bit of the accumulator is lost")

    # Range and constants.

    def _check_range(self, accumulators: IntArray, constant: IntArray) -> IntArray:
        """No sum leaves its width, by induction over the cycles; the greatest accumulators."""
        shape = self.shape
        column = np.arange(self.outputs)
        width = self._widths(accumulators)[column % self.trees]
        full = (1 << shape.planes) - 1
        least = constant + full * np.minimum(self.weight, 0).sum(0)
        most = constant + full * np.maximum(self.weight, 0).sum(0)
        reach, total = np.zeros_like(most), np.zeros_like(most)
        for cycle in range(shape.cycles):
            reach = most + (reach >> shape.planes)
            total += most << shape.planes * cycle
            wrong = (least < 0) | (reach >> width > 0)
            if wrong.any():
                at = int(np.argmax(wrong))
                raise self.fail(
                    f"output column {at}: a sum of {least[at]} to {reach[at]} does not fit the "
                    f"{width[at]} bits of its accumulator"
                )
        return np.asarray(total, np.int64)

    def _correction(self, constant: IntArray) -> IntArray:
        planes, cycles = self.shape.planes, self.shape.cycles
        every = sum(1 << planes * cycle for cycle in range(cycles))
        half = 1 << self.shape.x_bits - 1
        return np.asarray(-(constant * every + self.weight.sum(0) * half), np.int64)


def balanced(value: int, bits: int, near: int) -> int:
    """The number congruent to ``value`` modulo ``2 ** bits`` that is nearest to ``near``."""
    modulus = 1 << bits
    return near + (value - near + modulus // 2) % modulus - modulus // 2
