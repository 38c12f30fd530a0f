"""Form: an n-d tensor as a linear form over the elements of row matrices.

Every element is ``gain * (sum of coefficient * base[index] + offset)``, with at most one element
of a base a term. Reshapes, transposes, slices, splits and expands only move the index arrays;
rotary position codes show up as two terms over one base; masks and flags are forms as well. All
arrays have the shape ``(lead, *shape)``, where ``lead`` is 1, or the number of steps of a `step`
file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from hwcompile.compiler.ir.graph import FloatArray, IntArray
from hwcompile.compiler.ir.tensor_graph import Array


@dataclass(frozen=True, slots=True)
class Term:
    """``coefficient * base.ravel()[index]``; both arrays ``(lead, *shape)``."""

    base: str
    index: IntArray
    coefficient: FloatArray


@dataclass(frozen=True, slots=True)
class Form:
    """``gain * (sum of terms + offset)``; ``offset`` is ``(lead, *shape)``."""

    terms: tuple[Term, ...]
    offset: FloatArray
    gain: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor (of one step)."""
        return self.offset.shape[1:]

    @property
    def lead(self) -> int:
        """1, or the number of steps."""
        return int(self.offset.shape[0])

    @property
    def bases(self) -> tuple[str, ...]:
        """Keys of the matrices it reads, without repeats."""
        return tuple(dict.fromkeys(t.base for t in self.terms))


def bare(base: str, index: IntArray) -> Form:
    """The elements of a matrix at ``index`` and nothing else."""
    ones = np.broadcast_to(np.float64(1.0), index.shape)
    return Form((Term(base, index, ones),), np.broadcast_to(np.float64(0.0), index.shape))


def constant(array: Array) -> Form:
    """A form without terms; ``array`` is ``(lead, *shape)``."""
    return Form((), np.asarray(array, np.float64))


def per_step(function: Callable[[Array], Array], array: Array) -> Array:
    """``function`` on the array of every step; a broadcast single value stays one."""
    if len(array) == 1:
        return function(array[0])[None]
    return np.stack([function(a) for a in array])


def move(form: Form, function: Callable[[Array], Array]) -> Form:
    """A structural operation: ``function`` moves the elements of each step's arrays."""
    terms = tuple(
        Term(t.base, per_step(function, t.index), per_step(function, t.coefficient))
        for t in form.terms
    )
    return Form(terms, per_step(function, form.offset), form.gain)


def align(array: Array, lead: int, shape: tuple[int, ...]) -> Array:
    """``(lead', *shape')`` broadcast to ``(lead, *shape)``: axes are aligned at the end."""
    missing = len(shape) - (array.ndim - 1)
    wide = array.reshape(array.shape[0], *[1] * missing, *array.shape[1:])
    return np.broadcast_to(wide, (lead, *shape))


def expand(form: Form, lead: int, shape: tuple[int, ...]) -> Form:
    """The form broadcast to a shape."""
    if form.offset.shape == (lead, *shape):
        return form
    terms = tuple(
        Term(t.base, align(t.index, lead, shape), align(t.coefficient, lead, shape))
        for t in form.terms
    )
    return Form(terms, align(form.offset, lead, shape), form.gain)


def common_shape(*forms: Form) -> tuple[int, tuple[int, ...]]:
    """Lead and shape all the forms broadcast to."""
    return max(f.lead for f in forms), np.broadcast_shapes(*(f.shape for f in forms))


def scale(form: Form, factor: FloatArray) -> Form:
    """Elementwise product with a constant ``(lead, *shape)`` (shapes broadcast)."""
    if factor.size == 1:
        return replace(form, gain=form.gain * float(factor.reshape(-1)[0]))
    lead, shape = common_shape(form, constant(factor))
    full, wide = expand(form, lead, shape), align(factor, lead, shape)
    terms = tuple(Term(t.base, t.index, t.coefficient * wide) for t in full.terms)
    return Form(terms, full.offset * wide, form.gain)


def without_gain(form: Form) -> Form:
    """The same values with gain 1."""
    if form.gain == 1.0:
        return form
    terms = tuple(replace(t, coefficient=t.coefficient * form.gain) for t in form.terms)
    return Form(terms, form.offset * form.gain)


def add(a: Form, b: Form) -> Form | None:
    """The sum, when both read at most one common base in at most two terms; else None."""
    bases = tuple(dict.fromkeys(a.bases + b.bases))
    if len(bases) > 1:
        return None
    lead, shape = common_shape(a, b)
    if not b.terms and a.gain != 0.0:
        a = expand(a, lead, shape)
        offset = align(without_gain(b).offset, lead, shape)
        return replace(a, offset=a.offset + offset / a.gain)
    if not a.terms:
        return add(b, a)
    a, b = (without_gain(expand(f, lead, shape)) for f in (a, b))
    terms = _merge(a.terms, b.terms)
    return Form(terms, a.offset + b.offset) if len(terms) <= 2 else None


def _merge(a: tuple[Term, ...], b: tuple[Term, ...]) -> tuple[Term, ...]:
    """All terms, those over the same elements added up."""
    out = list(a)
    for term in b:
        for i, have in enumerate(out):
            if have.base == term.base and np.array_equal(have.index, term.index):
                out[i] = replace(have, coefficient=have.coefficient + term.coefficient)
                break
        else:
            out.append(term)
    return tuple(out)


def concatenate(forms: list[Form], axis: int) -> Form | None:
    """Forms joined along an axis, when all read one base in the same number of terms; else None."""
    bases = tuple(dict.fromkeys(b for f in forms for b in f.bases))
    if len(bases) > 1 or (any(not f.terms for f in forms) and bases):
        return None
    lead, axis = max(f.lead for f in forms), axis % len(forms[0].shape)
    count = max(len(f.terms) for f in forms)
    full = [_pad(without_gain(expand(f, lead, f.shape)), count) for f in forms]

    def join(parts: list[Array]) -> Array:
        return np.concatenate(parts, axis + 1)

    terms = tuple(
        Term(
            bases[0],
            join([f.terms[i].index for f in full]),
            join([f.terms[i].coefficient for f in full]),
        )
        for i in range(count)
    )
    return Form(terms, join([f.offset for f in full]))


def _pad(form: Form, count: int) -> Form:
    """The form with terms of coefficient 0 up to ``count``."""
    missing = count - len(form.terms)
    if missing <= 0:
        return form
    empty = Term(form.terms[0].base, form.terms[0].index, np.zeros(form.offset.shape))
    return replace(form, terms=form.terms + (empty,) * missing)


def uniform(array: Array) -> float | None:
    """The one value of an array, or None."""
    first = array.reshape(-1)[:1]
    return float(first[0]) if len(first) and (array == first[0]).all() else None


def is_plain(form: Form) -> bool:
    """Whether the form is elements of one matrix as they are."""
    return (
        len(form.terms) == 1
        and form.gain == 1.0
        and uniform(form.terms[0].coefficient) == 1.0
        and uniform(form.offset) == 0.0
    )


def is_whole(form: Form, elements: int) -> bool:
    """Whether the form has one term that reads every element of its base exactly once."""
    if len(form.terms) != 1 or form.terms[0].index.size != elements:
        return False
    flat = form.terms[0].index.reshape(-1)
    return bool((np.bincount(flat, minlength=elements) == 1).all())


def rows_of(form: Form) -> tuple[int, int]:
    """Default rows and columns: the last axis is columns, all others (and the steps) are rows."""
    shape = form.shape or (1,)
    return form.lead * prod(shape[:-1]), shape[-1]
