"""Vetting: everything that can be wrong with a model file is found before anything is computed.

The order is: size, protobuf, external data (paths and ranges), functions inlined, operators and
opsets, single assignment and order, weights. What standard tools let through (cycles, NaN weights,
zero dimensions, bombs) ends here in a :class:`ModelError`.

Weights of many GB are not loaded: they are looked at block by block and stay in their file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from hwcompile.compiler.frontend import external
from hwcompile.compiler.frontend.builder import MAX_ELEMENTS, MAX_WEIGHT_ELEMENTS
from hwcompile.compiler.frontend.operators import OPERATORS
from hwcompile.compiler.frontend.refusal import escape, problem, refuse, refuse_nodes
from hwcompile.compiler.frontend.wire import check_wire
from hwcompile.compiler.ir.mapped import blocks
from hwcompile.compiler.ir.tensor_graph import Array

MAX_FILE_BYTES = 2 << 30
MAX_DATA_BYTES = 1 << 38
"""Bytes of external data; from ``MAX_LOADED_BYTES`` on they are mapped instead of loaded."""
MAX_LOADED_BYTES = 1 << 30
MAX_NODES = 200_000
MAX_FUNCTION_DEPTH = 16
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


def vet(path: Path) -> onnx.ModelProto:
    """The model of a file, checked, functions inlined, external data read or left to be mapped.

    Raises ModelError, with every offending node in one message.
    """
    model = open_model(path)
    size = data_bytes(model, path.parent)
    if size > MAX_DATA_BYTES:
        raise refuse(f"the weights of the file are over the limit of {MAX_DATA_BYTES} bytes")
    external.load_external(model, path.parent, maps=size > MAX_LOADED_BYTES)
    for tensor in external.tensors(model):
        if external.is_external(tensor):
            _check_mapped(tensor)
        else:
            _check_tensor(tensor)
    _check_scales(model.graph)
    return model


def open_model(path: Path) -> onnx.ModelProto:
    """The model of a file, functions inlined, checked as far as that needs no weights.

    External data stays where it is; its place is checked. Raises ModelError.
    """
    model = _decode(path)
    _check_text(model)
    external.check_external(model, path.parent)
    if model.functions:
        model = _inline(model)
    _check_opsets(model)
    _check_interface(model.graph)
    _check_nodes(model.graph, opset(model))
    _check_order(model.graph)
    return model


def data_bytes(model: onnx.ModelProto, folder: Path) -> int:
    """Bytes of external data that belong to the model."""
    far = (t for t in external.tensors(model) if external.is_external(t))
    return sum(external.place(t, folder)[2] for t in far)


def _decode(path: Path) -> onnx.ModelProto:
    try:
        size = path.stat().st_size
        if size == 0:
            raise refuse("the file is empty")
        if size > MAX_FILE_BYTES:
            raise refuse(f"the file has {size} bytes, the limit is {MAX_FILE_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise refuse(f"cannot read {path}: {error.strerror}", "check the path") from error
    check_wire(data)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)  # type: ignore[no-untyped-call]
    except (DecodeError, ValueError) as error:
        raise refuse("not an ONNX file, or cut short (protobuf does not decode)") from error
    if not model.ir_version or (not model.graph.node and not model.graph.output):
        raise refuse("not an ONNX file (no graph)")
    return model


def _check_text(model: onnx.ModelProto) -> None:
    """Names must be text: protobuf hands out what is no UTF-8 as bytes."""
    graph = model.graph
    names: list[object] = [v.name for v in (*graph.input, *graph.output)]
    names += [d.dim_param for v in graph.input for d in v.type.tensor_type.shape.dim]
    names += [o.domain for o in model.opset_import]
    for nodes in (graph.node, *(f.node for f in model.functions)):
        for node in nodes:
            names += [node.name, node.op_type, node.domain, *node.input, *node.output]
            names += [text for a in node.attribute for text in (a.name, a.ref_attr_name)]
    for function in model.functions:
        names += [function.name, function.domain, *function.input, *function.output]
    for tensor in external.tensors(model):
        names += [tensor.name]
        names += [text for entry in tensor.external_data for text in (entry.key, entry.value)]
    if not all(isinstance(name, str) for name in names):
        raise refuse("a name in the file is no text")


# --- structure ----------------------------------------------------------------------------------


def _check_functions(model: onnx.ModelProto) -> None:
    """No circle of calls, no depth or number of nodes that inlining would explode into."""
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    if len(bodies) != len(model.functions):
        raise refuse("two functions have the same name")
    sizes: dict[tuple[str, str], tuple[int, int]] = {}

    def measure(nodes: Iterable[onnx.NodeProto]) -> tuple[int, int] | None:
        """Nodes after inlining and depth of calls; None while a function called is not known."""
        count = depth = 0
        for node in nodes:
            called = (node.domain, node.op_type)
            if called in bodies and called not in sizes:
                return None
            inner, below = sizes.get(called, (1, -1))
            count, depth = count + inner, max(depth, below + 1)
        return count, depth

    while len(sizes) < len(bodies):
        ready = {f: m for f, body in bodies.items() if f not in sizes and (m := measure(body))}
        if not ready:
            raise refuse("functions of the file call each other in a circle")
        sizes.update(ready)
        if max(depth for _, depth in ready.values()) > MAX_FUNCTION_DEPTH:
            raise refuse(f"functions call each other over {MAX_FUNCTION_DEPTH} deep")
        if max(count for count, _ in ready.values()) > MAX_NODES:
            raise refuse(f"a function of the file has over {MAX_NODES} nodes")
    total = measure(model.graph.node)
    if total is None or total[0] > MAX_NODES:
        raise refuse(f"the graph has more than {MAX_NODES} nodes")


def _inline(model: onnx.ModelProto) -> onnx.ModelProto:
    _check_functions(model)
    try:
        inlined: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError) as error:
        raise refuse("the functions of the file cannot be inlined") from error
    return inlined


def _check_opsets(model: onnx.ModelProto) -> None:
    version = opset(model)
    if version not in OPSETS:
        raise refuse(
            f"opset {version} is not supported",
            f"export with an opset from {min(OPSETS)} to {LARGEST_OPSET}",
        )


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operator set the file uses."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def _check_interface(graph: onnx.GraphProto) -> None:
    if len(graph.node) > MAX_NODES:
        raise refuse(f"the graph has {len(graph.node)} nodes, the limit is {MAX_NODES}")
    if not graph.output:
        raise refuse("the graph has no outputs")
    for value in (*graph.input, *graph.output):
        kind = value.type.WhichOneof("value")  # type: ignore[no-untyped-call]
        if kind != "tensor_type":
            raise refuse(f"{escape(value.name)} is no tensor")
        dims = value.type.tensor_type.shape.dim
        if len(dims) > MAX_RANK:
            raise refuse(f"{escape(value.name)} has more than {MAX_RANK} dimensions")
        if any(d.dim_value < 1 for d in dims if fixed_dimension(d)):
            raise refuse(
                f"{escape(value.name)} has a dimension below 1: there is nothing to build",
                "export the model with real shapes",
            )
        if prod(max(d.dim_value, 1) for d in dims) > MAX_ELEMENTS:
            raise refuse(f"{escape(value.name)} has more than {MAX_ELEMENTS} elements")
    if graph.sparse_initializer:
        raise refuse("sparse initialisers are not supported", "store dense weights")


def fixed_dimension(dimension: onnx.TensorShapeProto.Dimension) -> bool:
    """Whether a dimension is a number in the file."""
    return bool(dimension.HasField("dim_value"))  # type: ignore[no-untyped-call]


def _check_nodes(graph: onnx.GraphProto, version: int) -> None:
    context = onnx.checker.C.CheckerContext()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = {"": version}
    bad = [
        problem(node, *found)
        for node in graph.node
        if (found := _unsupported(node) or _malformed(node, context))
    ]
    if bad:
        raise refuse_nodes(bad, "cannot be compiled")


def _unsupported(node: onnx.NodeProto) -> tuple[str, str] | None:
    """Why an operator cannot be compiled and what to do, or None."""
    domain, name = "" if node.domain == "ai.onnx" else node.domain, node.op_type
    if name in _NO_HARDWARE:
        return _NO_HARDWARE[name], "export a model that always computes the same operations"
    if name.startswith("Random") or name in ("Bernoulli", "Multinomial"):
        return "a random result cannot be proven", "export the model for inference"
    if any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
        return "it has a graph inside", "export a model without control flow"
    if (domain, name) in OPERATORS:
        return None
    where = f" of domain {escape(domain)}" if domain else ""
    near = [n for d, n in OPERATORS if d == domain]
    close = difflib.get_close_matches(name, near, 1, 0.7) if len(name) < 64 else []
    hint = f"is it {close[0]}?" if close else "write it with operators of `hwcompile ops`"
    return f"operator{where} not supported", hint


def _malformed(
    node: onnx.NodeProto, context: onnx.checker.C.CheckerContext
) -> tuple[str, str] | None:
    """What is wrong with the inputs or attributes of a standard operator, or None."""
    if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
        return None
    try:
        onnx.checker.check_node(node, context)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        return escape(str(error).split("\n")[0], 100), "export with another opset"
    return None


def _check_order(graph: onnx.GraphProto) -> None:
    """Single assignment, and every tensor made before it is used (which excludes cycles)."""
    known = {value.name for value in graph.input}
    if len(known) != len(graph.input):
        raise refuse("two inputs have the same name")
    names = [t.name for t in graph.initializer]
    if len(set(names)) != len(names):
        raise refuse("two initialisers have the same name")
    known.update(names)
    made = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                what = "used before it is made, or part of a cycle" if name in made else "undefined"
                raise refuse(f"tensor '{escape(name)}' is {what}")
        for name in node.output:
            if name in known:
                raise refuse(f"tensor '{escape(name)}' is made twice")
            if name:
                known.add(name)
    for value in graph.output:
        if value.name not in known:
            raise refuse(f"output '{escape(value.name)}' is never made")


# --- weights ------------------------------------------------------------------------------------


def _check_tensor(tensor: onnx.TensorProto) -> None:
    name = escape(tensor.name or "of an attribute")
    if any(d < 0 for d in tensor.dims):
        raise refuse(f"tensor {name} has a negative dimension")
    if prod(tensor.dims) > MAX_WEIGHT_ELEMENTS:
        raise refuse(f"tensor {name} has more than {MAX_WEIGHT_ELEMENTS} elements")
    if tensor.data_type == onnx.TensorProto.STRING:
        raise refuse(f"tensor {name} holds text")
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, onnx.checker.ValidationError) as error:
        raise refuse(f"tensor {name} does not hold what its shape says") from error
    if _is_float(tensor) and prod(tensor.dims) > 1:
        _check_finite(name, array)


def _check_mapped(tensor: onnx.TensorProto) -> None:
    """As :func:`_check_tensor`, block by block; a mask (minus infinity in it) is read after all."""
    if not _is_float(tensor):
        return
    masked = False
    for block in blocks(external.mapped(tensor)):
        if not _all_finite(block):
            _check_finite(escape(tensor.name or "of an attribute"), block)
            masked = True
    if masked:
        external.load(tensor)
        _check_tensor(tensor)


#: Bits of the exponent of the floats that numpy is slow with: all set means no finite number.
_EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80}


def _all_finite(block: Array) -> bool:
    exponent = _EXPONENTS.get(block.dtype.name)
    if exponent is None:
        return bool(np.isfinite(block).all())
    return not ((block.view(np.uint16) & exponent) == exponent).any()


def _is_float(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type in _FLOATS


def _check_finite(name: str, array: Array) -> None:
    """No NaN, no infinity; minus infinity is for masks, and refused later where a weight is."""
    values = array if array.dtype.kind == "f" else array.astype(np.float32)
    if np.isnan(values).any() or np.isposinf(values).any():
        raise refuse(f"tensor {name} holds NaN or infinity", "train or export the model again")


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
            raise refuse(f"scale {escape(node.input[1])} is not a normal positive number")
