"""The sequencer: runs a chip's instructions one by one.

The program is a table in logic, one wide word an instruction. Addresses that step with the loop
come from one register for each different stride, which counts up with the row: there is no
multiplier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth import Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwcompile.compiler.ir.chip import Chip, Instruction, Loop, Operand
from hwcompile.hdl.kv_cache import lane_counts
from hwcompile.hdl.tables import choose

OPERANDS = ("a", "b", "c", "d")
SPACES = ("data", "key", "value")


@dataclass(frozen=True, slots=True)
class _Step:
    """An instruction with its place in the loop structure."""

    instruction: Instruction
    loop: Loop
    sequence: bool
    loop_start: int
    loop_end: bool


def steps(chip: Chip) -> tuple[_Step, ...]:
    """The instructions of a chip in program order."""
    found: list[_Step] = []
    for section in chip.sections:
        for loop in section.loops:
            start = len(found)
            for index, instruction in enumerate(loop.body):
                found.append(
                    _Step(
                        instruction,
                        loop,
                        section.kind == "sequence",
                        start,
                        index == len(loop.body) - 1,
                    )
                )
    return tuple(found)


def operand_bits(chip: Chip, name: str) -> int:
    """Width of an operand bus: its greatest address over all instructions and rows."""
    greatest = 0
    for step in steps(chip):
        operand: Operand = getattr(step.instruction, name)
        greatest = max(greatest, operand.base + operand.stride * (step.loop.rows - 1))
    return max(1, greatest.bit_length())


def row_bits(chip: Chip) -> int:
    """Width of the row counter."""
    return max(1, *((s.loop.rows - 1).bit_length() for s in steps(chip)))


class Sequencer(wiring.Component):
    """Drives the units.

    ``start`` is high for one cycle, ``unit`` (index into ``chip.units``), ``select``, the operands,
    ``row``, ``space`` (0 data, 1 key, 2 value), ``lanes`` (index into the lane counts) and
    ``reuse`` are stable from it to ``done``. ``ended`` ends the loop of a sequence section at its
    last instruction; ``clear`` is high for one cycle when that loop ends. With a loop that loads
    caches: before the first row it is entered if ``load_offered``, else left out once
    ``token_offered``; the next loop goes on with the row after its last.
    """

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self.steps = steps(chip)
        most = max(s.instruction.select for s in self.steps)
        self.kinds = [u.kind for u in chip.units]
        self.loads = any(s.loop.load for s in self.steps)
        super().__init__(
            {
                "start": Out(1),
                "done": In(1),
                "ended": In(1),
                "clear": Out(1),
                "unit": Out(range(max(2, len(self.kinds)))),
                "select": Out(range(max(2, most + 1))),
                "row": Out(row_bits(chip)),
                "space": Out(2),
                "lanes": Out(range(max(2, len(lane_counts(chip))))),
                "reuse": Out(1),
                **({"load_offered": In(1), "token_offered": In(1)} if self.loads else {}),
                **{name: Out(operand_bits(chip, name)) for name in OPERANDS},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = len(self.steps)
        pc = Signal(range(max(2, count)))
        row = Signal(self.row.shape())
        lanes = lane_counts(self.chip)

        fields: dict[str, list[int]] = {
            "unit": [self.kinds.index(s.instruction.unit) for s in self.steps],
            "select": [s.instruction.select for s in self.steps],
            "space": [SPACES.index(s.instruction.space) for s in self.steps],
            "lanes": [
                lanes.index(s.instruction.lanes) if s.instruction.lanes else 0 for s in self.steps
            ],
            "reuse": [int(s.instruction.reuse) for s in self.steps],
        }
        chosen = {name: _table(m, pc, values, name) for name, values in fields.items()}
        indexed = _table(m, pc, [int(s.instruction.indexed) for s in self.steps], "indexed")
        advance = Signal()
        restart = Signal()
        operands = self._operands(m, pc, advance, restart)

        loop_end = _table(m, pc, [int(s.loop_end) for s in self.steps], "loop_end")
        loop_start = _table(m, pc, [s.loop_start for s in self.steps], "loop_start")
        last_row = _table(m, pc, [s.loop.rows - 1 for s in self.steps], "last_row")
        sequence = _table(m, pc, [int(s.sequence) for s in self.steps], "sequence")
        load = _table(m, pc, [int(s.loop.load) for s in self.steps], "load")
        finished = Signal()
        loaded = Signal()
        m.d.comb += [
            finished.eq((row == last_row) | (sequence & self.ended)),
            loaded.eq(load & self.ended & (row != last_row)),
        ]

        with m.FSM(name="phase"):
            if self.loads:
                with m.State("choose"):
                    with m.If(self.load_offered):
                        m.next = "fetch"
                    with m.Elif(self.token_offered):
                        m.d.sync += pc.eq(sum(s.loop.load for s in self.steps))
                        m.next = "fetch"
            with m.State("fetch"):
                m.d.sync += [getattr(self, name).eq(value) for name, value in chosen.items()]
                m.d.sync += [getattr(self, name).eq(value) for name, value in operands.items()]
                with m.If(indexed):
                    m.d.sync += self.row.eq(row)
                with m.Else():
                    m.d.sync += self.row.eq(0)
                m.next = "start"
            with m.State("start"):
                m.d.comb += self.start.eq(1)
                m.next = "run"
            with m.State("run"), m.If(self.done):
                m.next = "fetch"
                m.d.comb += [
                    advance.eq(loop_end & (~finished | loaded)),
                    restart.eq(loop_end & finished & ~loaded),
                    self.clear.eq(loop_end & finished & sequence),
                ]
                with m.If(advance & ~loaded):
                    m.d.sync += pc.eq(loop_start)
                with m.Elif((pc == count - 1) | (restart & load)):
                    m.d.sync += pc.eq(0)
                with m.Else():
                    m.d.sync += pc.eq(pc + 1)
                with m.If(advance):
                    m.d.sync += row.eq(row + 1)
                with m.If(restart):
                    m.d.sync += row.eq(0)
                    if self.loads:
                        m.next = "choose"
        return m

    def _operands(
        self, m: Module, pc: Signal, advance: Signal, restart: Signal
    ) -> dict[str, Value]:
        """Base plus the register of the stride, for each operand."""
        registers: dict[int, Signal] = {}
        for step in self.steps:
            for name in OPERANDS:
                stride = getattr(step.instruction, name).stride
                most = stride * (step.loop.rows - 1)
                if stride and (
                    stride not in registers or len(registers[stride]) < most.bit_length()
                ):
                    registers[stride] = Signal(max(1, most.bit_length()), name=f"by_{stride}")
        for stride, register in registers.items():
            with m.If(restart):
                m.d.sync += register.eq(0)
            with m.Elif(advance):
                m.d.sync += register.eq(register + stride)
        found: dict[str, Value] = {}
        for name in OPERANDS:
            own = [getattr(s.instruction, name) for s in self.steps]
            base = _table(m, pc, [o.base for o in own], f"{name}_base")
            strides = sorted({o.stride for o in own})
            if strides == [0]:
                found[name] = base
                continue
            which = _table(m, pc, [strides.index(o.stride) for o in own], f"{name}_stride")
            offsets = [registers[s] if s else Const(0, 1) for s in strides]
            found[name] = base + choose(m, which, offsets, f"{name}_offset")
        return found


def _table(m: Module, pc: Signal, values: Sequence[int], name: str) -> Value:
    """``values[pc]`` in logic; equal neighbours share a case."""
    if len(set(values)) == 1:
        return Const(values[0], max(1, values[0].bit_length()))
    out = Signal(range(max(values) + 1), name=name)
    cases: dict[int, list[int]] = {}
    for at, value in enumerate(values):
        cases.setdefault(value, []).append(at)
    with m.Switch(pc):
        for value, at_pcs in cases.items():
            if value:
                with m.Case(*at_pcs):
                    m.d.comb += out.eq(value)
    return out
