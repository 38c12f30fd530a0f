"""The proof of what surrounds the weight blocks: the linear unit, up to its column sums.

The unit runs symbolically from reset, a product after the other: what controls it must be known in
every cycle whatever the data are, and each bit of data is followed as a symbol. At the end, the sum
of each output column is a linear form: the accumulator of its column, taken after its last cycle,
plus a constant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.errors import MismatchError
from hwcompile.sim.certificate.circuit import Circuit, UnreadableCircuit, read_circuit
from hwcompile.sim.certificate.kernels import FINE
from hwcompile.sim.certificate.proof import BlockShape, balanced

IntArray = NDArray[np.int64]

RESET_CYCLES = 4
MOST_STEPS = 20_000_000_000
"""Operations times cycles of the largest run."""
FIRST_DATA = 2
"""Cycles from ``start`` to the first element on ``read_data``."""
_INPUTS = ("clk", "rst", "start", "select", "reuse", "read_data")
_SUM, _SUM_VALID, _SHIFT, _MULTIPLIER = "total", "total_valid", "total_shift", "total_multiplier"


class NotUnderstood(Exception):
    """The unit is not built as this proof expects: nothing is said of it."""


@dataclass(frozen=True, slots=True)
class Product:
    """One matrix product: what its block is, and what its columns should come to.

    ``constant``, ``multiplier``, ``shift``: ``[M]``, what is added to each accumulator, and by what
    the sum is multiplied and shifted down. ``low``, ``high``: least and greatest sum.
    """

    module: str
    inputs: int
    shape: BlockShape
    constant: IntArray
    multiplier: IntArray
    shift: IntArray
    low: int
    high: int

    @property
    def trees(self) -> int:
        """Accumulators of the block."""
        return -(-len(self.constant) // self.shape.phases)

    @property
    def limit(self) -> int:
        """Cycles that are enough for it."""
        shape = self.shape
        return 64 + self.inputs + shape.cuts + shape.phases * (shape.cycles + self.trees)


def prove_unit(
    files: Sequence[Path], top: str, headers: Mapping[str, str], products: Sequence[Product]
) -> int:
    """Prove the column sums of every product; the number of cycles that were run.

    ``headers``: of the modules of the blocks, which stay closed. Product ``n`` is ``select`` n.

    Raises:
        MismatchError: a block is driven otherwise than it must be, or a sum is not what it should
            be; the message names product and column.
        NotUnderstood: the unit is built in another way.
    """
    try:
        circuit = read_circuit(files, top, headers)
    except UnreadableCircuit as error:
        raise NotUnderstood(error.message) from error
    if any(name not in circuit.inputs for name in _INPUTS):
        raise NotUnderstood(f"inputs {sorted(circuit.inputs)}")
    if any(name not in circuit.names for name in (_SUM, _SUM_VALID)):
        raise NotUnderstood("no register of the sum")
    if any(p.module not in circuit.boxes for p in products):
        raise NotUnderstood("a block is missing")
    if len(circuit.kind) * sum(p.limit for p in products) > MOST_STEPS:
        raise NotUnderstood("too large to be run symbolically")
    run = _Run(circuit)
    for number, product in enumerate(products):
        run.product(number, product)
    return run.cycle


class _Run:
    """A circuit in time. Symbols are nets past those of the circuit: a bit of some cycle."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.cycle = 0
        self.symbols = 0
        self.origin = np.full((1024, 2), -1, np.int64)
        self.taken: dict[int, int] = {}
        self.state = np.zeros(len(circuit.state), np.int64)
        self.value = np.empty(circuit.nets, np.int64)
        self.maker = np.empty(circuit.nets, np.int64)
        self.register = {int(net): n for n, net in enumerate(circuit.state)}
        self._forget(everything=True)
        for _ in range(RESET_CYCLES):
            self._settle({"rst": 1, "start": 0, "select": 0, "reuse": 0})
            self._edge()

    # Time.

    def _forget(self, everything: bool = False) -> None:
        """Give every register that holds data a symbol of its own, of which nothing is known."""
        self.symbols = 0
        for n in np.flatnonzero((self.state > 1) | everything):
            self.state[n] = self._symbol(-1)

    def _symbol(self, net: int) -> int:
        if self.symbols == len(self.origin):
            self.origin = np.concatenate([self.origin, np.full_like(self.origin, -1)])
        self.origin[self.symbols] = net, self.cycle
        self.symbols += 1
        return 2 * (self.circuit.nets + self.symbols - 1)

    def _settle(self, inputs: Mapping[str, int]) -> None:
        c = self.circuit
        size = c.nets + self.symbols
        if size > len(self.value):
            self.value = np.empty(2 * size, np.int64)
            self.maker = np.empty(2 * size, np.int64)
        self.value[:size] = 2 * np.arange(size)
        self.maker[:size] = -1
        self.value[c.state] = self.state
        for name, number in inputs.items():
            nets = c.inputs[name] >> 1
            self.value[nets] = number >> np.arange(len(nets)) & 1
        c.specialise(self.value, self.maker)

    def _edge(self) -> None:
        enable = self.read(self.circuit.enable)
        after = np.where(enable == 1, self.read(self.circuit.next_value), self.state)
        after = np.where(enable > 1, self.circuit.state * 2, after)
        net = after >> 1
        made = (net > 0) & (net < self.circuit.nets)
        for n in np.flatnonzero(made):
            # Registers that take the same bit hold the same symbol.
            after[n] = self._of(int(net[n])) | after[n] & 1
        self.taken.clear()
        self.state = after
        self.cycle += 1

    def _of(self, net: int) -> int:
        if net not in self.taken:
            self.taken[net] = self._symbol(net)
        return self.taken[net]

    def read(self, literals: IntArray) -> IntArray:
        """What literals are in this cycle."""
        found: IntArray = self.value[literals >> 1] ^ (literals & 1)
        return found

    def known(self, literals: IntArray, what: str) -> int:
        """A number that does not depend on data."""
        bits = self.read(literals)
        if (bits > 1).any():
            raise NotUnderstood(f"{what} depends on data")
        return int(bits @ (1 << np.arange(len(bits))))

    # One product.

    def product(self, number: int, product: Product) -> None:
        """Run one product and check it."""
        self._forget()
        box = self.circuit.boxes[product.module]
        if set(box) - {"clk", "first", "phase", "x", "acc"}:
            raise NotUnderstood(f"ports {sorted(box)}")
        began, sums, done = self.cycle, 0, 0
        steps: deque[Mapping[str, IntArray]] = deque(
            maxlen=product.shape.cycles + product.shape.cuts
        )
        complete: dict[int, int] = {}
        follows = self._next_of(_SUM_VALID)
        while not done:
            if self.cycle - began > product.limit:
                raise NotUnderstood("it does not come to an end")
            start = int(self.cycle == began)
            self._settle({"rst": 0, "start": start, "select": number, "reuse": 0})
            phase = self._phase_of(product, steps, began)
            if phase is not None:
                complete[self.cycle] = phase
            if self.known(follows, "the validity of a sum"):
                self._check_sum(product, box, sums, complete)
                sums += 1
            done = self.known(self.circuit.outputs["done"], "done")
            steps.append({name: self.read(bits) for name, bits in box.items() if name != "acc"})
            self._edge()
        if sums != len(product.constant):
            raise MismatchError(f"the linear unit makes {sums} sums for {product.module}")

    def _phase_of(
        self, product: Product, steps: Sequence[Mapping[str, IntArray]], began: int
    ) -> int | None:
        """The phase that is added up by now, all planes given; None if none is.

        Its last cycle was the one before, and one earlier for each row of registers.
        """
        shape = product.shape
        if len(steps) < shape.cycles + shape.cuts:
            return None
        steps = list(steps)[: shape.cycles]
        firsts = [int(step["first"][0]) for step in steps]
        if shape.cycles > 1 and firsts != [1] + [0] * (shape.cycles - 1):
            return None
        if not all(self._planes_given(product, s["x"], c, began) for c, s in enumerate(steps)):
            return None
        if "phase" not in steps[0]:
            return 0
        bits = np.array([step["phase"] for step in steps])
        if (bits > 1).any() or (bits != bits[0]).any():
            return None
        return int(bits[0] @ (1 << np.arange(bits.shape[1])))

    def _planes_given(self, product: Product, x: IntArray, cycle: int, began: int) -> bool:
        """Whether ``x`` holds the bits of every input that belong to a cycle of a phase."""
        shape = product.shape
        plane, element = np.divmod(np.arange(len(x)), product.inputs)
        bit = cycle * shape.planes + plane
        inside = bit < shape.x_bits
        if (x[~inside] != 0).any():
            return False
        net, when = self._origins(x[inside] >> 1)
        data = self.circuit.inputs["read_data"] >> 1
        sign = bit[inside] == shape.x_bits - 1  # inverted: offset binary
        return bool(
            (net == data[bit[inside]]).all()
            and (when - began == FIRST_DATA + element[inside]).all()
            and ((x[inside] & 1) == sign).all()
        )

    def _next_of(self, name: str) -> IntArray:
        """Literals of what a named register takes next."""
        nets = (self.circuit.names[name] >> 1).tolist()
        if any(net not in self.register for net in nets):
            raise NotUnderstood(f"{name} is no register")
        return self.circuit.next_value[[self.register[net] for net in nets]]

    def _origins(self, nets: IntArray) -> tuple[IntArray, IntArray]:
        """Net and cycle of the bits that symbols stand for; -1 for anything else."""
        at = nets - self.circuit.nets
        found = np.where((at >= 0)[:, None], self.origin[np.maximum(at, 0)], -1)
        return found[:, 0], found[:, 1]

    def _check_sum(
        self,
        product: Product,
        box: Mapping[str, IntArray],
        column: int,
        complete: Mapping[int, int],
    ) -> None:
        if column >= len(product.constant):
            raise MismatchError(f"the linear unit makes too many sums for {product.module}")
        word = self.read(self._next_of(_SUM))
        width = len(word)
        outcome, _, _, constants, terms = self.circuit.linear_forms(
            self.value, self.maker, word, np.array([0, width]), np.array([width])
        )
        where = f"the linear unit, output column {column} of {product.module}"
        if outcome != FINE:
            raise MismatchError(f"{where}: the sum is not linear")
        phase, tree = divmod(column, product.trees)
        bits = len(box["acc"]) // product.trees
        acc = box["acc"][tree * bits :][:bits] >> 1
        wanted = {int(net): 1 << j & (1 << width) - 1 for j, net in enumerate(acc)}
        wanted = {net: amount for net, amount in wanted.items() if amount}
        sources, cycles = self._origins(np.array([net for _, net, _ in terms], np.int64))
        found = {int(net): int(term[2]) for net, term in zip(sources, terms, strict=True)}
        if found != wanted or len(terms) != len(wanted):
            raise MismatchError(f"{where}: the sum is not of its accumulator")
        if any(complete.get(cycle) != phase for cycle in cycles.tolist()):
            raise MismatchError(
                f"{where}: its accumulator is not taken after all planes of its phase"
            )
        expected = int(product.constant[column])
        if (int(constants[0]) - expected) % (1 << width):
            got = balanced(int(constants[0]), width, expected)
            raise MismatchError(f"{where}: expected constant {expected}, found {got}")
        if product.low < -(1 << width - 1) or product.high >= 1 << width - 1:
            raise MismatchError(f"{where}: {width} bits do not hold its sum")
        for name, value in ((_SHIFT, product.shift), (_MULTIPLIER, product.multiplier)):
            if name in self.circuit.names:
                got = self.known(self._next_of(name), name)
                if got != value[column]:
                    raise MismatchError(f"{where}: {name} is {got} instead of {value[column]}")
