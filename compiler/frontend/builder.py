"""Builder: makes a TensorGraph node by node, folding what is constant on the way.

Shapes come from evaluating each operation on zeros, so that there is one set of rules (the meaning
of an operation) and none beside it. The element budget is checked before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.ir import tensor_operations
from hwcompile.compiler.ir.mapped import is_mapped
from hwcompile.compiler.ir.tensor_graph import Array, Constant, Node, TensorInput

#: Elements of one tensor of the network, of one tensor of weights, and of all tensors together:
#: in a network whose weights are loaded, and in one with so many that they are mapped.
MAX_ELEMENTS = 1 << 25
MAX_WEIGHT_ELEMENTS = 1 << 28
MAX_TOTAL_ELEMENTS = 1 << 28
MAX_LARGE_ELEMENTS = 1 << 31

#: Operations whose operands broadcast and have one type.
_BROADCASTING = (*tensor_operations.ELEMENTWISE, "MatMul")

#: Operations that make another map of the same bytes out of a map.
_VIEWS = ("Reshape", "Flatten", "Unsqueeze", "Squeeze", "Transpose", "Slice", "Identity")

#: Operations whose result can be larger than all they read.
_GROWING = (*_BROADCASTING, "Expand", "Tile", "Gather", "Take", "Pad")


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape (of one step), dtype and whether the tensor differs from step to step."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    timed: bool


class Unsupported(Exception):
    """One node that cannot be compiled: why, and what to do. Collected, then reported together."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


class Builder:
    """Mutable while an import runs; ``steps``: number of positions of a `step` file, else 1."""

    def __init__(self, steps: int = 1) -> None:
        self.steps = steps
        self.nodes: list[Node] = []
        self.inputs: list[TensorInput] = []
        self.constants: dict[str, Constant] = {}
        self.types: dict[str, TensorType] = {}
        #: Which open dimensions a constant depends on, and the limits found for each.
        self.open_names: dict[str, tuple[str, ...]] = {}
        self.limits: dict[str, list[int]] = {}
        #: Trial sizes of the open dimensions, while their limits are being looked for.
        self.open_sizes: dict[str, int] = {}
        self.notes: list[str] = []
        self.folded = 0
        self.origin = ""
        self._count = 0
        self._elements = 0
        self._large = False

    # --- making tensors -----------------------------------------------------------------------

    def _key(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def constant(self, value: Any, timed: bool = False, open_names: tuple[str, ...] = ()) -> str:
        """Key of a new constant tensor. A map stays as stored; its type is that of its use."""
        large, key = is_mapped(value), self._key()
        array: Array = value if large else np.asarray(value)
        dtype = np.dtype(np.float32) if large and "float" in array.dtype.name else array.dtype
        self._large |= large
        self.constants[key] = Constant(array, timed)
        shape = array.shape[1:] if timed else array.shape
        self.types[key] = TensorType(shape, dtype, timed)
        if open_names:
            self.open_names[key] = open_names
        return key

    def input(self, given: TensorInput) -> str:
        """Key of a new input; the key in ``given`` is replaced."""
        key = self._key()
        self.inputs.append(replace(given, key=key))
        self.types[key] = TensorType(given.shape, given.dtype, given.timed)
        return key

    def emit(self, op: str, inputs: list[str], attributes: Mapping[str, Any] | None = None) -> str:
        """Key of ``op`` applied to tensors; a constant where everything is constant."""
        at = dict(attributes or {})
        if op == "Transpose" and at.get("perm") == tuple(range(len(self.types[inputs[0]].shape))):
            return inputs[0]
        view = self._view(op, inputs, at)
        if view is not None:
            return self.constant(view)
        self._check_size(op, inputs, at)
        self._check_types(op, inputs)
        timed = any(self.types[k].timed for k in inputs) or any(
            isinstance(v, Constant) for v in at.values()
        )
        if all(k in self.constants for k in inputs):
            self.folded += 1
            names = tuple(dict.fromkeys(n for k in inputs for n in self.open_names.get(k, ())))
            return self.constant(self._fold(op, inputs, at, timed), timed, names)
        if any(isinstance(v, Constant) for v in at.values()):
            raise Unsupported("its parameters depend on the position", "use fixed parameters")
        result = self._probe(op, inputs, at)
        key = self._key()
        self.types[key] = TensorType(result.shape, result.dtype, timed)
        node = Node(op, tuple(inputs), key, result.shape, timed, result.dtype, at, self.origin)
        self.nodes.append(node)
        return key

    # --- looking at tensors -------------------------------------------------------------------

    def is_constant(self, key: str) -> bool:
        return key in self.constants

    def shape(self, key: str) -> tuple[int, ...]:
        return self.types[key].shape

    def value(self, key: str, what: str) -> Array:
        """The array of an untimed constant. Raises Unsupported when the tensor is not constant."""
        if key not in self.constants:
            raise Unsupported(f"its {what} is not constant", "export the model with fixed shapes")
        if self.constants[key].timed:
            raise Unsupported(f"its {what} depends on the position", "use a fixed value")
        return self._at_step(key, 0)

    # --- inside -------------------------------------------------------------------------------

    def _view(self, op: str, inputs: list[str], at: Mapping[str, Any]) -> Array | None:
        """A map with its elements moved, or None where that would read them."""
        if op not in _VIEWS or not is_mapped(getattr(self.constants.get(inputs[0]), "array", None)):
            return None
        if any(isinstance(v, Constant) for v in at.values()):
            return None
        result = self._evaluate(op, at, [self.constants[inputs[0]].array])
        return result if is_mapped(result) else None

    def _at_step(self, key: str, step: int) -> Array:
        kind = self.types[key]
        if key not in self.constants:
            return np.zeros(kind.shape, kind.dtype)
        c = self.constants[key]
        array: Array = c.array[step] if c.timed else c.array
        return array if array.dtype == kind.dtype else np.asarray(array).astype(kind.dtype)

    def _stand_in(self, key: str) -> Array:
        """What is as good as a tensor where only shapes are asked for."""
        kind = self.types[key]
        if key in self.constants and is_mapped(self.constants[key].array):
            return np.broadcast_to(np.zeros((), kind.dtype), kind.shape)
        return self._at_step(key, 0)

    def _probe(self, op: str, inputs: list[str], at: Mapping[str, Any]) -> Array:
        """A result of the right shape and dtype: the operation on zeros."""
        shapes = [self.types[k].shape for k in inputs]
        if op == "MatMul" and all(len(s) > 1 for s in shapes) and shapes[0][-1] == shapes[1][-2]:
            # The shape of a product needs no multiplying.
            heads = np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2])
            zero = np.zeros((), self.types[inputs[0]].dtype)
            return np.broadcast_to(zero, (*heads, shapes[0][-2], shapes[1][-1]))
        if op == "Gather":
            # Nor that of a lookup a table.
            axis, zero = at.get("axis", 0), np.zeros((), self.types[inputs[0]].dtype)
            rest = shapes[0][axis:][1:]
            return np.broadcast_to(zero, (*shapes[0][:axis], *shapes[1], *rest))
        return self._evaluate(op, at, [self._stand_in(k) for k in inputs])

    def _fold(self, op: str, inputs: list[str], at: dict[str, Any], timed: bool) -> Array:
        def once(step: int) -> Array:
            now = {
                k: tuple(v.array[step].reshape(-1).tolist()) if isinstance(v, Constant) else v
                for k, v in at.items()
            }
            return self._evaluate(op, now, [self._at_step(k, step) for k in inputs])

        return np.stack([once(t) for t in range(self.steps)]) if timed else once(0)

    def _evaluate(self, op: str, at: Mapping[str, Any], arrays: list[Array]) -> Array:
        try:
            result = tensor_operations.evaluate(op, at, arrays)
        except (ValueError, IndexError, TypeError, KeyError) as error:
            shapes = ", ".join("x".join(map(str, a.shape)) or "scalar" for a in arrays)
            raise Unsupported(f"operands do not fit ({shapes})", "check the model") from error
        return result

    def _check_types(self, op: str, inputs: list[str]) -> None:
        if op in _BROADCASTING and op != "Pow":
            dtypes = [self.types[k].dtype for k in (inputs[1:] if op == "Where" else inputs)]
            if any(d != dtypes[0] for d in dtypes):
                text = ", ".join(d.name for d in dtypes)
                raise Unsupported(f"operand types differ ({text})", "check the model")

    def _check_size(self, op: str, inputs: list[str], at: Mapping[str, Any]) -> None:
        shapes = [self.types[k].shape for k in inputs]
        if op in _BROADCASTING:
            heads = [s[:-2] if op == "MatMul" else s for s in shapes]
            try:
                count = prod(np.broadcast_shapes(*heads))
            except ValueError as error:
                text = ", ".join("x".join(map(str, s)) or "scalar" for s in shapes)
                raise Unsupported(
                    f"operand shapes do not fit ({text})", "check the model"
                ) from error
            if op == "MatMul" and all(len(s) > 1 for s in shapes):
                count *= shapes[0][-2] * shapes[1][-1]
        elif op in ("Expand", "Tile"):
            factor = at["shape" if op == "Expand" else "repeats"]
            count = prod(max(abs(int(d)), 1) for d in factor) if isinstance(factor, tuple) else 0
            if op == "Tile":
                count *= prod(shapes[0])
        elif op == "Gather":
            count = prod(shapes[1]) * prod(shapes[0]) // max(shapes[0][at["axis"]], 1)
        elif op == "Take":
            count = at["indices"].size * prod(shapes[0]) // max(shapes[0][at["axis"]], 1)
        elif op == "Pad":
            count = prod(d + sum(at["pads"]) for d in shapes[0])
        else:
            count = sum(prod(s) for s in shapes)
        weights = op not in _GROWING and all(k in self.constants for k in inputs)
        check_elements(count, MAX_WEIGHT_ELEMENTS if weights else MAX_ELEMENTS)
        self._elements += count
        most = MAX_LARGE_ELEMENTS if self._large else MAX_TOTAL_ELEMENTS
        if self._elements > most:
            raise ModelError(
                f"the tensors of the network have over {most} elements in all",
                "smaller shapes, e.g. --shape NAME=1x64",
            )


def check_elements(count: int, most: int = MAX_ELEMENTS) -> None:
    """Refuse a tensor over the element budget, before it exists."""
    if count > most:
        raise ModelError(
            f"a tensor of {count} elements is over the limit of {most}",
            "smaller shapes, e.g. --shape NAME=1x64",
        )
