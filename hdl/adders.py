"""Wide sums in less time than a ripple of carries from end to end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from amaranth import Cat, Const, Module, Mux, Signal, Value

BLOCK_BITS = 20
"""Longest carry ripple; a wider sum is made of blocks that are summed for both carries."""


def wide_sum(m: Module, terms: Sequence[Value], width: int, name: str) -> Signal:
    """Sum of two or more ``terms`` modulo ``2^width``: three words become two until two are left,
    whose carries are then selected."""
    words: list[Value] = []
    for index, term in enumerate(terms):
        word = Signal(width, name=f"{name}_{index}")
        m.d.comb += word.eq(term)
        words.append(word)
    while len(words) > 2:
        a, b, c, *others = words
        partial = Signal(width, name=f"{name}_partial")
        carries = Signal(width, name=f"{name}_carries")
        m.d.comb += [partial.eq(a ^ b ^ c), carries.eq(Cat(Const(0), a & b | c & (a | b)))]
        words = [*others, partial, carries]
    total = Signal(width, name=name)
    m.d.comb += total.eq(_carry_select(m, words[0], words[1], name))
    return total


def _carry_select(m: Module, a: Value, b: Value, name: str) -> Value:
    width = len(a)
    blocks = -(-width // BLOCK_BITS)
    cuts = [width * i // blocks for i in range(blocks + 1)]
    carry: Value = Const(0)
    parts = []
    for low, high in pairwise(cuts):
        size = high - low
        plain = Signal(size + 1, name=f"{name}_plain_{low}")
        m.d.comb += plain.eq(a[low:high] + b[low:high])
        chosen: Value = plain
        if low:
            # Ones before both words carry in.
            carried = Signal(size + 2, name=f"{name}_carried_{low}")
            m.d.comb += carried.eq(Cat(Const(1), a[low:high]) + Cat(Const(1), b[low:high]))
            chosen = Mux(carry, carried[1:], plain)
        parts.append(chosen[:size])
        carry = chosen[size]
    return Cat(*parts)


def multiple(x: Value, factor: int) -> list[Value]:
    """``x * factor`` as terms of a sum; ``factor >= 0``."""
    return [x << k for k in range(factor.bit_length()) if factor >> k & 1]
