"""Area of memory macros: a fixed part and one a bit, from the target's figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hwcompile.compiler.estimate.figures import Figure
from hwcompile.compiler.estimate.targets import Target

FLIP_FLOP_LIMIT_BITS = 2048
"""Memories up to this size are flip-flops and gates, larger ones macros."""

_RAM = re.compile(r"hw_ram_(\d+)x(\d+)")


@dataclass(frozen=True, slots=True)
class MemoryMacro:
    """A memory module: ``words`` of ``bits``, one read and one write port."""

    name: str
    words: int
    bits: int

    @property
    def size_bits(self) -> int:
        return self.words * self.bits


def memory_macro(module: str) -> MemoryMacro | None:
    """The macro that a Verilog module stands for, or None when it is to be synthesised."""
    match = _RAM.fullmatch(module)
    if match is None:
        return None
    macro = MemoryMacro(module, int(match[1]), int(match[2]))
    return macro if macro.size_bits > FLIP_FLOP_LIMIT_BITS else None


def macro_area_um2(macro: MemoryMacro, target: Target) -> Figure:
    """Area with its range: ``(fixed + bits * um2 a bit) * factor of the second port``."""
    return _area(macro, target.figures)


def _area(macro: MemoryMacro, figures: Mapping[str, Figure]) -> Figure:
    fixed, slope = figures["ram_macro_um2"], figures["ram_um2_per_bit"]
    ports = figures["ram_two_port"]
    low, value, high = (
        (getattr(fixed, end) + macro.size_bits * getattr(slope, end)) * getattr(ports, end)
        for end in ("low", "value", "high")
    )
    return Figure(value, low, high, "um2", slope.source, slope.date, "derived")
