"""Wrong weights: how many are drawn, what they change, what the estimate makes of them."""

from dataclasses import replace

import numpy as np

from hwcompile.compiler import tolerance
from hwcompile.compiler.estimate.statistics import HALF
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.large_model import program_shape
from hwcompile.sim import reference
from tests.programs import tiny_decoder, tiny_encoder

PROGRAM = tiny_decoder()


def weights(program: ir.Program) -> list[np.ndarray]:
    return [op.weight for op in program.operations if isinstance(op, ir.Linear)]


def test_so_many_weights_at_most_are_wrong_and_within_their_range() -> None:
    made = tolerance.with_wrong_weights(PROGRAM, 20, np.random.default_rng(1))
    before, after = weights(PROGRAM), weights(made)
    changed = sum(int((a != b).sum()) for a, b in zip(before, after, strict=True))
    assert 10 <= changed <= 20
    assert all(abs(b).max() <= abs(a).max() for a, b in zip(before, after, strict=True))


def test_agreement_is_one_with_itself_and_falls_with_wrong_weights() -> None:
    rng = np.random.default_rng(0)
    feeds = tolerance.random_inputs(PROGRAM, 8, rng)
    intact = reference.run(PROGRAM, feeds)
    assert tolerance.agreement(PROGRAM, intact, intact) == 1
    wrong = tolerance.with_wrong_weights(PROGRAM, 300, rng)
    assert tolerance.agreement(PROGRAM, intact, reference.run(wrong, feeds)) < 0.9


def test_more_is_borne_when_less_is_asked() -> None:
    strict, lax = (tolerance.measure(PROGRAM, None, share) for share in (1.0, 0.0))
    assert strict.bears < lax.bears == max(c for c in tolerance.COUNTS if c <= lax.weights)
    assert [p.borne for p in lax.points] == [True] * len(lax.points)
    assert not strict.points[-1].borne


def test_the_same_seed_measures_the_same() -> None:
    first, second = (tolerance.measure(tiny_encoder(), None, 0.9, 3) for _ in range(2))
    assert first == second


def test_the_shape_of_a_program_is_that_of_its_matrices() -> None:
    shape = program_shape("toy", PROGRAM)
    assert shape.item == "token"
    assert shape.weights == sum(w.size for w in weights(PROGRAM))
    zeros = sum(int((w == 0).sum()) for w in weights(PROGRAM))
    assert sum(m.histogram[HALF] for m in shape.matrices) == zeros
    attends = [op for op in PROGRAM.operations if isinstance(op, ir.Attend)]
    assert len(shape.attention) == len(attends)
    assert replace(shape, name="other").macs_per_item == shape.macs_per_item
