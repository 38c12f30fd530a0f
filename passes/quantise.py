"""Quantise: Graph -> Program, floats to exact integers.

1. :mod:`hwcompile.passes.needs` says in which integer forms each value is needed, on which grid.
2. Each operation is lowered to produce the widest form its readers need; other forms follow by a
   Rescale. Where the grid of a result is free, it takes what the operation gives without a
   multiplier (attention, products, means); else a Rescale brings it to its grid.
3. Constants on the input side of a matrix (norm gain and bias, offsets of tables, input scales) are
   folded into its weights and bias; weights then get a power of two a column, so that
   requantisation is wiring. Integers given by the file stay as they are and get a multiplier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import floor, log, log2
from typing import Any, Literal

import numpy as np

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.ir import expressions, graph
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.operations import (
    NORMED_FRACTION,
    ROTATE_FRACTION,
    limit,
)
from hwcompile.passes import grids, narrow, needs
from hwcompile.passes.grids import FloatArray, Grid, IntArray, Weights
from hwcompile.passes.needs import Form, Needs, Widths
from hwcompile.passes.round_weights import round_weights

WeightKind = Literal["auto", "int8", "int6", "int4", "int3", "int2", "ternary"]
WEIGHT_BITS: Mapping[str, int] = {
    "auto": 8, "int8": 8, "int6": 6, "int4": 4, "int3": 3, "int2": 2, "ternary": 2,
}  # fmt: skip
_POWER_OF_TWO_FROM = 7  # fewer weight bits cannot spare what a power of two loses
_GRID_MULTIPLIER_BITS = 8
_GAIN_BITS = 8  # of a norm before matrices
_FULL_GAIN_BITS = 12
_MULTIPLIER_BITS = 10
_EXP_BITS = 12
_EXP_ENTRIES = 256
_RECIPROCAL_GUARD = 10
_COUNT_BITS = 20  # precision of 1 / count in a mean over flagged rows


@dataclass(frozen=True, slots=True)
class QuantiseOptions:
    """``weights``: width of weights that the file does not give as integers."""

    weights: WeightKind = "auto"
    widths: Widths = field(default_factory=Widths)


@dataclass(frozen=True, slots=True)
class _Made:
    """A value of the program and the grid its integers are on."""

    value: ir.Value
    grid: Grid


@dataclass(slots=True)
class _State:
    """What lowering has made so far."""

    needs: Needs
    samples: Mapping[str, FloatArray]
    options: QuantiseOptions
    made: dict[tuple[str, Form], _Made] = field(default_factory=dict)
    raw: dict[str, ir.Value] = field(default_factory=dict)  # ids and flags
    operations: list[ir.Operation] = field(default_factory=list)
    attends: dict[str, str] = field(default_factory=dict)
    wide: frozenset[str] = frozenset()
    #: By key of a Delay of the program: the value and form of the graph that it keeps.
    kept: dict[str, tuple[str, Form]] = field(default_factory=dict)
    count: int = 0

    def value(self, rows: int, cols: int, grid: Grid) -> ir.Value:
        most = limit(grid.bits)
        self.count += 1
        key = f"v{self.count - 1}"
        return ir.Value(key, rows, cols, grid.bits, -most, most, grid.nominal)

    def emit(
        self, kind: type[Any], inputs: list[ir.Value], like: _Base, grid: Grid, *rest: Any
    ) -> _Made:
        value = self.value(like.rows, like.cols, grid)
        keys = tuple(x.key for x in inputs)
        self.operations.append(kind(value, keys, like.section, like.origin, *rest))
        return _Made(value, grid)


@dataclass(frozen=True, slots=True)
class _Base:
    rows: int
    cols: int
    section: int
    origin: str


def _base(op: graph.Operation) -> _Base:
    return _Base(op.output.rows, op.output.cols, op.section, op.origin)


def run(
    net: graph.Graph, samples: Mapping[str, FloatArray], options: QuantiseOptions | None = None
) -> ir.Program:
    """The integer program of a graph.

    ``samples``: floats of every value seen in calibration, ``[n, cols]`` by value key.
    """
    options = options or QuantiseOptions()
    needed = needs.find(net, samples, options.widths)
    state = _State(needed, samples, options, wide=needs.wide_factors(net))
    inputs = tuple(_lower_input(state, given) for given in net.inputs)
    for op in net.operations:
        if op.output.key in needed.forms:
            _lower(state, op)
    outputs = tuple(
        ir.Output(state.made[(o.value, "output")].value.key, o.kind, o.model_name, o.model_shape)
        for o in net.outputs
    )
    caches = tuple(
        ir.CacheTensor(state.attends[c.operation], c.role, c.input_name, c.output_name)
        for c in net.caches
    )
    done = tuple(_closed(state, op) for op in state.operations)
    return narrow.run(ir.Program(net.sections, inputs, done, outputs, caches, net.form))


def _closed(state: _State, op: ir.Operation) -> ir.Operation:
    """A Delay with its input, which was made after it."""
    if not isinstance(op, ir.Delay):
        return op
    return replace(op, inputs=(state.made[state.kept[op.output.key]].value.key,))


# --- inputs ---------------------------------------------------------------------------------------


def _lower_input(state: _State, given: graph.Input) -> ir.Input:
    key, rows, cols = given.value.key, given.value.rows, given.value.cols
    if given.kind == "tensor":
        value = _lower_tensor(state, given)
    else:
        high = max(given.id_count - 1, 1) if given.kind == "ids" else 1
        state.count += 1
        value = ir.Value(f"v{state.count - 1}", rows, cols, narrow.width(0, high), 0, high, 1.0)
        state.raw[key] = value
    return ir.Input(
        value, given.kind, given.section, given.model_name, given.model_shape, given.id_count
    )


def _lower_tensor(state: _State, given: graph.Input) -> ir.Value:
    key, bits = given.value.key, state.options.widths.output
    if given.low is not None and given.high is not None:
        most = max(abs(given.low), abs(given.high)) or 1.0
    else:
        most = float(np.abs(state.samples[key]).max()) or 1.0
    grid = Grid(bits, most / limit(bits))
    made = _Made(state.value(given.value.rows, given.value.cols, grid), grid)
    base = _Base(given.value.rows, given.value.cols, given.section, "input")
    for form in state.needs.forms.get(key, ()):
        state.made[(key, form)] = _rescale(state, made, state.needs.grids[(key, form)], base)
    return made.value


# --- forms of a result ----------------------------------------------------------------------------


def _lower(state: _State, op: graph.Operation) -> None:
    key = op.output.key
    forms = state.needs.forms[key]
    if isinstance(op, graph.Flag):
        state.raw[key] = _lower_flag(state, op)
        return
    if isinstance(op, graph.Gather):
        for form in forms:
            state.made[(key, form)] = _lower_gather(state, op, form)
        return
    if isinstance(op, graph.Delay):
        for form in forms:
            state.made[(key, form)] = _lower_delay(state, op, form)
        return
    first, *others = forms
    target = state.needs.grids[(key, first)]
    made = _LOWER[type(op)](state, op, target)
    fixed = others or (key, first) in state.needs.shared
    if fixed and made.grid is not target:
        made = _rescale(state, made, target, _base(op))
    state.made[(key, first)] = made
    for form in others:
        state.made[(key, form)] = _rescale(state, made, state.needs.grids[(key, form)], _base(op))


def _rescale(state: _State, made: _Made, target: Grid, base: _Base) -> _Made:
    if made.grid.bits == target.bits and np.array_equal(made.grid.scale, target.scale):
        return made
    multiplier, shift = _multiplier_shift(_ratio(made.grid.scale, target), target)
    return state.emit(ir.Rescale, [made.value], base, target, multiplier, shift)


def _multiplier_shift(ratio: float, target: Grid) -> tuple[int, int]:
    return grids.multiplier_shift(ratio, min(target.bits, _MULTIPLIER_BITS))


def _ratio(scale: float | FloatArray, target: Grid) -> float:
    return float(scale) / float(target.scale)


def _read(state: _State, key: str, form: Form) -> _Made:
    return state.made[(key, form)]


# --- one function an operation --------------------------------------------------------------------


def _lower_embed(state: _State, op: graph.Embed, target: Grid) -> _Made:
    ids = state.raw[op.inputs[0]]
    return state.emit(ir.Embed, [ids], _base(op), target, target.integers(op.table))


def _lower_rows(state: _State, op: graph.Rows, target: Grid) -> _Made:
    return state.emit(ir.Rows, [], _base(op), target, target.integers(op.table))


def _lower_flag(state: _State, op: graph.Flag) -> ir.Value:
    ids = state.raw[op.inputs[0]]
    table = (np.arange(ids.high + 1) != op.absent).astype(np.int64)
    return state.emit(ir.Lookup, [ids], _base(op), Grid(2, 1.0), table, 0).value


def _lower_gather(state: _State, op: graph.Gather, form: Form) -> _Made:
    if form == "flags":
        raise ModelError("a padding mask is rearranged on its way", "export it without that")
    parts = [_read(state, key, form) for key in op.inputs]
    values = [part.value for part in parts]
    return state.emit(ir.Gather, values, _base(op), parts[0].grid, op.index)


def _lower_delay(state: _State, op: graph.Delay, form: Form) -> _Made:
    grid = state.needs.grids[(op.output.key, form)]
    made = state.emit(ir.Delay, [], _base(op), grid, grid.integers(op.initial))
    state.kept[made.value.key] = (op.inputs[0], form)
    return made


def _lower_linear(state: _State, op: graph.Linear, target: Grid) -> _Made:
    x = _read(state, op.inputs[0], "narrow")
    seen = x.grid.integers(state.samples[op.inputs[0]]).astype(np.float64)
    scale = np.broadcast_to(np.asarray(x.grid.scale, np.float64), (len(op.weight),))
    offset = np.broadcast_to(np.asarray(x.grid.offset, np.float64), (len(op.weight),))
    step = target.scale
    wanted = scale[:, None] * op.weight / step
    weights = _weights(state.options, op, wanted, seen)
    drift = seen.mean(0) @ (wanted - weights.integers * weights.step)
    bias = (offset @ op.weight + op.bias - target.offset) / step + drift
    return state.emit(
        ir.Linear,
        [x.value],
        _base(op),
        target,
        weights.integers,
        np.floor(bias / weights.step + 0.5).astype(np.int64),
        weights.multiplier,
        weights.shift,
    )


def _weights(
    options: QuantiseOptions, op: graph.Linear, wanted: FloatArray, seen: FloatArray
) -> Weights:
    """Weights near ``wanted`` (output units per input unit) for integer inputs ``seen``."""
    if op.grid_values is not None and options.weights == "auto":
        values = np.asarray(op.grid_values, np.int64)
        # wanted = values * scale by column: the least-squares scale is exact up to rounding.
        squares = np.maximum((values.astype(np.float64) ** 2).sum(0), 1.0)
        scale = (wanted * values).sum(0) / squares
        flipped = np.where(scale < 0, -1, 1)
        scale = np.where(scale == 0, 2.0**-8, np.abs(scale))
        return grids.given_weights(values * flipped, scale, _GRID_MULTIPLIER_BITS)
    bits = WEIGHT_BITS[options.weights]
    fit = grids.power_of_two_weights if bits >= _POWER_OF_TWO_FROM else grids.free_weights
    weights = fit(wanted, bits, (seen**2).mean(0) + 1e-6)
    return replace(weights, integers=round_weights(wanted, weights.step, bits, seen))


def _lower_unary(state: _State, op: graph.Unary, target: Grid) -> _Made:
    x = _read(state, op.inputs[0], "table")
    reals = x.grid.reals(np.arange(-limit(x.grid.bits), limit(x.grid.bits) + 1))
    table = target.integers(np.nan_to_num(expressions.evaluate(op.function, reals)))
    return state.emit(ir.Lookup, [x.value], _base(op), target, table, -limit(x.grid.bits))


def _lower_add(state: _State, op: graph.Add, target: Grid) -> _Made:
    a, b = (_read(state, key, "wide") for key in op.inputs)
    if state.needs.forms[op.output.key][0] == "wide":
        return state.emit(ir.Add, [a.value, b.value], _base(op), target, 1, 1, 0)
    multiplier, shift = _multiplier_shift(_ratio(a.grid.scale, target), target)
    values = [a.value, b.value]
    return state.emit(ir.Add, values, _base(op), target, multiplier, multiplier, shift)


def _lower_multiply(state: _State, op: graph.Multiply, target: Grid) -> _Made:
    forms = needs.input_forms(op, state.wide)
    a, b = (_read(state, key, form) for key, form in zip(op.inputs, forms, strict=True))
    product = np.asarray(a.grid.scale) * np.asarray(b.grid.scale)
    if (op.output.key, state.needs.forms[op.output.key][0]) in state.needs.shared:
        multiplier, shift = _multiplier_shift(_ratio(product, target), target)
        grid = target
    elif product.ndim:
        columns = grids.symmetric_columns(state.samples[op.output.key], target.bits)
        multiplier, shift = 1, round(float(np.median(np.log2(columns / product))))
        grid = Grid(target.bits, product * 2.0**shift)
    else:
        multiplier, shift = grids.coarse_multiplier_shift(float(product) / float(target.scale))
        grid = Grid(target.bits, float(product) * 2.0**shift / multiplier)
    return state.emit(ir.Multiply, [a.value, b.value], _base(op), grid, multiplier, shift)


def _lower_normalise(state: _State, op: graph.Normalise, target: Grid) -> _Made:
    x = _read(state, op.inputs[0], "wide")
    d, unit = len(op.gain), float(x.grid.scale)
    epsilon = floor(op.epsilon * d * d / unit**2 + 0.5)
    fraction = _root_fraction(op, x, state.samples[op.inputs[0]], epsilon)
    key = op.output.key
    if key in state.needs.by_column and state.needs.forms[key] == ("narrow",):
        gain, bias, shift, grid = _folded_gain(op, state.samples[key], target.bits)
    else:
        gain, bias, shift, grid = *_full_gain(op, target), target
    return state.emit(
        ir.Normalise, [x.value], _base(op), grid, op.kind, epsilon, fraction, gain, bias, shift
    )


def _root_fraction(op: graph.Normalise, x: _Made, seen: FloatArray, epsilon: int) -> int:
    """Fraction bits that give the integer root at least 12 significant bits on rows seen."""
    d = len(op.gain)
    centred = seen - seen.mean(1, keepdims=True) if op.kind == "layer" else seen
    variance = d * (centred**2).sum(1) / float(x.grid.scale) ** 2 + epsilon
    least = max(float(np.quantile(variance, 0.01)), 1.0)
    most = d * d * limit(x.grid.bits) ** 2 + epsilon
    room = (61 - most.bit_length()) // 2
    return max(min(12 - floor(log2(least) / 2), room), 0)


def _folded_gain(
    op: graph.Normalise, seen: FloatArray, bits: int
) -> tuple[IntArray, IntArray, int, Grid]:
    """Gain and bias left to the matrices that follow; each column scaled to fill its range."""
    used = op.gain != 0
    normed = np.where(used, (seen - op.bias) / np.where(used, op.gain, 1.0), 0.0)
    wanted = 1 / grids.symmetric_columns(normed, bits)
    shift = _GAIN_BITS - floor(log2(wanted.max())) - 1
    gain = np.maximum(np.rint(wanted * 2.0**shift), 1).astype(np.int64)
    grid = Grid(bits, 2.0**shift / gain * op.gain, op.bias)
    return gain, gain * 0, NORMED_FRACTION + shift, grid


def _full_gain(op: graph.Normalise, target: Grid) -> tuple[IntArray, IntArray, int]:
    most = float(np.abs(op.gain).max()) / float(target.scale)
    bits = min(target.bits + 2, _FULL_GAIN_BITS)
    exponent = floor(log2(max(most, 1e-9)))
    shift = min(max(NORMED_FRACTION + bits - 1 - exponent, 0), 30)
    unit = 2.0 ** (shift - NORMED_FRACTION) / float(target.scale)
    gain = np.rint(op.gain * unit).astype(np.int64)
    bias = np.rint((op.bias - target.offset) / float(target.scale) * 2.0**shift).astype(np.int64)
    return gain, bias, shift


def _lower_rotate(state: _State, op: graph.Rotate, target: Grid) -> _Made:
    x = _read(state, op.inputs[0], "rotary")
    shift = ROTATE_FRACTION + round(log2(float(target.scale) / float(x.grid.scale)))
    unit = 2.0**ROTATE_FRACTION
    cosine, sine = (np.floor(t * unit + 0.5).astype(np.int64) for t in (op.cosine, op.sine))
    return state.emit(ir.Rotate, [x.value], _base(op), target, cosine, sine, op.partner, shift)


def _lower_attend(state: _State, op: graph.Attend, target: Grid) -> _Made:
    q, k = (_read(state, key, "score") for key in op.inputs[:2])
    v = _read(state, op.inputs[2], "narrow")
    unit = op.scale * float(q.grid.scale) * float(k.grid.scale)
    reach = (_EXP_BITS + 1) * log(2)  # beyond it the table is zero
    shift = floor(log2(reach / (_EXP_ENTRIES - 1) / unit)) + 1
    step = unit * 2.0**shift
    table = np.floor((1 << _EXP_BITS) * np.exp(-step * np.arange(_EXP_ENTRIES)) + 0.5)
    table = np.minimum(table, (1 << _EXP_BITS) - 1).astype(np.int64)
    table = table[: int(np.count_nonzero(table)) + 1]
    bits = _EXP_BITS + (v.value.rows - 1).bit_length() + _RECIPROCAL_GUARD
    drop = round_down_shift(float(v.grid.scale), state.samples[op.output.key], target.bits)
    inputs = [q.value, k.value, v.value] + [state.raw[key] for key in op.inputs[3:]]
    grid = Grid(target.bits, float(v.grid.scale) * 2.0**-drop)
    made = state.emit(
        ir.Attend, inputs, _base(op), grid,
        op.heads, op.kv_heads, op.causal, 1, shift, table, bits, bits - drop,
        _lower_bias(op, unit, q, k, len(table) << max(shift, 0)),
    )  # fmt: skip
    state.attends[op.output.key] = made.value.key
    return made


def _lower_bias(op: graph.Attend, unit: float, q: _Made, k: _Made, reach: int) -> IntArray:
    """The bias in units of the scores, by distance where it is a matter of that.

    Hidden keys get so little that their weight is 0; ``reach``: a distance of weight 0.
    """
    if not op.bias.size:
        return np.zeros((0, 0), np.int64)
    size = q.value.cols // op.heads
    shown = op.bias != graph.HIDDEN
    bias = np.floor(np.where(shown, op.bias, 0.0) / unit + 0.5).astype(np.int64)
    scores = 2 * size * limit(q.grid.bits) * limit(k.grid.bits)
    hidden = int(bias.min()) - (int(bias.max()) - int(bias.min()) + scores + reach)
    full = np.where(shown, bias, hidden)
    rows, keys = full.shape[1:]
    # Row by row from the last key to the first, then down the first column.
    count = rows if op.causal else rows + keys - 1
    distance = np.arange(rows)[:, None] - np.arange(keys)[None, :] + count - rows
    line = np.zeros((len(full), count), np.int64)
    seen = distance >= 0
    line[:, distance[seen]] = full[:, seen]
    return line if (line[:, distance[seen]] == full[:, seen]).all() else full


def round_down_shift(scale: float, seen: FloatArray, bits: int) -> int:
    """The power of two below ``scale`` whose grid has the least error on samples."""
    candidates = range(-8, 6)
    return min(candidates, key=lambda drop: grids.error(seen, Grid(bits, scale * 2.0**-drop)))


def _lower_mean(state: _State, op: graph.MeanRows, target: Grid) -> _Made:
    x = _read(state, op.inputs[0], "narrow")
    if len(op.inputs) > 1:
        return _lower_flagged_mean(state, op, x, target)
    mean = float(x.grid.scale) / x.value.rows
    multiplier, shift = grids.coarse_multiplier_shift(mean / float(target.scale))
    grid = Grid(target.bits, mean * 2.0**shift / multiplier)
    return state.emit(ir.SumRows, [x.value], _base(op), grid, multiplier, shift)


def _lower_flagged_mean(state: _State, op: graph.MeanRows, x: _Made, target: Grid) -> _Made:
    """A mean over flagged rows is attention with all scores equal: it counts the rows it sees."""
    base = _base(op)
    query = state.emit(ir.Rows, [], base, Grid(2, 1.0), np.zeros((base.rows, base.cols), np.int64))
    drop = round_down_shift(float(x.grid.scale), state.samples[op.output.key], target.bits)
    grid = Grid(target.bits, float(x.grid.scale) * 2.0**-drop)
    inputs = [query.value, x.value, x.value, state.raw[op.inputs[1]]]
    # Heads as elsewhere in the model, so that the chip keeps one layout of keys and values.
    alike = (o for o in state.operations if isinstance(o, ir.Attend))
    heads = next((o.kv_heads for o in alike if base.cols % o.kv_heads == 0), 1)
    return state.emit(
        ir.Attend, inputs, base, grid,
        heads, heads, False, 1, 0, np.ones(1, np.int64), _COUNT_BITS, _COUNT_BITS - drop,
    )  # fmt: skip


_LOWER: Mapping[type[graph.Operation], Callable[[_State, Any, Grid], _Made]] = {
    graph.Embed: _lower_embed,
    graph.Rows: _lower_rows,
    graph.Linear: _lower_linear,
    graph.Unary: _lower_unary,
    graph.Add: _lower_add,
    graph.Multiply: _lower_multiply,
    graph.Normalise: _lower_normalise,
    graph.Rotate: _lower_rotate,
    graph.Attend: _lower_attend,
    graph.MeanRows: _lower_mean,
}
