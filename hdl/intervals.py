"""Interval arithmetic: how many bits each stage of a unit needs."""

from __future__ import annotations

from collections.abc import Iterable

from hwcompile.compiler.ir import program as ir

Interval = tuple[int, int]


def of(value: ir.Value) -> Interval:
    """The proven interval of a value."""
    return value.low, value.high


def hull(intervals: Iterable[Interval]) -> Interval:
    """The least interval that contains all ``intervals``."""
    lows, highs = zip(*intervals, strict=True)
    return min(lows), max(highs)


def plus(x: Interval, y: Interval) -> Interval:
    """Sums of an integer of ``x`` and one of ``y``."""
    return x[0] + y[0], x[1] + y[1]


def times(x: Interval, y: Interval | int) -> Interval:
    """Products of an integer of ``x`` and one of ``y`` (or the integer ``y``)."""
    ends = [a * b for a in x for b in (y if isinstance(y, tuple) else (y,))]
    return min(ends), max(ends)


def rounded(x: Interval, shift: int) -> Interval:
    """``round_shift`` of the integers of ``x``."""
    if shift <= 0:
        return x[0] << -shift, x[1] << -shift
    half = 1 << (shift - 1)
    return (x[0] + half) >> shift, (x[1] + half) >> shift
