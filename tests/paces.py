"""How fast weight blocks should be, for tests that want rows of registers in them."""

from __future__ import annotations

from dataclasses import replace

from hwcompile.compiler.estimate.block_timing import pace_of
from hwcompile.compiler.estimate.targets import load_target
from hwcompile.passes.cut_trees import Pace

NEVER_NS = 0.05
"""A period that no block keeps: as many cuts as there may be, and as help."""


def pace(period_ns: float = NEVER_NS, most_cuts: int = 1) -> Pace:
    """In cells of nangate45."""
    return replace(pace_of(load_target("nangate45"), period_ns), most_cuts=most_cuts)
