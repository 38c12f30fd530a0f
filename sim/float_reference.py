"""Float reference: a Graph evaluated in float64 numpy, many samples at once.

The oracle of calibration and of the import: its outputs equal those of the ONNX file up to
rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir import order
from hwcompile.compiler.ir.expressions import evaluate as evaluate_expression
from hwcompile.compiler.ir.graph import FloatArray, Graph
from hwcompile.compiler.ir.tensor_graph import Array


def evaluate(
    graph: Graph, feeds: Mapping[str, Array], collect: bool = False
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """``(outputs, values)`` of N samples.

    ``feeds`` maps model input names to ``[N, ...]`` (the batch axis of the model is N). A sequence
    section takes as many rows as its inputs have, at most the context. ``outputs`` maps model
    output names to ``[N, *model_shape[1:]]``, logits to ``[N, rows, cols]``. ``values``, only with
    ``collect``, maps value keys to ``[N, rows, cols]``. Raises UsageError for missing feeds.
    """
    values: dict[str, FloatArray] = {}
    lengths: dict[int, int] = {}
    for given in graph.inputs:
        if given.model_name not in feeds:
            raise UsageError(f"input {given.model_name!a} is missing", "add it to the inputs")
        array = np.asarray(feeds[given.model_name], np.float64)
        x = array.reshape(len(array), -1, given.value.cols)
        if x.shape[1] > given.value.rows:
            raise UsageError(
                f"input {given.model_name!a} has {x.shape[1]} rows, at most {given.value.rows} fit",
                "shorten it",
            )
        if graph.sections[given.section] == "sequence":
            lengths[given.section] = x.shape[1]
        values[given.value.key] = x
    samples = len(next(iter(values.values()))) if values else 1
    last = _last_uses(graph)
    with np.errstate(all="ignore"):
        for run in order.runs(graph.operations):
            length = lengths.get(run.operations[0].section)
            if run.recurrent:
                values.update(_recur(run.operations, values, samples, length))
            for op in run.operations:
                if not run.recurrent:
                    xs = [values[k] for k in op.inputs]
                    values[op.output.key] = _run(op, xs, samples, lengths.get(op.section))
                for key in () if collect else last.get(op.output.key, ()):
                    values.pop(key, None)
    outputs = {o.model_name: _shaped(graph, o, values[o.value]) for o in graph.outputs}
    return outputs, values if collect else {}


def _last_uses(graph: Graph) -> dict[str, list[str]]:
    """By operation, the values that nothing reads after it."""
    last: dict[str, str] = {}
    for op in graph.operations:
        last.update(dict.fromkeys(op.reads, op.output.key))
    for output in graph.outputs:
        last.pop(output.value, None)
    uses: dict[str, list[str]] = {}
    for key, by in last.items():
        uses.setdefault(by, []).append(key)
    return uses


def _recur(
    run: tuple[ir.Operation, ...],
    values: Mapping[str, FloatArray],
    samples: int,
    length: int | None,
) -> dict[str, FloatArray]:
    """All rows of the values of a recurrence."""
    made = {op.output.key for op in run}
    now: dict[str, FloatArray] = {}
    pieces: dict[str, list[FloatArray]] = {op.output.key: [] for op in run}
    for row in range(length or run[0].output.rows):
        for op in run:
            if isinstance(op, ir.Delay):
                start = np.broadcast_to(op.initial, (samples, 1, op.output.cols))
                now[op.output.key] = now.get(op.inputs[0], start)
            else:
                xs = [now[k] if k in made else _row(values[k], row) for k in op.inputs]
                now[op.output.key] = _run(op, xs, samples, 1)
            pieces[op.output.key].append(now[op.output.key])
    return {key: np.concatenate(parts, axis=1) for key, parts in pieces.items()}


def _row(x: FloatArray, row: int) -> FloatArray:
    """One row, or the only one."""
    return x[:, row : row + 1] if x.shape[1] > 1 else x


def _shaped(graph: Graph, output: ir.Output, value: FloatArray) -> FloatArray:
    if graph.form == "step" or output.kind == "logits":
        return value
    full = int(np.prod(output.model_shape[1:]))
    if value[0].size == full:
        return value.reshape(len(value), *output.model_shape[1:])
    return value


def _run(op: ir.Operation, xs: list[FloatArray], samples: int, length: int | None) -> FloatArray:
    match op:
        case ir.Embed():
            return op.table[xs[0][..., 0].astype(np.int64)]
        case ir.Rows():
            rows = op.table[:length] if length and len(op.table) > 1 else op.table
            return np.broadcast_to(rows, (samples, *rows.shape))
        case ir.Linear():
            flat = xs[0].reshape(-1, len(op.weight)) @ op.weight  # one product of all samples
            return np.asarray(flat.reshape(*xs[0].shape[:-1], -1) + op.bias)
        case ir.Unary():
            return evaluate_expression(op.function, xs[0])
        case ir.Add():
            return xs[0] + xs[1]
        case ir.Multiply():
            return xs[0] * xs[1]
        case ir.Normalise():
            x = xs[0] - xs[0].mean(-1, keepdims=True) if op.kind == "layer" else xs[0]
            power = (x * x).mean(-1, keepdims=True)
            return np.asarray(x / np.sqrt(power + op.epsilon) * op.gain + op.bias)
        case ir.Rotate():
            rows = xs[0].shape[1]
            turned = xs[0][..., op.partner] * op.sine[:rows]
            return np.asarray(xs[0] * op.cosine[:rows] + turned)
        case ir.Attend():
            return _attend(op, *xs)
        case ir.Gather():
            return _gather(op, xs, length)
        case ir.MeanRows():
            return _mean_rows(*xs)
        case ir.Flag():
            return np.asarray(xs[0] != op.absent, np.float64)
        case _:
            raise TypeError(type(op).__name__)


def _attend(
    op: ir.Attend, q: FloatArray, k: FloatArray, v: FloatArray, flags: FloatArray | None = None
) -> FloatArray:
    samples, rows, keys = len(q), q.shape[1], k.shape[1]
    groups = op.heads // op.kv_heads

    def heads(x: FloatArray, count: int) -> FloatArray:
        return x.reshape(samples, x.shape[1], count, -1).transpose(0, 2, 1, 3)

    q4 = heads(q, op.heads)
    k4, v4 = (np.repeat(heads(x, op.kv_heads), groups, axis=1) for x in (k, v))
    scores = op.scale * (q4 @ k4.swapaxes(-1, -2))
    if op.bias.size:
        scores = scores + op.bias[:, :rows, :keys]
    visible = np.ones((1, 1, rows, keys), bool)
    if op.causal:
        visible = np.tril(visible[0, 0])[None, None]
    if flags is not None:
        visible = visible & (flags[:, None, None, :, 0] != 0)
    top = np.where(visible, scores, -np.inf).max(-1, keepdims=True)
    weights = np.where(visible, np.exp(scores - np.where(np.isfinite(top), top, 0.0)), 0.0)
    total = weights.sum(-1, keepdims=True)
    out = np.where(total > 0, weights / np.where(total > 0, total, 1.0), 0.0) @ v4
    return out.transpose(0, 2, 1, 3).reshape(samples, rows, -1)


def _gather(op: ir.Gather, xs: list[FloatArray], length: int | None) -> FloatArray:
    samples, rows = len(xs[0]), op.output.rows
    if length is not None and length < rows:
        # A shorter sequence: rows keep their places, the missing ones are never read.
        xs = [np.pad(x, ((0, 0), (0, rows - x.shape[1]), (0, 0))) for x in xs]
    flat = np.concatenate([x.reshape(samples, -1) for x in xs], axis=1)
    return np.asarray(flat[:, op.index if length is None else op.index[:length]])


def _mean_rows(x: FloatArray, flags: FloatArray | None = None) -> FloatArray:
    if flags is None:
        return np.asarray(x.mean(1, keepdims=True))
    weight = (flags != 0).astype(np.float64)
    total = np.maximum(weight.sum(1, keepdims=True), 1.0)
    return np.asarray((x * weight).sum(1, keepdims=True) / total)
