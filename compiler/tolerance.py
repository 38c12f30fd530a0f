"""How many wrong weights a compiled model bears, measured on its integer program.

A defect in a weight array makes one weight wrong. Weights are drawn at random over all matrices,
each set to a random integer of its matrix's range, at rising counts; the answers are compared with
those of the intact program. The model bears a count when, in nearly all trials, it still gives the
wanted share of the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.program import Program
from hwcompile.sim import reference

Arrays = Mapping[str, NDArray[np.int64]]

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TRIALS = 8
BORNE_SHARE = 0.9
"""Share of the trials that must hold."""
SAMPLES = 24


@dataclass(frozen=True, slots=True)
class Point:
    """``count`` wrong weights: mean and worst share of the intact program's answers."""

    count: int
    mean: float
    worst: float
    borne: bool


@dataclass(frozen=True, slots=True)
class Tolerance:
    """``bears``: the largest count of the series that was borne, smaller ones with it."""

    bears: int
    min_agreement: float
    weights: int
    samples: int
    points: tuple[Point, ...]


def measure(
    program: Program, inputs: Arrays | None, min_agreement: float, seed: int = 0
) -> Tolerance:
    """Measure on integer ``inputs`` by value key, or on random ones."""
    rng = np.random.default_rng(seed)
    feeds = random_inputs(program, SAMPLES, rng) if inputs is None else inputs
    intact = reference.run(program, feeds)
    sizes = {op.output.key: op.weight.size for op in _matrices(program)}
    total = sum(sizes.values())
    points: list[Point] = []
    for count in COUNTS:
        if count > total:
            break
        shares = []
        for _ in range(TRIALS):
            wrong = with_wrong_weights(program, count, rng)
            shares.append(agreement(program, intact, reference.run(wrong, feeds)))
        held = sum(share >= min_agreement for share in shares) / TRIALS
        points.append(Point(count, sum(shares) / TRIALS, min(shares), held >= BORNE_SHARE))
        if not points[-1].borne:
            break
    bears = max((p.count for p in points if p.borne), default=0)
    samples = len(next(iter(feeds.values())))
    return Tolerance(bears, min_agreement, total, samples, tuple(points))


def with_wrong_weights(program: Program, count: int, rng: np.random.Generator) -> Program:
    """The program with ``count`` weights replaced by random ones of their matrix's range."""
    matrices = _matrices(program)
    starts = np.cumsum([0, *(op.weight.size for op in matrices)])
    places = rng.choice(int(starts[-1]), count, replace=False)
    made: dict[str, ir.Operation] = {}
    for op, start, end in zip(matrices, starts[:-1], starts[1:], strict=True):
        here = places[(places >= start) & (places < end)] - start
        if not len(here):
            continue
        weight = op.weight.copy().reshape(-1)
        bound = max(1, int(np.abs(weight).max()))
        weight[here] = rng.integers(-bound, bound + 1, len(here))
        made[op.output.key] = replace(op, weight=weight.reshape(op.weight.shape))
    operations = tuple(made.get(op.output.key, op) for op in program.operations)
    return replace(program, operations=operations)


def agreement(program: Program, intact: Arrays, other: Arrays) -> float:
    """Share of equal answers: arg-max of logits, else outputs that keep their direction.

    A row of a tensor is the same answer when its cosine with the intact row is above 0.99.
    """
    shares = []
    for output in program.outputs:
        a, b = (np.asarray(x[output.model_name], np.float64) for x in (intact, other))
        if output.kind == "logits":
            shares.append(float((a.argmax(-1) == b.argmax(-1)).mean()))
            continue
        size = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
        cosine = np.divide((a * b).sum(-1), size, out=np.ones_like(size), where=size > 0)
        shares.append(float((cosine > 0.99).mean()))
    return min(shares)


def random_inputs(
    program: Program, count: int, rng: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    """Inputs by value key ``[count, rows, cols]``, over all that each may hold."""
    made = {}
    for given in program.inputs:
        value = given.value
        shape = (count, value.rows, value.cols)
        if given.kind == "flags":
            made[value.key] = np.ones(shape, np.int64)
        else:
            made[value.key] = rng.integers(value.low, value.high + 1, shape)
    return made


def _matrices(program: Program) -> list[ir.Linear]:
    return [op for op in program.operations if isinstance(op, ir.Linear)]
