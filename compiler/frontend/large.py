"""Large files: the weights of a model as maps of its files, none of them loaded.

A model of many GB keeps its weights in data files beside the graph. What only looks at weights one
after the other (estimates, statistics) takes them from here in blocks and stays within a bounded
memory; nothing is built of the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwcompile.compiler.frontend.external import element_bits, is_external, place
from hwcompile.compiler.frontend.plan import decode
from hwcompile.compiler.frontend.vet import open_model
from hwcompile.compiler.ir.mapped import BLOCK, release


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight tensor.

    ``dtype``: ONNX's name of the element type (``float32``, ``bfloat16``, ``int4``). ``uses``:
    operator and input index of every node that reads it. ``data``: its bytes, ``uint8``; a map of
    the data file, or the bytes inside the model file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    uses: tuple[tuple[str, int], ...]
    data: NDArray[np.uint8]
    _code: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def blocks(self, elements: int = BLOCK) -> Iterator[NDArray[Any]]:
        """All elements in order, flat, at most ``elements`` (a multiple of 8) at a time.

        Floats of any width come as float32, 4-bit integers as int8. The pages of the map are given
        back after each block, so that resident memory is bounded by one block.
        """
        bits = element_bits(onnx.TensorProto(data_type=self._code))
        step = max(8, elements - elements % 8)
        for start in range(0, self.elements, step):
            count = min(step, self.elements - start)
            part = self.data[start * bits // 8 : -(-(start + count) * bits // 8)]
            tensor = onnx.TensorProto(data_type=self._code, dims=[count], raw_data=part.tobytes())
            yield decode(tensor)
            release(self.data)


def open_weights(path: str | Path) -> Iterator[Weight]:
    """Every initialiser of a model in the order of the file, mapped.

    The file is vetted as far as that needs no weight: structure, paths and ranges of external data.
    Raises ModelError.
    """
    file = Path(path)
    return weights_of(open_model(file), file.parent)


def weights_of(model: onnx.ModelProto, folder: Path) -> Iterator[Weight]:
    """The same of a model that ``open_model`` gave; ``folder``: where its file lies."""
    uses: dict[str, list[tuple[str, int]]] = {}
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            uses.setdefault(name, []).append((node.op_type, i))
    for tensor in model.graph.initializer:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        used = tuple(uses.get(tensor.name, ()))
        data, code = _bytes(tensor, folder), tensor.data_type
        yield Weight(tensor.name, tuple(tensor.dims), kind, used, data, code)


def _bytes(tensor: onnx.TensorProto, folder: Path) -> NDArray[np.uint8]:
    if is_external(tensor):
        file, start, size = place(tensor, folder)
        return np.memmap(file, np.uint8, "r", start, (size,)) if size else np.empty(0, np.uint8)
    if tensor.HasField("raw_data"):  # type: ignore[no-untyped-call]
        return np.frombuffer(tensor.raw_data, np.uint8)
    stored = numpy_helper.from_array(numpy_helper.to_array(tensor))
    return np.frombuffer(stored.raw_data, np.uint8)
