"""Running, generating and evaluating a design with the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwcompile.compiler import evaluate, execute
from hwcompile.compiler.emit import bundle
from hwcompile.compiler.emit.manifest import Manifest
from hwcompile.compiler.errors import MismatchError, UsageError
from hwcompile.compiler.ir import serialise
from hwcompile.compiler.ir.program import Program
from tests import programs


def design_of(program: Program, folder: Path) -> execute.Design:
    document, arrays = serialise.to_bytes(program)
    files = {"reference/program.json": document, "reference/program.npz": arrays}
    bundle.write(folder / "d", files, Manifest({}, {}, {}, {}))
    return execute.open_design(folder / "d")


@pytest.fixture
def decoder(tmp_path: Path) -> execute.Design:
    return design_of(programs.tiny_decoder(), tmp_path)


@pytest.fixture
def translator(tmp_path: Path) -> execute.Design:
    return design_of(programs.tiny_encoder_decoder(), tmp_path)


def test_run_gives_floats_integers_and_the_scale(decoder: execute.Design) -> None:
    ids = np.arange(16).reshape(2, 8) % 12
    out = execute.run(decoder, {"input_ids": ids})
    assert sorted(out) == ["logits", "logits__int", "logits__scale"]
    assert out["logits"].shape == (2, 8, 12) and out["logits__int"].dtype == np.int64
    np.testing.assert_allclose(out["logits"], out["logits__int"] * out["logits__scale"], rtol=1e-6)
    one = execute.run(decoder, {"input_ids": ids}, limit=1)
    np.testing.assert_array_equal(one["logits__int"], out["logits__int"][:1])


def test_rows_are_fresh_sequences_and_may_be_short(decoder: execute.Design) -> None:
    whole = execute.run(decoder, {"input_ids": np.array([[3, 1, 4, 1, 5]])})
    short = execute.run(decoder, {"input_ids": np.array([[3, 1, 4]])})
    np.testing.assert_array_equal(short["logits__int"], whole["logits__int"][:, :3])


@pytest.mark.parametrize(
    "feeds, engine, outputs",
    [
        ({}, "reference", None),
        ({"input_ids": np.array([[99]])}, "reference", None),
        ({"input_ids": np.array([[1]])}, "magic", None),
        ({"input_ids": np.array([[1]])}, "reference", ["nothing"]),
        ({"input_ids": np.array([[1.5]])}, "reference", None),
    ],
)
def test_wrong_requests_are_usage_errors(decoder, feeds, engine, outputs) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError):
        execute.run(decoder, feeds, engine, outputs)


def test_generation_continues_its_own_output(decoder: execute.Design) -> None:
    made = execute.generate(decoder, [1, 2], tokens=3)
    assert len(made.tokens) == 3 and not made.context_full
    out = execute.run(decoder, {"input_ids": np.array([[1, 2, *made.tokens]])})
    choices = out["logits__int"][0].argmax(-1)
    assert list(choices[1:4]) == list(made.tokens)


def test_generation_stops_at_the_end_of_the_context(decoder: execute.Design) -> None:
    made = execute.generate(decoder, [1, 2])
    assert made.context_full and len(made.tokens) == 8 - 2 + 1


def test_generation_stops_after_the_end_mark(decoder: execute.Design) -> None:
    first = execute.generate(decoder, [1, 2], tokens=1).tokens[0]
    made = execute.generate(decoder, [1, 2], stop=first)
    assert made.tokens == (first,) and not made.context_full


def test_sampling_is_repeatable_and_bounded_by_top_k(decoder: execute.Design) -> None:
    hot = execute.Sampling(temperature=50.0, seed=3)
    assert execute.generate(decoder, [1], sampling=hot) == execute.generate(
        decoder, [1], sampling=hot
    )
    one = execute.Sampling(temperature=50.0, top_k=1, seed=3)
    assert execute.generate(decoder, [1], sampling=one) == execute.generate(decoder, [1])


def test_an_encoder_decoder_needs_a_source(translator: execute.Design) -> None:
    assert execute.generate(translator, [1], source=[3, 4], tokens=2).tokens
    with pytest.raises(UsageError, match="has an encoder"):
        execute.generate(translator, [1])
    with pytest.raises(UsageError, match="source"):
        execute.generate(translator, [1], source=[1] * 7)


@pytest.mark.parametrize("prompt", [[], [99], [1] * 9])
def test_wrong_prompts_are_usage_errors(decoder: execute.Design, prompt: list[int]) -> None:
    with pytest.raises(UsageError):
        execute.generate(decoder, prompt)


def test_a_classifier_generates_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tensors"):
        execute.generate(design_of(programs.tiny_encoder(), tmp_path), [1])


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a design bundle"):
        execute.open_design(tmp_path)


def test_a_damaged_program_is_a_mismatch(decoder: execute.Design) -> None:
    (decoder.folder / "reference/program.json").write_text("{}")
    with pytest.raises(MismatchError):
        execute.open_design(decoder.folder)


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([object()], dtype=object))
    (tmp_path / "y.npz").write_text("text")
    for name in ("x.npz", "y.npz", "none.npz"):
        with pytest.raises(UsageError):
            execute.read_npz(tmp_path / name)


def test_scores() -> None:
    logits = np.log(np.array([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]]))
    label = np.array([[0, 1]])
    assert evaluate.score("top1", logits, label) == 1.0
    assert evaluate.score("perplexity", logits, label) == pytest.approx((1 / (0.5 * 0.8)) ** 0.5)
    assert evaluate.score("exact-match", logits, np.array([[1, 1]])) == 0.0
    assert evaluate.score("exact-match", logits, np.array([[-1, 1]])) == 1.0
    assert evaluate.score("mse", np.ones((2, 2)), np.zeros((2, 2))) == 1.0
    with pytest.raises(UsageError):
        evaluate.score("top1", logits, np.zeros(5))


def test_exact_match_of_classes_counts_class_zero() -> None:
    logits = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert evaluate.score("exact-match", logits, np.array([0, 1])) == 0.5
