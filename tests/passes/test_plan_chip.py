"""The chip plan against the reference, on the model of the machine."""

from __future__ import annotations

import numpy as np
import pytest

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Chip, MatrixPlan
from hwcompile.passes.choose_styles import Goal, choose_styles
from hwcompile.passes.plan_chip import plan_chip
from hwcompile.sim import reference
from hwcompile.sim.chip_model import ChipModel
from tests import programs


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
    model = ChipModel(chip)
    for n in range(samples):
        found = model.run({key: x[n : n + 1] for key, x in inputs.items()})
        for output in program.outputs:
            np.testing.assert_array_equal(found[output.value][0], expected[output.model_name][n])
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
