"""The reference: whole runs, pieces and single steps give the same integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.program import Program
from hwcompile.sim import reference
from tests import programs

DECODERS = {
    "llama": programs.tiny_decoder(),
    "gpt": programs.tiny_decoder(1, "layer", rope=False, kv_heads=2, swiglu=False, layers=2),
}


def ids(program: Program, samples: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        i.value.key: random.integers(0, i.id_count, (samples, i.value.rows, 1))
        for i in program.inputs
    }


@pytest.mark.parametrize("name", DECODERS)
def test_steps_equal_the_whole_run(name: str) -> None:
    program = DECODERS[name]
    inputs = ids(program)
    whole = reference.run(program, inputs)["logits"]
    for sample in range(3):
        stepper = reference.Stepper(program)
        rows = [stepper.step(int(t)) for t in inputs["v0"][sample, :, 0]]
        assert np.array_equal(np.stack(rows), whole[sample])


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("cut", [1, 3, 7])
def test_caches_carry_a_sequence_on(name: str, cut: int) -> None:
    program = DECODERS[name]
    inputs = ids(program)
    whole = reference.run(program, inputs)["logits"]
    head, caches = reference.run_with_caches(program, {"v0": inputs["v0"][:, :cut]})
    tail = reference.run(program, {"v0": inputs["v0"][:, cut:]}, caches)
    assert np.array_equal(np.concatenate([head["logits"], tail["logits"]], 1), whole)


def test_encoder_decoder_steps_equal_the_whole_run() -> None:
    program = programs.tiny_encoder_decoder()
    inputs = ids(program)
    whole = reference.run(program, inputs)["logits"]
    stepper = reference.Stepper(program, {"v0": inputs["v0"][:1]})
    target = stepper.sequence_input().value.key
    rows = [stepper.step(int(t)) for t in inputs[target][0, :, 0]]
    assert np.array_equal(np.stack(rows), whole[0])


def test_samples_are_independent() -> None:
    program = programs.tiny_encoder()
    inputs = ids(program, samples=70)
    whole = reference.run(program, inputs)["logits"]
    alone = [reference.run(program, {"v0": inputs["v0"][[i]]})["logits"] for i in (0, 33, 69)]
    assert np.array_equal(np.concatenate(alone), whole[[0, 33, 69]])


def test_padding_is_not_seen() -> None:
    program = programs.tiny_encoder()
    row = np.array([3, 4, 0, 0, 0, 0])[None, :, None]
    seen: dict[str, np.ndarray] = {}

    def keep(op: object, output: np.ndarray) -> None:
        seen[op.output.key] = output  # type: ignore[attr-defined]

    reference.run(program, {"v0": row}, observe=keep)
    flags = program.operations[0].output.key
    assert seen[flags][0, :, 0].tolist() == [1, 1, 0, 0, 0, 0]


def test_greedy_generation_stops_at_the_context() -> None:
    program = DECODERS["llama"]
    made = reference.generate(program, [1, 2], 100)
    assert len(made) == 7
    assert made == reference.generate(program, [1, 2], 100)


def test_floats_in_and_out() -> None:
    program = programs.tiny_encoder(tokens=False)
    image = np.random.default_rng(0).normal(size=(5, 6, 4))
    out = reference.execute(program, {"image": image})["logits"]
    assert out.shape == (5, 5)
    quantised = reference.quantise_inputs(program, {"image": image * 100})["v0"]
    assert quantised.max() == 2047 and quantised.min() == -2047


def test_bad_inputs_are_named() -> None:
    program = DECODERS["llama"]
    with pytest.raises(UsageError, match="input_ids"):
        reference.quantise_inputs(program, {})
    with pytest.raises(UsageError, match=r"0\.\.11"):
        reference.quantise_inputs(program, {"input_ids": np.array([[12]])})
    with pytest.raises(UsageError, match="shape"):
        reference.quantise_inputs(program, {"input_ids": np.zeros((1, 9), int)})
    stepper = reference.Stepper(program)
    for _ in range(8):
        stepper.step(0)
    with pytest.raises(UsageError, match="context"):
        stepper.step(0)


def cached(form: str) -> Program:
    program = DECODERS["llama"]
    attend = next(op for op in program.operations if hasattr(op, "exp_table"))
    caches = tuple(
        ir.CacheTensor(attend.output.key, role, f"past.{role}", f"present.{role}")
        for role in ("key", "value")
    )
    return replace(program, caches=caches, form=form)


@pytest.mark.parametrize("form", ["kv", "step"])
def test_caches_of_a_file_go_in_and_out(form: str) -> None:
    program = cached(form)
    inputs = ids(program)
    whole = reference.run(program, inputs)["logits"]
    _, after = reference.run_with_caches(program, {"v0": inputs["v0"][:, :5]})
    out = reference.dequantise_caches(program, after)
    assert out["present.key"].shape == (3, 1, 5 if form == "kv" else 8, 4)
    feeds = {"past.key": out["present.key"], "past.value": out["present.value"]}
    if form == "step":
        with pytest.raises(UsageError, match="position"):
            reference.quantise_caches(program, feeds)
        feeds["position"] = np.array([5])
    caches = reference.quantise_caches(program, feeds)
    tail = reference.run(program, {"v0": inputs["v0"][:, 5:]}, caches)["logits"]
    assert np.array_equal(tail, whole[:, 5:])


def test_half_of_the_caches_is_an_error() -> None:
    program = cached("kv")
    assert reference.quantise_caches(program, {}) is None
    with pytest.raises(UsageError, match=r"past\.value"):
        reference.quantise_caches(program, {"past.key": np.zeros((1, 1, 2, 4))})
