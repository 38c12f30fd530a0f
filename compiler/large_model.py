"""The shape and the statistics of a model file of any size, its weights read in blocks.

No network is built: matrices are the initialisers that a MatMul, Gemm, Conv or the like reads;
attention is found at its softmax, or at the caches among the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.estimate.shape import AttentionShape, ModelShape, TableShape
from hwcompile.compiler.estimate.statistics import (
    MatrixStatistics,
    float_histogram,
    integer_histogram,
    nibble_histogram,
)
from hwcompile.compiler.frontend.external import tensors
from hwcompile.compiler.frontend.large import Weight, weights_of
from hwcompile.compiler.frontend.vet import open_model
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.program import Program
from hwcompile.compiler.names import label
from hwcompile.sim import reference

NETLIST_LIMIT = 300_000
"""Weights up to which an estimate maps the whole chip to cells; above, areas are modelled."""
DEFAULT_CONTEXT = 2048
MAX_LIST = 8
_COLUMNS_LAST = ("MatMul", "MatMulInteger", "QLinearMatMul", "QGemm", "Attention")
_COLUMNS_FIRST = ("Gemm", "Conv", "ConvInteger", "QLinearConv", "Transpose")
_RECURRENT = ("LSTM", "GRU", "RNN")
_BETWEEN = ("DequantizeLinear", "Cast", "Transpose", "Identity")
_PACKED = "MatMulNBits"
_LOOKED_UP = ("Gather",)
_FUSED_ATTENTION = ("Attention", "MultiHeadAttention", "GroupQueryAttention")
_PASSED = (
    *("Reshape", "Transpose", "Expand", "Unsqueeze", "Squeeze", "Concat", "Slice", "Split"),
    *("QuantizeLinear", "DequantizeLinear"),
    *("Mul", "Div", "Add", "Sub", "Neg", "Cast", "Identity", "Where", "Tile", "Softmax"),
    *("Pow", "Sqrt", "ReduceMean", "LayerNormalization", "RMSNormalization", "RotaryEmbedding"),
)


def read_shape(
    path: Path, bits: int, context: int | None, shapes: Mapping[str, tuple[int, ...]]
) -> ModelShape:
    """Shape and statistics. ``bits``: of the integers that float weights become; ``context``:
    positions, where the file leaves them open.

    Raises:
        ModelError: no file of a model, or none with matrices.
    """
    model = open_model(path)
    graph = model.graph
    positions, assumed = _positions(graph, context, shapes)
    matrices: list[MatrixStatistics] = []
    tables: list[TableShape] = []
    vectors = 0
    readers = _readers(graph)
    for weight in weights_of(model, path.parent):
        kind = _role(weight, readers.get(weight.name, ()))
        if kind == "matrix":
            matrices.append(_matrix(weight, readers[weight.name], bits, len(matrices)))
        elif kind == "table":
            tables.append(TableShape(f"table {len(tables)}", *weight.shape))
        elif kind == "vector":
            vectors += weight.elements
    if not matrices:
        raise ModelError(f"{label(path.name)} has no weight matrices", "estimate needs a network")
    item = "token" if _makes_tokens(graph, tables, matrices) else "inference"
    rows = 1 if item == "token" else positions
    return ModelShape(
        name=label(path.stem),
        item=item,
        context=positions,
        hidden=_hidden(matrices),
        matrices=tuple(replace(m, rows=rows) for m in matrices),
        attention=_attention(graph, rows),
        tables=tuple(tables),
        vector_weights=vectors,
        assumed=assumed,
    )


def _readers(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """Operators that read each value, through what only rearranges or scales it. A Transpose on
    the way is named too."""
    direct: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            direct.setdefault(name, []).append(node)

    def kinds(name: str, depth: int) -> tuple[str, ...]:
        found: list[str] = []
        for node in direct.get(name, ()):
            if node.op_type in _BETWEEN and depth and node.input[0] == name:
                found += [node.op_type, *kinds(node.output[0], depth - 1)]
            else:
                found.append(node.op_type)
        return tuple(found)

    return {tensor.name: kinds(tensor.name, 3) for tensor in graph.initializer}


def program_shape(name: str, program: Program) -> ModelShape:
    """Shape and statistics of an integer program, as a bundle holds it."""
    matrices: list[MatrixStatistics] = []
    attention: list[AttentionShape] = []
    tables: list[TableShape] = []
    for op in program.operations:
        passes = op.output.rows if program.sections[op.section] == "once" else 1
        if isinstance(op, ir.Linear):
            flat = op.weight.reshape(-1)
            counts = integer_histogram([flat].copy)
            bits = max(2, int(np.abs(op.weight).max(initial=0)).bit_length() + 1)
            label_of = f"{len(matrices)} {op.origin or op.output.key}"
            inputs, outputs = op.weight.shape
            matrices.append(
                MatrixStatistics(label_of, inputs, outputs, bits, tuple(counts), rows=passes)
            )
        elif isinstance(op, ir.Attend):
            query, key = (program.values[name] for name in op.inputs[:2])
            attention.append(AttentionShape(op.heads, query.cols // op.heads, key.cols, passes))
        elif isinstance(op, ir.Embed | ir.Rows):
            tables.append(TableShape(f"table {len(tables)}", *op.table.shape))
    context = reference.context(program)
    positions = context or max((m.rows for m in matrices), default=1)
    return ModelShape(
        name,
        "token" if context else "inference",
        positions,
        _hidden(matrices),
        tuple(matrices),
        tuple(attention),
        tuple(tables),
    )


def _role(weight: Weight, kinds: tuple[str, ...]) -> str:
    """``matrix``, ``table``, ``vector``, or nothing that is a weight."""
    if _PACKED in kinds and len(weight.shape) == 3:
        return "matrix"
    if len(weight.shape) < 2 or min(weight.shape[-2:]) < 2:
        return "vector" if weight.dtype.startswith(("float", "bfloat")) else ""
    if any(kind in (*_COLUMNS_LAST, *_COLUMNS_FIRST, *_RECURRENT) for kind in kinds):
        return "matrix"
    if any(kind in _LOOKED_UP for kind in kinds):
        return "table" if len(weight.shape) == 2 else ""
    return ""


def _matrix(weight: Weight, kinds: tuple[str, ...], bits: int, number: int) -> MatrixStatistics:
    name, copies = f"{number} {label(weight.name)}", 1
    if _PACKED in kinds:
        outputs, inputs = weight.shape[0], 2 * weight.shape[1] * weight.shape[2]
        return MatrixStatistics(name, inputs, outputs, 4, tuple(nibble_histogram(weight.blocks)))
    if any(kind in _COLUMNS_LAST for kind in kinds) and "Transpose" not in kinds:
        inputs, outputs = weight.shape[-2:]
        copies = prod(weight.shape[:-2])
        axis = len(weight.shape) - 1
    elif any(kind in _RECURRENT for kind in kinds) and len(weight.shape) == 3:
        # [directions, gates x hidden, inputs]
        copies, outputs, inputs = weight.shape
        axis = 1
    else:
        outputs, inputs = weight.shape[0], prod(weight.shape[1:])
        axis = 0
    if weight.dtype.startswith(("float", "bfloat")):
        counts = float_histogram(weight.blocks, weight.shape, axis, bits)
    else:
        counts = integer_histogram(weight.blocks)
        bits = 4 if "int4" in weight.dtype else 8
    return MatrixStatistics(name, inputs, outputs, bits, tuple(counts), copies)


def _hidden(matrices: list[MatrixStatistics]) -> int:
    """The width that most weights read or write."""
    held: dict[int, int] = {}
    for m in matrices:
        for width in (m.inputs, m.outputs):
            held[width] = held.get(width, 0) + 1
    return max(held, key=lambda width: (held[width], width))


def is_large(path: Path) -> bool:
    """Whether a file holds more weights than are mapped to cells for an estimate."""
    found = tensors(open_model(path))
    return sum(prod(t.dims) for t in found if len(t.dims) > 1) > NETLIST_LIMIT


def _positions(
    graph: onnx.GraphProto, context: int | None, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[int, tuple[str, ...]]:
    """Positions of the model: as asked for, as given, as the input says, or the default."""
    if context is not None:
        return context, ()
    made = {i.name: None for i in graph.initializer}
    cached = bool(_caches(graph))
    for value in graph.input:
        if value.name in made:
            continue
        dims = list(shapes.get(value.name, _dims(value)))
        if len(dims) >= 2 and len(dims) <= 3 and dims[1] > 1:
            return dims[1], ()
        if len(dims) == 4 and cached and dims[2] > 1:
            return dims[2] + ("past" in value.name), ()
        strides = _first_strides(graph)
        if len(dims) == 4 and dims[3] > 1 and len(strides) == 2:
            return dims[2] * dims[3] // prod(strides) + 1, ("a position is a patch of the image",)
    return DEFAULT_CONTEXT, (f"a context of {DEFAULT_CONTEXT} positions (--context)",)


def _first_strides(graph: onnx.GraphProto) -> tuple[int, ...]:
    convolutions = (n for n in graph.node if n.op_type in ("Conv", "QLinearConv", "ConvInteger"))
    first = next(convolutions, None)
    found = [] if first is None else [a.ints for a in first.attribute if a.name == "strides"]
    return tuple(found[0]) if found else ()


def _makes_tokens(
    graph: onnx.GraphProto, tables: list[TableShape], matrices: list[MatrixStatistics]
) -> bool:
    """Whether the last matrix answers with the vocabulary of a table, or there are caches."""
    if _caches(graph):
        return True
    sizes = [table.rows for table in tables]
    answers = [_dims(value)[-1:] for value in graph.output]
    if any(size in sizes for answer in answers for size in answer if size):
        return True
    return bool(sizes) and max(sizes) in [m.outputs for m in matrices]


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """Sizes of a value, 0 where open."""
    return [d.dim_value for d in value.type.tensor_type.shape.dim]


# --- attention ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Graph:
    """Who makes each value, the sizes of weights, and short lists of integers."""

    maker: Mapping[str, onnx.NodeProto]
    sizes: Mapping[str, tuple[int, ...]]
    lists: Mapping[str, tuple[int, ...]]


def _attention(graph: onnx.GraphProto, rows: int) -> tuple[AttentionShape, ...]:
    sizes = {t.name: tuple(t.dims) for t in graph.initializer}
    maker = {out: node for node in graph.node for out in node.output}
    view = _Graph(maker, sizes, _lists(graph))
    cached = _caches(graph)
    found: list[AttentionShape] = []
    for node in graph.node:
        if node.op_type == "Softmax":
            products = _makers(view, node.input[0], ("MatMul",))
            products = [p for p in products if not any(i in sizes for i in p.input)]
            if not products:
                continue
            query, key = (_width(view, name) for name in products[0].input[:2])
        elif node.op_type == "Attention" and node.input[1] in sizes:
            width = sizes[node.input[1]][-1] // 3
            counts = [a.i for a in node.attribute if a.name == "num_heads"]
            heads = max(1, counts[0] if counts else 1)
            found.append(AttentionShape(heads, width // heads, width, rows))
            continue
        elif node.op_type in _FUSED_ATTENTION:
            query, key = (_width(view, name) for name in node.input[:2])
        else:
            continue
        if cached:
            heads, size = cached[len(found) % len(cached)]
            key = heads * size
        else:
            size = _head_size(view, node) or 64
        query = max(query or key or size, size)
        key = min(key or query, query)
        found.append(AttentionShape(max(1, query // size), size, key, rows))
    return tuple(found)


def _caches(graph: onnx.GraphProto) -> list[tuple[int, int]]:
    """Key heads and head size of each cached key among the inputs, keys and values by turns.

    Caches are 4-dimensional inputs, two or more, beside an integer one: an image is alone.
    """
    integer = any(
        value.type.tensor_type.elem_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
        for value in graph.input
    )
    dims = [_dims(value) for value in graph.input]
    found = [(d[1], d[3]) for d in dims if len(d) == 4 and d[1] and d[3]] if integer else []
    return found[::2] if len(found) > 1 else []


def _makers(view: _Graph, name: str, kinds: tuple[str, ...]) -> list[onnx.NodeProto]:
    """The nearest nodes of some kinds that make a value, through what only rearranges it."""
    found, seen, todo = [], {name: None}, [name]
    while todo:
        node = view.maker.get(todo.pop(0))
        if node is None:
            continue
        if node.op_type in kinds:
            found.append(node)
        elif node.op_type in _PASSED:
            for more in node.input:
                if more not in seen and more not in view.sizes:
                    seen[more] = None
                    todo.append(more)
    return found


def _width(view: _Graph, name: str) -> int:
    """Outputs of the matrix that a query or key comes from; 0 when there is none."""
    for node in _makers(view, name, ("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul")):
        for place in node.input[1:2]:
            size = view.sizes.get(place) or _through(view, place)
            if size and len(size) >= 2:
                transposed = node.op_type == "Gemm" and any(
                    a.name == "transB" and a.i for a in node.attribute
                )
                width = size[-2] if transposed else size[-1]
                # One matrix for query, key and value is split behind it.
                return width // 3 if width == 3 * size[-1 if transposed else -2] else width
    return 0


def _through(view: _Graph, name: str) -> tuple[int, ...] | None:
    """Size of a weight behind a DequantizeLinear or a Transpose."""
    node = view.maker.get(name)
    if node is None or node.op_type not in ("DequantizeLinear", "Transpose", "Cast"):
        return None
    size = view.sizes.get(node.input[0]) or _through(view, node.input[0])
    return size[::-1] if size and node.op_type == "Transpose" else size


def _head_size(view: _Graph, node: onnx.NodeProto) -> int:
    """Head size, from the constant shape of a Reshape in front of the product."""
    for maker in _makers(view, node.input[0], ("MatMul",)):
        for name in maker.input[:2]:
            for reshape in _makers(view, name, ("Reshape",)):
                shape = view.lists.get(reshape.input[1], ())
                if len(shape) >= 3 and shape[-1] > 1:
                    return shape[-1]
    return 0


def _lists(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Short constant lists of int64, as Reshape takes them."""
    tensors = {t.name: t for t in graph.initializer}
    for node in graph.node:
        for a in node.attribute:
            if node.op_type == "Constant" and a.name == "value":
                tensors[node.output[0]] = a.t
    return {
        name: tuple(int(v) for v in numpy_helper.to_array(t).reshape(-1))
        for name, t in tensors.items()
        if t.data_type == onnx.TensorProto.INT64
        and prod(t.dims) <= MAX_LIST
        and t.data_location != onnx.TensorProto.EXTERNAL
    }
