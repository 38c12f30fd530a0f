"""Weights are mapped: read in blocks, whatever their size, and never all at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.frontend.large import open_weights

GIB = 1 << 30


def external(name: str, code: int, dims: list[int], **place: object) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=code, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def save(path: Path, tensors: list[onnx.TensorProto]) -> Path:
    nodes, last = [], "x"
    for i, tensor in enumerate(tensors):
        nodes.append(helper.make_node("MatMul", [last, tensor.name], [f"y{i}"]))
        last = f"y{i}"
    size = tensors[0].dims[0]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n in ("x", last)]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


def test_blocks_are_the_weights_whatever_their_type(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inside = rng.standard_normal((5, 5)).astype(np.float32)
    half = rng.standard_normal((5, 5)).astype(np.float16)
    nibbles = np.arange(-8, 7).astype(np.int8)
    packed = numpy_helper.from_array(nibbles.astype(helper.tensor_dtype_to_np_dtype(22)), "n")
    (tmp_path / "w.bin").write_bytes(bytes(64) + half.tobytes() + packed.raw_data)
    tensors = [
        numpy_helper.from_array(inside, "a"),
        external("b", TensorProto.FLOAT16, [5, 5], location="w.bin", offset=64, length=50),
        external("c", TensorProto.INT4, [15], location="w.bin", offset=114),
    ]
    a, b, c = open_weights(save(tmp_path / "m.onnx", tensors))
    assert (a.shape, a.dtype, a.uses) == ((5, 5), "float32", (("MatMul", 1),))
    assert (b.dtype, c.dtype, c.elements) == ("float16", "int4", 15)
    assert np.array_equal(np.concatenate(list(a.blocks(8))), inside.reshape(-1))
    assert np.array_equal(np.concatenate(list(b.blocks(8))), half.reshape(-1).astype(np.float32))
    assert np.array_equal(np.concatenate(list(c.blocks(8))), nibbles)


def test_data_outside_its_file_is_refused_before_it_is_mapped(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(10))
    tensor = external("a", TensorProto.FLOAT, [4, 4], location="w.bin")
    with pytest.raises(ModelError, match="too short"):
        next(open_weights(save(tmp_path / "m.onnx", [tensor])))


def test_memory_is_bounded_whatever_the_size(tmp_path: Path) -> None:
    size, count = 16384, 2
    with (tmp_path / "w.bin").open("wb") as stream:
        stream.truncate(count * size * size * 4)  # a sparse file: it takes no room
    tensors = [
        external(f"w{i}", TensorProto.FLOAT, [size, size], location="w.bin", offset=i * GIB)
        for i in range(count)
    ]
    path = save(tmp_path / "m.onnx", tensors)
    code = (
        "import re, sys\n"
        "from hwcompile.compiler.frontend.large import open_weights\n"
        "found = sum(b.size for w in open_weights(sys.argv[1]) for b in w.blocks())\n"
        # Not ru_maxrss, which a child inherits from the process that started it.
        "status = open('/proc/self/status').read()\n"
        "print(found, re.search(r'VmHWM:\\s*(\\d+)', status)[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    found, kilobytes = map(int, done.stdout.split())
    assert found == count * size * size
    assert kilobytes * 1024 < GIB // 2
