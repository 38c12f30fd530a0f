"""The chip plan against the reference: a model of the machine that runs instructions on
memories.
"""

from __future__ import annotations

import numpy as np
import pytest

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Chip, Instruction, Loop, MatrixPlan, Operand
from hwcompile.compiler.ir.operations import spec
from hwcompile.passes.choose_styles import Goal, choose_styles
from hwcompile.passes.plan_chip import plan_chip
from hwcompile.sim import reference
from tests import programs

POISON = 1 << 40
"""Fills memories at the start of every sample: a value that no operation makes."""


class Machine:
    """Runs a chip's instructions, element by element, on its memories."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self.values = chip.program.values
        self.data = np.full(chip.memory("data").words, POISON, np.int64)
        regions = chip.key_value_regions
        words = chip.memory("key").words if regions else 1
        self.words: dict[str, list[list[int]]] = {
            s: [[] for _ in range(words)] for s in ("key", "value")
        }
        self.sent: dict[str, list[int]] = {}

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One sample ``[rows, cols]`` by input key; output elements by value key."""
        self.sent = {output.value: [] for output in self.chip.program.outputs}
        for section in self.chip.sections:
            for loop in section.loops:
                rows = loop.rows
                if section.kind == "sequence":
                    ids = [
                        p.value for p in self.chip.inputs() if self.section(p.value) == "sequence"
                    ]
                    rows = len(inputs[ids[0]])
                for row in range(rows):
                    for instruction in loop.body:
                        self.step(instruction, loop, row, inputs)
        return {k: np.reshape(v, (-1, self.values[k].cols)) for k, v in self.sent.items()}

    def section(self, key: str) -> str:
        port = next(i for i in self.chip.program.inputs if i.value.key == key)
        return self.chip.program.sections[port.section]

    def step(self, i: Instruction, loop: Loop, row: int, inputs: dict[str, np.ndarray]) -> None:
        def at(operand: Operand) -> int:
            return operand.base + operand.stride * row

        index = row if i.indexed else 0
        if i.unit == "emit":
            self.sent[i.output] += self.read(at(i.a), self.values[i.output].cols)
            return
        if i.unit == "receive":
            result = inputs[self.chip.inputs()[i.select].value][index].tolist()
        else:
            unit = self.chip.unit(i.unit)
            assert unit is not None
            result = self.execute(unit.operations[i.select], i, at(i.a), at(i.b), at(i.c), index)
        if i.space == "data":
            assert all(abs(x) < 1 << self.chip.element_bits for x in result)
            self.data[at(i.d) : at(i.d) + len(result)] = result
        else:
            for word, first in enumerate(range(0, len(result), i.lanes)):
                self.words[i.space][at(i.d) + word] = result[first : first + i.lanes]

    def read(self, base: int, count: int) -> list[int]:
        found = self.data[base : base + count].tolist()
        assert POISON not in found, "read before written"
        return found

    def execute(
        self, op: ir.Operation, i: Instruction, a: int, b: int, c: int, row: int
    ) -> list[int]:
        values = [self.values[key] for key in op.inputs]
        meaning = spec(op).meaning
        xs: tuple[np.ndarray, ...]
        if isinstance(op, ir.Attend):
            keys = row + 1 if op.causal else values[1].rows
            sides = []
            for space in ("key", "value"):
                words = self.words[space][b : b + keys * op.kv_heads]
                assert all(words), "read before written"
                sides.append(np.array(words).reshape(keys, -1))
            xs = (self.matrix(a, 1, values[0].cols), *sides)
            if len(values) > 3:
                xs = (*xs, self.matrix(c, keys, 1))
        elif isinstance(op, ir.SumRows):
            xs = (self.matrix(a, values[0].rows, values[0].cols),)
            if len(values) > 1:
                xs = (*xs, self.matrix(c, values[1].rows, 1))
        elif isinstance(op, ir.Gather):
            table = self.chip.gathers[i.select]
            return [self.read(address, 1)[0] for address in table[a : a + op.output.cols]]
        else:
            xs = tuple(
                self.matrix(base, 1, v.cols) for base, v in zip((a, b), values, strict=False)
            )
        return meaning(op, xs, row, 1)[0].tolist()

    def matrix(self, base: int, rows: int, cols: int) -> np.ndarray:
        return np.array(self.read(base, rows * cols), np.int64).reshape(rows, cols)


def random_inputs(program: ir.Program, seed: int, samples: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        i.value.key: rng.integers(
            i.value.low, i.value.high + 1, (samples, i.value.rows, i.value.cols)
        )
        for i in program.inputs
    }


def check(program: ir.Program, samples: int = 3) -> Chip:
    """Plan and run: equal to the reference, twice on memories left as they are."""
    chip = plan_chip(program)
    inputs = random_inputs(program, 7, samples)
    expected = reference.run(program, inputs)
    machine = Machine(chip)
    for n in range(samples):
        found = machine.run({key: x[n] for key, x in inputs.items()})
        for output in program.outputs:
            np.testing.assert_array_equal(found[output.value], expected[output.model_name][n])
    return chip


PROGRAMS = {
    "llama": lambda: programs.tiny_decoder(),
    "gpt": lambda: programs.tiny_decoder(1, "layer", False, 2, 2, False, layers=3),
    "encoder": lambda: programs.tiny_encoder(),
    "vit": lambda: programs.tiny_encoder(tokens=False, flags=False),
    "encoder_decoder": lambda: programs.tiny_encoder_decoder(),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_instructions_equal_the_reference(name: str) -> None:
    check(PROGRAMS[name]())


def test_a_decoder_is_one_loop_with_one_row_of_memory() -> None:
    chip = plan_chip(programs.tiny_decoder(layers=2))
    (section,) = chip.sections
    (loop,) = section.loops
    assert (section.kind, loop.rows) == ("sequence", 8)
    assert all(region.rows == 1 for region in chip.regions)
    writes = [i.space for i in loop.body if i.space != "data"]
    assert writes == ["value", "key"] * 2
    assert chip.memory("key").words == 2 * 8  # layers, rows, one kv head


def test_memory_is_shared_by_values_that_do_not_live_together() -> None:
    one, four = (plan_chip(programs.tiny_decoder(layers=n)) for n in (1, 4))
    assert four.memory("data").words <= one.memory("data").words + 16


def test_linears_of_one_row_load_it_once() -> None:
    chip = plan_chip(programs.tiny_decoder())
    reuse = [i.reuse for i in chip.instructions if i.unit == "linear"]
    assert reuse == [False, True, True, False, False, True, False, False]


def test_a_barrier_stands_before_attention_only() -> None:
    chip = plan_chip(programs.tiny_encoder())
    starts = [loop.body[0].unit for loop in chip.sections[0].loops]
    assert starts == ["receive", "attend", "sum_rows"]


def test_a_key_that_is_used_twice_is_copied() -> None:
    b = programs.Builder(0, ("sequence",))
    x = b.embed(b.ids(6, 12, "ids"), 12, 8)
    q, k = b.linear(b.normalise(x, "rms"), 8), b.linear(b.normalise(x, "rms"), 8)
    mixed = b.attend((q, k, k), 2, 2, True)
    program = b.program((ir.Output(b.sum(k, mixed, 12), "tensor", "y", (1, 6, 8)),))
    chip = check(program)
    copies = [i for i in chip.instructions if i.unit == "elementwise" and i.space != "data"]
    assert [i.space for i in copies] == ["key", "value"]


def test_a_column_gather_in_a_sequence_reads_its_own_row() -> None:
    b = programs.Builder(0, ("sequence",))
    x = b.embed(b.ids(5, 12, "ids"), 12, 8)
    index = np.arange(5)[:, None] * 8 + np.array([[6, 1, 3]])
    y = b.add(ir.Gather(*b.base((x,), 5, 3, 16), index))
    chip = check(b.program((ir.Output(y, "tensor", "y", (1, 5, 3)),)))
    assert len(chip.gathers[0]) == 3


def test_names_and_kinds_of_ports() -> None:
    decoder = plan_chip(programs.tiny_decoder())
    assert [(p.name, p.kind) for p in decoder.ports] == [
        ("s_axis", "ids"),
        ("m_axis", "token"),
        ("m_axis_logits", "logits"),
    ]
    assert [p.name for p in plan_chip(programs.tiny_decoder(), logits_port=False).ports] == [
        "s_axis",
        "m_axis",
    ]
    both = plan_chip(programs.tiny_encoder_decoder())
    assert [p.name for p in both.inputs()] == ["s_axis_src", "s_axis"]
    encoder = plan_chip(programs.tiny_encoder())
    assert [(p.name, p.kind, p.lane_bits) for p in encoder.outputs()] == [("m_axis", "tensor", 16)]


def test_styles() -> None:
    def area(weight: ir.IntArray, bits: int, phases: int) -> float:
        return 100.0 * weight.size / phases

    program = programs.tiny_decoder(context=4)
    assert {m.style for m in choose_styles(program, area, "bitplane")} == {"bitplane"}
    assert {m.planes for m in choose_styles(program, area, "parallel")} == {8}
    assert all(m.phases > 1 for m in choose_styles(program, area, "folded"))
    auto = choose_styles(program, area)
    longer = choose_styles(programs.tiny_decoder(context=200), area)
    assert sum(m.phases for m in longer) > sum(m.phases for m in auto)
    fast, slow = (choose_styles(program, area, goal=Goal(cycles=c)) for c in (0.0, 1e9))
    assert all(f.phases <= a.phases for f, a in zip(fast, auto, strict=True))
    assert [m.phases for m in slow] == [
        op.output.cols for op in program.operations if isinstance(op, ir.Linear)
    ]
    assert choose_styles(program, area, goal=Goal(area_um2=1e9)) == fast
    assert choose_styles(program, area, goal=Goal(area_um2=0.0)) == slow
    assert plan_chip(program, auto).matrices == auto
    assert plan_chip(program).matrices[0] == MatrixPlan(auto[0].operation, "bitplane", 1)
