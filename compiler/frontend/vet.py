"""Vetting: everything that can be wrong with a model file is found before anything is computed.

The order is: size, protobuf, external data (paths and ranges, then read), functions inlined,
operators and opsets, single assignment and order, weights. What standard tools let through
(cycles, NaN weights, zero dimensions, bombs) ends here in a :class:`ModelError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.external_data_helper
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.frontend.builder import MAX_ELEMENTS, MAX_WEIGHT_ELEMENTS
from hwcompile.compiler.frontend.operators import OPERATORS
from hwcompile.compiler.ir.tensor_graph import Array

MAX_FILE_BYTES = 2 << 30
MAX_NODES = 200_000
MAX_RANK = 8
OPSETS = range(13, 25)
LARGEST_OPSET = max(OPSETS)

_NO_HARDWARE = {
    "If": "data-dependent control flow has no fixed hardware",
    "Loop": "data-dependent control flow has no fixed hardware",
    "Scan": "data-dependent control flow has no fixed hardware",
    "NonZero": "the shape of its result depends on data",
    "NonMaxSuppression": "the shape of its result depends on data",
}
_FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
)


def escape(name: str, limit: int = 60) -> str:
    """A name from the file made safe to print: printable ASCII, cut at ``limit`` characters."""
    text = "".join(c if " " <= c <= "~" and c != "\\" else f"\\u{ord(c):04x}" for c in name)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def vet(path: Path) -> onnx.ModelProto:
    """The model of a file, checked, functions inlined, external data read.

    Raises ModelError, with every offending node in one message.
    """
    model = _decode(path)
    _check_text(model.graph)
    _check_external(model, path)
    if model.functions:
        model = _inline(model)
    _check_opsets(model)
    graph = model.graph
    _check_interface(graph)
    _check_nodes(graph, opset(model))
    _check_order(graph)
    _load_external(model, path)
    for tensor in _tensors(graph):
        _check_tensor(tensor)
    _check_scales(graph)
    return model


def _fail(message: str, hint: str = "export the model again") -> ModelError:
    return ModelError(message, hint)


def _decode(path: Path) -> onnx.ModelProto:
    try:
        size = path.stat().st_size
        if size == 0:
            raise _fail("the file is empty")
        if size > MAX_FILE_BYTES:
            raise _fail(f"the file has {size} bytes, the limit is {MAX_FILE_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise _fail(f"cannot read {path}: {error.strerror}", "check the path") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)  # type: ignore[no-untyped-call]
    except (DecodeError, ValueError) as error:
        raise _fail("not an ONNX file, or cut short (protobuf does not decode)") from error
    if not model.ir_version or (not model.graph.node and not model.graph.output):
        raise _fail("not an ONNX file (no graph)")
    return model


def _check_text(graph: onnx.GraphProto) -> None:
    """Names must be text: protobuf hands out what is no UTF-8 as bytes."""
    names: list[object] = [v.name for v in (*graph.input, *graph.output)]
    names += [t.name for t in graph.initializer]
    names += [d.dim_param for v in graph.input for d in v.type.tensor_type.shape.dim]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [a.name for a in node.attribute]
    for tensor in _tensors(graph):
        names += [text for entry in tensor.external_data for text in (entry.key, entry.value)]
    if not all(isinstance(name, str) for name in names):
        raise _fail("a name in the file is no text")


# --- external data ------------------------------------------------------------------------------


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the file: initialisers and tensor attributes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors


def _external(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [t for t in _tensors(model.graph) if t.data_location == onnx.TensorProto.EXTERNAL]


def _check_external(model: onnx.ModelProto, path: Path) -> None:
    for tensor in _external(model):
        name, entries = escape(tensor.name), {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        hint = "keep the data file beside the model"
        parts = Path(location).parts
        if not location or Path(location).is_absolute() or ".." in parts or "\\" in location:
            raise _fail(f"external data of {name} leaves the folder of the model", hint)
        file = path.parent / location
        if any((path.parent / Path(*parts[: i + 1])).is_symlink() for i in range(len(parts))):
            raise _fail(f"external data of {name} is a link", hint)
        if not file.is_file():
            raise _fail(f"external data of {name} is missing: {escape(location)}", hint)
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", -1))
        except ValueError as error:
            raise _fail(f"external data of {name} has a bad offset or length") from error
        size = file.stat().st_size
        length = size - offset if length == -1 and "length" not in entries else length
        if offset < 0 or length < 0 or offset + length > size:
            raise _fail(f"external data of {name} lies outside its file")
        bits = _element_bits(tensor)
        if prod(tensor.dims) * bits > length * 8:
            raise _fail(f"external data of {name} is too short for its shape")


def _element_bits(tensor: onnx.TensorProto) -> int:
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError as error:
        raise _fail(f"tensor {escape(tensor.name)} has an unknown type") from error
    return 4 if "int4" in dtype.name else dtype.itemsize * 8


def _load_external(model: onnx.ModelProto, path: Path) -> None:
    for tensor in _external(model):
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except (onnx.checker.ValidationError, ValueError, OSError) as error:
            raise _fail(f"external data of {escape(tensor.name)} cannot be read") from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


# --- structure ----------------------------------------------------------------------------------


def _inline(model: onnx.ModelProto) -> onnx.ModelProto:
    calls = {(f.domain, f.name): [(n.domain, n.op_type) for n in f.node] for f in model.functions}
    done: set[tuple[str, str]] = set()
    while len(done) < len(calls):
        ready = [
            f
            for f, body in calls.items()
            if f not in done and not any(c in calls and c not in done for c in body)
        ]
        if not ready:
            raise _fail("functions of the file call each other in a circle")
        done.update(ready)
    try:
        inlined: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError) as error:
        raise _fail("the functions of the file cannot be inlined") from error
    if len(inlined.graph.node) > MAX_NODES:
        raise _fail(f"the graph has more than {MAX_NODES} nodes")
    return inlined


def _check_opsets(model: onnx.ModelProto) -> None:
    version = opset(model)
    if version not in OPSETS:
        raise _fail(
            f"opset {version} is not supported",
            f"export with an opset from {min(OPSETS)} to {LARGEST_OPSET}",
        )


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operator set the file uses."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def _check_interface(graph: onnx.GraphProto) -> None:
    if len(graph.node) > MAX_NODES:
        raise _fail(f"the graph has {len(graph.node)} nodes, the limit is {MAX_NODES}")
    if not graph.output:
        raise _fail("the graph has no outputs")
    for value in (*graph.input, *graph.output):
        kind = value.type.WhichOneof("value")  # type: ignore[no-untyped-call]
        if kind != "tensor_type":
            raise _fail(f"{escape(value.name)} is no tensor")
        dims = value.type.tensor_type.shape.dim
        if len(dims) > MAX_RANK:
            raise _fail(f"{escape(value.name)} has more than {MAX_RANK} dimensions")
        if any(d.dim_value < 1 for d in dims if fixed_dimension(d)):
            raise _fail(
                f"{escape(value.name)} has a dimension below 1: there is nothing to build",
                "export the model with real shapes",
            )
        if prod(max(d.dim_value, 1) for d in dims) > MAX_ELEMENTS:
            raise _fail(f"{escape(value.name)} has more than {MAX_ELEMENTS} elements")
    if graph.sparse_initializer:
        raise _fail("sparse initialisers are not supported", "store dense weights")


def fixed_dimension(dimension: onnx.TensorShapeProto.Dimension) -> bool:
    """Whether a dimension is a number in the file."""
    return bool(dimension.HasField("dim_value"))  # type: ignore[no-untyped-call]


def _check_nodes(graph: onnx.GraphProto, version: int) -> None:
    context = onnx.checker.C.CheckerContext()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = {"": version}
    bad = [
        f"{escape(node.op_type)} '{escape(node.name or '?')}': {why}"
        for node in graph.node
        if (why := _unsupported(node) or _malformed(node, context))
    ]
    if bad:
        listed = "\n".join(f"  {line}" for line in bad[:50])
        more = f"\n  ... and {len(bad) - 50} more" if len(bad) > 50 else ""
        raise _fail(
            f"{len(bad)} nodes cannot be compiled:\n{listed}{more}",
            "replace these operators, or export with another opset; `hwcompile ops` lists all",
        )


def _unsupported(node: onnx.NodeProto) -> str:
    domain = "" if node.domain == "ai.onnx" else node.domain
    if node.op_type in _NO_HARDWARE:
        return _NO_HARDWARE[node.op_type]
    if node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial"):
        return "a random result cannot be proven"
    if any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
        return "it has a graph inside"
    if (domain, node.op_type) not in OPERATORS:
        where = f" of domain {escape(domain)}" if domain else ""
        return f"operator{where} not supported"
    return ""


def _malformed(node: onnx.NodeProto, context: onnx.checker.C.CheckerContext) -> str:
    """What is wrong with the inputs or attributes of a standard operator, or ""."""
    if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
        return ""
    try:
        onnx.checker.check_node(node, context)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        return escape(str(error).split("\n")[0], 100)
    return ""


def _check_order(graph: onnx.GraphProto) -> None:
    """Single assignment, and every tensor made before it is used (which excludes cycles)."""
    known = {value.name for value in graph.input}
    if len(known) != len(graph.input):
        raise _fail("two inputs have the same name")
    names = [t.name for t in graph.initializer]
    if len(set(names)) != len(names):
        raise _fail("two initialisers have the same name")
    known.update(names)
    made = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                what = "used before it is made, or part of a cycle" if name in made else "undefined"
                raise _fail(f"tensor '{escape(name)}' is {what}")
        for name in node.output:
            if name in known:
                raise _fail(f"tensor '{escape(name)}' is made twice")
            if name:
                known.add(name)
    for value in graph.output:
        if value.name not in known:
            raise _fail(f"output '{escape(value.name)}' is never made")


# --- weights ------------------------------------------------------------------------------------


def _check_tensor(tensor: onnx.TensorProto) -> None:
    name = escape(tensor.name or "of an attribute")
    if any(d < 0 for d in tensor.dims):
        raise _fail(f"tensor {name} has a negative dimension")
    if prod(tensor.dims) > MAX_WEIGHT_ELEMENTS:
        raise _fail(f"tensor {name} has more than {MAX_WEIGHT_ELEMENTS} elements")
    if tensor.data_type == onnx.TensorProto.STRING:
        raise _fail(f"tensor {name} holds text")
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, onnx.checker.ValidationError) as error:
        raise _fail(f"tensor {name} does not hold what its shape says") from error
    if _is_float(tensor) and prod(tensor.dims) > 1:
        _check_finite(name, array)


def _is_float(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type in _FLOATS


def _check_finite(name: str, array: Array) -> None:
    """Weights must be numbers; minus infinity is for masks and allowed where no weight is."""
    values = array if array.dtype.kind == "f" else array.astype(np.float32)
    if np.isnan(values).any() or np.isposinf(values).any():
        raise _fail(f"tensor {name} holds NaN or infinity", "train or export the model again")
    masked = np.isneginf(values)
    if masked.any() and (values[~masked] != 0).any():
        raise _fail(f"tensor {name} holds infinity", "train or export the model again")


def _check_scales(graph: onnx.GraphProto) -> None:
    known = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        tensor = known.get(node.input[1])
        if tensor is None:
            continue
        # Weights may have negative scales (onnxruntime writes them); activations may not.
        weights = node.input[0] in known
        values = numpy_helper.to_array(tensor).astype(np.float64)
        values = np.abs(values) if weights else values
        if not np.isfinite(values).all() or (values < np.finfo(np.float32).tiny).any():
            raise _fail(f"scale {escape(node.input[1])} is not a normal positive number")
