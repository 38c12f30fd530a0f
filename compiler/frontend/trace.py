"""From a vetted ONNX model to a TensorGraph: shapes fixed, everything constant folded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from hwcompile.compiler.errors import ModelError, Problem
from hwcompile.compiler.frontend.builder import Builder, Unsupported
from hwcompile.compiler.frontend.call import Call
from hwcompile.compiler.frontend.operators import OPERATORS
from hwcompile.compiler.frontend.plan import ModelInput, Plan, decode, model_inputs
from hwcompile.compiler.frontend.refusal import escape, problem, refuse_nodes
from hwcompile.compiler.frontend.states import state_outputs
from hwcompile.compiler.frontend.vet import opset
from hwcompile.compiler.ir.tensor_graph import (
    Array,
    CachePair,
    TensorGraph,
    TensorInput,
    TensorOutput,
)

#: Input whose element type says what an operator makes; a key does not tell narrow types apart.
_TYPED_BY = {"CastLike": 1, "QuantizeLinear": 2}

#: Marks constants that stand for data while a model is evaluated.
_DATA = "data"


def trace(model: onnx.ModelProto, plan: Plan) -> TensorGraph:
    """The TensorGraph of a model under a plan. Raises ModelError with every bad node at once."""
    if plan.batch > 1:
        _check_samples(model, plan)
    builder = Builder(plan.steps)
    keys = run_model(model, plan, builder)
    outputs, pairs = [], []
    returned = {output: name for name, output in plan.caches.items()}
    states = state_outputs(model)
    if states:
        builder.notes.append("states begin at zero, and the chip keeps them")
    for value in model.graph.output:
        if value.name in states:
            continue
        key = keys[value.name]
        if value.name in returned:
            pairs.append(CachePair(key, returned[value.name], value.name))
        else:
            outputs.append(TensorOutput(key, value.name, builder.shape(key)))
    if not outputs:
        raise ModelError("the file returns nothing but caches", "export the logits too")
    return TensorGraph(
        plan.form,
        plan.steps,
        tuple(builder.inputs),
        builder.constants,
        tuple(builder.nodes),
        tuple(outputs),
        tuple(pairs),
        (f"{builder.folded} operations are constant", *builder.notes),
    )


def run_model(
    model: onnx.ModelProto, plan: Plan, b: Builder, feeds: Mapping[str, Array] | None = None
) -> dict[str, str]:
    """Every tensor of the model as a key; ``feeds`` puts numbers in place of the inputs."""
    keys: dict[str, str] = {"": ""}
    for tensor in model.graph.initializer:
        keys[tensor.name] = b.constant(decode(tensor))
    for given in model_inputs(model):
        keys[given.name] = (
            _enter(b, given, plan)
            if feeds is None
            else b.constant(feeds[given.name], open_names=(_DATA,))
        )
    declared = _declared_types(model)
    problems: list[Problem] = []
    broken: set[str] = set()
    for node in model.graph.node:
        if any(n in broken for n in node.input):
            broken.update(node.output)
            continue
        b.origin = escape(node.name or node.output[0])
        try:
            results = OPERATORS[_operator(node)](b, _call(node, keys, model, b, plan, declared))
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError, AttributeError):
            problems.append(problem(node, "not what the operator defines", "export again"))
            broken.update(node.output)
            continue
        except Unsupported as error:
            problems.append(problem(node, error.why, error.hint))
            broken.update(node.output)
            continue
        for name, key in zip(node.output, results, strict=False):
            keys[name] = key
        broken.update(n for n in node.output if n and not keys.get(n))
    if problems:
        raise refuse_nodes(problems, "cannot be compiled")
    lost = [escape(v.name) for v in model.graph.output if v.name not in keys]
    if lost:
        raise ModelError(f"outputs that cannot be compiled: {', '.join(lost)}", "leave them out")
    return keys


def _operator(node: onnx.NodeProto) -> tuple[str, str]:
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type)


def _enter(b: Builder, given: ModelInput, plan: Plan) -> str:
    shape = plan.shapes[given.name]
    if given.name == plan.position:
        positions = np.arange(plan.steps, dtype=given.dtype)
        return b.constant(positions.reshape(plan.steps, *shape), timed=True)
    if 0 in shape:
        return b.constant(np.zeros(shape, given.dtype))
    if given.name in plan.implied:
        if plan.implied[given.name] == "zeros":
            return b.constant(np.zeros(shape, given.dtype))
        ones = plan.implied[given.name] == "ones"
        value = np.ones(shape) if ones else np.broadcast_to(np.arange(shape[-1]), shape)
        names = tuple(n for n, size in b.open_sizes.items() if size in shape)
        return b.constant(value.astype(given.dtype), open_names=names)
    timed = plan.form == "step"
    return b.input(TensorInput("", shape, timed, given.dtype, given.name, shape))


def _check_samples(model: onnx.ModelProto, plan: Plan) -> None:
    """A fixed batch is one sample many times only if samples are independent: tried on numbers."""
    generator = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for given in model_inputs(model):
        shape = (plan.batch, *plan.shapes[given.name][1:])
        random = generator.standard_normal(shape)
        feeds[given.name] = (random > 0 if given.dtype.kind != "f" else random).astype(given.dtype)
    whole = _values(model, replace(plan, batch=1), feeds)
    for sample in (0, plan.batch - 1):
        alone = _values(model, plan, {n: a[sample : sample + 1] for n, a in feeds.items()})
        for one, many in zip(alone, whole, strict=True):
            same = len(many) == plan.batch and one.shape[1:] == many.shape[1:]
            if not same or not np.allclose(one[0], many[sample], rtol=1e-3, atol=1e-3):
                raise ModelError(
                    f"the {plan.batch} samples of the fixed batch are not independent",
                    "export the model with batch 1",
                )


def _values(model: onnx.ModelProto, plan: Plan, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs for concrete inputs: with nothing but constants, folding evaluates."""
    builder = Builder()
    keys = run_model(model, plan, builder, feeds)
    return [builder.value(keys[v.name], "output") for v in model.graph.output]


def _call(
    node: onnx.NodeProto,
    keys: Mapping[str, str],
    model: onnx.ModelProto,
    b: Builder,
    plan: Plan,
    declared: Mapping[str, int],
) -> Call:
    attributes = {a.name: _attribute(a) for a in node.attribute}
    inputs = tuple(keys[n] for n in node.input)
    like = _TYPED_BY.get(node.op_type, len(node.input))
    if like < len(node.input):
        attributes["like"] = declared.get(node.input[like], 0)
    call = Call(node.op_type, inputs, attributes, len(node.output), opset(model))
    return call if plan.batch == 1 else _call_without_batch(call, b, plan.batch)


def _declared_types(model: onnx.ModelProto) -> dict[str, int]:
    """ONNX's code of the element type of every input and initialiser."""
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    return types | {t.name: t.data_type for t in model.graph.initializer}


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return decode(value)
    return tuple(value) if isinstance(value, list) else value


# --- files exported with a fixed batch above 1 --------------------------------------------------


def _call_without_batch(call: Call, b: Builder, batch: int) -> Call:
    """The call with what spells out the batch size (target shapes, constants) made batch 1."""
    inputs = list(call.inputs)
    flows = any(k and _is_data(b, k) for k in inputs)
    if call.op in ("Reshape", "Expand") and flows and b.is_constant(inputs[1]):
        shape = b.value(inputs[1], "shape").copy()
        if call.op == "Expand" and len(shape) and shape[0] == batch:
            shape[0] = 1
        if call.op == "Reshape" and -1 not in shape:
            surplus = int(np.prod(shape)) // max(int(np.prod(b.shape(inputs[0]))), 1)
            if surplus == batch and shape[0] % batch == 0:
                shape[0] //= batch
        inputs[1] = b.constant(shape)
    elif flows:
        inputs = [_one_sample(b, k, batch) if k else k for k in inputs]
    return Call(call.op, tuple(inputs), call.attributes, call.outputs, call.version)


def _is_data(b: Builder, key: str) -> bool:
    return not b.is_constant(key) or _DATA in b.open_names.get(key, ())


def _one_sample(b: Builder, key: str, batch: int) -> str:
    if not _is_data(b, key):
        array = b.constants[key].array
        if array.ndim > 1 and len(array) == batch and (array == array[:1]).all():
            return b.constant(array[:1])
    return key
