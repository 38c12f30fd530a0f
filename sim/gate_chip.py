"""A whole chip at gate level: its mapped netlist behind its AXI4-Stream ports.

Every sample runs in a vector of its own from its own reset, so that all samples take the time of
the longest::

    netlist = mapped_chip(files, "hw_top", target)
    results = simulate_gates(netlist, target.library, ports, samples)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwcompile.compiler.errors import MismatchError
from hwcompile.compiler.estimate.cells import CellLibrary
from hwcompile.compiler.estimate.closure import synthesise_to_period
from hwcompile.compiler.estimate.netlist import Netlist, flatten, read_netlist
from hwcompile.compiler.estimate.targets import Target
from hwcompile.compiler.ir.chip import Port
from hwcompile.sim.gate_simulation import GateSimulator
from hwcompile.sim.runner import ChipResult, ChipSample, port_records

FEED_PORT, TOKEN_PORT = "s_axis", "m_axis"
_RESET_CYCLES = 4


def mapped_chip(
    verilog_files: Sequence[Path],
    top: str,
    target: Target,
    jobs: int = 1,
    cache: Path | None = None,
    goal_ns: float | None = None,
) -> Netlist:
    """The flat netlist of a chip, mapped to the cells of ``target`` (memories stay macros).

    For the same ``goal_ns`` it is the netlist that ``closure.synthesise_to_period`` gives.
    """
    result, _ = synthesise_to_period(
        verilog_files, top, target, goal_ns=goal_ns, jobs=jobs, cache=cache
    )
    modules = {
        name: read_netlist(module.netlist_json, name, target.library)
        for name, module in result.modules.items()
    }
    return flatten(top, modules)


@dataclass(slots=True)
class _Stream:
    """One port of the chip, with the beats of every sample that passed."""

    name: str
    lane_bits: int
    signed: bool
    beats: list[list[int]]
    lasts: list[list[int]]
    cycles: list[list[int]]

    def signal(self, name: str) -> str:
        return f"{self.name}_{name}"


def simulate_gates(
    netlist: Netlist,
    library: CellLibrary,
    ports: Sequence[Port],
    samples: Sequence[ChipSample],
    timeout: int = 10_000_000,
) -> list[ChipResult]:
    """Run all samples at once, each alone on its copy of the chip, without gaps.

    ``timeout``: clock cycles. Raises MismatchError when outputs differ from ``expected`` or the
    chip stops before all outputs are there.
    """
    if not samples:
        return []
    simulator = GateSimulator(netlist, library, len(samples))
    ins, outs = (
        [
            _stream(record, len(samples))
            for record in port_records(ports)
            if record["direction"] == direction
        ]
        for direction in ("in", "out")
    )
    _reset(simulator, ins, outs)
    tokens = next((out for out in outs if out.name == TOKEN_PORT), None)
    for cycle in range(_RESET_CYCLES, timeout):
        if all(
            len(out.beats[n]) >= sample.outputs.get(out.name, 0)
            for out in outs
            for n, sample in enumerate(samples)
        ):
            break
        _cycle(simulator, ins, outs, tokens, samples, cycle)
    else:
        missing = {out.name: [len(beats) for beats in out.beats] for out in outs}
        raise MismatchError(f"the gates stopped; beats so far: {missing}")
    _compare(outs, samples)
    return [
        ChipResult(
            {out.name: out.beats[n] for out in outs},
            {out.name: out.lasts[n] for out in outs},
            {out.name: out.cycles[n] for out in outs},
        )
        for n in range(len(samples))
    ]


def _stream(record: Mapping[str, Any], samples: int) -> _Stream:
    def empty() -> list[list[int]]:
        return [[] for _ in range(samples)]

    name, lanes, signed = record["name"], record["lane_bits"], record["signed"]
    return _Stream(name, lanes, signed, empty(), empty(), empty())


def _reset(simulator: GateSimulator, ins: Sequence[_Stream], outs: Sequence[_Stream]) -> None:
    low, high = [0] * simulator.vectors, [1] * simulator.vectors
    for stream in ins:
        for name in ("tdata", "tvalid", "tlast"):
            simulator.set(stream.signal(name), low)
    for stream in outs:
        simulator.set(stream.signal("tready"), low)
    simulator.set("aresetn", low)
    for _ in range(_RESET_CYCLES):
        simulator.clock()
    simulator.set("aresetn", high)


def _cycle(
    simulator: GateSimulator,
    ins: Sequence[_Stream],
    outs: Sequence[_Stream],
    tokens: _Stream | None,
    samples: Sequence[ChipSample],
    cycle: int,
) -> None:
    """Offer what there is, take what is wanted, one clock edge."""
    offers = {stream.name: _offers(stream, tokens, samples) for stream in ins}
    for stream in ins:
        beats = offers[stream.name]
        simulator.set(stream.signal("tvalid"), [int(beat is not None) for beat in beats])
        simulator.set(stream.signal("tdata"), [0 if beat is None else beat[0] for beat in beats])
        simulator.set(stream.signal("tlast"), [0 if beat is None else beat[1] for beat in beats])
    wanted = {
        stream.name: [
            int(len(stream.beats[n]) < sample.outputs.get(stream.name, 0))
            for n, sample in enumerate(samples)
        ]
        for stream in outs
    }
    for stream in outs:
        simulator.set(stream.signal("tready"), wanted[stream.name])
    for stream in ins:
        taken = simulator.get(stream.signal("tready"))
        for n, beat in enumerate(offers[stream.name]):
            if beat is not None and taken[n]:
                stream.beats[n].append(beat[0])
    for stream in outs:
        valid, data, last = (
            simulator.get(stream.signal(name)) for name in ("tvalid", "tdata", "tlast")
        )
        width = len(simulator.netlist.ports[stream.signal("tdata")].nets)
        for n, ready in enumerate(wanted[stream.name]):
            if ready and valid[n]:
                wrapped = stream.signed and data[n] >> (width - 1)
                stream.beats[n].append(data[n] - (1 << width) if wrapped else data[n])
                stream.lasts[n].append(last[n])
                stream.cycles[n].append(cycle)
    simulator.clock()


def _offers(
    stream: _Stream, tokens: _Stream | None, samples: Sequence[ChipSample]
) -> list[tuple[int, int] | None]:
    """The next beat and its TLAST of each sample, where there is one yet."""
    offers: list[tuple[int, int] | None] = []
    for n, sample in enumerate(samples):
        given = sample.inputs.get(stream.name, ())
        index = len(stream.beats[n])
        count = len(given) + (sample.generate if stream.name == FEED_PORT else 0)
        if index >= count:
            offers.append(None)
        elif index < len(given):
            offers.append((given[index], int(index == count - 1)))
        elif tokens is not None and len(tokens.beats[n]) >= index:
            offers.append((tokens.beats[n][index - 1], int(index == count - 1)))
        else:
            offers.append(None)
    return offers


def _compare(outs: Sequence[_Stream], samples: Sequence[ChipSample]) -> None:
    lines = [
        f"sample {n}, port {out.name}: {out.beats[n][:8]} instead of {list(expected)[:8]}"
        for n, sample in enumerate(samples)
        for out in outs
        if (expected := sample.expected.get(out.name)) is not None
        and out.beats[n] != list(expected)
    ]
    if lines:
        raise MismatchError("the gates differ from the reference\n" + "\n".join(lines))
