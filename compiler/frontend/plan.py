"""Plan: how the inputs of a file are filled, decided before it is traced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.frontend.external import is_external, mapped
from hwcompile.compiler.frontend.refusal import escape
from hwcompile.compiler.frontend.vet import fixed_dimension
from hwcompile.compiler.ir.tensor_graph import Array, FrontForm

Dims = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """An input as the file declares it: open dimensions are names."""

    name: str
    dims: Dims
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How each input is filled. ``shapes`` has batch 1; ``position``: input of a `step` file."""

    form: FrontForm
    steps: int
    shapes: Mapping[str, tuple[int, ...]]
    position: str
    caches: Mapping[str, str]
    batch: int
    implied: Mapping[str, str]


def model_inputs(model: onnx.ModelProto) -> tuple[ModelInput, ...]:
    """The inputs of a model that are no initialisers."""
    weights = {t.name for t in model.graph.initializer}
    return tuple(
        ModelInput(v.name, dimensions(v), _input_dtype(v))
        for v in model.graph.input
        if v.name not in weights
    )


def dimensions(value: onnx.ValueInfoProto) -> Dims:
    """Dimensions as declared; an open one is a name, made up where the file has none."""
    return tuple(
        d.dim_value if fixed_dimension(d) else (d.dim_param or f"{value.name} axis {i}")
        for i, d in enumerate(value.type.tensor_type.shape.dim)
    )


def _input_dtype(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    code = value.type.tensor_type.elem_type
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    except KeyError as error:
        raise ModelError(f"input {escape(value.name)} has no known type", "export again") from error
    if "float" in dtype.name:
        return np.dtype(np.float32)
    if "int4" in dtype.name or "int2" in dtype.name:
        return np.dtype(np.int8)
    if dtype.kind not in "iub":
        raise ModelError(f"input {escape(value.name)} is no number", "export again")
    return dtype


def decode(tensor: onnx.TensorProto) -> Array:
    """The numbers of a tensor in a dtype numpy computes with; a map as stored of what is large."""
    if is_external(tensor):
        return mapped(tensor)
    array = numpy_helper.to_array(tensor)
    # Half and double floats become float32; the rows are float64 in the end.
    if array.dtype.kind == "f" or "float" in array.dtype.name:
        return array.astype(np.float32)
    if "int4" in array.dtype.name or "int2" in array.dtype.name:
        return array.astype(np.int8)
    return array
