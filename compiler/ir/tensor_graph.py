"""TensorGraph: the front-end's own form of an ONNX graph, before it becomes rows and columns.

Nodes are few primitive operations on n-d tensors (``tensor_operations`` holds their meaning) in
topological order; every shape is fixed, everything constant is folded, every parameter (axes,
shapes, slices) is an attribute. Keys are made by us.

A file that computes one token per call (`step` form) is traced for all positions at once: a tensor
or constant that differs from step to step is ``timed``. A timed constant has the step as an extra
axis 0; the ``shape`` of a timed tensor is that of one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
FrontForm = Literal["call", "prefill", "kv", "step"]


@dataclass(frozen=True, slots=True)
class Constant:
    """A folded tensor; ``timed``: axis 0 of ``array`` is the step."""

    array: Array
    timed: bool = False


@dataclass(frozen=True, slots=True)
class TensorInput:
    """An input that data flows from; ``shape`` as traced, ``model_shape`` as the file has it."""

    key: str
    shape: tuple[int, ...]
    timed: bool
    dtype: np.dtype[Any]
    model_name: str
    model_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. ``inputs``: keys of nodes, inputs or constants; ``origin``: for reports."""

    op: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    timed: bool
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]
    origin: str


@dataclass(frozen=True, slots=True)
class TensorOutput:
    """``key`` is what the output named ``model_name`` holds."""

    key: str
    model_name: str
    model_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CachePair:
    """A cache input and the output that returns it; ``key`` is the tensor of all cached rows."""

    key: str
    input_name: str
    output_name: str


@dataclass(frozen=True, slots=True)
class TensorGraph:
    """A whole file. ``steps``: positions of a `step` file, else 1; ``notes``: for reports."""

    form: FrontForm
    steps: int
    inputs: tuple[TensorInput, ...]
    constants: Mapping[str, Constant]
    nodes: tuple[Node, ...]
    outputs: tuple[TensorOutput, ...]
    caches: tuple[CachePair, ...] = ()
    notes: tuple[str, ...] = ()
