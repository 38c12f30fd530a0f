"""Random graphs: the chip model equals the reference, and notices a chip that is planned wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import random_graphs
from benchmarks.drawn_graphs import FAMILIES, draw
from hwcompile.compiler.errors import MismatchError
from hwcompile.compiler.ir.chip import Chip, Instruction, Loop, Operand, Section
from hwcompile.compiler.ir.program import Program
from hwcompile.passes.plan_chip import plan_chip
from tests import programs

DECODER = programs.tiny_decoder(layers=2)
ENCODER = programs.tiny_encoder()


def check(program: Program, chip: Chip) -> None:
    runs = random_graphs.vectors(program, chip, np.random.default_rng(1))
    random_graphs.compare_model(program, chip, runs)


def changed(chip: Chip, at: int, **fields: object) -> Chip:
    """The chip with one instruction changed; ``at`` counts through all of them."""
    count = -1

    def edit(i: Instruction) -> Instruction:
        nonlocal count
        count += 1
        return replace(i, **fields) if count == at else i  # type: ignore[arg-type]

    return replace(
        chip,
        sections=tuple(
            Section(
                s.kind,
                tuple(replace(x, body=tuple(edit(i) for i in x.body)) for x in s.loops),
            )
            for s in chip.sections
        ),
    )


def with_loops(chip: Chip, loops: tuple[Loop, ...]) -> Chip:
    return replace(chip, sections=(Section(chip.sections[0].kind, loops),))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_levels_without_hardware_agree(family: str) -> None:
    for seed in range(6):
        trial = random_graphs.attempt(draw(seed, family), rtl=False, gates=False)
        assert trial.outcome == {"model": "equal", "oracle": "equal"}, trial


def test_a_seed_draws_the_same_graph() -> None:
    one, two = draw(5), draw(5)
    assert (one.family, one.style, one.options) == (two.family, two.style, two.options)
    assert [type(op) for op in one.graph.operations] == [type(op) for op in two.graph.operations]


def test_every_operation_and_port_is_drawn() -> None:
    drawn = [draw(seed) for seed in range(150)]
    kinds = Counter(type(op).__name__ for d in drawn for op in d.graph.operations)
    assert len(kinds) == 13 and min(kinds.values()) >= 3, kinds
    assert any(d.cache_port for d in drawn) and not all(d.logits_port for d in drawn)
    assert {d.style for d in drawn} == {"auto", "bitplane", "folded", "parallel"}


def test_caches_that_are_loaded() -> None:
    chip = plan_chip(DECODER, cache_port=True)
    runs = random_graphs.vectors(DECODER, chip, np.random.default_rng(2))
    assert [given.caches is not None for given in runs] == [False, False, True]
    random_graphs.compare_model(DECODER, chip, runs)


def wrong_operands(chip: Chip) -> list[Chip]:
    """The chip with each operand of each instruction a word off, a row off, or standing still."""
    found = []
    for at, i in enumerate(chip.instructions):
        used = {"receive": "d", "emit": "a", "attend": "abd", "sum_rows": "ad", "gather": "ad"}
        for name in used.get(i.unit, "abd" if i.b.base or i.b.stride else "ad"):
            operand: Operand = getattr(i, name)
            idle = i.unit == "linear" and i.reuse and name == "a"
            if not idle and not (i.unit == "embed" and i.output and name == "a"):
                found.append(changed(chip, at, **{name: replace(operand, base=operand.base + 1)}))
            if operand.stride and not idle:
                found.append(changed(chip, at, **{name: replace(operand, stride=0)}))
    return found


@pytest.mark.parametrize("program", [DECODER, ENCODER], ids=["decoder", "encoder"])
def test_wrong_operands_are_noticed(program: Program) -> None:
    chip = plan_chip(program)
    check(program, chip)
    missed = []
    for number, wrong in enumerate(wrong_operands(chip)):
        try:
            check(program, wrong)
            missed.append(number)
        except MismatchError:
            pass
    assert number > 30 and not missed


def test_a_wrong_order_is_noticed() -> None:
    chip = plan_chip(DECODER)
    (loop,) = chip.sections[0].loops
    for at in range(len(loop.body) - 1):
        a, b = loop.body[at : at + 2]
        if b.unit == "emit" or b.a.base == a.d.base:  # one after the other
            body = (*loop.body[:at], b, a, *loop.body[at + 2 :])
            with pytest.raises(MismatchError):
                check(DECODER, with_loops(chip, (replace(loop, body=body),)))


@pytest.mark.parametrize("less", [1, -1])
def test_a_wrong_bound_is_noticed(less: int) -> None:
    chip = plan_chip(ENCODER)
    loops = chip.sections[0].loops
    for at, loop in enumerate(loops):
        if loop.rows > 1:
            short = (*loops[:at], replace(loop, rows=loop.rows - less), *loops[at + 1 :])
            with pytest.raises(MismatchError):
                check(ENCODER, with_loops(chip, short))


def test_a_bank_that_is_not_loaded_is_noticed() -> None:
    chip = plan_chip(DECODER)
    linear = [at for at, i in enumerate(chip.instructions) if i.unit == "linear" and not i.reuse]
    for at in linear:
        with pytest.raises(MismatchError):
            check(DECODER, changed(chip, at, reuse=True))


def test_a_row_that_is_not_the_position_is_noticed() -> None:
    chip = plan_chip(DECODER)
    for at, i in enumerate(chip.instructions):
        if i.unit in ("attend", "rotate"):
            with pytest.raises(MismatchError):
                check(DECODER, changed(chip, at, indexed=False))


def test_memories_too_small_or_too_narrow_are_noticed() -> None:
    chip = plan_chip(DECODER)
    for number, memory in enumerate(chip.memories):
        small = replace(memory, words=memory.words - 1)
        narrow = replace(memory, bits=memory.bits - 1)
        for wrong in (small, narrow) if memory.kind == "data" else (small,):
            memories = (*chip.memories[:number], wrong, *chip.memories[number + 1 :])
            with pytest.raises(MismatchError):
                check(DECODER, replace(chip, memories=memories))


def test_the_oracle_notices_a_wrong_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    original = random_graphs.ORACLE["normalise"]
    monkeypatch.setitem(
        random_graphs.ORACLE,
        "normalise",
        lambda *a: [[x + (c == 2) for c, x in enumerate(r)] for r in original(*a)],
    )
    inputs = {"v0": np.zeros((1, 8, 1), np.int64)}
    with pytest.raises(MismatchError, match="normalise"):
        random_graphs.compare_oracle(DECODER, inputs, 0)
