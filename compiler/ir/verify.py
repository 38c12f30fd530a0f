"""The verifier of a Program: what every pass must leave true.

Checked: order and names; shapes; that the interval of each value holds every possible result and
lies inside its width; table domains; that no intermediate of any operation reaches 2^62, so that
64-bit arithmetic never wraps; and that a sequence section can run row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from hwcompile.compiler.ir import operations, order
from hwcompile.compiler.ir import program as ir

WORD_LIMIT = 1 << 62


class InvalidProgram(Exception):
    """A pass made a program that breaks a rule: a defect of ours. Lists every broken rule."""


Values = tuple[ir.Value, ...]
Faults = Iterator[str]


def verify_program(program: ir.Program) -> None:
    """Raises InvalidProgram, with all faults, unless the program keeps every rule."""
    faults = [*_order(program)]
    if not faults:
        faults = [*_values(program), *_outputs(program)]
        faults += [*_recurrences(program)]
        for op in program.operations:
            inputs = tuple(program.values[key] for key in op.inputs)
            faults += [
                f"{op.output.key} ({_name(op)}): {f}" for f in _operation(program, op, inputs)
            ]
    if faults:
        raise InvalidProgram("; ".join(faults))


def _name(op: ir.Operation) -> str:
    return operations.spec(op).name


def _order(program: ir.Program) -> Faults:
    if not program.sections or len(program.sections) > 2 or "once" in program.sections[1:]:
        yield f"sections {program.sections}"
    seen: dict[str, int] = {}
    for given in program.inputs:
        if given.value.key in seen:
            yield f"{given.value.key} is made twice"
        if not 0 <= given.section < len(program.sections):
            yield f"{given.value.key} is in section {given.section}"
        seen[given.value.key] = given.section
    for op in program.operations:
        key = op.output.key
        if type(op) not in operations.OPERATIONS:
            yield f"{key} is no known operation"
        if key in seen:
            yield f"{key} is made twice"
        if not 0 <= op.section < len(program.sections):
            yield f"{key} is in section {op.section}"
        for used in op.reads:
            if seen.get(used, op.section + 1) > op.section:
                yield f"{key} reads {used} before it is made"
        seen[key] = op.section
    for op in program.operations:
        if any(seen.get(used) != op.section for used in op.inputs if used not in op.reads):
            yield f"{op.output.key} is the state of nothing in its section"
    if any(a.section > b.section for a, b in pairwise(program.operations)):
        yield "sections are not ascending"


def _values(program: ir.Program) -> Faults:
    for value in program.values.values():
        most = operations.limit(value.bits)
        if value.rows < 1 or value.cols < 1:
            yield f"{value.key} has shape {value.rows}x{value.cols}"
        if not -most <= value.low <= value.high <= most:
            yield f"{value.key}: {value.low}..{value.high} is outside {value.bits} bits"
        if not (value.scale > 0 and np.isfinite(value.scale)):
            yield f"{value.key} has scale {value.scale}"
    for given in program.inputs:
        value = given.value
        whole = (value.low, value.high)
        ranges = {"ids": (0, given.id_count - 1), "flags": (0, 1), "tensor": whole}
        if ranges.get(given.kind) != whole:
            yield f"{value.key} ({given.kind}) lies in {value.low}..{value.high}"


def _outputs(program: ir.Program) -> Faults:
    for output in program.outputs:
        if output.value not in program.values:
            yield f"output {output.value} is not made"
    attends = {op.output.key for op in program.operations if isinstance(op, ir.Attend)}
    for cache in program.caches:
        if cache.operation not in attends:
            yield f"cache of {cache.operation}, which is no attention"


def _operation(program: ir.Program, op: ir.Operation, inputs: Values) -> Faults:
    fault = _SHAPES[type(op)](op, inputs)
    if fault:
        yield fault
        return
    yield from _sequence(program, op)
    if isinstance(op, ir.Lookup) and not (
        op.first <= inputs[0].low and inputs[0].high < op.first + len(op.table)
    ):
        yield f"table domain does not hold {inputs[0].low}..{inputs[0].high}"
        return
    low, high = operations.spec(op).interval(op, inputs)
    most = operations.limit(op.output.bits)
    if type(op) in _UNSATURATED and not -most <= low <= high <= most:
        yield f"{low}..{high} does not fit {op.output.bits} bits"
    low, high = max(min(low, most), -most), max(min(high, most), -most)
    if not op.output.low <= low <= high <= op.output.high:
        yield f"{low}..{high} is outside the interval {op.output.low}..{op.output.high}"
    peak = _PEAKS[type(op)](op, inputs) if type(op) in _PEAKS else 0
    if peak >= WORD_LIMIT:
        yield f"an intermediate may reach 2^{peak.bit_length()}"


_UNSATURATED = (ir.Embed, ir.Rows, ir.Lookup, ir.Gather)


# --- shapes ---------------------------------------------------------------------------------------


def _expect(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    wrong = [f"{k} {found[k]}, not {wanted[k]}" for k in wanted if found[k] != wanted[k]]
    return ", ".join(wrong)


def _shape(value: ir.Value) -> tuple[int, int]:
    return value.rows, value.cols


def _embed(op: ir.Embed, vs: Values) -> str:
    return _expect(
        {"table": op.table.shape[1:], "ids": vs[0].cols, "rows": vs[0].rows},
        {"table": (op.output.cols,), "ids": 1, "rows": op.output.rows},
    )


def _rows(op: ir.Rows, vs: Values) -> str:
    return _expect({"table": op.table.shape}, {"table": _shape(op.output)})


def _linear(op: ir.Linear, vs: Values) -> str:
    m = op.output.cols
    fault = _expect(
        {
            "weight": op.weight.shape,
            "bias": op.bias.shape,
            "multiplier": op.multiplier.shape,
            "shift": op.shift.shape,
            "rows": vs[0].rows,
        },
        {
            "weight": (vs[0].cols, m),
            "bias": (m,),
            "multiplier": (m,),
            "shift": (m,),
            "rows": op.output.rows,
        },
    )
    return fault or ("multiplier below 1" if op.multiplier.min() < 1 else "")


def _same(op: ir.Operation, vs: Values) -> str:
    return _expect({"input": _shape(vs[0])}, {"input": _shape(op.output)})


def _pair(op: ir.Operation, vs: Values) -> str:
    rows = max(v.rows for v in vs)
    if any(v.rows not in (1, rows) or v.cols != op.output.cols for v in vs):
        return f"operands {_shape(vs[0])} and {_shape(vs[1])}"
    return _expect({"rows": op.output.rows}, {"rows": rows})


def _normalise(op: ir.Normalise, vs: Values) -> str:
    d = (op.output.cols,)
    fault = _expect({"gain": op.gain.shape, "bias": op.bias.shape}, {"gain": d, "bias": d})
    fault = fault or _same(op, vs)
    return fault or ("negative epsilon" if op.epsilon < 0 or op.root_fraction < 0 else "")


def _rotate(op: ir.Rotate, vs: Values) -> str:
    fault = _expect(
        {
            "cosine": op.cosine.shape,
            "sine": op.sine.shape,
            "partner": op.partner.shape,
            "columns over period": op.output.cols % op.cosine.shape[-1],
        },
        {
            "cosine": (op.output.rows, op.cosine.shape[-1]),
            "sine": op.cosine.shape,
            "partner": (op.output.cols,),
            "columns over period": 0,
        },
    )
    if not fault and not 0 <= op.partner.min() <= op.partner.max() < op.output.cols:
        fault = "partner outside the row"
    return fault or _same(op, vs)


def _attend(op: ir.Attend, vs: Values) -> str:
    q, k, v = vs[:3]
    if op.heads < 1 or op.kv_heads < 1 or op.heads % op.kv_heads or q.cols % op.heads:
        return f"{op.heads} heads over {op.kv_heads} key heads"
    size = q.cols // op.heads
    if v.cols % op.kv_heads or op.output.cols != op.heads * (v.cols // op.kv_heads):
        return f"values {v.cols} wide, output {op.output.cols}"
    if op.causal and len({x.rows for x in vs}) > 1:
        return "causal, and rows differ"
    if len(vs) > 3 and _shape(vs[3]) != (k.rows, 1):
        return f"flags {_shape(vs[3])}"
    shapes = [(1 if op.causal else k.rows) + q.rows - 1], [q.rows, k.rows]
    wanted = [(g, *shape) for g in (1, op.heads) for shape in shapes]
    if op.bias.size and op.bias.shape not in wanted:
        return f"bias {op.bias.shape}"
    steps = np.diff(op.exp_table)
    if op.exp_table[0] < 1 or op.exp_table.min() < 0 or (steps > 0).any():
        return "the table of exp must be non-negative, falling and start above 0"
    return _expect(
        {"key width": k.cols, "key rows": k.rows, "rows": q.rows},
        {"key width": op.kv_heads * size, "key rows": v.rows, "rows": op.output.rows},
    )


def _gather(op: ir.Gather, vs: Values) -> str:
    elements = sum(v.rows * v.cols for v in vs)
    if not 0 <= op.index.min() <= op.index.max() < elements:
        return f"index outside the {elements} elements"
    if len({v.scale for v in vs}) > 1:
        return "scales differ"
    return _expect({"index": op.index.shape}, {"index": _shape(op.output)})


def _sum_rows(op: ir.SumRows, vs: Values) -> str:
    if len(vs) > 1 and _shape(vs[1]) != (vs[0].rows, 1):
        return f"flags {_shape(vs[1])}"
    return _expect({"output": _shape(op.output)}, {"output": (1, vs[0].cols)})


def _delay(op: ir.Delay, vs: Values) -> str:
    low, high = int(op.initial.min()), int(op.initial.max())
    if not op.output.low <= min(low, vs[0].low) <= max(high, vs[0].high) <= op.output.high:
        return f"state {op.output.low}..{op.output.high} does not hold what comes into it"
    fault = _expect({"initial": op.initial.shape}, {"initial": (op.output.cols,)})
    return fault or _same(op, vs)


_SHAPES: Mapping[type[ir.Operation], Callable[[Any, Values], str]] = {
    ir.Embed: _embed,
    ir.Rows: _rows,
    ir.Linear: _linear,
    ir.Rescale: _same,
    ir.Lookup: _same,
    ir.Add: _pair,
    ir.Multiply: _pair,
    ir.Normalise: _normalise,
    ir.Rotate: _rotate,
    ir.Attend: _attend,
    ir.Gather: _gather,
    ir.SumRows: _sum_rows,
    ir.Delay: _delay,
}


# --- sequences ------------------------------------------------------------------------------------


def _sequence(program: ir.Program, op: ir.Operation) -> Faults:
    """A row of a sequence depends on the same row, and through attention on earlier rows."""
    if program.sections[op.section] != "sequence" or op.output.rows == 1:
        return
    own = [key for key in op.inputs if _section(program, key) == op.section]
    if isinstance(op, ir.SumRows):
        yield "a sum over the rows of a sequence"
    if isinstance(op, ir.Attend) and not op.causal and any(key in own for key in op.inputs[1:]):
        yield "attention to later rows of a sequence"
    if isinstance(op, ir.Gather) and not _row_by_row(program, op, own):
        yield "a gather across the rows of a sequence"


def _recurrences(program: ir.Program) -> Faults:
    """What lies between a state and its next row acts on rows of one number."""
    for run in order.runs(program.operations):
        for op in run.operations if run.recurrent else ():
            if not operations.spec(op).rowwise or op.output.rows != run.operations[0].output.rows:
                yield f"{op.output.key} inside a recurrence"


def _section(program: ir.Program, key: str) -> int:
    for given in program.inputs:
        if given.value.key == key:
            return given.section
    return next(op.section for op in program.operations if op.output.key == key)


def _row_by_row(program: ir.Program, op: ir.Gather, own: list[str]) -> bool:
    start = 0
    rows = np.arange(op.output.rows)[:, None]
    for key in op.inputs:
        value = program.values[key]
        inside = (op.index >= start) & (op.index < start + value.rows * value.cols)
        other = (op.index - start) // value.cols != rows
        if key in own and value.rows > 1 and (inside & other).any():
            return False
        start += value.rows * value.cols
    return True


# --- greatest magnitude of any intermediate -------------------------------------------------------


def _reach(value: ir.Value) -> int:
    return max(-value.low, value.high)


def _shifted(peak: int, shift: int) -> int:
    return peak + (1 << shift - 1) if shift > 0 else peak << -shift


def _linear_peak(op: ir.Linear, vs: Values) -> int:
    low, high = operations.accumulator_interval(op, (vs[0].low, vs[0].high))
    partial = np.abs(op.weight).sum(0) * _reach(vs[0])
    peaks = np.maximum(np.maximum(np.abs(low), np.abs(high)), partial)
    return max(
        _shifted(int(p) * int(m), int(s))
        for p, m, s in zip(peaks, op.multiplier, op.shift, strict=True)
    )


def _normalise_peak(op: ir.Normalise, vs: Values) -> int:
    d, x = len(op.gain), _reach(vs[0])
    variance = d * d * x * x + op.epsilon
    root_bits = (variance << 2 * op.root_fraction).bit_length() // 2 + 1
    normed = operations.normed_bound(op)
    gained = max(normed * abs(int(g)) + abs(int(b)) for g, b in zip(op.gain, op.bias, strict=True))
    return max(
        variance << 2 * op.root_fraction,
        2 * d * x << operations.INVERSE_BITS + 1,
        1 << root_bits + operations.INVERSE_BITS,
        _shifted(gained, op.shift),
    )


def _rotate_peak(op: ir.Rotate, vs: Values) -> int:
    return _shifted(int((np.abs(op.cosine) + np.abs(op.sine)).max()) * _reach(vs[0]), op.shift)


def _attend_peak(op: ir.Attend, vs: Values) -> int:
    q, k, v = vs[:3]
    scores = q.cols // op.heads * _reach(q) * _reach(k) + int(np.abs(op.bias).max(initial=0))
    return max(
        _shifted(2 * scores * op.multiplier, op.shift),
        k.rows * int(op.exp_table[0]) * max(_reach(v), 1),
        _shifted(_reach(v) << op.reciprocal_bits, op.output_shift),
    )


_PEAKS: Mapping[type[ir.Operation], Callable[[Any, Values], int]] = {
    ir.Linear: _linear_peak,
    ir.Rescale: lambda op, vs: _shifted(_reach(vs[0]) * abs(op.multiplier), op.shift),
    ir.Add: lambda op, vs: _shifted(
        _reach(vs[0]) * abs(op.multiplier_a) + _reach(vs[1]) * abs(op.multiplier_b), op.shift
    ),
    ir.Multiply: lambda op, vs: _shifted(
        _reach(vs[0]) * _reach(vs[1]) * abs(op.multiplier), op.shift
    ),
    ir.Normalise: _normalise_peak,
    ir.Rotate: _rotate_peak,
    ir.Attend: _attend_peak,
    ir.SumRows: lambda op, vs: _shifted(_reach(vs[0]) * vs[0].rows * abs(op.multiplier), op.shift),
}
