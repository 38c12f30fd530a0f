"""Ways to damage a model file, each from a seed: the bytes, or what they decode to."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto, helper

Change = Callable[[onnx.ModelProto, random.Random, Path], None]


def damaged(content: bytes, kind: str, seed: int, folder: Path) -> bytes:
    """The bytes of a model damaged in one way; external data goes into ``folder``."""
    rng = random.Random(seed)
    if kind in _BYTES:
        return _BYTES[kind](bytearray(content), rng)
    model = onnx.ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _CHANGES[kind](model, rng, folder)
    return bytes(model.SerializeToString())


# --- bytes ----------------------------------------------------------------------------------------


def _flip_bits(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _flip_early(data: bytearray, rng: random.Random) -> bytes:
    """Where the structure is: the first kilobytes and the last."""
    for _ in range(rng.choice((1, 3))):
        place = rng.randrange(min(len(data), 2048))
        data[place if rng.random() < 0.5 else -1 - place] = rng.randrange(256)
    return bytes(data)


def _cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def _splice(data: bytearray, rng: random.Random) -> bytes:
    """A stretch copied over, into or out of the file."""
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    part = data[a : min(b, a + 4096)]
    at = rng.randrange(len(data))
    match rng.randrange(3):
        case 0:
            data[at : at + len(part)] = part
        case 1:
            data[at:at] = part
        case _:
            del data[a : a + len(part)]
    return bytes(data)


_BYTES: dict[str, Callable[[bytearray, random.Random], bytes]] = {
    "bits flipped": _flip_bits,
    "bytes of the structure": _flip_early,
    "cut short": _cut,
    "spliced": _splice,
}


# --- the decoded file -----------------------------------------------------------------------------

_SIZES = (0, 1, -1, 2, 3, 7, 1 << 20, 1 << 31, (1 << 63) - 1, -(1 << 63))
_WORDS = (
    "",
    "x",
    "../../etc/passwd",
    "a\x1b[31m",
    "$(id)",
    "é" * 300,
    "input",
    "\0",
    "*/ endmodule",
)
_OPERATORS = (
    *("Reshape", "Tile", "Expand", "Gather", "Loop", "If", "MatMul", "Einsum", "Pad", "Range"),
    *("ConstantOfShape", "Conv", "Attention", "LSTM", "Softmax", "Slice", "Split", "TopK", "Where"),
    *("ReduceMax", "MaxPool", "Resize", "CumSum", "QuantizeLinear", "ScatterND", "Transpose"),
)


def _node(model: onnx.ModelProto, rng: random.Random) -> onnx.NodeProto:
    if not model.graph.node:
        model.graph.node.add(op_type="Relu", input=["x"], output=["made"])
    return rng.choice(model.graph.node)


def _tensor(model: onnx.ModelProto, rng: random.Random) -> onnx.TensorProto:
    if not model.graph.initializer:
        model.graph.initializer.add(name="made", data_type=1, dims=[1], raw_data=bytes(4))
    return rng.choice(model.graph.initializer)


def _names(model: onnx.ModelProto, rng: random.Random, folder: Path) -> None:
    node = _node(model, rng)
    known = [o for n in model.graph.node for o in n.output] + list(_WORDS)
    field = rng.choice((node.input, node.output))
    if field and rng.random() < 0.8:
        field[rng.randrange(len(field))] = rng.choice(known)
    elif rng.random() < 0.5:
        field.append(rng.choice(known))
    else:
        node.name, node.domain = rng.choice(_WORDS), rng.choice(("", "own", "com.microsoft"))


def _operators(model: onnx.ModelProto, rng: random.Random, folder: Path) -> None:
    _node(model, rng).op_type = rng.choice(_OPERATORS)


def _attributes(model: onnx.ModelProto, rng: random.Random, folder: Path) -> None:
    node = _node(model, rng)
    if not node.attribute or rng.random() < 0.2:
        name = rng.choice(("axis", "axes", "perm", "to", "epsilon", "num_heads", "pads", "value"))
        node.attribute.append(helper.make_attribute(name, rng.choice((0, -1, 1.5, [1, 2], "x"))))
        return
    attribute = rng.choice(node.attribute)
    match rng.randrange(5):
        case 0:
            attribute.i = rng.choice(_SIZES)
        case 1:
            attribute.f = rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf"), 1e-45))
        case 2 if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(_SIZES)
        case 3:
            node.attribute.remove(attribute)
        case _:
            attribute.type = rng.randrange(15)


def _dims(model: onnx.ModelProto, rng: random.Random, folder: Path) -> None:
    if rng.random() < 0.5:
        tensor = _tensor(model, rng)
        if tensor.dims and rng.random() < 0.8:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_SIZES)
        else:
            tensor.dims.append(rng.choice(_SIZES))
        return
    values = [*model.graph.input, *model.graph.output]
    dims = rng.choice(values).type.tensor_type.shape.dim if values else []
    if dims:
        dim = rng.choice(dims)
        if rng.random() < 0.3:
            dim.dim_param = rng.choice(_WORDS)
        else:
            dim.dim_value = rng.choice(_SIZES)


def _types(model: onnx.ModelProto, rng: random.Random, folder: Path) -> None:
    if rng.random() < 0.5:
        _tensor(model, rng).data_type = rng.randrange(28)
    elif model.graph.input:
        rng.choice(model.graph.input).type.tensor_type.elem_type = rng.randrange(28)


def _weights(model: onnx.ModelProto, rng: random.Random, folder: Path) -> None:
    tensor = _tensor(model, rng)
    data = bytearray(tensor.raw_data)
    match rng.randrange(4):
        case 0 if len(data) >= 4:
            place = rng.randrange(len(data) // 4) * 4
            data[place : place + 4] = rng.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\1\0\0\0"))
            tensor.raw_data = bytes(data)
        case 1:
            tensor.raw_data = bytes(data[: rng.randrange(len(data) + 1)])
        case 2:
            tensor.float_data.append(1.0)
        case _:
            tensor.raw_data = bytes(rng.randrange(256) for _ in range(min(len(data), 4096)))


def _order(model: onnx.ModelProto, rng: random.Random, folder: Path) -> None:
    """Nodes moved, doubled, left out; cycles."""
    nodes = list(model.graph.node)
    if not nodes:
        return
    match rng.randrange(4):
        case 0:
            rng.shuffle(nodes)
        case 1:
            nodes.append(nodes[rng.randrange(len(nodes))])
        case 2:
            nodes.pop(rng.randrange(len(nodes)))
        case _:
            first, last = nodes[0], nodes[-1]
            if first.input and last.output:
                first.input[0] = last.output[0]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _constants(model: onnx.ModelProto, rng: random.Random, folder: Path) -> None:
    """Integers that say shapes and axes."""
    small = [t for t in model.graph.initializer if t.data_type == TensorProto.INT64]
    small += [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]
    whole = [t for t in small if t.data_type == TensorProto.INT64 and len(t.raw_data) >= 8]
    if whole:
        tensor = rng.choice(whole)
        place = rng.randrange(len(tensor.raw_data) // 8) * 8
        number = rng.choice(_SIZES).to_bytes(8, "little", signed=True)
        tensor.raw_data = tensor.raw_data[:place] + number + tensor.raw_data[place + 8 :]


def _external(model: onnx.ModelProto, rng: random.Random, folder: Path) -> None:
    tensor = _tensor(model, rng)
    (folder / "data.bin").write_bytes(bytes(64))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = rng.choice(("data.bin", "/etc/passwd", "../model.onnx", "none", "", "a/../../b", "\0"))
    for key, value in (
        ("location", place),
        ("offset", rng.choice(("0", "-1", "16", str(1 << 62), "x", "²"))),
        ("length", rng.choice(("64", "-5", str(1 << 40), "", "1e3"))),
    ):
        if rng.random() < 0.8:
            tensor.external_data.add(key=key, value=value)


def _whole(model: onnx.ModelProto, rng: random.Random, folder: Path) -> None:
    """Opsets, functions that call each other, graphs inside graphs, no outputs."""
    match rng.randrange(5):
        case 0:
            for opset in model.opset_import:
                opset.version = rng.choice((0, 1, 12, 24, 25, 9999, -1))
        case 1:
            _functions(model, rng.choice((2, 12, 40)))
            node = _node(model, rng)
            node.op_type, node.domain = "F0", "own"
        case 2:
            model.graph.node.append(_nested(rng.choice((1, 10, 25))))
        case 3:
            del model.graph.output[:]
        case _:
            model.graph.node.extend(helper.make_node("Relu", [""], [""]) for _ in range(5000))


def _functions(model: onnx.ModelProto, count: int) -> None:
    """Functions that each call the next four times: inlined, 4 to the power of ``count`` nodes."""
    ids = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for i in range(count):
        name, domain = (f"F{i + 1}", "own") if i + 1 < count else ("Relu", "")
        calls = [helper.make_node(name, ["a"], [f"b{j}"], domain=domain) for j in range(4)]
        model.functions.append(helper.make_function("own", f"F{i}", ["a"], ["b0"], calls, ids))
    model.opset_import.add(domain="own", version=1)


def _nested(depth: int) -> onnx.NodeProto:
    """A choice inside a choice inside a choice."""
    node = helper.make_node("Identity", ["x"], ["y"])
    for _ in range(depth):
        inner = helper.make_graph([node], "inner", [], [])
        empty = helper.make_graph([], "empty", [], [])
        node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=empty)
    return node


_CHANGES: dict[str, Change] = {
    "names": _names,
    "operators": _operators,
    "attributes": _attributes,
    "dimensions": _dims,
    "types": _types,
    "weights": _weights,
    "order": _order,
    "constants": _constants,
    "external data": _external,
    "the whole": _whole,
}

KINDS: tuple[str, ...] = (*_BYTES, *_CHANGES)
