"""The user's own measure of quality: the float model in onnxruntime beside the compiled design."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.execute import Design, Feeds, run
from hwcompile.compiler.ir.program import Program

METRICS = ("top1", "perplexity", "exact-match", "agreement", "mse")
LOWER_IS_BETTER = ("perplexity", "mse")
PADDING_LABEL = 0
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A metric of the float model and of the design, over ``items`` samples."""

    metric: str
    items: int
    float_value: float
    design_value: float

    def reaches(self, bound: float) -> bool:
        """Whether the design is at least as good as ``bound`` (at most, where lower is better)."""
        if self.metric in LOWER_IS_BETTER:
            return self.design_value <= bound
        return self.design_value >= bound


def evaluate(
    design: Design,
    data: Mapping[str, Array],
    metric: str,
    model: Path | None = None,
    engine: str = "reference",
    limit: int | None = None,
) -> Evaluation:
    """Compute one metric on labelled data.

    Args:
        data: the model's inputs by name, and ``label`` (class, next tokens, target tokens or
            tensor).
        model: the float model, if the bundle holds no copy.
        limit: only the first so many samples.

    Raises:
        UsageError: unknown metric, no label, no float model, inputs missing.
    """
    if metric not in METRICS:
        raise UsageError(f"unknown metric {metric!r}", "metrics: " + ", ".join(METRICS))
    path = model or design.model
    if path is None:
        raise UsageError("the bundle holds no copy of the model", "give it with --model FILE")
    feeds = {name: np.asarray(x)[:limit] for name, x in data.items() if name != "label"}
    floats = float_outputs(path, design.program, feeds)
    feeds = {name: x[: len(floats)] for name, x in feeds.items()}
    name = design.program.outputs[0].model_name
    got = run(design, feeds, engine)[name].reshape(floats.shape).astype(np.float64)
    if metric == "agreement":
        values = 1.0, float((floats.argmax(-1) == got.argmax(-1)).mean())
    else:
        if "label" not in data:
            raise UsageError("the evaluation set has no array named label")
        label = np.asarray(data["label"])[: len(floats)]
        values = score(metric, floats, label), score(metric, got, label)
    return Evaluation(metric, len(floats), *values)


def score(metric: str, outputs: Array, label: Array) -> float:
    """One metric of outputs ``[N, ..., classes]`` against labels.

    Labels below 0 are left out everywhere. ``exact-match``: the share of samples whose every
    position is right; in sequences a label of 0 is padding.
    """
    if metric == "mse":
        if outputs.size != label.size:
            raise UsageError(f"label has {label.size} elements, the output {outputs.size}")
        return float(((outputs - label.reshape(outputs.shape)) ** 2).mean())
    label = label.astype(np.int64)
    if label.shape != outputs.shape[:-1]:
        raise UsageError(f"label has shape {list(label.shape)}, not {list(outputs.shape[:-1])}")
    counted = label >= 0
    right = (outputs.argmax(-1) == label) | ~counted
    if metric == "top1":
        return float(right[counted].mean())
    if metric == "exact-match":
        if label.ndim > 1:
            right |= label == PADDING_LABEL
        return float(right.reshape(len(right), -1).all(1).mean())
    z = outputs - outputs.max(-1, keepdims=True)
    chosen = np.take_along_axis(z, np.maximum(label, 0)[..., None], -1)[..., 0]
    return float(np.exp((np.log(np.exp(z).sum(-1)) - chosen)[counted].mean()))


def float_outputs(path: Path, program: Program, feeds: Feeds) -> Array:
    """The float model's first output over all samples, in batches that its graph accepts."""
    from onnxruntime import InferenceSession  # type: ignore[attr-defined]  # slow to import

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {i.name: i for i in session.get_inputs()}
    caches = {c.input_name: c.output_name for c in program.caches}
    names = [name for name in inputs if name not in caches and name in feeds]
    missing = [n for n in inputs if n not in caches and n not in feeds and n != "position"]
    if missing or not names:
        raise UsageError(f"input {', '.join(missing)} is missing", f"inputs: {', '.join(inputs)}")
    batch = inputs[names[0]].shape[0]
    step = batch if isinstance(batch, int) else 1
    count = len(feeds[names[0]])
    kinds = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(float16)": np.float16}
    pieces = []
    for start in range(0, count - count % step, step):
        feed = {
            name: feeds[name][start : start + step].astype(kinds.get(inputs[name].type, np.int64))
            for name in names
        }
        empty = {
            name: np.zeros(
                [step, *[d if isinstance(d, int) else 0 for d in inputs[name].shape[1:]]],
                kinds.get(inputs[name].type, np.float32),
            )
            for name in caches
        }
        pieces.append(_float_piece(session, program, feed, empty, caches))
    if not pieces:
        raise UsageError(f"the model takes batches of {step}, the data holds {count} samples")
    return np.concatenate(pieces).astype(np.float64)


def _float_piece(
    session: Any,
    program: Program,
    feed: dict[str, Array],
    past: dict[str, Array],
    caches: Mapping[str, str],
) -> Array:
    output = program.outputs[0].model_name
    if program.form != "step":
        return np.asarray(session.run([output], {**feed, **past})[0])
    name = next(iter(feed))
    rows = []
    for position in range(feed[name].shape[1]):
        given = {name: feed[name][:, position : position + 1], "position": np.array([position])}
        results = session.run([output, *caches.values()], {**given, **past})
        past = dict(zip(caches, results[1:], strict=True))
        rows.append(results[0])
    return np.concatenate(rows, 1)
