"""The linear unit: one engine around the matrix blocks of all Linear operations. Operands a, d.

A row passes four steps; the phases of one row overlap in the last two::

    load      an element a cycle into the input bank, as offset binary; skipped when ``reuse``
    planes    a bit-plane of all inputs a cycle (or several), registered, to the selected block
    capture   the G accumulators of a phase into a register, one after the other shifted out; a
              cycle later for each row of registers in the trees of the block
    finish    + constant of the column (bias, correction, rounding), (x multiplier), shift, saturate

A phase lasts ``max(C, G)`` cycles, C for its planes. Each block has its own registers of control
and phase, and an and gate a bit of the shared plane: the inputs of blocks that are not selected
stay 0, and no net but the plane's crosses the unit. ``select`` is registered before it steers
anything but the first cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amaranth import Cat, ClockSignal, Const, Instance, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.operations import accumulator_interval, round_shift
from hwcompile.compiler.ir.program import IntArray
from hwcompile.compiler.ir.weight_logic import WeightBlock
from hwcompile.hdl.fixed_point import saturated_by
from hwcompile.hdl.intervals import Interval
from hwcompile.hdl.matrix_block import phase_bits
from hwcompile.hdl.tables import choose, pick, rom, shape_of
from hwcompile.hdl.unit import Pipeline, pointer, scan


@dataclass(frozen=True, slots=True)
class LinearPlan:
    """One Linear operation on the unit: its block and the constants of its output columns.

    ``constant``, ``multiplier``, ``shift``: ``[outputs]``;
    ``out = requantise(acc + constant, multiplier, shift, out_bits)``. ``low``, ``high``:
    ``[outputs]``, proven interval of ``acc + constant``. ``acc_bits``: width of one accumulator of
    the block. ``planes``: bit-planes a cycle. ``cuts``: rows of registers in its trees.
    ``operation``: its index in the program.
    """

    operation: int
    module_name: str
    inputs: int
    outputs: int
    x_bits: int
    planes: int
    phases: int
    cuts: int
    acc_bits: int
    constant: IntArray
    multiplier: IntArray
    shift: IntArray
    out_bits: int
    low: IntArray
    high: IntArray

    @property
    def trees(self) -> int:
        """G: output trees of the block."""
        return -(-self.outputs // self.phases)

    @property
    def plane_cycles(self) -> int:
        """C: cycles of the planes of one phase."""
        return -(-self.x_bits // self.planes)

    @property
    def phase_cycles(self) -> int:
        """Cycles from one phase to the next: its planes, and the drain of the one before."""
        return max(self.plane_cycles, self.trees)

    @property
    def exact(self) -> Interval:
        """Least and greatest output before saturation."""
        low = round_shift(self.low * self.multiplier, self.shift)
        high = round_shift(self.high * self.multiplier, self.shift)
        return int(low.min()), int(high.max())


def plan_linear(
    operation: int, op: ir.Linear, x: ir.Value, block: WeightBlock, module_name: str
) -> LinearPlan:
    """The plan of ``op`` (number ``operation`` of its program) with input ``x`` on ``block``."""
    low, high = accumulator_interval(op, (x.low, x.high))
    return LinearPlan(
        operation=operation,
        module_name=module_name,
        inputs=block.inputs,
        outputs=block.outputs,
        x_bits=block.x_bits,
        planes=block.planes,
        phases=block.phases,
        cuts=block.cuts,
        acc_bits=block.acc_bits,
        constant=block.correction + op.bias,
        multiplier=op.multiplier,
        shift=op.shift,
        out_bits=op.output.bits,
        low=low,
        high=high,
    )


def cycles(plan: LinearPlan, reuse: bool, scales: bool = False) -> int:
    """Cycles from ``start`` to ``done``, both counted.

    ``scales``: whether any plan of the unit has a multiplier other than 1 (:func:`scales`).
    """
    load = 1 if reuse else plan.inputs + 2
    last = plan.outputs - (plan.phases - 1) * plan.trees
    planes = (plan.phases - 1) * plan.phase_cycles + plan.plane_cycles + plan.cuts
    return load + planes + last + (7 if scales else 5)


def scales(plans: Sequence[LinearPlan]) -> bool:
    """Whether a unit of these plans has a multiplier."""
    return any((plan.multiplier != 1).any() for plan in plans)


class Linear(wiring.Component):
    """The linear unit (unit protocol). ``select`` is an index into ``plans``.

    ``reuse``: the input bank already holds this row of this value; skip the load.
    """

    def __init__(self, plans: Sequence[LinearPlan], element_bits: int, address_bits: int) -> None:
        self.plans = tuple(plans)
        self.element_bits = element_bits
        self.address_bits = address_bits
        self._selected = Signal(max(1, (len(self.plans) - 1).bit_length()), reset_less=True)
        super().__init__(
            {
                "start": In(1),
                "done": Out(1),
                "select": In(max(1, (len(self.plans) - 1).bit_length())),
                "reuse": In(1),
                "a": In(address_bits),
                "d": In(address_bits),
                "read_addr": Out(address_bits),
                "read_en": Out(1),
                "read_data": In(signed(element_bits)),
                "write_addr": Out(address_bits),
                "write_en": Out(1),
                "write_data": Out(signed(element_bits)),
            }
        )

    def cycles(self, select: int, reuse: bool) -> int:
        """Cycles from ``start`` to ``done``, both counted."""
        return cycles(self.plans[select], reuse, scales(self.plans))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self._selected.eq(self.select)
        loaded, bank = self._load(m)
        word = self._run(m, loaded, bank)
        self._finish(m, *word)
        return m

    def _pick(self, m: Module, values: Sequence[int], name: str) -> Value:
        """The value of the selected plan, from the cycle after ``start`` on."""
        return pick(m, self._selected, values, name)

    def _pick_now(self, m: Module, values: Sequence[int], name: str) -> Value:
        """The value of the selected plan, at ``start`` too."""
        return pick(m, self.select, values, name)

    def _load(self, m: Module) -> tuple[Value, list[Signal]]:
        """Fill the input bank: plane j of all inputs in ``bank[j]``. The pulse is the last load."""
        final = self._pick(m, [p.inputs - 1 for p in self.plans], "final_input")
        load = scan(m, self.start & ~self.reuse, final, "load")
        m.d.comb += [
            self.read_en.eq(load.active),
            self.read_addr.eq(pointer(m, self.start, self.a, load.active, "source")),
        ]
        pipe = Pipeline(m, valid=load.active, last=load.last, index=load.index)
        pipe.wait("arrived")
        inputs = max(p.inputs for p in self.plans)
        here = Signal(inputs)
        m.d.comb += here.eq(pipe["valid"] << pipe["index"])
        planes = max(p.x_bits for p in self.plans)
        element = Signal(signed(planes))
        signs = self._pick(m, [1 << (p.x_bits - 1) for p in self.plans], "sign_plane")
        # A plane above an input's own width is 0: the last cycle of a phase may read it.
        own = self._pick(m, [(1 << p.x_bits) - 1 for p in self.plans], "own_planes")
        m.d.comb += element.eq((self.read_data ^ signs) & own)
        bank = [Signal(inputs, name=f"bank_{j}", reset_less=True) for j in range(planes)]
        for j, plane in enumerate(bank):
            m.d.sync += plane.eq((plane & ~here) | (element[j].replicate(inputs) & here))
        return pipe["last"], bank

    def _run(self, m: Module, loaded: Value, bank: list[Signal]) -> tuple[Value, Value]:
        """Drive the blocks and capture their accumulators.

        The first word of the capture register, and whether it is an output of the row.
        """
        pipe = self._count(m, loaded | (self.start & self.reuse))
        planes = [self._plane(m, pipe, bank, t) for t in range(max(p.planes for p in self.plans))]
        words = self._blocks(m, pipe, planes)
        pipe.wait("plane")
        pipe.wait("summed")
        valid, final_phase = self._summed(m, pipe)
        bits = max(p.acc_bits for p in self.plans)
        held = Signal(len(words), reset_less=True)
        left = Signal(range(len(words) // bits + 1))
        columns = [
            (p.outputs - (p.phases - 1) * p.trees, p.trees) for p in self.plans
        ]  # of the last phase, of the others
        with m.If(valid):
            final = self._pick(m, [c[0] for c in columns], "final_columns")
            other = self._pick(m, [c[1] for c in columns], "phase_columns")
            m.d.sync += [held.eq(words), left.eq(Mux(final_phase, final, other))]
        with m.Else():
            m.d.sync += held.eq(held >> bits)
            with m.If(left.any()):
                m.d.sync += left.eq(left - 1)
        return held[:bits], left.any()

    def _summed(self, m: Module, pipe: Pipeline) -> tuple[Value, Value]:
        """Whether the accumulators of a phase are there, and whether it is the last phase.

        The rows of registers in the trees of the selected block delay both.
        """
        late = Pipeline(m, valid=pipe["valid"] & pipe["last"], final=pipe["final"])
        after = [(late["valid"], late["final"])]
        for n in range(max(p.cuts for p in self.plans)):
            late.wait(f"cut_{n}")
            after.append((late["valid"], late["final"]))
        valid, final = (
            choose(m, self._selected, [after[p.cuts][n] for p in self.plans], f"summed_{name}")
            for n, name in enumerate(("now", "final"))
        )
        return valid, final

    def _plane(self, m: Module, pipe: Pipeline, bank: list[Signal], t: int) -> Signal:
        """Plane number t of each cycle, of the inputs of all plans that read it."""
        users = [p for p in self.plans if p.planes > t]
        plane = Signal(max(p.inputs for p in users), name=f"plane_{t}", reset_less=True)
        places = sorted({c * p.planes for p in users for c in range(p.plane_cycles)})
        found = [bank[j + t] if j + t < len(bank) else Const(0, len(plane)) for j in places]
        with m.If(pipe["valid"]), m.Switch(pipe["place"]):
            for place, bits in zip(places[:-1], found, strict=False):
                with m.Case(place):
                    m.d.sync += plane.eq(bits)
            with m.Default():
                m.d.sync += plane.eq(found[-1])
        return plane

    def _count(self, m: Module, begin: Value) -> Pipeline:
        """Issue the planes of each phase, from the cycle after ``begin``.

        Control bits: ``valid``, ``place`` (the lowest plane), ``first`` and ``last`` cycle of a
        phase, ``phase`` and ``final`` phase.
        """
        cycle = Signal(range(max(p.phase_cycles for p in self.plans)), reset_less=True)
        # One bit at least: a chip of bitplane blocks has no phases, and Verilog no empty wires.
        phase = Signal(range(max(2, *(p.phases for p in self.plans))), reset_less=True)
        active, on, last, final = Signal(), Signal(), Signal(), Signal()
        place = Signal(range(max(p.phase_cycles * p.planes for p in self.plans) + 1))
        each = self._pick(m, [p.planes for p in self.plans], "planes")
        planes = self._pick(m, [p.plane_cycles for p in self.plans], "plane_cycles")
        m.d.comb += [
            on.eq(active & (cycle < planes)),
            last.eq(cycle == planes - 1),
            final.eq(phase == self._pick(m, [p.phases - 1 for p in self.plans], "final_phase")),
        ]
        with m.If(active):
            m.d.sync += [cycle.eq(cycle + 1), place.eq(place + each)]
            with m.If(cycle == self._pick(m, [p.phase_cycles - 1 for p in self.plans], "period")):
                m.d.sync += [cycle.eq(0), place.eq(0), phase.eq(phase + 1)]
        with m.If(begin):
            m.d.sync += [active.eq(1), cycle.eq(0), place.eq(0), phase.eq(0)]
        with m.Elif(last & final):
            m.d.sync += active.eq(0)
        place = place[: bits_for(max((p.plane_cycles - 1) * p.planes for p in self.plans))]
        return Pipeline(
            m, valid=on, place=place, first=cycle == 0, last=last, phase=phase, final=final
        )

    def _blocks(self, m: Module, pipe: Pipeline, planes: list[Signal]) -> Value:
        """The accumulators of the selected block, each in a word of the widest accumulator."""
        bits = max(p.acc_bits for p in self.plans)
        words: Value = Const(0, bits * max(p.trees for p in self.plans))
        for number, plan in enumerate(self.plans):
            chosen = Signal(name=f"chosen_{number}", reset_less=True)
            acc = Signal(plan.acc_bits * plan.trees, name=f"acc_{number}")
            m.d.sync += chosen.eq(self.select == number)
            x = Cat(*(plane[: plan.inputs] for plane in planes[: plan.planes]))
            controls = {"first": pipe["first"]}
            if plan.phases > 1:
                controls["phase"] = pipe["phase"][: phase_bits(plan.phases)] & chosen.replicate(
                    phase_bits(plan.phases)
                )
            ports: dict[str, Value] = {"i_clk": ClockSignal(), "o_acc": acc}
            for name, value in controls.items():
                own = Signal(len(value), name=f"{name}_{number}", reset_less=True)
                ports[f"i_{name}"] = own
                m.d.sync += own.eq(value)
            m.submodules[f"block_{number}"] = Instance(
                plan.module_name, i_x=x & chosen.replicate(len(x)), **ports
            )
            mine = acc & chosen.replicate(len(acc))
            words |= _padded(mine, plan.acc_bits, bits)
        return words

    def _finish(self, m: Module, word: Value, valid: Value) -> None:
        """Constant, multiplier, shift, saturation and write of the outputs, one a cycle."""
        constants = _Constants(self.plans)
        base = Signal(range(sum(p.outputs for p in self.plans)), name="first_column")
        m.d.comb += base.eq(self._pick_now(m, constants.bases(), "base"))
        address = pointer(m, self.start, base, valid, "column")
        left = Signal(range(max(p.outputs for p in self.plans) + 1))
        with m.If(self.start):
            m.d.sync += left.eq(self._pick_now(m, [p.outputs for p in self.plans], "outputs"))
        with m.Elif(valid):
            m.d.sync += left.eq(left - 1)
        pipe = Pipeline(m, valid=valid, last=left == 1)
        acc = pipe.step(word, word.shape(), "word")
        total = Signal(constants.sum_shape, name="total_next")
        m.d.comb += total.eq(acc + _column(m, address, constants.constant, "constant"))
        pipe.attach(shift=_column(m, address, constants.shift, "shift"))
        if constants.scales:
            pipe.attach(multiplier=_column(m, address, constants.multiplier, "multiplier"))
        x = pipe.step(total, constants.sum_shape, "total")
        if constants.scales:
            x = pipe.step(x * pipe["multiplier"], constants.product_shape, "product")
            # One bit of fraction stays, and rounds half up after the shift.
            x = pipe.step((x << constants.left + 1) >> pipe["shift"], constants.half_shape, "half")
            result = (x >> 1) + x[0]
        else:
            result = (x << constants.left) >> pipe["shift"]
        bits = [p.out_bits for p in self.plans]
        exact = [p.exact for p in self.plans]
        data = saturated_by(m, self._selected, result, bits, exact, "result")
        m.d.comb += self.write_addr.eq(pointer(m, self.start, self.d, self.write_en, "target"))
        m.d.sync += [
            self.write_en.eq(pipe["valid"]),
            self.done.eq(pipe["valid"] & pipe["last"]),
            self.write_data.eq(data),
        ]


def _padded(acc: Value, from_bits: int, to_bits: int) -> Value:
    """Words of ``from_bits`` side by side, each zero-extended to ``to_bits``."""
    if from_bits == to_bits:
        return acc
    words = [acc[at : at + from_bits] for at in range(0, len(acc), from_bits)]
    return Cat(*(Cat(word, Const(0, to_bits - from_bits)) for word in words))


def _column(m: Module, address: Value, values: IntArray, name: str) -> Value:
    """A table of the columns, read one cycle later; wiring when they are all equal."""
    if (values == values[0]).all():
        return Const(int(values[0]), shape_of(int(values[0]), int(values[0])))
    return rom(m, address, values, name)


class _Constants:
    """The tables of all columns of all plans, and the shapes of what they make.

    Without a multiplier, half of the last place is part of the constant. Shifts are counted from
    the greatest left shift, so that none is negative.
    """

    def __init__(self, plans: Sequence[LinearPlan]) -> None:
        self.plans = plans
        self.scales = scales(plans)
        shift = np.concatenate([p.shift for p in plans])
        low, high = (np.concatenate([getattr(p, end) for p in plans]) for end in ("low", "high"))
        self.left = max(0, -int(shift.min()))
        self.shift = shift + self.left
        self.multiplier = np.concatenate([p.multiplier for p in plans])
        half = np.where(shift > 0, np.left_shift(1, np.maximum(shift - 1, 0)), 0)
        half = np.zeros_like(half) if self.scales else half
        self.constant = np.concatenate([p.constant for p in plans]) + half
        low, high = low + half, high + half
        self.sum_shape = shape_of(min(int(low.min()), -1), int(high.max()))
        low, high = low * self.multiplier, high * self.multiplier
        self.product_shape = shape_of(min(int(low.min()), -1), int(high.max()))
        low, high = (round_shift(v << self.left + 1, self.shift) for v in (low, high))
        self.half_shape = shape_of(min(int(low.min()), -1) - 1, int(high.max()) + 1)

    def bases(self) -> list[int]:
        """ROM address of each plan's column 0."""
        sizes = [p.outputs for p in self.plans]
        return [sum(sizes[:i]) for i in range(len(sizes))]
