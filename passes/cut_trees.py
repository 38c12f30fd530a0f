"""Cut the trees of a block that would be slower than the clock: rows of registers through them.

1. Every gate has a delay, so every bit a time at which it is there (:func:`arrivals`).
2. A row of registers goes where the fewest bits are alive among the places that leave both sides
   fast enough: everything that is there by some time is in front of it, but never what depends on
   the accumulators' feedback, which must return within a cycle.
3. The feedback enters as late as the rows in front of it allow; the more of a tree is done by then,
   the fewer bits there are to hold.
4. The fewest rows that keep the period. Where none do (the ripple of an accumulator cannot be cut),
   the least period that can be kept.

What must NOT change: what the block computes; its arrays are walked back afterwards, as always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.ir.weight_logic import (
    WORD_BITS,
    BoolArray,
    GateKind,
    IntArray,
    Stage,
    WeightBlock,
)

FloatArray = NDArray[np.float64]
Assemble = Callable[[int], WeightBlock]
"""The block whose feedback enters after so many levels of compressors."""

_STEP = 1.1
"""From one period that is tried to the next."""
_DEEPEST = 64
"""Levels of compressors that no tree reaches."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the logic is, in ns, and ``period_ns``, what it should keep.

    ``gate_ns``: delay of each kind of gate, to its sum and to its carry, at the load of its like.
    ``leaf_ns``: from the clock edge to a leaf; with phases ``decode_ns`` more, ``phase_bit_ns`` for
    each bit of the phase and ``digit_ns`` for each digit under one sign. ``launch_ns``,
    ``setup_ns``: of a register. ``buffer_ns``: a layer of a tree of buffers, each with ``fan_out``
    sinks. ``most_cuts``: rows of registers at most.
    """

    period_ns: float
    gate_ns: Mapping[GateKind, tuple[float, ...]]
    leaf_ns: float
    decode_ns: float
    phase_bit_ns: float
    digit_ns: float
    launch_ns: float
    setup_ns: float
    buffer_ns: float
    fan_out: int
    most_cuts: int = 4


# --- time -----------------------------------------------------------------------------------------


def slowest_ns(block: WeightBlock, pace: Pace) -> float:
    """The longest way from register to register, from the inputs on."""
    there = arrivals(block, pace)
    ends = [block.upper_bits[block.upper_bits >= 0]]
    ends += [stage.inputs[0] for stage in block.stages if stage.kind == "register"]
    return float(there[np.concatenate(ends)].max(initial=0.0)) + pace.setup_ns


def arrivals(block: WeightBlock, pace: Pace) -> FloatArray:
    """When each bit of the block is there, in ns after the clock edge."""
    leaves, start = len(block.leaf_tap), int(block.feedback_start[-1])
    there = np.zeros(_end(block))
    there[:leaves] = _leaf_ns(block, pace)
    there[leaves:start] = pace.launch_ns + pace.gate_ns["inverter"][0]
    there += pace.buffer_ns * _layers(block, pace.fan_out)
    for stage in block.stages:
        began = there[stage.inputs].max(0)
        delays = pace.gate_ns[stage.kind]
        for at, delay in zip(range(stage.first, stage.end, stage.size), delays, strict=False):
            there[at : at + stage.size] += (
                pace.launch_ns if stage.kind == "register" else began + delay
            )
    return there


def _leaf_ns(block: WeightBlock, pace: Pace) -> float:
    if block.phases == 1:
        return pace.leaf_ns
    digits = int(np.bincount(block.leaf_tap).max(initial=0))
    phase = pace.decode_ns + pace.phase_bit_ns * (block.phases - 1).bit_length()
    return pace.leaf_ns + phase + pace.digit_ns * digits


def _layers(block: WeightBlock, fan_out: int) -> IntArray:
    """Buffers in a row behind each bit, so that none has more than ``fan_out`` sinks."""
    uses = np.zeros(_end(block), np.int64)
    for stage in block.stages:
        np.add.at(uses, stage.inputs.ravel(), 1)
    layers = np.zeros_like(uses)
    while (uses > fan_out).any():
        layers += uses > fan_out
        uses = -(-uses // fan_out)
    return layers


def _end(block: WeightBlock) -> int:
    return block.stages[-1].end if block.stages else int(block.feedback_start[-1])


# --- how many rows --------------------------------------------------------------------------------


def cut_to_pace(assemble: Assemble, pace: Pace | None) -> WeightBlock:
    """The block as it is when it keeps the period, else with the rows of registers it needs."""
    block = assemble(0)
    if pace is None or not block.stages:
        return block
    slowest = slowest_ns(block, pace)
    if slowest <= pace.period_ns:
        return block
    period = max(pace.period_ns, _floor_ns(assemble, pace))
    while period < slowest:
        aim = replace(pace, period_ns=period)
        for rows in range(1, pace.most_cuts + 1):
            made = _with_rows(assemble, aim, rows)
            if made is not None:
                return made
        period *= _STEP
    return block


def _floor_ns(assemble: Assemble, pace: Pace) -> float:
    """No rows make it faster than this: the feedback through nothing but the last ripple."""
    block = assemble(_DEEPEST)
    block = _with_registers(block, ~_fed(block))
    made = block.upper_bits[block.upper_bits >= 0]
    return float(arrivals(block, pace)[made].max(initial=0.0)) + pace.setup_ns


def _with_rows(assemble: Assemble, pace: Pace, rows: int) -> WeightBlock | None:
    """The block with so many rows of registers, if it keeps the period."""
    block = _joined(assemble, pace, rows)
    for latest in (False, True):
        made: WeightBlock | None = block
        for _ in range(rows):
            made = None if made is None else _cut(made, pace, latest)
        if made is not None and slowest_ns(made, pace) <= pace.period_ns:
            return made
    return None


def _joined(assemble: Assemble, pace: Pace, rows: int) -> WeightBlock:
    """The block whose feedback enters as late as ``rows`` rows allow."""
    room = rows * (pace.period_ns - pace.setup_ns) - (rows - 1) * pace.launch_ns
    low, high = 0, _DEEPEST
    best = assemble(0)
    if not best.feeds_back:
        return best
    while high - low > 1:
        join = (low + high) // 2
        block = assemble(join)
        if arrivals(block, pace)[~_fed(block)].max(initial=0.0) <= room:
            low, best = join, block
        else:
            high = join
    return best


def _fed(block: WeightBlock) -> BoolArray:
    """Bits that depend on the feedback."""
    fed = np.zeros(_end(block), bool)
    fed[len(block.leaf_tap) : int(block.feedback_start[-1])] = True
    for stage in block.stages:
        fed[stage.first : stage.end] = np.tile(
            fed[stage.inputs].any(0), (stage.end - stage.first) // stage.size
        )
    return fed


# --- one row --------------------------------------------------------------------------------------


def _cut(block: WeightBlock, pace: Pace, latest: bool) -> WeightBlock | None:
    """One row of registers more, behind those there are; None where there is no place.

    Where the fewest bits are alive, or at the ``latest`` time that the period allows.
    """
    done = _gate_times(block, pace)
    dies = _last_reads(block, done)
    limit = pace.period_ns - pace.setup_ns
    read = dies > done
    born, dead = np.sort(done[read]), np.sort(dies[read])
    times = np.unique(done[(done <= limit) & (done > 0)])
    if not len(times):
        return None
    alive = np.searchsorted(born, times, "right") - np.searchsorted(dead, times, "right")
    best = len(times) - 1 - (0 if latest else int(np.argmin(alive[::-1])))
    return _with_registers(block, done <= times[best])


def _gate_times(block: WeightBlock, pace: Pace) -> FloatArray:
    """When the gate of each bit is done; infinite with feedback in it, 0 in front of the last row.

    Both bits of an adder have the time of the later one, and no gate is done before what it reads:
    all that is done by some time is whole, and reads nothing else.
    """
    there = arrivals(block, pace)
    late = np.zeros(len(there), np.int64)
    done = np.where(block.cuts > 0, 0.0, there)
    fed = slice(len(block.leaf_tap), int(block.feedback_start[-1]))
    done[fed], late[fed] = np.inf, block.cuts
    for stage in block.stages:
        repeat = (stage.end - stage.first) // stage.size
        own = there[stage.first : stage.end].reshape(repeat, stage.size).max(0)
        cycle = late[stage.inputs].max(0) + (stage.kind == "register")
        if stage.kind != "register":
            own = np.maximum(own, done[stage.inputs].max(0))
        own[cycle < block.cuts] = 0.0
        done[stage.first : stage.end] = np.tile(own, repeat)
        late[stage.first : stage.end] = np.tile(cycle, repeat)
    return done


def _last_reads(block: WeightBlock, done: FloatArray) -> FloatArray:
    """When the last gate that reads a bit is done; infinite for bits of the accumulators."""
    dies = np.full(len(done), -np.inf)
    for stage in block.stages:
        for bits in stage.inputs:
            np.maximum.at(dies, bits, done[stage.first : stage.first + stage.size])
    dies[block.upper_bits[block.upper_bits >= 0]] = np.inf
    return dies


def _with_registers(block: WeightBlock, front: BoolArray) -> WeightBlock:
    """The block with a register on every bit of the front that something behind it reads."""
    start = int(block.feedback_start[-1])
    number = np.arange(len(front))
    first = start
    stages: list[Stage] = []

    def add(stage: Stage, kept: BoolArray) -> None:
        """The gates of a stage that are kept, under new numbers."""
        nonlocal first
        if not kept.any():
            return
        own = stage.first + np.flatnonzero(kept)
        stages.append(Stage(stage.kind, number[stage.inputs[:, kept]], first))
        number[own] = first + np.arange(len(own))
        if stages[-1].end > first + len(own):
            number[own + stage.size] = first + len(own) + np.arange(len(own))
        first = stages[-1].end

    behind = [~front[s.first : s.first + s.size] for s in block.stages]
    for stage, mask in zip(block.stages, behind, strict=True):
        add(stage, ~mask)
    read = [block.upper_bits[block.upper_bits >= 0]]
    read += [s.inputs[:, mask].ravel() for s, mask in zip(block.stages, behind, strict=True)]
    crossing = np.unique(np.concatenate(read))
    crossing = crossing[front[crossing]]
    crossing = crossing[np.argsort(number[crossing])]
    for at in range(0, len(crossing), WORD_BITS):
        bits = crossing[at : at + WORD_BITS]
        stages.append(Stage("register", number[bits][None], first))
        number[bits] = first + np.arange(len(bits))
        first = stages[-1].end
    for stage, mask in zip(block.stages, behind, strict=True):
        add(stage, mask)
    upper = np.where(block.upper_bits < 0, -1, number[block.upper_bits])
    return replace(block, stages=tuple(stages), upper_bits=upper, cuts=block.cuts + 1)
