"""Receive and emit: every beat once, whatever valid and ready do."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator, SimulatorContext

from hwcompile.compiler.ir.chip import Port
from hwcompile.hdl.stream import Emit, Receive, emit_cycles, receive_cycles
from hwcompile.hdl.unit import Widths

WIDTHS = Widths(element=12, address=6, row=3)


def port(name: str, kind: str, rows: int, cols: int, bits: int, **more: object) -> Port:
    direction = "out" if name.startswith("m") else "in"
    signed = kind in ("tensor", "logits")
    return Port(name, direction, kind, "v0", 0, rows, cols, bits, signed, **more)  # type: ignore[arg-type]


async def wait(ctx: SimulatorContext, done: object, limit: int = 400) -> int:
    """Ticks until ``done``; how many cycles that was."""
    for cycle in range(1, limit):
        if ctx.get(done):  # type: ignore[call-overload]
            await ctx.tick()
            return cycle
        await ctx.tick()
    raise AssertionError("no done")


def run_receive(
    unit: Receive, beats: list[tuple[int, bool]], rows: int, gaps: float, select: int = 0
) -> tuple[list[int], list[bool], list[int], int]:
    """Rows received: elements by address order, ``ended`` after each row, cycles, beats taken."""
    sim = Simulator(unit)
    sim.add_clock(1e-8)
    rng = random.Random(3)
    written: list[int] = []
    ended: list[bool] = []
    cycles: list[int] = []
    taken = 0

    async def source(ctx: SimulatorContext) -> None:
        nonlocal taken
        for value, last in beats:
            while rng.random() < gaps:
                await ctx.tick()
            ctx.set(getattr(unit, f"tvalid_{select}"), 1)
            ctx.set(getattr(unit, f"tdata_{select}"), value)
            ctx.set(getattr(unit, f"tlast_{select}"), last)
            await ctx.tick().until(getattr(unit, f"tready_{select}"))
            taken += 1
            ctx.set(getattr(unit, f"tvalid_{select}"), 0)

    async def observe(ctx: SimulatorContext) -> None:
        async for *_, en, data in ctx.tick().sample(unit.write_en, unit.write_data):
            if en:
                written.append(data)

    async def bench(ctx: SimulatorContext) -> None:
        ctx.set(unit.select, select)
        for row in range(rows):
            ctx.set(unit.row, row % unit.ports[select].rows)
            ctx.set(unit.d, 5)
            ctx.set(unit.start, 1)
            await ctx.tick()
            ctx.set(unit.start, 0)
            cycles.append(1 + await wait(ctx, unit.done))
            ended.append(bool(ctx.get(unit.ended)))
            ctx.set(unit.clear, ended[-1])
            await ctx.tick()
            ctx.set(unit.clear, 0)

    sim.add_testbench(observe, background=True)
    sim.add_testbench(source, background=True)
    sim.add_testbench(bench)
    sim.run()
    return written, ended, cycles, taken


@pytest.mark.parametrize("gaps", [0.0, 0.6])
def test_receive_takes_a_tensor_signed_and_row_by_row(gaps: float) -> None:
    image = port("s_axis", "tensor", 2, 3, 10)
    unit = Receive([image], [False], WIDTHS)
    values = [5, -7, 511, -512, 0, -1]
    beats = [(v & 0xFFFF, i == 5) for i, v in enumerate(values)]
    written, ended, cycles, taken = run_receive(unit, beats, 2, gaps)
    assert written == values
    assert (ended, taken) == ([False, False], 6)
    assert cycles == [receive_cycles(image)] * 2 or gaps


def test_a_short_source_is_padded_without_beats() -> None:
    unit = Receive([port("s_axis", "ids", 4, 1, 5, pad=9)], [False], WIDTHS)
    beats = [(1, False), (2, True), (3, False), (4, False), (5, False), (6, True), (7, True)]
    written, _, _, taken = run_receive(unit, beats, 12, 0.0)
    assert written == [1, 2, 9, 9, 3, 4, 5, 6, 7, 9, 9, 9]
    assert taken == 7


def test_tlast_ends_a_sequence() -> None:
    unit = Receive([port("s_axis", "ids", 8, 1, 5)], [True], WIDTHS)
    beats = [(1, False), (2, True), (3, True), (4, False)]
    written, ended, _, _ = run_receive(unit, beats, 4, 0.3)
    assert written == [1, 2, 3, 4]
    assert ended == [False, True, True, False]


def test_ids_are_unsigned_and_ports_are_apart() -> None:
    ports = [port("s_axis_0", "tensor", 1, 1, 8), port("s_axis_1", "ids", 1, 1, 8)]
    written, *_ = run_receive(Receive(ports, [False, False], WIDTHS), [(200, True)], 1, 0.0, 1)
    assert written == [200]


def run_emit(
    unit: Emit, memory: list[int], rows: int, ready: float
) -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[int]]:
    """(element, last) and (token, last) beats, and cycles of each row, of output 0."""
    sim = Simulator(unit)
    sim.add_clock(1e-8)
    rng = random.Random(5)
    elements: list[tuple[int, int]] = []
    tokens: list[tuple[int, int]] = []
    cycles: list[int] = []

    async def sink(ctx: SimulatorContext, prefix: str, found: list[tuple[int, int]]) -> None:
        if not hasattr(unit, f"{prefix}_tvalid_0"):
            return
        ready_port = getattr(unit, f"{prefix}_tready_0")
        names = [getattr(unit, f"{prefix}_{n}_0") for n in ("tvalid", "tready", "tdata", "tlast")]
        pending = None
        while True:
            ctx.set(ready_port, rng.random() < ready)
            *_, valid, taken, data, last = await ctx.tick().sample(*names)
            if pending is not None:
                assert valid and (data, last) == pending, "a beat changed before it was taken"
            pending = (data, last) if valid and not taken else None
            if valid and taken:
                found.append((data, last))

    async def serve(ctx: SimulatorContext) -> None:
        async for *_, en, address in ctx.tick().sample(unit.read_en, unit.read_addr):
            if en:
                ctx.set(unit.read_data, memory[address])

    async def bench(ctx: SimulatorContext) -> None:
        for row in range(rows):
            ctx.set(unit.row, row)
            ctx.set(unit.a, row * unit.cols[0])
            ctx.set(unit.start, 1)
            await ctx.tick()
            ctx.set(unit.start, 0)
            cycles.append(1 + await wait(ctx, unit.done))

    async def element_sink(ctx: SimulatorContext) -> None:
        await sink(ctx, "element", elements)

    async def token_sink(ctx: SimulatorContext) -> None:
        await sink(ctx, "token", tokens)

    for background in (serve, element_sink, token_sink):
        sim.add_testbench(background, background=True)
    sim.add_testbench(bench)
    sim.run()
    return elements, tokens, cycles


@pytest.mark.parametrize("ready", [1.0, 0.4])
def test_emit_sends_logits_then_the_token(ready: float) -> None:
    logits = port("m_axis_logits", "logits", 2, 5, 10, tlast="row")
    token = port("m_axis", "token", 2, 1, 3)
    unit = Emit([(logits, token)], [5], [2], WIDTHS)
    memory = [-3, 7, 7, -9, 0, -512, -400, -401, -400, -512]
    elements, tokens, cycles = run_emit(unit, memory, 2, ready)
    assert [x - 65536 * (x >> 15) for x, _ in elements] == memory
    assert [last for _, last in elements] == [0, 0, 0, 0, 1] * 2
    assert [t for t, _ in tokens] == [1, 1]  # the lowest of equal ones
    assert ready < 1 or cycles == [emit_cycles(5, True)] * 2


def test_emit_without_a_logits_port_needs_no_one_to_listen() -> None:
    unit = Emit([(None, port("m_axis", "token", 1, 1, 3))], [5], [1], WIDTHS)
    _, tokens, _ = run_emit(unit, [1, 2, 9, 4, 3], 1, 1.0)
    assert [t for t, _ in tokens] == [2]


def test_tlast_of_a_tensor_is_its_last_element() -> None:
    unit = Emit([(port("m_axis", "tensor", 2, 3, 12), None)], [3], [2], WIDTHS)
    elements, _, cycles = run_emit(unit, [1, 2, 3, 4, 5, 6], 2, 1.0)
    assert elements == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 1)]
    assert cycles == [emit_cycles(3, False)] * 2
