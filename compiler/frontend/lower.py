"""From a TensorGraph to a Graph: every tensor becomes a Form over row matrices.

The graph is executed symbolically, node by node. What only moves elements costs nothing; what
computes becomes an operation on whole matrices; attention is followed as :class:`Scores` from its
first product to its last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.frontend import attention, forms
from hwcompile.compiler.frontend.attention import Scores
from hwcompile.compiler.frontend.builder import Unsupported
from hwcompile.compiler.frontend.forms import Form
from hwcompile.compiler.frontend.matrices import Matrices
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.expressions import VARIABLE, constant, evaluate
from hwcompile.compiler.ir.graph import Expression, IntArray
from hwcompile.compiler.ir.tensor_graph import Array, Node, TensorGraph, TensorInput
from hwcompile.compiler.ir.tensor_operations import ELEMENTWISE, OPERATIONS, STRUCTURAL

Tensor = Form | Scores


@dataclass(frozen=True, slots=True)
class Lowered:
    """Operations (one section yet), inputs, outputs and the Attend each key tensor went into."""

    values: Mapping[str, ir.Value]
    inputs: tuple[ir.Input, ...]
    operations: tuple[ir.Operation, ...]
    outputs: tuple[ir.Output, ...]
    attends: tuple[tuple[str, str, str], ...]
    lines: tuple[str, ...]


def lower(graph: TensorGraph) -> Lowered:
    """The operations of a TensorGraph. Raises ModelError with every node that has no row form."""
    return _Lowering(graph).run()


class _Lowering:
    def __init__(self, graph: TensorGraph) -> None:
        self.graph = graph
        self.m = Matrices()
        self.tensors: dict[str, Tensor] = {}
        self.inputs: dict[str, ir.Input] = {}
        self.flags: set[str] = set()
        self.attends: list[tuple[str, str, str]] = []
        self.ids = _id_inputs(graph)
        self.keys: dict[str, str] = {}

    def run(self) -> Lowered:
        for given in self.graph.inputs:
            self._enter(given)
        problems: list[str] = []
        lost: set[str] = set()
        for node in self.graph.nodes:
            if any(k in lost for k in node.inputs):
                lost.add(node.output)
                continue
            self.m.origin = node.origin
            try:
                self.tensors[node.output] = self._node(node)
            except Unsupported as error:
                problems.append(f"{node.op} '{node.origin}': {error.why}; {error.hint}")
                lost.add(node.output)
        if problems:
            text = "\n".join(f"  {p}" for p in problems[:50])
            raise ModelError(
                f"{len(problems)} nodes have no hardware form:\n{text}", "see each line"
            )
        outputs = tuple(
            self._output(o.key, o.model_name, o.model_shape) for o in self.graph.outputs
        )
        return Lowered(
            self.m.values,
            tuple(self.inputs.values()),
            tuple(self.m.operations),
            outputs,
            tuple(self.attends),
            tuple(_describe(op) for op in self.m.operations if isinstance(op, ir.Attend)),
        )

    # --- inputs and outputs -------------------------------------------------------------------

    def _enter(self, given: TensorInput) -> None:
        lead = self.graph.steps if given.timed else 1
        count = prod(given.shape) * lead
        # An integer that is no token and has no row axis is a number (a time), not a mask.
        floats = given.dtype.kind == "f" or len(given.shape) < 2
        cols = given.shape[-1] if floats and given.shape else 1
        value = self.m.value(count // cols, cols)
        index = np.arange(count).reshape(lead, *given.shape)
        self.tensors[given.key] = forms.bare(value.key, index)
        kind: ir.InputKind = "ids" if given.key in self.ids else "tensor" if floats else "flags"
        if kind == "flags":
            self.flags.add(value.key)
        self.inputs[value.key] = ir.Input(value, kind, 0, given.model_name, given.model_shape)

    def _output(self, key: str, name: str, shape: tuple[int, ...]) -> ir.Output:
        form = self._form(key)
        rows, cols = forms.rows_of(form)
        self.m.origin = "output"
        made = self.m.matrix(form, np.arange(rows * cols), rows, cols)
        if made in self.inputs:
            raise ModelError("an output is an input passed through", "leave it out")
        return ir.Output(made, "tensor", name, shape)

    # --- reading tensors ----------------------------------------------------------------------

    def _form(self, key: str) -> Form:
        if key in self.graph.constants:
            c = self.graph.constants[key]
            return forms.constant(c.array if c.timed else c.array[None])
        tensor = self.tensors[key]
        if isinstance(tensor, Scores):
            raise Unsupported("attention scores used outside attention", "not supported")
        return tensor

    def _scores(self, key: str) -> Scores | None:
        tensor = self.tensors.get(key)
        return tensor if isinstance(tensor, Scores) else None

    def _settled(self, key: str) -> tuple[Form, str]:
        """The tensor as a whole matrix in default layout, remembered for other users."""
        form = self._form(key)
        rows, cols = forms.rows_of(form)
        made = self.m.matrix(form, np.arange(rows * cols), rows, cols)
        index = np.arange(rows * cols).reshape(form.offset.shape)
        settled = forms.bare(made, index)
        if key not in self.graph.constants:
            self.tensors[key] = settled
        return settled, made

    # --- nodes --------------------------------------------------------------------------------

    def _node(self, node: Node) -> Tensor:
        if node.op in STRUCTURAL:
            return self._move(node)
        handler = self._handlers.get(node.op)
        if handler is not None:
            return handler(self, node)
        if node.op in ELEMENTWISE and len(node.inputs) == 1:
            return self._function(node.inputs[0], Expression(ELEMENTWISE[node.op][1], (VARIABLE,)))
        raise Unsupported("it has no row form here", "see `hwcompile ops`")

    def _move(self, node: Node) -> Tensor:
        def function(a: Array) -> Array:
            return STRUCTURAL[node.op](node.attributes, a)

        scores = self._scores(node.inputs[0])
        if scores is None:
            return forms.move(self._form(node.inputs[0]), function)
        return self._move_scores(node, scores, function)

    def _move_scores(
        self, node: Node, scores: Scores, function: Callable[[Array], Array]
    ) -> Scores:
        """Only the axes before queries and keys may move: the same is done to q and k."""
        last = tuple(range(len(scores.shape)))[-2:]
        keeps = node.op != "Transpose" or tuple(node.attributes["perm"])[-2:] == last
        whole = prod(node.shape) == prod(scores.shape)
        if not keeps or not whole or node.shape[-2:] != scores.shape[-2:]:
            raise Unsupported("attention scores rearranged", "not supported")

        def alike(a: Array) -> Array:
            if node.op == "Transpose":
                return np.transpose(a, node.attributes["perm"])
            return a.reshape(*node.shape[:-2], a.shape[-2], a.shape[-1])

        def moved(form: Form) -> Form:
            wide = forms.expand(form, form.lead, (*scores.shape[:-2], *form.shape[-2:]))
            return forms.move(wide, alike)

        visible = forms.per_step(function, scores.visible)
        return replace(
            scores, q=moved(scores.q), k=moved(scores.k), shape=node.shape, visible=visible
        )

    def _add(self, node: Node) -> Tensor:
        for a, b in (node.inputs, node.inputs[::-1]):
            scores = self._scores(a)
            if scores is not None:
                if scores.soft:
                    raise Unsupported("a sum with attention weights", "not supported")
                return attention.add_mask(scores, self._form(b), frozenset(self.flags))
        return self._sum(*(self._form(k) for k in node.inputs))

    def _sum(self, a: Form, b: Form) -> Form:
        lazy = forms.add(a, b)
        return lazy if lazy is not None else self._binary(ir.Add, a, b)

    def _subtract(self, node: Node) -> Tensor:
        a, b = (self._form(k) for k in node.inputs)
        return self._sum(a, replace(b, gain=-b.gain))

    def _multiply(self, node: Node) -> Tensor:
        for a, b in (node.inputs, node.inputs[::-1]):
            scores = self._scores(a)
            if scores is not None:
                factor = self._form(b)
                if factor.terms or factor.offset.size != 1 or scores.soft:
                    raise Unsupported("attention scores times a tensor", "not supported")
                by = factor.gain * float(factor.offset.reshape(-1)[0])
                return replace(scores, scale=scores.scale * by)
        return self._product(*(self._form(k) for k in node.inputs))

    def _product(self, a: Form, b: Form) -> Form:
        for one, two in ((a, b), (b, a)):
            if not two.terms:
                return forms.scale(one, forms.without_gain(two).offset)
        plain = self._binary(ir.Multiply, replace(a, gain=1.0), replace(b, gain=1.0))
        return replace(plain, gain=plain.gain * a.gain * b.gain)

    def _divide(self, node: Node) -> Tensor:
        if node.inputs[1] in self.graph.constants:
            by = self.graph.constants[node.inputs[1]]
            if (by.array == 0).any():
                raise Unsupported("a division by zero", "check the model")
            array = 1.0 / np.asarray(by.array if by.timed else by.array[None], np.float64)
            scores = self._scores(node.inputs[0])
            if scores is not None:
                if array.size != 1 or scores.soft:
                    raise Unsupported("attention scores divided by a tensor", "not supported")
                return replace(scores, scale=scores.scale * float(array.reshape(-1)[0]))
            return forms.scale(self._form(node.inputs[0]), array)
        inverse = self._function(node.inputs[1], Expression("reciprocal", (VARIABLE,)))
        return self._product(self._form(node.inputs[0]), inverse)

    def _power(self, node: Node) -> Tensor:
        if node.inputs[1] in self.graph.constants:
            exponent = self.graph.constants[node.inputs[1]].array
            if exponent.size == 1:
                power = constant(float(exponent.reshape(-1)[0]))
                return self._function(node.inputs[0], Expression("pow", (VARIABLE, power)))
        raise Unsupported("a power that is no constant", "not supported")

    def _extreme(self, node: Node) -> Tensor:
        """max(a, b) = a + relu(b - a), min(a, b) = a - relu(a - b)."""
        a, b = (self._form(k) for k in node.inputs)
        return self._larger(a, b) if node.op == "Max" else self._smaller(a, b)

    def _larger(self, a: Form, b: Form) -> Form:
        relu = Expression("max", (VARIABLE, constant(0.0)))
        return self._sum(a, self._apply(self._sum(b, replace(a, gain=-a.gain)), relu))

    def _smaller(self, a: Form, b: Form) -> Form:
        relu = Expression("max", (VARIABLE, constant(0.0)))
        over = self._apply(self._sum(a, replace(b, gain=-b.gain)), relu)
        return self._sum(a, replace(over, gain=-over.gain))

    def _binary(self, kind: type[ir.Operation], a: Form, b: Form) -> Form:
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

    def _function(self, key: str, function: Expression) -> Form:
        return self._apply(self._form(key), function)

    def _apply(self, form: Form, function: Expression) -> Form:
        """A scalar function of every element, on the whole matrix where the form is one."""
        if len(form.terms) == 1 and form.terms[0].base in self.flags:
            return self._of_flag(form, lambda x: float(evaluate(function, np.asarray(x))))
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

    def _function_node(self, node: Node) -> Tensor:
        return self._function(node.inputs[0], node.attributes["expression"])

    def _negate(self, node: Node) -> Tensor:
        form = self._form(node.inputs[0])
        return replace(form, gain=-form.gain)

    def _cast(self, node: Node) -> Tensor:
        return self.tensors[node.inputs[0]]

    # --- conditions: forms that are 0 or 1 ------------------------------------------------------

    def _not(self, node: Node) -> Tensor:
        form = self._form(node.inputs[0])
        return self._sum(forms.constant(np.ones((1,))), replace(form, gain=-form.gain))

    def _compare(self, node: Node) -> Tensor:
        """A comparison of flags or token ids with a number: a form that is 0 or 1."""
        for place, key in enumerate(node.inputs):
            c = self.graph.constants.get(key)
            if c is None or c.array.size != 1 or c.timed:
                continue
            form, number = self._form(node.inputs[1 - place]), float(c.array.reshape(-1)[0])
            test = _Test(node.op, number, place == 0)
            base = form.terms[0].base if len(form.terms) == 1 else ""
            given = self.inputs.get(base)
            if given is not None and given.kind == "ids":
                return self._compare_ids(form, given, number, test)
            return self._of_flag(form, test)
        raise Unsupported("a comparison inside the network", "compare with a constant")

    def _compare_ids(
        self, form: Form, given: ir.Input, number: float, test: Callable[[float], float]
    ) -> Form:
        """One id is told from all others: padding."""
        absent = int(number)
        for guess in (absent, absent - 1, absent + 1):
            others = [i for i in range(guess + 3) if i != guess]
            if guess >= 0 and all(test(i) != test(guess) for i in others):
                absent = guess
                break
        else:
            raise Unsupported("a comparison that splits token ids", "compare with one padding id")
        made = self.m.emit(ir.Flag, given.value.rows, 1, (given.value.key,), absent=absent)
        self.flags.add(made)
        flag = replace(form, terms=(replace(form.terms[0], base=made),))
        return self._of_flag(flag, lambda x: float(test(absent) != bool(x)))

    def _of_flag(self, form: Form, function: Callable[[float], float]) -> Form:
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

    def _and(self, node: Node) -> Tensor:
        return self._product(*(self._form(k) for k in node.inputs))

    def _or(self, node: Node) -> Tensor:
        a, b = (self._form(k) for k in node.inputs)
        both = self._product(a, b)
        return self._sum(self._sum(a, b), replace(both, gain=-both.gain))

    def _where(self, node: Node) -> Tensor:
        condition = self._form(node.inputs[0])
        ones = forms.constant(np.ones((1,)))
        opposite = self._sum(ones, replace(condition, gain=-condition.gain))
        for kept, other, hidden in (
            (node.inputs[1], node.inputs[2], opposite),
            (node.inputs[2], node.inputs[1], condition),
        ):
            scores = self._scores(kept)
            if scores is not None:
                return self._where_scores(scores, hidden, other)
        a, b = (_finite(self._form(k)) for k in node.inputs[1:])
        if not a.terms and not b.terms:
            difference = forms.without_gain(a).offset - forms.without_gain(b).offset
            return self._sum(forms.scale(condition, difference), b)
        if condition.terms:
            raise Unsupported("a choice that depends on data", "only masks are supported")
        kept_a = forms.scale(a, forms.without_gain(condition).offset)
        return self._sum(kept_a, forms.scale(b, forms.without_gain(opposite).offset))

    def _where_scores(self, scores: Scores, hidden: Form, other: str) -> Scores:
        fill = forms.without_gain(self._form(other))
        if fill.terms:
            raise Unsupported("attention scores mixed with a tensor", "only masks are supported")
        if scores.soft:
            # Weights of keys a softmax has hidden are 0 already.
            if (fill.offset == 0).all() and not hidden.terms:
                shown = ~forms.align(hidden.offset != 0, scores.lead, scores.shape)
                if (scores.visible <= shown).all():
                    return scores
            raise Unsupported("attention weights changed after the softmax", "mask before it")
        if (fill.offset > attention.HIDES_BELOW).any():
            raise Unsupported("masked scores that are not minus infinity", "use -inf")
        return attention.hide(scores, hidden, frozenset(self.flags))

    # --- products, norms, tables ----------------------------------------------------------------

    def _matmul(self, node: Node) -> Tensor:
        left, right = node.inputs
        scores = self._scores(left)
        if scores is not None:
            out, made = attention.attend(self.m, scores, self._form(right))
            self.attends.append((made, scores.key, right))
            return out
        a, b = self._form(left), self._form(right)
        if not b.terms:
            return self._linear(left, forms.without_gain(b).offset)
        if not a.terms:
            turned = self._turn(right)
            weight = np.swapaxes(forms.without_gain(a).offset, -1, -2)
            out = self._linear(turned, weight)
            return forms.move(out, lambda x: np.swapaxes(x, -1, -2))
        if len(a.shape) < 2 or len(b.shape) < 2:
            raise Unsupported("a product with a vector", "not supported")
        return attention.product(a, b, right)

    def _turn(self, key: str) -> str:
        form = self._form(key)
        if len(form.shape) < 2:
            raise Unsupported("a product with a vector", "not supported")
        turned = f"{key} turned"
        self.tensors[turned] = forms.move(form, lambda x: np.swapaxes(x, -1, -2))
        return turned

    def _linear(self, key: str, weight: Array) -> Form:
        if weight.ndim < 2:
            raise Unsupported("a product with a vector", "not supported")
        stack: Array = weight.reshape(-1, weight.shape[-2], weight.shape[-1])
        if not (stack == stack[:1]).all():
            raise Unsupported("a different matrix for every head or step", "not supported")
        matrix: Array = stack[0]
        form = self._form(key)
        gain = form.gain
        self.tensors[key] = replace(form, gain=1.0)
        settled, made = self._settled(key)
        self.tensors[key] = replace(settled, gain=gain)
        rows, cols = self.m.values[made].rows, stack.shape[2]
        out = self.m.emit(
            ir.Linear, rows, cols, (made,), weight=np.ascontiguousarray(matrix), bias=np.zeros(cols)
        )
        index = np.arange(rows * cols).reshape(*settled.offset.shape[:-1], cols)
        return replace(forms.bare(out, index), gain=gain)

    def _norm(self, node: Node) -> Tensor:
        groups = self._groups(self._form(node.inputs[0]))
        if groups is not None:
            return self._norm_groups(node, *groups)
        settled, made = self._settled(node.inputs[0])
        return forms.bare(self._normalise(node, made), settled.terms[0].index)

    def _normalise(self, node: Node, x: str) -> str:
        value, at = self.m.values[x], node.attributes
        return self.m.emit(
            ir.Normalise,
            value.rows,
            value.cols,
            (x,),
            kind=at["kind"],
            gain=np.asarray(at["gain"], np.float64),
            bias=np.asarray(at["bias"], np.float64),
            epsilon=float(at["epsilon"]),
        )

    def _groups(self, form: Form) -> tuple[str, IntArray, IntArray] | None:
        """Rows of a tensor that are groups of columns (heads) of a matrix with fewer rows.

        The matrix, the columns of each group ``[groups, size]`` and the place of every row of the
        tensor as ``row * groups + group``; None for anything else.
        """
        term = form.terms[0] if len(form.terms) == 1 else None
        if term is None or form.gain != 1.0 or forms.uniform(form.offset) != 0.0:
            return None
        value, size = self.m.values[term.base], form.shape[-1]
        index: IntArray = term.index.reshape(-1, size)
        groups = len(index) // value.rows
        if forms.uniform(term.coefficient) != 1.0 or groups < 2 or value.rows < 2:
            return None
        if groups * value.rows != len(index):
            return None
        rows, columns = index // value.cols, index % value.cols
        order = np.lexsort((columns[:, 0], rows[:, 0]))
        laid: IntArray = columns[order].reshape(-1, groups, size)
        even = np.array_equal(rows[order, 0], np.repeat(np.arange(value.rows), groups))
        if not even or (rows != rows[:, :1]).any() or (laid != laid[:1]).any():
            return None
        place = np.empty(len(index), np.int64)
        place[order] = np.arange(len(index))
        return term.base, laid[0], place

    def _norm_groups(self, node: Node, base: str, columns: IntArray, place: IntArray) -> Form:
        """A norm of each head by itself: one Normalise a head, then heads side by side again."""
        rows, (groups, size) = self.m.values[base].rows, columns.shape
        first = np.arange(rows)[:, None]
        parts = [
            self._normalise(node, self.m.pick(base, first * self.m.values[base].cols + c))
            for c in columns
        ]
        local = first[:, :, None] * size + np.arange(size)
        index = (np.arange(groups)[:, None] * rows * size + local).reshape(rows, groups * size)
        made = self.m.emit(ir.Gather, rows, groups * size, tuple(parts), index=index)
        shape = (self._form(node.inputs[0]).lead, *node.shape)
        return forms.bare(made, (place[:, None] * size + np.arange(size)).reshape(shape))

    def _softmax(self, node: Node) -> Tensor:
        scores = self._scores(node.inputs[0])
        if scores is None:
            raise Unsupported("a softmax outside attention", "leave it to the host")
        return replace(scores, soft=True)

    def _gather(self, node: Node) -> Tensor:
        table = self.graph.constants.get(node.inputs[0])
        if table is None or table.timed or node.attributes.get("axis", 0):
            raise Unsupported("rows chosen by data", "only tables are indexed by token ids")
        form = self._form(node.inputs[1])
        given = self.inputs.get(form.terms[0].base if len(form.terms) == 1 else "")
        if given is None or form.gain != 1.0 or (form.offset != 0).any():
            raise Unsupported("a table indexed by something computed", "index by an input")
        wide = np.asarray(table.array, np.float64).reshape(len(table.array), -1)
        rows = form.offset.size
        ids = self.m.matrix(form, np.arange(rows), rows, 1)
        self._note_ids(given, len(wide))
        out = self.m.emit(ir.Embed, rows, wide.shape[1], (ids,), table=wide)
        shape = (form.lead, *form.shape, *table.array.shape[1:])
        return forms.bare(out, np.arange(rows * wide.shape[1]).reshape(shape))

    def _note_ids(self, given: ir.Input, count: int) -> None:
        known = self.inputs[given.value.key].id_count or count
        self.inputs[given.value.key] = replace(given, kind="ids", id_count=min(known, count))

    def _stack(self, node: Node) -> Tensor:
        form, axis = self._form(node.inputs[0]), node.attributes["axis"]

        def stack(a: Array) -> Array:
            rows = np.broadcast_to(a, (self.graph.steps, *a.shape[1:])).take(0, axis + 1)
            return np.asarray(np.moveaxis(rows, 0, axis)[None])

        terms = tuple(
            replace(t, index=stack(t.index), coefficient=stack(t.coefficient)) for t in form.terms
        )
        return replace(form, terms=terms, offset=stack(form.offset))

    def _concat(self, node: Node) -> Tensor:
        parts, axis = [self._form(k) for k in node.inputs], node.attributes["axis"]
        lazy = forms.concatenate(parts, axis)
        if lazy is not None:
            return lazy
        lead, axis = max(f.lead for f in parts), axis % len(node.shape)
        start, keys, indices = 0, [], []
        for form in parts:
            wide = forms.expand(form, lead, form.shape)
            rows, cols = forms.rows_of(wide)
            key = self.m.matrix(wide, np.arange(rows * cols), rows, cols)
            index = np.arange(rows * cols).reshape(wide.offset.shape)
            if self.m.values[key].rows != rows:
                index = index % cols
            keys.append(key)
            indices.append(index + start)
            start += self.m.size(key)
        joined = np.concatenate(indices, axis + 1)
        rows, cols = lead * prod(node.shape[:-1]), node.shape[-1]
        made = self.m.emit(ir.Gather, rows, cols, tuple(keys), index=joined.reshape(rows, cols))
        return forms.bare(made, np.arange(rows * cols).reshape(lead, *node.shape))

    def _pad(self, node: Node) -> Tensor:
        form, at = self._form(node.inputs[0]), node.attributes
        pad = OPERATIONS["Pad"]

        def filled(array: Array, value: float) -> Array:
            return forms.per_step(lambda a: pad({**at, "value": value}, a), array)

        terms = tuple(
            replace(t, index=filled(t.index, 0), coefficient=filled(t.coefficient, 0))
            for t in form.terms
        )
        return replace(form, terms=terms, offset=filled(form.offset, at["value"] / form.gain))

    # --- reductions -----------------------------------------------------------------------------

    def _reduce(self, node: Node) -> Tensor:
        form = self._form(node.inputs[0])
        rank = len(form.shape)
        axes = node.attributes.get("axes")
        reduced = sorted({a % rank for a in axes} if axes else range(rank))
        kept = [a for a in range(rank) if a not in reduced]
        count = prod(form.shape[a] for a in reduced)
        turned = forms.move(form, lambda x: x.transpose(*reduced, *kept).reshape(count, -1))
        if node.op == "ReduceMax":
            out = self._greatest(turned, count)
        elif reduced == [rank - 1] and prod(form.shape[:-1]) > 1:
            weight = np.full((count, 1), 1.0 if node.op == "ReduceSum" else 1.0 / count)
            out = self._linear(node.inputs[0], weight[None])
        else:
            out = self._mean(turned, count, node.op == "ReduceSum")
        return forms.move(out, lambda x: x.reshape(node.shape))

    def _masked_mean(self, node: Node) -> Tensor:
        form, mask = (self._form(k) for k in node.inputs)
        axis = node.attributes["axis"]
        rows = form.shape[axis]
        flag = mask.terms[0].base if len(mask.terms) == 1 else ""
        straight = flag in self.flags and forms.is_whole(mask, rows) and form.lead == 1
        if not straight or (mask.terms[0].index.reshape(-1) != np.arange(rows)).any():
            raise Unsupported("a mean over rows chosen in another way", "use a padding mask")
        if mask.gain != 1.0 or (mask.offset != 0).any() or (mask.terms[0].coefficient != 1).any():
            raise Unsupported("a mean over rows without their flag", "use a padding mask")
        turned = forms.move(form, lambda x: np.moveaxis(x, axis, 0).reshape(rows, -1))
        cols = turned.shape[1]
        key = self.m.matrix(turned, np.arange(rows * cols), rows, cols)
        made = self.m.emit(ir.MeanRows, 1, cols, (key, flag))
        return forms.bare(made, np.arange(cols).reshape(1, *node.shape))

    def _mean(self, turned: Form, count: int, total: bool) -> Form:
        if turned.lead > 1:
            raise Unsupported("a mean inside a step", "not supported")
        cols = turned.shape[1]
        key = self.m.matrix(turned, np.arange(count * cols), count, cols)
        made = self.m.emit(ir.MeanRows, 1, cols, (key,))
        mean = forms.bare(made, np.arange(cols).reshape(1, 1, cols))
        return replace(mean, gain=float(count)) if total else mean

    def _greatest(self, turned: Form, count: int) -> Form:
        out = forms.move(turned, lambda x: x[:1])
        for i in range(1, count):
            out = self._larger(out, forms.move(turned, _RowOf(i)))
        return out

    _handlers: Mapping[str, Callable[[_Lowering, Node], Tensor]] = {
        "Add": _add,
        "Sub": _subtract,
        "Mul": _multiply,
        "Div": _divide,
        "Pow": _power,
        "Max": _extreme,
        "Min": _extreme,
        "Neg": _negate,
        "Cast": _cast,
        "Not": _not,
        "Equal": _compare,
        "Less": _compare,
        "LessOrEqual": _compare,
        "Greater": _compare,
        "GreaterOrEqual": _compare,
        "And": _and,
        "Or": _or,
        "Where": _where,
        "Function": _function_node,
        "MatMul": _matmul,
        "Norm": _norm,
        "Softmax": _softmax,
        "Gather": _gather,
        "Stack": _stack,
        "Concat": _concat,
        "Pad": _pad,
        "ReduceMean": _reduce,
        "ReduceSum": _reduce,
        "ReduceMax": _reduce,
        "MaskedMean": _masked_mean,
    }


def _describe(op: ir.Attend) -> str:
    """What an attention was found to be, for the report."""
    shared = "" if op.kv_heads == op.heads else f" on {op.kv_heads}"
    seen = "earlier rows" if op.causal else "all rows"
    flags = ", padding left out" if len(op.inputs) > 3 else ""
    return f"{op.origin}: attention of {op.heads} heads{shared} over {seen}{flags}"


@dataclass(frozen=True, slots=True)
class _Test:
    """A comparison with a number: 1.0 where it holds."""

    op: str
    number: float
    number_first: bool

    def __call__(self, x: float) -> float:
        pair = (self.number, x) if self.number_first else (x, self.number)
        return float(ELEMENTWISE[self.op][0](*pair))


@dataclass(frozen=True, slots=True)
class _RowOf:
    """Picks one row, kept as a matrix."""

    row: int

    def __call__(self, x: Array) -> Array:
        return x[self.row : self.row + 1]


def _id_inputs(graph: TensorGraph) -> frozenset[str]:
    """Inputs that index a table, directly or through what only moves elements."""
    makers = {n.output: n for n in graph.nodes}
    found = set()
    for node in graph.nodes:
        if node.op == "Gather":
            key = node.inputs[1]
            while key in makers and (makers[key].op in STRUCTURAL or makers[key].op == "Cast"):
                key = makers[key].inputs[0]
            found.add(key)
    return frozenset(found)


def _finite(form: Form) -> Form:
    if form.terms or np.isfinite(form.offset).all():
        return form
    return forms.constant(np.clip(forms.without_gain(form).offset, -1e30, 1e30))
