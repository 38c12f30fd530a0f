"""The models that ship: quality of the integers, and whole chips in simulation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwcompile.compiler import checks, evaluate, pipeline
from hwcompile.compiler.execute import read_npz
from hwcompile.compiler.hardware import Hardware
from hwcompile.compiler.ir.program import Program
from hwcompile.compiler.options import Options
from hwcompile.compiler.vocabulary import read_vocabulary
from hwcompile.sim import reference, runner
from hwcompile.sim.runner import ChipSample

EXAMPLES = Path(__file__).parents[2] / "examples"
MODELS = {
    "dates": "dates.onnx",
    "llama": "llama.onnx",
    "ternary": "ternary.onnx",
    "tiny": "tiny.onnx",
    "vit": "digits.onnx",
}


@dataclass(frozen=True)
class Example:
    """A compiled example with its evaluation set."""

    path: Path
    program: Program
    data: dict[str, Any]

    def outputs(self, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Float outputs, integer outputs as floats, labels of the first samples."""
        feeds = {name: x[:limit] for name, x in self.data.items() if name != "label"}
        floats = evaluate.float_outputs(self.path, self.program, feeds)
        got = reference.execute(self.program, feeds)["logits"]
        return floats, got.reshape(floats.shape), self.data["label"][:limit]


def example(name: str) -> Example:
    path = EXAMPLES / name / MODELS[name]
    made = pipeline.compile_model(path, Options(stop_after="quantise")).artefacts
    return Example(path, made["program"], read_npz(path.parent / "eval.npz"))


def hardware(name: str, folder: Path) -> tuple[Program, Hardware, Path]:
    path = EXAMPLES / name / MODELS[name]
    made = pipeline.compile_model(path, Options(stop_after="generate")).artefacts
    return made["program"], made["hardware"], pipeline.write_rtl(made["hardware"], folder)


@pytest.mark.parametrize("name", ["llama", "ternary", "tiny"])
def test_language_models_keep_their_perplexity(name: str) -> None:
    floats, got, label = example(name).outputs(16)
    want = evaluate.score("perplexity", floats, label)
    assert evaluate.score("perplexity", got, label) <= 1.01 * want
    assert (floats.argmax(-1) == got.argmax(-1)).mean() >= 0.95


def test_dates_come_out_right() -> None:
    _, got, label = example("dates").outputs(100)
    assert evaluate.score("exact-match", got, label) >= 0.99


def test_digits_are_recognised() -> None:
    floats, got, label = example("vit").outputs(150)
    assert (floats.argmax(-1) == got.argmax(-1)).mean() >= 0.97
    assert evaluate.score("top1", got, label) >= 0.95


@pytest.mark.parametrize("name", MODELS)
def test_an_example_is_small(name: str) -> None:
    assert (EXAMPLES / name / MODELS[name]).stat().st_size < 1 << 20


def test_the_smallest_chip_fills_its_context_twice_without_reload(tmp_path: Path) -> None:
    program, made, rtl = hardware("tiny", tmp_path)
    context = reference.context(program)
    tokens = read_npz(EXAMPLES / "tiny" / "eval.npz")["token"][:2]
    assert tokens.shape == (2, context)
    key = program.inputs[0].value.key
    samples = checks.expect(program, made.chip, {key: tokens[..., None].astype(np.int64)})
    checks.simulate(rtl, checks.Vectors(made.chip, tuple(samples)))


def test_the_chip_converts_ten_dates(tmp_path: Path) -> None:
    _, made, rtl = hardware("dates", tmp_path)
    vocabulary = read_vocabulary(EXAMPLES / "dates" / "vocab.json")
    data = read_npz(EXAMPLES / "dates" / "eval.npz")
    source, target = (next(p for p in made.chip.ports if p.section == n) for n in (0, 1))
    length = data["tgt"].shape[1]
    samples = [
        ChipSample(
            inputs={source.name: src.tolist(), target.name: [int(tgt[0])]},
            outputs={p.name: length * p.cols for p in made.chip.ports if p.direction == "out"},
            generate=length - 1,
        )
        for src, tgt in zip(data["src"][:10], data["tgt"][:10], strict=True)
    ]
    results = runner.simulate(rtl, made.chip.ports, samples, timeout=10_000_000)
    written = [vocabulary.decode(r.outputs["m_axis"]) for r in results]
    assert written == [vocabulary.decode(label) for label in data["label"][:10].tolist()]


def test_the_chip_classifies_a_digit(tmp_path: Path) -> None:
    program, made, rtl = hardware("vit", tmp_path)
    data = read_npz(EXAMPLES / "vit" / "eval.npz")
    inputs = reference.quantise_inputs(program, {"image": data["image"][:1]})
    samples = checks.expect(program, made.chip, inputs)
    results = runner.simulate(rtl, made.chip.ports, samples, timeout=10_000_000)
    logits = runner.output_arrays(made.chip.ports, results)[program.outputs[0].value]
    assert int(logits[0, 0].argmax()) == data["label"][0]
