"""Matrices: the Graph under construction, and how a Form becomes one of its matrices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from hwcompile.compiler.frontend.builder import Unsupported
from hwcompile.compiler.frontend.forms import Form, uniform, without_gain
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.expressions import affine
from hwcompile.compiler.ir.graph import FloatArray, IntArray
from hwcompile.compiler.ir.mapped import is_mapped, same_place


@dataclass(frozen=True, slots=True)
class Part:
    """A term laid out as a matrix: index and coefficient ``[rows, cols]``."""

    base: str
    index: IntArray
    coefficient: FloatArray


class Matrices:
    """Mutable while an import runs: values, operations, and a memo of what was made before."""

    def __init__(self) -> None:
        self.values: dict[str, ir.Value] = {}
        self.operations: list[ir.Operation] = []
        self.origin = ""
        self._memo: dict[tuple[Any, ...], str] = {}

    def value(self, rows: int, cols: int) -> ir.Value:
        """A new value with the next key."""
        value = ir.Value(f"v{len(self.values)}", rows, cols)
        self.values[value.key] = value
        return value

    def size(self, key: str) -> int:
        return self.values[key].rows * self.values[key].cols

    def emit(
        self,
        made: type[ir.Operation],
        rows: int,
        cols: int,
        inputs: tuple[str, ...],
        /,
        **fields: Any,
    ) -> str:
        """Key of a new operation's output. The same operation on the same inputs is made once."""
        for field in fields.values():
            if not isinstance(field, np.ndarray) or is_mapped(field):
                continue  # maps were vetted
            if not np.isfinite(field).all():
                raise Unsupported("a constant that is no finite number", "check the model")
        memo = (made, inputs, *((k, _content(v)) for k, v in fields.items()))
        if memo not in self._memo:
            value = self.value(rows, cols)
            self.operations.append(made(value, inputs, 0, self.origin, **fields))
            self._memo[memo] = value.key
        return self._memo[memo]

    def delay(self, initial: FloatArray, rows: int) -> str:
        """Key of a new state, to be closed with :meth:`keep`."""
        value = self.value(rows, len(initial))
        self.operations.append(ir.Delay(value, (), 0, self.origin, initial))
        return value.key

    def keep(self, state: str, key: str) -> None:
        """The state is the row before of ``key``."""
        place = next(i for i, op in enumerate(self.operations) if op.output.key == state)
        self.operations[place] = replace(self.operations[place], inputs=(key,))

    # --- forms to matrices --------------------------------------------------------------------

    def matrix(self, form: Form, order: IntArray, rows: int, cols: int, share: bool = False) -> str:
        """The form as a matrix; element (r, c) is element ``order[r * cols + c]`` of the form.

        ``share``: a matrix whose rows are all alike is given as one row.
        """
        full = without_gain(form) if len(form.terms) != 1 else form

        def lay(array: Any) -> Any:
            if array.size and not any(array.strides):  # one value for all of it
                return np.broadcast_to(array[(0,) * array.ndim], (rows, cols))
            flat = np.asarray(array).reshape(-1)
            return flat[order].reshape(rows, cols)

        parts = [Part(t.base, lay(t.index), lay(t.coefficient)) for t in full.terms]
        offset = lay(full.offset)
        if (
            share
            and rows > 1
            and all(_alike(a) for p in parts for a in (p.index, p.coefficient))
            and _alike(offset)
        ):
            parts = [Part(p.base, p.index[:1], p.coefficient[:1]) for p in parts]
            offset, rows = offset[:1], 1
        return self._sum(parts, offset, full.gain)

    def _sum(self, parts: list[Part], offset: FloatArray, gain: float) -> str:
        parts = [p for p in parts if (p.coefficient != 0).any()]
        if not parts:
            # All rows alike are still all rows, unless one row may stand for them.
            table = np.ascontiguousarray(offset * gain)
            return self.emit(ir.Rows, table.shape[0], table.shape[1], (), table=table)
        if len(parts) == 1:
            return self._affine(parts[0], offset, gain)
        key = self._rotation(parts) if len(parts) == 2 else None
        if key is None:
            zero = np.zeros(1)
            key = self._affine(parts[0], zero, 1.0)
            for part in parts[1:]:
                key = self.binary(ir.Add, key, self._affine(part, zero, 1.0))
        return self._affine_key(key, np.ones(1), offset, gain)

    def _affine(self, part: Part, offset: FloatArray, gain: float) -> str:
        padding = part.coefficient == 0
        if padding.any() and offset.shape == padding.shape:
            fill, inside = uniform(offset[padding]), uniform(offset[~padding])
            slope = uniform(part.coefficient[~padding])
            if fill is not None and slope is not None and inside == 0.0:
                # Elements beside a constant (the border of an image) are picked, not computed.
                one = self.table(np.full((1, 1), fill / slope))
                index = np.where(padding, self.size(part.base), part.index)
                key = self.emit(
                    ir.Gather, index.shape[0], index.shape[1], (part.base, one), index=index
                )
                return self.unary(key, affine(slope * gain, 0.0))
        return self._affine_key(self.pick(part.base, part.index), part.coefficient, offset, gain)

    def _affine_key(
        self, key: str, coefficient: FloatArray, offset: FloatArray, gain: float
    ) -> str:
        slope, shift = uniform(coefficient), uniform(offset)
        if slope is not None and shift is not None:
            return self.unary(key, affine(slope * gain, shift * gain))
        if slope is not None:
            key = self.unary(key, affine(slope * gain, 0.0))
        else:
            key = self.binary(ir.Multiply, key, self.table(coefficient * gain))
        if shift is not None:
            return self.unary(key, affine(1.0, shift * gain))
        return self.binary(ir.Add, key, self.table(offset * gain))

    def table(self, array: FloatArray) -> str:
        """Constant rows; one row where all are alike."""
        table = np.ascontiguousarray(array[:1] if _alike(array) else array)
        return self.emit(ir.Rows, table.shape[0], table.shape[1], (), table=table)

    def unary(self, key: str, function: ir.Expression) -> str:
        if function.function == "x":
            return key
        v = self.values[key]
        return self.emit(ir.Unary, v.rows, v.cols, (key,), function=function)

    def binary(self, kind: type[ir.Operation], a: str, b: str) -> str:
        va, vb = self.values[a], self.values[b]
        if va.rows == 1 and vb.rows > 1:
            a, b, va, vb = b, a, vb, va
        return self.emit(kind, va.rows, va.cols, (a, b))

    def pick(self, base: str, index: IntArray) -> str:
        """The elements of a matrix at ``index``; the matrix itself where nothing moves."""
        v = self.values[base]
        if index.shape == (v.rows, v.cols) and _is_identity(index):
            return base
        return self.emit(
            ir.Gather, index.shape[0], index.shape[1], (base,), index=np.ascontiguousarray(index)
        )

    def _rotation(self, parts: list[Part]) -> str | None:
        """Two terms over one base whose columns are the same in every row: a Rotate."""
        one, two = parts
        v = self.values[one.base]
        rows, cols = one.index.shape
        if two.base != one.base or rows != v.rows:
            return None
        first = np.arange(rows)[:, None] * v.cols
        c1, c2 = one.index - first, two.index - first
        if not (_alike(c1) and _alike(c2)):
            return None
        own, other = c1[0], c2[0]
        used = np.unique(np.concatenate([own, other]))
        if len(used) != cols or used[0] < 0 or used[-1] >= v.cols:
            return None
        # Element c reads its own column and a partner's: order the two terms so that `own` is
        # the c-th column used, where either term is.
        swap = (other == used) & (own != used)
        own, other = np.where(swap, other, own), np.where(swap, own, other)
        if len(np.unique(own)) != cols:
            return None
        cosine = np.where(swap, two.coefficient, one.coefficient)
        sine = np.where(swap, one.coefficient, two.coefficient)
        place = np.empty(v.cols, np.int64)
        place[own] = np.arange(cols)
        x = self.pick(one.base, first + own)
        return self.emit(
            ir.Rotate, rows, cols, (x,), cosine=cosine, sine=sine, partner=place[other]
        )


def _content(value: Any) -> Any:
    if is_mapped(value):
        return same_place(value)
    if isinstance(value, np.ndarray):
        digest = blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16).digest()
        return value.shape, value.dtype.str, digest
    return value


def _alike(array: Any) -> bool:
    """Whether all rows are equal."""
    return bool((array == array[:1]).all())


def _is_identity(index: IntArray) -> bool:
    return bool((index.reshape(-1) == np.arange(index.size)).all())
