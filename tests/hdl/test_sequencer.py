"""The sequencer runs exactly the chip's instructions."""

from __future__ import annotations

import pytest
from amaranth.sim import Simulator, SimulatorContext

from hwcompile.compiler.ir.chip import FETCH_CYCLES, Chip
from hwcompile.hdl.kv_cache import lane_counts
from hwcompile.hdl.sequencer import OPERANDS, SPACES, Sequencer
from hwcompile.passes.plan_chip import plan_chip
from tests import programs

Trace = list[tuple[object, ...]]
RUN_CYCLES = 2


def expected_trace(chip: Chip, tokens: int) -> Trace:
    """What one sample starts, in order."""
    found: Trace = []
    for section in chip.sections:
        for loop in section.loops:
            for row in range(tokens if section.kind == "sequence" else loop.rows):
                for i in loop.body:
                    addresses = [o.base + o.stride * row for o in (getattr(i, n) for n in OPERANDS)]
                    lanes = lane_counts(chip).index(i.lanes) if i.lanes else 0
                    place = (SPACES.index(i.space), lanes, int(i.reuse))
                    kinds = [u.kind for u in chip.units]
                    shown = row if i.indexed else 0
                    found.append((kinds.index(i.unit), i.select, *addresses, shown, *place))
    return found


def trace(chip: Chip, tokens: list[int]) -> tuple[Trace, int, int]:
    """Starts of samples with so many tokens; cycles between starts (one number); clears seen."""
    sequencer = Sequencer(chip)
    receive = next(i for i, u in enumerate(chip.units) if u.kind == "receive")
    source = {i.select for i in chip.sections[-1].loops[0].body if i.unit == "receive"}
    wanted = sum(len(expected_trace(chip, n)) for n in tokens)
    found: Trace = []
    distances: set[int] = set()
    clears = 0
    names = ("unit", "select", *OPERANDS, "row", "space", "lanes", "reuse")

    async def bench(ctx: SimulatorContext) -> None:
        nonlocal clears
        left = list(tokens)
        remaining = left.pop(0)
        cycle = started = 0
        while len(found) < wanted:
            if not ctx.get(sequencer.start):
                await ctx.tick()
                cycle += 1
                continue
            if found:
                distances.add(cycle - started)
            started = cycle
            found.append(tuple(ctx.get(getattr(sequencer, n)) for n in names))
            if found[-1][0] == receive and found[-1][1] in source:
                remaining -= 1
                ctx.set(sequencer.ended, remaining == 0)
            await ctx.tick().repeat(RUN_CYCLES - 1)
            ctx.set(sequencer.done, 1)
            if ctx.get(sequencer.clear):
                clears += 1
                remaining = left.pop(0) if left else 0
            await ctx.tick()
            ctx.set(sequencer.done, 0)
            cycle += RUN_CYCLES

    sim = Simulator(sequencer)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    return found, max(distances), clears


def test_a_decoder_runs_until_tlast_or_the_full_context() -> None:
    chip = plan_chip(programs.tiny_decoder(context=4))
    tokens = [2, 4, 1]
    found, _, clears = trace(chip, tokens)
    assert found == [x for n in tokens for x in expected_trace(chip, n)]
    assert clears >= len(tokens) - 1


def test_a_sequence_that_never_ends_wraps_at_the_context() -> None:
    chip = plan_chip(programs.tiny_decoder(context=4))
    found, _, _ = trace(chip, [99])
    full = expected_trace(chip, 4)
    assert found[: 2 * len(full)] == full + full


def test_the_fetch_overhead_is_as_planned() -> None:
    chip = plan_chip(programs.tiny_decoder(context=4))
    _, distance, _ = trace(chip, [2])
    assert distance == RUN_CYCLES + FETCH_CYCLES


@pytest.mark.parametrize(
    "program", [programs.tiny_encoder(rows=3), programs.tiny_encoder(tokens=False, flags=False)]
)
def test_an_encoder_runs_its_loops_again_and_again(program: object) -> None:
    chip = plan_chip(program)  # type: ignore[arg-type]
    once = expected_trace(chip, 0)
    found, _, _ = trace(chip, [0, 0])
    assert found == once + once


def test_an_encoder_decoder_runs_the_source_then_the_target() -> None:
    chip = plan_chip(programs.tiny_encoder_decoder(source=3, target=5))
    found, _, _ = trace(chip, [2, 3])
    assert found == expected_trace(chip, 2) + expected_trace(chip, 3)
