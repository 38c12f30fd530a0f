"""Constants chosen by ``select`` and tables in logic (ROMs)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from amaranth import Const, Module, Signal, Value, signed, unsigned
from amaranth.hdl import Shape, ValueLike
from amaranth.lib.memory import Memory

from hwcompile.compiler.ir.program import IntArray


def shape_of(low: int, high: int) -> Shape:
    """The narrowest shape that holds every integer of ``low .. high``; unsigned if it can be."""
    if low >= 0:
        return unsigned(max(high.bit_length(), 1))
    return signed(max((~low).bit_length(), (high if high >= 0 else ~high).bit_length()) + 1)


def table_shape(values: Sequence[int] | IntArray) -> Shape:
    """The narrowest shape that holds all ``values``; unsigned if none is negative."""
    return shape_of(min(map(int, values)), max(map(int, values)))


def pick(m: Module, select: Value, values: Sequence[int], name: str) -> Value:
    """``values[select]``: a constant when all are equal, else a multiplexer of constants.

    A ``select`` past the end gives the last value.
    """
    shape = table_shape(values)
    if len(set(values)) == 1:
        return Const(int(values[0]), shape)
    chosen = Signal(shape, name=name)
    with m.Switch(select):
        for index, value in enumerate(values[:-1]):
            with m.Case(index):
                m.d.comb += chosen.eq(int(value))
        with m.Default():
            m.d.comb += chosen.eq(int(values[-1]))
    return chosen


def choose(m: Module, select: Value, values: Sequence[Value], name: str) -> Value:
    """``values[select]`` of signals; values that are the same object share their case."""
    if all(value is values[0] for value in values):
        return values[0]
    chosen = Signal(_common_shape(values), name=name)
    with m.Switch(select):
        for index, value in enumerate(values[:-1]):
            with m.Case(index):
                m.d.comb += chosen.eq(value)
        with m.Default():
            m.d.comb += chosen.eq(values[-1])
    return chosen


def _common_shape(values: Sequence[Value]) -> Shape:
    shapes = [value.shape() for value in values]
    if not any(shape.signed for shape in shapes):
        return unsigned(max(shape.width for shape in shapes))
    return signed(max(shape.width + (not shape.signed) for shape in shapes))


def rom(m: Module, address: ValueLike, table: IntArray, name: str) -> Signal:
    """``table.ravel()[address]``, one cycle later; ``address`` must be inside the table
    and made of unsigned signals.

    A two-dimensional table ``[rows, columns]`` is addressed ``Cat(column, row)`` with
    ``column_bits(table)`` bits of column: no multiplier, and the padding costs nothing in logic.
    """
    flat = np.asarray(table, np.int64)
    data = Signal(table_shape(flat.ravel()), name=f"{name}_data")
    if np.all(flat == flat.ravel()[0]):
        m.d.comb += data.eq(int(flat.ravel()[0]))
        return data
    if flat.ndim == 2:
        padded = np.zeros((flat.shape[0], 1 << column_bits(flat)), np.int64)
        padded[:, : flat.shape[1]] = flat
        flat = padded.ravel()
    depth = max(1 << (len(flat) - 1).bit_length(), 2)
    contents = [int(x) for x in flat] + [0] * (depth - len(flat))
    memory = Memory(shape=data.shape(), depth=depth, init=contents)
    m.submodules[name] = memory
    port = memory.read_port(domain="sync")
    m.d.comb += [port.addr.eq(address), data.eq(port.data)]
    return data


def column_bits(table: IntArray) -> int:
    """Address bits of a column of a two-dimensional table."""
    return int(table.shape[1] - 1).bit_length()


def distinct(tables: Sequence[IntArray]) -> tuple[list[IntArray], list[int]]:
    """The different tables in order of first use, and the index of each of ``tables`` in them."""
    kept: list[IntArray] = []
    places: dict[tuple[tuple[int, ...], bytes], int] = {}
    index = []
    for table in tables:
        content = (table.shape, np.ascontiguousarray(table, np.int64).tobytes())
        if content not in places:
            places[content] = len(kept)
            kept.append(table)
        index.append(places[content])
    return kept, index
