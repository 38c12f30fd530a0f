"""External data: files beside the model that hold its weights.

A path that leaves the folder of the model, goes through a link or reaches outside its file is
refused before anything is read. Tensors of a large model stay in their file: they are given an
absolute place, which no file may bring along, and are mapped from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx

from hwcompile.compiler.frontend.refusal import escape, refuse
from hwcompile.compiler.ir.tensor_graph import Array

#: A tensor with fewer bytes is read even where maps are made: a map has a price of its own.
MAP_BYTES = 1 << 20

_BESIDE = "keep the data file beside the model"


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the file: initialisers and attributes, those of functions and subgraphs."""
    work: list[Iterable[onnx.NodeProto]] = [model.graph.node, *(f.node for f in model.functions)]
    yield from _initialisers(model.graph)
    while work:
        for node in work.pop():
            for attribute in node.attribute:
                if attribute.HasField("t"):  # type: ignore[no-untyped-call]
                    yield attribute.t
                yield from attribute.tensors
                for graph in (attribute.g, *attribute.graphs):
                    yield from _initialisers(graph)
                    work.append(graph.node)


def _initialisers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def element_bits(tensor: onnx.TensorProto) -> int:
    """Bits of one element as stored. Raises ModelError for an unknown type."""
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError as error:
        raise refuse(f"tensor {escape(tensor.name)} has an unknown type") from error
    narrow = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4_e2m1fn": 4}
    return narrow.get(dtype.name, dtype.itemsize * 8)


def check_external(model: onnx.ModelProto, folder: Path) -> None:
    """Raises ModelError naming the first tensor whose data is not beside the model."""
    for tensor in tensors(model):
        if is_external(tensor):
            place(tensor, folder)


def place(tensor: onnx.TensorProto, folder: Path) -> tuple[Path, int, int]:
    """File, first byte and number of bytes of an external tensor. Raises ModelError."""
    name, entries = escape(tensor.name), {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    parts = Path(location).parts
    if not location or Path(location).is_absolute() or ".." in parts or "\\" in location:
        raise refuse(f"external data of {name} leaves the folder of the model", _BESIDE)
    if "\0" in location or len(location) > 4096 or any(len(p.encode()) > 255 for p in parts):
        raise refuse(f"external data of {name} has an impossible file name", _BESIDE)
    if any((folder / Path(*parts[: i + 1])).is_symlink() for i in range(len(parts))):
        raise refuse(f"external data of {name} is a link", _BESIDE)
    file = folder / location
    if not file.is_file():
        raise refuse(f"external data of {name} is missing: {escape(location)}", _BESIDE)
    offset, length = _number(entries, "offset", 0, name), _number(entries, "length", -1, name)
    size = file.stat().st_size
    length = size - offset if "length" not in entries else length
    if offset < 0 or length < 0 or offset + length > size:
        raise refuse(f"external data of {name} lies outside its file")
    if any(d < 0 for d in tensor.dims):
        raise refuse(f"tensor {name} has a negative dimension")
    needed = -(-prod(tensor.dims) * element_bits(tensor) // 8)
    if needed > length:
        raise refuse(f"external data of {name} is too short for its shape")
    return file, offset, needed


def _number(entries: dict[str, str], key: str, default: int, name: str) -> int:
    text = entries.get(key, str(default)).strip()
    if not text.removeprefix("-").isdecimal() or len(text) > 20:
        raise refuse(f"external data of {name} has a bad {key}")
    return int(text)


def load_external(model: onnx.ModelProto, folder: Path, maps: bool = False) -> None:
    """Read all external data into the model; with ``maps``, large tensors stay where they are.

    Raises ModelError.
    """
    for tensor in tensors(model):
        if not is_external(tensor):
            continue
        file, offset, size = place(tensor, folder)
        del tensor.external_data[:]
        about = {"location": str(file.absolute()), "offset": offset, "length": size}
        for key, value in about.items():
            tensor.external_data.add(key=key, value=str(value))
        whole_bytes = element_bits(tensor) % 8 == 0
        if not (maps and whole_bytes and size >= MAP_BYTES):
            load(tensor)


def load(tensor: onnx.TensorProto) -> None:
    """Read a tensor that :func:`load_external` left in its file. Raises ModelError."""
    file, offset, size = _vetted_place(tensor)
    try:
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(size)
    except OSError as error:
        raise refuse(f"external data of {escape(tensor.name)} cannot be read") from error
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def mapped(tensor: onnx.TensorProto) -> Array:
    """The numbers of a tensor that :func:`load_external` left in its file, as a read-only map.

    Raises ModelError.
    """
    file, offset, _ = _vetted_place(tensor)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    try:
        return np.memmap(file, dtype, "r", offset, tuple(tensor.dims))
    except (OSError, ValueError) as error:
        raise refuse(f"external data of {escape(tensor.name)} cannot be read") from error


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the numbers of a tensor are in another file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def stays_in_files(model: onnx.ModelProto) -> bool:
    """Whether a vetted model is so large that its weights are mapped."""
    return any(is_external(tensor) for tensor in tensors(model))


def _vetted_place(tensor: onnx.TensorProto) -> tuple[Path, int, int]:
    entries = {e.key: e.value for e in tensor.external_data}
    file = Path(entries.get("location", ""))
    if not file.is_absolute():
        raise refuse(f"external data of {escape(tensor.name)} was not vetted")
    return file, int(entries["offset"]), int(entries["length"])
