"""Padding masks beyond the plain one of the keys: masks of queries, and positions counted by them.

Neither is a matrix by itself. A stand-in value takes its place, which means the mask's own flags
once it has reached what makes it one: the scores of an attention, or a product with the mask.
Padding is taken to stand behind all tokens, so that a token's count is its row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.frontend import forms
from hwcompile.compiler.frontend.builder import Unsupported
from hwcompile.compiler.frontend.forms import Form
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.graph import IntArray
from hwcompile.compiler.ir.tensor_graph import Array

if TYPE_CHECKING:
    from hwcompile.compiler.frontend.lowering import Lowering


def _flag(w: Lowering, form: Form, names: set[str]) -> str:
    """The flags that a form is, element for element; else ``""``."""
    base = form.terms[0].base if len(form.terms) == 1 else ""
    return base if base in names and forms.is_plain(forms.without_gain(form)) else ""


def pair(w: Lowering, a: Form, b: Form) -> Form | None:
    """The product of a mask of queries and the same mask of keys: that of the keys.

    A row of padding then attends like any other: what it gives is not used.
    """
    base = _flag(w, a, w.flags)
    if not base or _flag(w, b, w.flags) != base:
        return None
    lead, shape = forms.common_shape(a, b)
    if len(shape) < 2 or shape[-1] != shape[-2] or base in w.pairs:
        return None
    for queries, keys in ((a, b), (b, a)):
        own, other = (forms.expand(f, lead, shape).terms[0].index for f in (keys, queries))
        if (own == own[..., :1, :]).all() and (other == other[..., :1]).all():
            stand_in = _stand_in(w, base, w.pairs)
            w.flags.add(stand_in)
            return forms.bare(stand_in, np.ascontiguousarray(own))
    return None


def count(w: Lowering, form: Form, axis: int) -> Form:
    """The number of tokens up to each row, of a padding mask."""
    base = _flag(w, form, w.flags)
    if not base or not _in_order(form, axis):
        raise Unsupported("a running sum of data", "only padding masks are counted")
    return forms.bare(_stand_in(w, base, w.counts), form.terms[0].index)


def counted(w: Lowering, a: Form, b: Form) -> Form | None:
    """A count (plus a number) times the mask itself: the row's number where there is a token."""
    for counts, flags in ((a, b), (b, a)):
        term = counts.terms[0] if len(counts.terms) == 1 else None
        offset = forms.uniform(counts.offset)
        if term is None or term.base not in w.counts or offset is None:
            continue
        base = w.counts[term.base]
        if _flag(w, flags, w.flags) != base or flags.offset.size != counts.offset.size:
            continue
        plain = forms.without_gain(counts)
        rows = plain.terms[0].index + 1.0
        value = plain.terms[0].coefficient * rows + plain.offset
        return Form((replace(plain.terms[0], base=base, coefficient=value),), 0 * plain.offset)
    return None


def positions(w: Lowering, table: Array, form: Form) -> Form | None:
    """Rows of a table chosen by row number and mask: one of two constant rows in each row."""
    term = form.terms[0] if len(form.terms) == 1 else None
    # With one factor for all rows it is an input of ids.
    if term is None or term.base not in w.flags or forms.uniform(term.coefficient) is not None:
        return None
    plain = forms.without_gain(form)
    clear = plain.offset.reshape(-1).astype(np.int64)
    set_ = (plain.offset + plain.terms[0].coefficient).reshape(-1).astype(np.int64)
    reach = np.concatenate([clear, set_])
    if reach.min() < 0 or reach.max() >= len(table):
        raise Unsupported("positions past the end of their table", "shorten the input")
    wide = np.asarray(table, np.float64).reshape(len(table), -1)
    rows, cols = len(clear), wide.shape[1]
    order: IntArray = np.arange(rows)
    flags = w.m.matrix(forms.bare(term.base, plain.terms[0].index), order, rows, 1)
    switch = w.m.emit(ir.Embed, rows, cols, (flags,), table=np.repeat([[0.0], [1.0]], cols, axis=1))
    moved = w.m.binary(ir.Multiply, switch, w.m.table(wide[set_] - wide[clear]))
    made = w.m.binary(ir.Add, moved, w.m.table(wide[clear]))
    shape = (form.lead, *form.shape, *table.shape[1:])
    return forms.bare(made, np.arange(rows * cols).reshape(shape))


def check(w: Lowering) -> None:
    """Raises ModelError if a stand-in is read as if it were a value."""
    for op in w.m.operations:
        if any(key in w.pairs or key in w.counts for key in op.inputs):
            raise ModelError("a padding mask is used beside attention", "use it as a mask only")


def _stand_in(w: Lowering, base: str, names: dict[str, str]) -> str:
    known = next((key for key, flags in names.items() if flags == base), None)
    if known is None:
        known = w.m.value(w.m.values[base].rows, 1).key
        names[known] = base
    return known


def _in_order(form: Form, axis: int) -> bool:
    rows = np.moveaxis(form.terms[0].index[0], axis, 0).reshape(form.shape[axis], -1)
    return bool((rows == np.arange(len(rows))[:, None]).all()) and form.lead == 1
