"""Attention by what it does: products of two forms, scaled and masked, a softmax, a product again.

:class:`Scores` stands for ``scale * q @ k^T`` while a graph is lowered. Whatever way a file writes
its masks, they end up as ``bias`` (a constant, minus infinity where a key is hidden) and ``flags``
(a 0/1 row per key).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from hwcompile.compiler.frontend.builder import Unsupported
from hwcompile.compiler.frontend.forms import Form, Term, align, expand, without_gain
from hwcompile.compiler.frontend.matrices import Matrices
from hwcompile.compiler.ir import graph as ir
from hwcompile.compiler.ir.graph import IntArray
from hwcompile.compiler.ir.tensor_graph import Array

#: A mask value from this down hides a key (exp of it is 0 in every precision in use).
HIDES_BELOW = -1e4
#: A smaller change of the scores is none.
NO_BIAS = 1e-6


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of every query and key: ``shape`` is ``[..., queries, keys]``, of one step.

    ``q`` is ``[..., queries, size]``, ``k`` ``[..., keys, size]``; ``bias`` is
    ``(lead, *shape)``. ``soft``: the softmax has been taken. ``key`` names the tensor of keys.
    """

    q: Form
    k: Form
    shape: tuple[int, ...]
    lead: int
    scale: float
    bias: Array
    flags: str = ""
    soft: bool = False
    key: str = ""


def product(q: Form, k_transposed: Form, key: str) -> Scores:
    """Scores of two forms ``[..., queries, size]`` and ``[..., size, keys]``."""
    k = _swap(k_transposed)
    lead = max(q.lead, k.lead)
    heads = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    shape = (*heads, q.shape[-2], k.shape[-2])
    bias = np.broadcast_to(np.float64(0.0), (lead, *shape))
    scale = q.gain * k.gain
    return Scores(replace(q, gain=1.0), replace(k, gain=1.0), shape, lead, scale, bias, key=key)


def scaled(scores: Scores, factor: float) -> Scores:
    """Scores times a number."""
    if scores.soft or (factor <= 0 and (scores.flags or scores.bias.any())):
        raise Unsupported("attention weights times a number", "scale the scores instead")
    return replace(scores, scale=scores.scale * factor, bias=scores.bias * factor)


def _swap(form: Form) -> Form:
    def swap(a: Array) -> Array:
        return np.swapaxes(a, -1, -2)

    terms = tuple(Term(t.base, swap(t.index), swap(t.coefficient)) for t in form.terms)
    return replace(form, terms=terms, offset=swap(form.offset))


# --- masks --------------------------------------------------------------------------------------


def hide(scores: Scores, hidden: Form, flag_bases: frozenset[str]) -> Scores:
    """Scores with minus infinity where ``hidden`` (a form that is 0 or 1) is 1."""
    return _mask(scores, replace(hidden, gain=-1e30 * hidden.gain), flag_bases)


def add_mask(scores: Scores, mask: Form, flag_bases: frozenset[str]) -> Scores:
    """Scores plus an additive mask: 0 where seen, very negative where hidden."""
    return _mask(scores, mask, flag_bases)


def _mask(scores: Scores, mask: Form, flag_bases: frozenset[str]) -> Scores:
    full = without_gain(expand(mask, scores.lead, scores.shape))
    if not full.terms:
        return _biased(scores, full.offset)
    term = full.terms[0]
    if len(full.terms) > 1 or term.base not in flag_bases:
        raise Unsupported(
            "attention scores with a computed bias", "only masks made of padding flags are known"
        )
    if scores.flags not in ("", term.base):
        raise Unsupported("two different padding masks on one attention", "use one")
    set_, clear = _effect(full.offset + term.coefficient), _effect(full.offset)
    depends = set_ != clear
    if not depends.any():
        return _biased(scores, set_)
    keys = np.broadcast_to(np.arange(scores.shape[-1]), depends.shape)
    if (clear > -np.inf).any() or (depends & (term.index != keys)).any():
        raise Unsupported("a mask that is no padding mask of its keys", "use key padding masks")
    return replace(_biased(scores, set_), flags=term.base)


def _effect(values: Array) -> Array:
    """What is added to the scores: minus infinity where that hides a key, 0 where it is nothing."""
    shown = np.where(np.abs(values) < NO_BIAS, 0.0, values)
    return np.where(shown <= HIDES_BELOW, -np.inf, shown)


def _biased(scores: Scores, bias: Array) -> Scores:
    return replace(scores, bias=scores.bias + align(_effect(bias), scores.lead, scores.shape))


# --- to an Attend -------------------------------------------------------------------------------


def attend(m: Matrices, scores: Scores, v: Form) -> tuple[Form, str]:
    """The output ``[..., queries, size]`` as a form over a new Attend, and the Attend's key."""
    if not scores.soft:
        raise Unsupported("a product of three matrices without a softmax", "linear attention")
    heads_shape = np.broadcast_shapes(scores.shape[:-2], v.shape[:-2])
    heads, queries, keys = prod(heads_shape), scores.shape[-2], scores.shape[-1]
    if scores.k.lead > 1 or v.lead > 1:
        raise Unsupported("keys that differ from step to step", "export the prefill form")
    rows = scores.lead * queries
    bias = _bias(scores, heads_shape, rows)
    causal = rows == keys and bool((bias[:, *np.triu_indices(rows, 1)] == -np.inf).all())
    q = _heads_first(expand(scores.q, scores.lead, (*heads_shape, *scores.q.shape[-2:])), heads)
    k = _heads_first(expand(scores.k, 1, (*heads_shape, *scores.k.shape[-2:])), heads)
    w = _heads_first(expand(v, 1, (*heads_shape, *v.shape[-2:])), heads)
    kv_heads = _shared_heads(k, w, heads)
    every = heads // kv_heads
    inputs = [_matrix(m, q, 1), _matrix(m, k, every), _matrix(m, replace(w, gain=1.0), every)]
    if scores.flags:
        inputs.append(scores.flags)
    size = v.shape[-1]
    key = m.emit(
        ir.Attend,
        rows,
        heads * size,
        tuple(inputs),
        heads=heads,
        kv_heads=kv_heads,
        scale=scores.scale,
        causal=causal and rows > 1,
        bias=_rest(bias, causal),
    )
    # out[lead, query, head, element] back to (lead, *heads, query, element)
    index = np.arange(rows * heads * size).reshape(scores.lead, queries, heads, size)
    index = index.transpose(0, 2, 1, 3).reshape(scores.lead, *heads_shape, queries, size)
    ones = np.broadcast_to(np.float64(1.0), index.shape)
    zeros = np.broadcast_to(np.float64(0.0), index.shape)
    return Form((Term(key, index, ones),), zeros, w.gain), key


def _heads_first(form: Form, heads: int) -> Form:
    """``(lead, *heads, rows, size)`` -> ``(lead, rows, heads, size)``."""

    def turn(a: Array) -> Array:
        lead, rows, size = a.shape[0], a.shape[-2], a.shape[-1]
        return a.reshape(lead, heads, rows, size).transpose(0, 2, 1, 3)

    terms = tuple(Term(t.base, turn(t.index), turn(t.coefficient)) for t in form.terms)
    return replace(form, terms=terms, offset=turn(form.offset))


def _bias(scores: Scores, heads_shape: tuple[int, ...], rows: int) -> Array:
    """``(lead, *heads, queries, keys)`` -> ``[1 or heads, rows, keys]``."""
    queries, keys = scores.shape[-2:]
    wide = align(scores.bias, scores.lead, (*heads_shape, queries, keys))
    bias = wide.reshape(scores.lead, -1, queries, keys).swapaxes(0, 1).reshape(-1, rows, keys)
    return bias[:1] if (bias == bias[:1]).all() else bias


def _rest(bias: Array, causal: bool) -> Array:
    """The bias without what ``causal`` says already; empty where nothing is left."""
    rest = np.where(np.triu(np.ones(bias.shape[1:], bool), 1), 0.0, bias) if causal else bias
    return np.maximum(rest, ir.HIDDEN) if rest.any() else np.zeros((0, 0, 0))


def _shared_heads(k: Form, v: Form, heads: int) -> int:
    """Number of distinct key/value heads, when consecutive query heads share them evenly."""

    def same(form: Form, one: int, two: int) -> bool:
        arrays: list[Any] = [form.offset]
        arrays += [a for t in form.terms for a in (t.index, t.coefficient)]
        return all(np.array_equal(a[:, :, one], a[:, :, two]) for a in arrays)

    fresh = [h == 0 or not (same(k, h, h - 1) and same(v, h, h - 1)) for h in range(heads)]
    count = sum(fresh)
    every = heads // count if heads % count == 0 else 1
    even = all(f == (h % every == 0) for h, f in enumerate(fresh))
    return count if even else heads


def _matrix(m: Matrices, form: Form, every: int) -> str:
    def thin(a: Array) -> Array:
        return a[:, :, ::every]

    terms = tuple(Term(t.base, thin(t.index), thin(t.coefficient)) for t in form.terms)
    form = Form(terms, thin(form.offset), form.gain)
    lead, rows, heads, size = form.offset.shape
    order: IntArray = np.arange(form.offset.size)
    return m.matrix(form, order, lead * rows, heads * size)
