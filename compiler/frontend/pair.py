"""Pair: an encoder and a decoder exported apart become one model.

1. The encoder is the file whose outputs the other one takes: by name, else the only float input of
   the same element type and shape (open dimensions fit any).
2. An input both files have is one input, unless it holds the decoder's only token ids: those are
   its own. A mask of the encoder's rows is the encoder's mask.
3. The decoder's outputs are the outputs. Names inside are made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import onnx
import onnx.version_converter

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.frontend.load import load_model
from hwcompile.compiler.frontend.plan import Dims, ModelInput, dimensions, model_inputs
from hwcompile.compiler.frontend.planning import make_plan
from hwcompile.compiler.frontend.refusal import escape
from hwcompile.compiler.frontend.trace import trace
from hwcompile.compiler.frontend.vet import opset, vet

_OWN = "decoder_"
_ROWS_MASK = "encoder_attention_mask"


def load_models(paths: tuple[Path, ...], shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """The vetted model of one file, or of an encoder and its decoder in either order.

    Raises ModelError: every reason a file is refused, or what of a pair does not fit.
    """
    if len(paths) == 1:
        return load_model(paths[0], shapes)
    first, second = (vet(path) for path in paths)
    links = _links(first, second)
    backwards = _links(second, first)
    if len(backwards) > len(links) or (not links and backwards):
        first, second, links = second, first, backwards
    if not links:
        raise ModelError(_misfit(first, second), "export the decoder with the encoder's output")
    model = join(first, second, links)
    trace(model, make_plan(model, shapes))
    return model


def join(
    encoder: onnx.ModelProto, decoder: onnx.ModelProto, links: Mapping[str, str]
) -> onnx.ModelProto:
    """One model of two; ``links``: inputs of the decoder that are outputs of the encoder."""
    encoder, decoder = _same_opset(encoder, decoder)
    shared = _shared(encoder, decoder, links)
    taken = {i.name for i in model_inputs(encoder)}
    kept = {i.name: i.name for i in model_inputs(encoder)}
    left = _renamed(encoder, kept, "e")
    outside = {v.name: v.name for v in decoder.graph.output}
    for given in model_inputs(decoder):
        if given.name in links:
            outside[given.name] = _inside(links[given.name], kept, "e")
        elif given.name in shared:
            outside[given.name] = shared[given.name]
        else:
            outside[given.name] = _OWN + given.name if given.name in taken else given.name
    right = _renamed(decoder, outside, "d")
    model = right
    model.ir_version = max(encoder.ir_version, decoder.ir_version)
    for domain in encoder.opset_import:
        if domain.domain not in {o.domain for o in decoder.opset_import}:
            model.opset_import.add(domain=domain.domain, version=domain.version)
    graph = model.graph
    own = {outside[i.name] for i in model_inputs(decoder)} - set(shared.values())
    own -= {outside[name] for name in links}
    inputs = [v for v in left.graph.input if v.name in taken]
    inputs += [v for v in graph.input if v.name in own]
    nodes = [*left.graph.node, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.initializer.extend(left.graph.initializer)
    return model


# --- what fits ------------------------------------------------------------------------------------


def _links(encoder: onnx.ModelProto, decoder: onnx.ModelProto) -> dict[str, str]:
    """Inputs of the decoder that are outputs of the encoder; none if one of them does not fit."""
    outputs = {v.name: v for v in encoder.graph.output}
    wanted = [i for i in model_inputs(decoder) if i.dtype.kind == "f" and len(i.dims) > 1]
    links: dict[str, str] = {}
    for given in wanted:
        if given.name in outputs:
            if not _fits(dimensions(outputs[given.name]), given.dims):
                return {}
            links[given.name] = given.name
    if links:
        return links
    for given in wanted:
        fitting = [n for n, v in outputs.items() if _fits(dimensions(v), given.dims)]
        others = [w for w in wanted if len(w.dims) == len(given.dims)]
        if len(fitting) == 1 and len(others) == 1:
            links[given.name] = fitting[0]
    return links


def _fits(a: Dims, b: Dims) -> bool:
    return len(a) == len(b) and all(
        x == y or isinstance(x, str) or isinstance(y, str) for x, y in zip(a, b, strict=True)
    )


def _shared(
    encoder: onnx.ModelProto, decoder: onnx.ModelProto, links: Mapping[str, str]
) -> dict[str, str]:
    """Inputs of the decoder that are inputs of the encoder."""
    known = {i.name: i for i in model_inputs(encoder)}
    rest = [i for i in model_inputs(decoder) if i.name not in links]
    tokens = [i.name for i in rest if i.dtype.kind in "iu" and "mask" not in i.name]
    shared = {}
    for given in rest:
        twin = known.get(given.name)
        if given.name == _ROWS_MASK:
            twin = known.get("attention_mask", twin)
        if twin is None or tokens == [given.name] or _only_with_own_ids(given, tokens, known):
            continue
        if not _fits(given.dims, twin.dims) or given.dtype.kind != twin.dtype.kind:
            raise ModelError(
                f"input {escape(given.name)} is {_shape(twin.dims)} in the encoder and "
                f"{_shape(given.dims)} in the decoder",
                "export both with one shape",
            )
        shared[given.name] = twin.name
    return shared


def _only_with_own_ids(
    given: ModelInput, tokens: list[str], known: Mapping[str, ModelInput]
) -> bool:
    """Whether a mask goes with token ids that are the decoder's own, whatever their name."""
    return given.name == "attention_mask" and len(tokens) == 1 and tokens[0] in known


def _misfit(encoder: onnx.ModelProto, decoder: onnx.ModelProto) -> str:
    made = ", ".join(f"{escape(v.name)} {_shape(dimensions(v))}" for v in encoder.graph.output)
    taken = ", ".join(f"{escape(i.name)} {_shape(i.dims)}" for i in model_inputs(decoder))
    return f"the two files are no pair: the first returns {made}; the second takes {taken}"


def _shape(dims: Dims) -> str:
    return "x".join("?" if isinstance(d, str) else str(d) for d in dims) or "one number"


# --- names and opsets -----------------------------------------------------------------------------


def _same_opset(
    encoder: onnx.ModelProto, decoder: onnx.ModelProto
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    target = max(opset(encoder), opset(decoder))
    return _converted(encoder, target), _converted(decoder, target)


def _converted(model: onnx.ModelProto, target: int) -> onnx.ModelProto:
    if opset(model) == target:
        return model
    try:
        made: onnx.ModelProto = onnx.version_converter.convert_version(model, target)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the two files have opsets {opset(model)} and {target}", "export both with one opset"
        ) from error
    return made


def _inside(name: str, kept: Mapping[str, str], prefix: str) -> str:
    return kept.get(name, f"{prefix}/{name}") if name else ""


def _renamed(model: onnx.ModelProto, kept: Mapping[str, str], prefix: str) -> onnx.ModelProto:
    """The model with every name inside behind a prefix, and those of ``kept`` as it says."""
    made = deepcopy(model)
    graph = made.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.name = _inside(value.name, kept, prefix)
    for tensor in graph.initializer:
        tensor.name = _inside(tensor.name, kept, prefix)
    for given in graph.input:
        for dim in given.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = f"{prefix}/{dim.dim_param}"
    for node in graph.node:
        node.name = f"{prefix}/{node.name}"
        for field in (node.input, node.output):
            names = [_inside(name, kept, prefix) for name in field]
            del field[:]
            field.extend(names)
    return made
