"""Lowering: the state of an import between nodes, and the steps its handlers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod

import numpy as np

from hwcompile.compiler.frontend import forms, padding
from hwcompile.compiler.frontend.attention import Scores
from hwcompile.compiler.frontend.builder import Unsupported, check_elements
from hwcompile.compiler.frontend.forms import Form
from hwcompile.compiler.frontend.matrices import Matrices
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.expressions import evaluate
from hwcompile.compiler.ir.graph import Expression, IntArray
from hwcompile.compiler.ir.mapped import is_mapped
from hwcompile.compiler.ir.tensor_graph import Array, Node, TensorGraph

Tensor = Form | Scores


class Lowering:
    """Mutable while an import runs: what every tensor became, inputs, flags and attentions."""

    def __init__(self, graph: TensorGraph) -> None:
        self.graph = graph
        self.m = Matrices()
        self.tensors: dict[str, Tensor] = {}
        self.inputs: dict[str, ir.Input] = {}
        self.flags: set[str] = set()
        self.attends: list[tuple[str, str, str]] = []
        #: States of a recurrent layer, by its input and its parameters (one object each).
        self.layers: dict[tuple[str, int], dict[str, str]] = {}
        #: Stand-ins for what only means something beside a padding mask, and the mask: products of
        #: the masks of queries and keys (for the keys'), numbers of tokens so far.
        self.pairs: dict[str, str] = {}
        self.counts: dict[str, str] = {}

    def form(self, key: str) -> Form:
        if key in self.graph.constants:
            c = self.graph.constants[key]
            if is_mapped(c.array):
                check_elements(c.array.size)
            return forms.constant(c.array if c.timed else c.array[None])
        tensor = self.tensors[key]
        if isinstance(tensor, Scores):
            raise Unsupported("attention scores used outside attention", "not supported")
        return tensor

    def scores(self, key: str) -> Scores | None:
        tensor = self.tensors.get(key)
        return tensor if isinstance(tensor, Scores) else None

    def settled(self, key: str) -> tuple[Form, str]:
        """The tensor as a whole matrix in default layout, remembered for other users."""
        form = self.form(key)
        rows, cols = forms.rows_of(form)
        made = self.m.matrix(form, np.arange(rows * cols), rows, cols)
        index = np.arange(rows * cols).reshape(form.offset.shape)
        settled = forms.bare(made, index)
        if key not in self.graph.constants:
            self.tensors[key] = settled
        return settled, made

    def sum(self, a: Form, b: Form) -> Form:
        lazy = forms.add(a, b)
        return lazy if lazy is not None else self.binary(ir.Add, a, b)

    def product(self, a: Form, b: Form) -> Form:
        for one, two in ((a, b), (b, a)):
            if not two.terms:
                return forms.scale(one, forms.without_gain(two).offset)
        special = padding.pair(self, a, b) or padding.counted(self, a, b)
        if special is not None:
            return special
        plain = self.binary(ir.Multiply, replace(a, gain=1.0), replace(b, gain=1.0))
        return replace(plain, gain=plain.gain * a.gain * b.gain)

    def binary(self, kind: type[ir.Operation], a: Form, b: Form) -> Form:
        lead, shape = forms.common_shape(a, b)
        wide = [forms.expand(f, lead, shape) for f in (a, b)]
        size = lead * prod(shape)
        rows, cols = forms.rows_of(wide[0])
        order: IntArray = np.arange(size)
        for form in wide:
            # Stay in the layout of an operand that is a whole matrix: nothing has to move.
            base = form.terms[0].base if len(form.terms) == 1 else ""
            if base and forms.is_whole(form, self.m.size(base)):
                rows, cols = self.m.values[base].rows, self.m.values[base].cols
                order = np.argsort(form.terms[0].index.reshape(-1), kind="stable")
                break
        keys = [self.m.matrix(f, order, rows, cols, share=True) for f in wide]
        if all(self.m.values[k].rows == 1 for k in keys) and rows > 1:
            keys[0] = self.m.matrix(wide[0], order, rows, cols)
        made = self.m.binary(kind, *keys)
        index = np.empty(size, np.int64)
        index[order] = np.arange(size)
        return forms.bare(made, index.reshape(lead, *shape))

    def function(self, key: str, function: Expression) -> Form:
        return self.apply(self.form(key), function)

    def apply(self, form: Form, function: Expression) -> Form:
        """A scalar function of every element, on the whole matrix where the form is one."""
        if len(form.terms) == 1 and form.terms[0].base in self.flags:
            return self.of_flag(form, lambda x: float(evaluate(function, np.asarray(x))))
        rows, cols = forms.rows_of(form)
        order: IntArray = np.arange(rows * cols)
        base = form.terms[0].base if len(form.terms) == 1 else ""
        if base and forms.is_whole(form, self.m.size(base)):
            rows, cols = self.m.values[base].rows, self.m.values[base].cols
            order = np.argsort(form.terms[0].index.reshape(-1), kind="stable")
        made = self.m.unary(self.m.matrix(form, order, rows, cols), function)
        index = np.empty(rows * cols, np.int64)
        index[order] = np.arange(rows * cols)
        return forms.bare(made, index.reshape(form.offset.shape))

    def of_flag(self, form: Form, function: Callable[[float], float]) -> Form:
        """A function of an element that is 0 or 1, as the line through its two values."""
        plain = forms.without_gain(form)
        term = plain.terms[0] if len(plain.terms) == 1 else None
        coefficient = forms.uniform(term.coefficient) if term is not None else None
        offset = forms.uniform(plain.offset)
        if term is None or term.base not in self.flags or coefficient is None or offset is None:
            raise Unsupported("a condition that depends on data", "only masks are supported")
        clear, set_ = function(offset), function(offset + coefficient)
        ones = np.broadcast_to(np.float64(set_ - clear), plain.offset.shape)
        moved = replace(term, coefficient=ones)
        return Form((moved,), np.broadcast_to(np.float64(clear), plain.offset.shape))

    def large_weight(self, key: str) -> Array | None:
        """The map that a tensor is, or None: as a form, every element of it would be read."""
        c = self.graph.constants.get(key)
        return c.array if c is not None and is_mapped(c.array) else None

    def linear(self, key: str, weight: Array) -> Form:
        if weight.ndim < 2:
            raise Unsupported("a product with a vector", "not supported")
        stack: Array = weight.reshape(-1, weight.shape[-2], weight.shape[-1])
        if len(stack) > 1 and not (stack == stack[:1]).all():
            raise Unsupported("a different matrix for every head or step", "not supported")
        matrix: Array = stack[0]
        form = self.form(key)
        gain = form.gain
        self.tensors[key] = replace(form, gain=1.0)
        settled, made = self.settled(key)
        self.tensors[key] = replace(settled, gain=gain)
        rows, cols = self.m.values[made].rows, stack.shape[2]
        laid = matrix if is_mapped(matrix) else np.ascontiguousarray(matrix)
        out = self.m.emit(ir.Linear, rows, cols, (made,), weight=laid, bias=np.zeros(cols))
        index = np.arange(rows * cols).reshape(*settled.offset.shape[:-1], cols)
        return replace(forms.bare(out, index), gain=gain)

    def note_ids(self, given: ir.Input, count: int) -> None:
        known = self.inputs[given.value.key].id_count or count
        self.inputs[given.value.key] = replace(given, kind="ids", id_count=min(known, count))


Handler = Callable[[Lowering, Node], Tensor]
Handlers = Mapping[str, Handler]
