"""The test of a whole chip, run inside a simulator by cocotb; it needs nothing but cocotb.

``CHIP_VECTORS`` names a JSON file::

    {"period_ns": 10, "timeout_cycles": 100000, "gaps_seed": null,
     "ports": [{"name": "s_axis", "direction": "in", "bits": 6, "lane_bits": 8, "signed": false}],
     "samples": [{"inputs": {"s_axis": [3, 1, 4]}, "outputs": {"m_axis": 3}, "generate": 0,
                  "expected": {"m_axis": [7, 7, 2]}}]}

Each sample's beats go in on all ports at once, TLAST on the last; ``outputs`` says how many beats
come back. ``generate``: that many more beats follow the inputs of ``s_axis``, each the latest beat
of ``m_axis``. With ``gaps_seed`` valid and ready pause at random. What came back is written to
``CHIP_RESULTS`` where it is set. The test fails on any difference from ``expected``.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, First, RisingEdge, Timer
from cocotb.utils import get_sim_time

GAP_CHANCE = 0.3
LONGEST_GAP = 7
RESET_CYCLES = 4
STALL_CYCLES = 5_000_000
FEED_PORT, TOKEN_PORT, CACHE_PORT = "s_axis", "m_axis", "s_axis_cache"


class Stream:
    """One AXI4-Stream port of the chip; ``beats`` and ``lasts`` (TLAST) as they pass."""

    def __init__(self, dut: Any, port: dict[str, Any], gaps: random.Random | None) -> None:
        self.clock = dut.aclk
        self.port = port
        self.gaps = gaps
        self.data, self.valid, self.ready, self.last = (
            getattr(dut, f"{port['name']}_{name}")
            for name in ("tdata", "tvalid", "tready", "tlast")
        )
        self.beats: list[int] = []
        self.lasts: list[int] = []
        self.times: list[float] = []
        self.passed = Event()

    async def reached(self, count: int) -> None:
        """Wait until ``count`` beats have passed."""
        while len(self.times) < count:
            self.passed.clear()
            await self.passed.wait()

    async def gap(self) -> None:
        """Pause for some cycles, now and then."""
        if self.gaps is not None and self.gaps.random() < GAP_CHANCE:
            await ClockCycles(self.clock, self.gaps.randint(1, LONGEST_GAP))

    async def send(self, beat: int, last: bool) -> None:
        """Offer a beat until it is taken."""
        await self.gap()
        self.data.value = beat & ((1 << self.port["lane_bits"]) - 1)
        self.last.value = int(last)
        self.valid.value = 1
        while True:
            await RisingEdge(self.clock)
            if int(self.ready.value):
                break
            await RisingEdge(self.ready)
        self.valid.value = 0
        self.times.append(get_sim_time("ns"))
        self.passed.set()

    async def collect(self, count: int) -> None:
        """Take ``count`` beats."""
        self.ready.value = 1
        for _ in range(count):
            while True:
                await RisingEdge(self.clock)
                if int(self.valid.value):
                    break
                await RisingEdge(self.valid)
            value = self.data.value
            beat = value.to_signed() if self.port["signed"] else value.to_unsigned()
            self.beats.append(beat)
            self.lasts.append(int(self.last.value))
            self.times.append(get_sim_time("ns"))
            self.passed.set()
            if self.gaps is not None:
                self.ready.value = 0
                await self.gap()
                self.ready.value = 1
        self.ready.value = 0


async def feed(stream: Stream, samples: list[dict[str, Any]], streams: dict[str, Stream]) -> None:
    """Send the beats of all samples, those that are generated included.

    Caches are offered after the last token before them, and before the first token after them.
    """
    name = stream.port["name"]
    answered = tokens = loaded = 0
    for sample in samples:
        beats = sample["inputs"].get(name, [])
        caches = len(sample["inputs"].get(CACHE_PORT, []))
        more = sample.get("generate", 0)
        if name == CACHE_PORT and caches:
            await streams[FEED_PORT].reached(tokens)
        if name == FEED_PORT and caches:
            await streams[CACHE_PORT].reached(loaded + 1)
        count = len(beats) + (more if name == FEED_PORT else 0)
        for index in range(count):
            if index < len(beats):
                beat = beats[index]
            else:
                await streams[TOKEN_PORT].reached(answered + index)
                beat = streams[TOKEN_PORT].beats[answered + index - 1]
            await stream.send(beat, index == count - 1)
        answered += sample["outputs"].get(TOKEN_PORT, 0)
        tokens += len(sample["inputs"].get(FEED_PORT, [])) + more
        loaded += caches


async def take(stream: Stream, samples: list[dict[str, Any]]) -> None:
    """Take the beats of all samples."""
    await stream.collect(sum(s["outputs"].get(stream.port["name"], 0) for s in samples))


def by_sample(stream: Stream, samples: list[dict[str, Any]]) -> list[dict[str, list[Any]]]:
    """The stream's beats, TLASTs and times in ns, sample by sample."""
    found: list[dict[str, list[Any]]] = []
    at = 0
    for sample in samples:
        end = at + sample["outputs"].get(stream.port["name"], 0)
        found.append(
            {
                "beats": stream.beats[at:end],
                "lasts": stream.lasts[at:end],
                "times": stream.times[at:end],
            }
        )
        at = end
    return found


def differences(samples: list[dict[str, Any]], results: list[dict[str, Any]]) -> list[str]:
    """A line for each port of a sample whose beats are not as expected."""
    lines = []
    for number, (sample, result) in enumerate(zip(samples, results, strict=True)):
        for name, expected in sample.get("expected", {}).items():
            beats = result[name]["beats"]
            if beats != expected:
                at = next(
                    (i for i, (x, y) in enumerate(zip(beats, expected, strict=False)) if x != y),
                    min(len(beats), len(expected)),
                )
                lines.append(
                    f"sample {number}, port {name}, beat {at}: {beats[at : at + 4]}"
                    f" instead of {expected[at : at + 4]}"
                )
    return lines


async def complete(
    tasks: list[Any], streams: list[Stream], period: float, timeout_cycles: int
) -> None:
    """Wait for all tasks; a chip on which no beat passes for ``STALL_CYCLES`` has stopped."""

    async def all_done() -> bool:
        for task in tasks:
            await task
        return True

    async def stopped() -> bool:
        cycles, before = 0, -1
        while cycles < timeout_cycles and before != sum(len(s.times) for s in streams):
            before = sum(len(s.times) for s in streams)
            step = min(STALL_CYCLES, timeout_cycles - cycles)
            await Timer(step * period, "ns")
            cycles += step
        return False

    if not await First(cocotb.start_soon(all_done()), cocotb.start_soon(stopped())):
        beats = {s.port["name"]: len(s.times) for s in streams}
        raise AssertionError(f"the chip stopped; beats so far: {beats}")


@cocotb.test()
async def chip(dut: Any) -> None:
    """All samples one after the other, from one reset."""
    vectors = json.loads(Path(os.environ["CHIP_VECTORS"]).read_text())
    period, samples = vectors["period_ns"], vectors["samples"]
    seed = vectors.get("gaps_seed")
    streams = [
        Stream(dut, port, None if seed is None else random.Random(f"{seed} {port['name']}"))
        for port in vectors["ports"]
    ]
    ins = [s for s in streams if s.port["direction"] == "in"]
    outs = [s for s in streams if s.port["direction"] == "out"]
    dut.aresetn.value = 0
    for stream in ins:
        stream.valid.value = 0
        stream.last.value = 0
        stream.data.value = 0
    for stream in outs:
        stream.ready.value = 0
    Clock(dut.aclk, period, unit="ns").start()
    await ClockCycles(dut.aclk, RESET_CYCLES)
    assert not any(int(s.valid.value) for s in outs), "TVALID is high in reset"
    dut.aresetn.value = 1
    await RisingEdge(dut.aclk)

    by_name = {s.port["name"]: s for s in streams}
    tasks = [cocotb.start_soon(feed(s, samples, by_name)) for s in ins]
    tasks += [cocotb.start_soon(take(s, samples)) for s in outs]

    try:
        await complete(tasks, streams, period, vectors["timeout_cycles"])
    finally:
        results = [
            {s.port["name"]: part for s, part in zip(outs, parts, strict=True)}
            for parts in zip(*(by_sample(s, samples) for s in outs), strict=True)
        ]
        if path := os.environ.get("CHIP_RESULTS"):
            record = {"samples": results, "sent": {s.port["name"]: s.times for s in ins}}
            Path(path).write_text(json.dumps(record))
    wrong = differences(samples, results)
    assert not wrong, "\n".join(wrong)
