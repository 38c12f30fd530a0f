"""Calibrate: the floats every value of a Graph takes on typical inputs.

Inputs are the user's data or, without any, made from the graph alone:

1. Token ids of a sequence: the model's own continuations, sampled from its float logits after a
   random first token. All positions are sampled at once with one fixed random number each, and
   again until nothing changes: the fixed point is the sequence that sampling token by token gives.
2. Other token ids: drawn evenly; where the graph has a padding id or flags, lengths are drawn too.
   A single id of a large table (a time): small ones more often, as the table may be longer than
   what the model was trained on.
3. Tensors: evenly over the range the graph proves, or unit-normal cut at +-4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir import graph

FloatArray = NDArray[np.float64]
Feeds = dict[str, NDArray[Any]]
Evaluate = Callable[[graph.Graph, Feeds], Mapping[str, FloatArray]]
"""Floats of all values of a graph by value key, ``[N, rows, cols]``, from inputs by model name."""

NORMAL_RANGE = 4.0
_LARGE_TABLE = 256  # ids
_ROWS = 2048  # rows of every value aimed at
_KEPT_ROWS = 4096  # rows of a value kept
_WORK = 6e9  # multiply-accumulates spent on making sequences
_MOST_SWEEPS = 32


@dataclass(frozen=True, slots=True)
class Calibration:
    """``samples``: ``[n, cols]`` by value key. ``feeds``: the inputs, by model name. ``outputs``:
    float outputs on them by model name, ``[N, rows, cols]``. ``source``: for the report."""

    samples: Mapping[str, FloatArray]
    feeds: Feeds
    outputs: Mapping[str, FloatArray]
    source: str


def run(
    net: graph.Graph, evaluate: Evaluate, data: Mapping[str, NDArray[Any]] | None, seed: int = 0
) -> Calibration:
    """Calibration of a graph on the user's data by model name ``[N, ...]``, or on made data.

    Raises UsageError when the data lacks an input.
    """
    if data is None:
        feeds, source = make(net, evaluate, seed), describe(net)
    else:
        missing = [i.model_name for i in net.inputs if i.model_name not in data]
        if missing:
            raise UsageError(f"calibration data lacks {', '.join(missing)}")
        feeds, source = {i.model_name: data[i.model_name] for i in net.inputs}, "given data"
        wild = [name for name, x in feeds.items() if not np.isfinite(x).all()]
        if wild:
            raise UsageError(f"calibration data holds numbers that are not finite: {wild[0]!a}")
    values = evaluate(net, feeds)
    samples = {key: _rows(np.asarray(x, np.float64), seed) for key, x in values.items()}
    outputs = {o.model_name: np.asarray(values[o.value]) for o in net.outputs}
    return Calibration(samples, feeds, outputs, source)


def describe(net: graph.Graph) -> str:
    """What :func:`make` makes, in words."""
    parts = []
    for given in net.inputs:
        if given.kind == "tensor":
            text = f"{given.low:g}..{given.high:g}" if _proven(given) else "unit normal over +-4"
        elif given.kind == "flags":
            text = "random lengths"
        else:
            text = "sampled from the model" if _sampled(net, given) else "random ids"
        parts.append(text)
    return "assumed inputs: " + ", ".join(parts)


def make(net: graph.Graph, evaluate: Evaluate, seed: int = 0) -> Feeds:
    """Inputs by model name in the model's shapes, made from the graph alone."""
    random = np.random.default_rng(seed)
    longest = max(i.value.rows for i in net.inputs)
    count = max(min(_ROWS // longest, 256), 4)
    lengths = random.integers(max(longest // 3, 1), longest + 1, count)
    padding = {op.inputs[0]: op.absent for op in net.operations if isinstance(op, graph.Flag)}
    if any(given.kind == "flags" for given in net.inputs):
        padding.update({i.value.key: 0 for i in net.inputs if i.kind == "ids" and i.section == 0})
    feeds = {
        given.model_name: _make_input(given, count, lengths, padding, random)
        for given in net.inputs
    }
    for given in net.inputs:
        if _sampled(net, given):
            feeds = _sample(net, given, evaluate, feeds, random)
    return feeds


def _proven(given: graph.Input) -> bool:
    return given.low is not None and given.high is not None


def _make_input(
    given: graph.Input,
    count: int,
    lengths: NDArray[np.int64],
    padding: Mapping[str, int],
    random: np.random.Generator,
) -> NDArray[Any]:
    shape: tuple[int, ...] = (count, *given.model_shape[1:])
    if np.prod(shape) != count * given.value.rows * given.value.cols:
        shape = (count, given.value.rows)  # one step of a sequence: time is axis 1
    if given.kind == "tensor":
        if _proven(given):
            return random.uniform(given.low or 0.0, given.high or 0.0, shape)
        return np.clip(random.normal(size=shape), -NORMAL_RANGE, NORMAL_RANGE)
    inside = np.arange(given.value.rows)[None, :] < lengths[:, None]
    if given.kind == "flags":
        return inside.astype(np.int64).reshape(shape)
    ids = random.integers(0, given.id_count, (count, given.value.rows))
    if given.value.rows == 1 and given.id_count >= _LARGE_TABLE:
        ids = np.floor(given.id_count ** random.random(ids.shape) - 1).astype(np.int64)
    if given.value.key in padding:
        absent = padding[given.value.key]
        ids = np.where(ids == absent, (absent + 1) % given.id_count, ids)
        ids = np.where(inside, ids, absent)
    return ids.reshape(shape)


# --- sequences from the model itself --------------------------------------------------------------


def _sampled(net: graph.Graph, given: graph.Input) -> bool:
    return (
        given.kind == "ids"
        and net.sections[given.section] == "sequence"
        and net.outputs[0].kind == "logits"
    )


def _sample(
    net: graph.Graph,
    given: graph.Input,
    evaluate: Evaluate,
    feeds: Feeds,
    random: np.random.Generator,
) -> Feeds:
    ids = feeds[given.model_name].copy()
    shape = ids.shape
    ids = ids.reshape(len(ids), -1)
    if ids.shape[1] < 2:
        return feeds
    chance = random.random((len(ids), ids.shape[1] - 1, 1))
    for _ in range(_sweeps(net, ids.size)):
        logits = evaluate(net, {**feeds, given.model_name: ids.reshape(shape)})
        z = np.asarray(logits[net.outputs[0].value])[:, :-1, : given.id_count]
        p = np.exp(z - z.max(-1, keepdims=True)).cumsum(-1)
        following = (p < chance * p[..., -1:]).sum(-1)
        if np.array_equal(following, ids[:, 1:]):
            break
        ids[:, 1:] = following
    return {**feeds, given.model_name: ids.reshape(shape)}


def _sweeps(net: graph.Graph, tokens: int) -> int:
    weights = sum(op.weight.size for op in net.operations if isinstance(op, graph.Linear))
    return int(np.clip(_WORK / (max(weights, 1) * tokens), 2, _MOST_SWEEPS))


def _rows(x: FloatArray, seed: int) -> FloatArray:
    """At most ``_KEPT_ROWS`` rows ``[n, cols]`` of ``[N, rows, cols]``, drawn at random."""
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) <= _KEPT_ROWS:
        return rows
    return rows[np.random.default_rng(seed).choice(len(rows), _KEPT_ROWS, replace=False)]
