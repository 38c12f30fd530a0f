"""What form a file has, and what its open dimensions become.

* `prefill`, `call`: the open dimension of an input becomes the longest its tables allow;
* `kv`: the past has length 0 and the tokens the whole context;
* `step`: the position takes every value 0, 1, ... at once (``timed`` tensors).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.frontend.builder import Builder
from hwcompile.compiler.frontend.plan import (
    Dims,
    ModelInput,
    Plan,
    decode,
    dimensions,
    model_inputs,
)
from hwcompile.compiler.frontend.refusal import escape
from hwcompile.compiler.frontend.states import state_inputs
from hwcompile.compiler.frontend.trace import run_model
from hwcompile.compiler.ir.tensor_graph import Array, FrontForm

#: Sizes tried for open dimensions while their limits are looked for: unlikely to be a head count.
_TRIAL_SIZES = (5, 7, 11, 13, 17, 19, 23)


def make_plan(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> Plan:
    """Decides form and shapes. Raises ModelError naming the input whose dimension stays open."""
    inputs = model_inputs(model)
    given = _apply_given(inputs, shapes)
    states = state_inputs(model)
    caches = {n: o for n, o in _find_caches(model, given).items() if n not in states}
    open_past = [n for n in caches if any(isinstance(d, str) for d in given[n])]
    position = "" if open_past or not caches else _find_position(model, given)
    form: FrontForm = "kv" if open_past else "step" if position else "call"
    caches = caches if form != "call" else {}
    batch = _batch(given, {position, *states})
    fixed = {n: _without_batch(d, batch if n != position else 1) for n, d in given.items()}
    # The batch of a state is its second axis.
    fixed.update({n: (given[n][0], 1, *given[n][2:]) for n in states if len(given[n]) > 2})
    implied = _implied(inputs, form)
    fixed.update(_as_tokens(inputs, fixed, implied))
    implied |= dict.fromkeys(states, "zeros")
    for name in open_past:
        fixed[name] = tuple(0 if isinstance(d, str) else d for d in fixed[name])
    steps = _steps(model, fixed, caches) if form == "step" else 1
    names = dict.fromkeys(d for dims in fixed.values() for d in dims if isinstance(d, str))
    draft = Plan(form, steps, {}, position, caches, batch, implied)
    sizes = _open_sizes(model, fixed, tuple(names), draft) if names else {}
    final = {
        n: tuple(sizes[d] if isinstance(d, str) else d for d in dims) for n, dims in fixed.items()
    }
    return replace(draft, shapes=final)


def _apply_given(
    inputs: tuple[ModelInput, ...], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Dims]:
    known = {i.name: i.dims for i in inputs}
    bound: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in known:
            have = ", ".join(escape(n) for n in known)
            raise ModelError(f"--shape names no input: {escape(name)}", f"the inputs are {have}")
        dims = known[name]
        if len(shape) != len(dims) or any(s < 1 for s in shape):
            raise ModelError(f"--shape {escape(name)} has the wrong rank", f"it has {len(dims)}")
        for axis, (size, dim) in enumerate(zip(shape, dims, strict=True)):
            if isinstance(dim, str):
                bound[dim] = size
            elif dim != size and axis:
                raise ModelError(
                    f"--shape {escape(name)}: axis {axis} is fixed at {dim} in the file",
                    f"give {dim} there",
                )
    return {
        n: tuple(bound.get(d, d) if isinstance(d, str) else d for d in dims)
        for n, dims in known.items()
    }


def _find_caches(model: onnx.ModelProto, given: Mapping[str, Dims]) -> dict[str, str]:
    """Cache inputs with the outputs that return them, matched by shape and by where data flows."""
    outputs = {v.name: dimensions(v) for v in model.graph.output}
    floats = {i.name for i in model_inputs(model) if i.dtype.kind == "f"}
    near = _nearest_outputs(
        model, [n for n in given if n in floats and len(given[n]) >= 3], set(outputs)
    )
    found = {
        name: output
        for name, output in near.items()
        if len(outputs[output]) == len(given[name]) and _same_but_one(given[name], outputs[output])
    }
    # A file that returns nothing else has no caches: it is a function of that input.
    return found if set(outputs) - set(found.values()) else {}


def _same_but_one(a: Dims, b: Dims) -> bool:
    return sum(x != y for x, y in zip(a[1:], b[1:], strict=True)) <= 1


def _nearest_outputs(model: onnx.ModelProto, names: list[str], outputs: set[str]) -> dict[str, str]:
    """The output reached from each input over the fewest nodes."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            users.setdefault(name, []).append(node)
    found: dict[str, str] = {}
    for start in names:
        seen, front = {start}, [start]
        while front and start not in found:
            reached = [o for n in front for node in users.get(n, []) for o in node.output]
            front = [o for o in dict.fromkeys(reached) if o not in seen]
            seen.update(front)
            hit = [o for o in front if o in outputs]
            if hit:
                found[start] = hit[0]
    return found


def _find_position(model: onnx.ModelProto, given: Mapping[str, Dims]) -> str:
    """The integer scalar input of a file with fixed caches that is no token."""
    scalars = [
        i.name
        for i in model_inputs(model)
        if i.dtype.kind in "iu" and all(d == 1 or isinstance(d, str) for d in given[i.name])
    ]
    named = [n for n in scalars if "pos" in n.lower()]
    if named or len(scalars) < 2:
        return (named or [""])[0]
    return min(scalars, key=lambda n: len(given[n]))


def _implied(inputs: tuple[ModelInput, ...], form: FrontForm) -> dict[str, str]:
    """Inputs the form knows: positions count up, and a file with caches has no padding."""
    integers = [i for i in inputs if i.dtype.kind in "iub" and len(i.dims) == 2]
    positions = {i.name: "positions" for i in integers if "position" in i.name.lower()}
    ones = {i.name: "ones" for i in integers if "mask" in i.name.lower()} if form == "kv" else {}
    return positions | ones


def _as_tokens(
    inputs: tuple[ModelInput, ...], fixed: Mapping[str, Dims], implied: Mapping[str, str]
) -> dict[str, Dims]:
    """Implied inputs are as long as the tokens."""
    tokens = [
        fixed[i.name]
        for i in inputs
        if i.dtype.kind in "iu" and len(i.dims) == 2 and i.name not in implied
    ]
    return dict.fromkeys(implied, tokens[0]) if tokens else {}


def _batch(given: Mapping[str, Dims], skip: set[str]) -> int:
    """The fixed batch size all inputs share, to be replaced by 1."""
    first = [d[0] for n, d in given.items() if d and n not in skip]
    if first and all(isinstance(d, int) and d == first[0] for d in first):
        return int(first[0])
    return 1


def _without_batch(dims: Dims, batch: int) -> Dims:
    if dims and (isinstance(dims[0], str) or dims[0] == batch):
        return (1, *dims[1:])
    return dims


def _steps(model: onnx.ModelProto, fixed: Mapping[str, Dims], caches: Mapping[str, str]) -> int:
    """Positions of a `step` file: the cache axis as long as a list 0, 1, ... or a table of rows."""
    shapes = [fixed[n] for n in caches]
    counted = {len(a) for a in _arrays(model) if a.ndim == 1 and _counts(a)}
    tables = {len(a) for a in _arrays(model) if a.ndim > 1}
    for lengths in (counted, tables):
        for axis in (-2, -3, -1):
            common = {s[axis] for s in shapes}
            if len(common) == 1 and common <= lengths:
                return int(common.pop())
    rows = {s[-2] for s in shapes}
    if len(rows) != 1:
        raise ModelError("the caches of the file have different lengths", "use one context length")
    return int(rows.pop())


def _arrays(model: onnx.ModelProto) -> list[Array]:
    values = list(model.graph.initializer)
    values += [a.t for n in model.graph.node for a in n.attribute if a.name == "value"]
    return [decode(t) for t in values if len(t.dims) >= 1]


def _counts(array: Array) -> bool:
    return array.dtype.kind in "iu" and np.array_equal(array, np.arange(len(array)))


def _open_sizes(
    model: onnx.ModelProto, fixed: Mapping[str, Dims], names: tuple[str, ...], draft: Plan
) -> dict[str, int]:
    """The longest each open dimension can be, found by a trial with other sizes."""
    trial = dict(zip(names, _TRIAL_SIZES * (1 + len(names)), strict=False))
    builder = Builder()
    builder.open_sizes = trial
    shapes = {
        n: tuple(trial[d] if isinstance(d, str) else d for d in dims) for n, dims in fixed.items()
    }
    problems: list[str] = []
    try:
        run_model(model, replace(draft, form="call", steps=1, shapes=shapes), builder)
    except ModelError as error:
        problems.append(error.message)
    missing = [n for n in names if not builder.limits.get(n)]
    if missing:
        for name, dims in fixed.items():
            if any(d in missing for d in dims):
                text = "x".join("?" if isinstance(d, str) else str(d) for d in dims)
                example = "x".join("64" if isinstance(d, str) else str(d) for d in dims)
                raise ModelError(
                    f"input {escape(name)} has open dimensions ({text}) the model gives no "
                    "length for",
                    f"give it: --shape {escape(name)}={example}",
                )
    return {n: min(builder.limits[n]) for n in names}
