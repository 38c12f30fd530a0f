"""The packer: elements side by side, words at ascending addresses."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator, SimulatorContext

from hwcompile.hdl.kv_cache import Packer
from hwcompile.hdl.memory import ram_name, ram_verilog


@pytest.mark.parametrize("counts, lanes", [((4,), 0), ((2, 3, 5), 0), ((2, 3, 5), 1), ((1, 6), 0)])
def test_words_hold_their_elements_in_order(counts: tuple[int, ...], lanes: int) -> None:
    packer = Packer(counts, 6, 5)
    rng = random.Random(0)
    elements = [rng.randrange(-32, 32) for _ in range(3 * counts[lanes])]
    words: list[tuple[int, int]] = []

    async def bench(ctx: SimulatorContext) -> None:
        ctx.set(packer.lanes, lanes)
        for base in (3, 20):
            ctx.set(packer.d, base)
            ctx.set(packer.start, 1)
            await ctx.tick()
            ctx.set(packer.start, 0)
            for element in elements:
                ctx.set(packer.write_data, element)
                ctx.set(packer.write_en, 1)
                if ctx.get(packer.word_en):
                    words.append((ctx.get(packer.word_addr), ctx.get(packer.word)))
                await ctx.tick()
                ctx.set(packer.write_en, 0)
                if rng.random() < 0.3:
                    await ctx.tick()

    sim = Simulator(packer)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    count, mask = counts[lanes], 63
    expected = [
        sum((x & mask) << 6 * i for i, x in enumerate(elements[w * count : (w + 1) * count]))
        for w in range(3)
    ]
    assert words == [(base + w, expected[w]) for base in (3, 20) for w in range(3)]


def test_a_memory_names_its_shape() -> None:
    text = ram_verilog(57, 16)
    assert f"module {ram_name(57, 16)} (" in text
    assert "reg [15:0] words [0:56];" in text
    assert "[5:0] waddr" in text
