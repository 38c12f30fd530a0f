"""The linear unit: one engine for all Linear operations around their matrix blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LinearPlan:
    """One Linear operation on the unit: its block and the constants of its output columns.

    ``constant``, ``multiplier``, ``shift``: ``[outputs]``;
    ``out = requantise(acc + constant, multiplier, shift, out_bits)``. ``low``/``high``: proven
    interval of ``acc + constant``. ``acc_bits``: width of one accumulator of the block.
    """

    operation: int
    module_name: str
    inputs: int
    outputs: int
    x_bits: int
    phases: int
    acc_bits: int
    constant: IntArray
    multiplier: IntArray
    shift: IntArray
    out_bits: int
    low: int
    high: int

    @property
    def trees(self) -> int:
        """G: output trees of the block."""
        return -(-self.outputs // self.phases)


class Linear(wiring.Component):
    """The linear unit (unit protocol; operands ``a``, ``d``; ``select`` counts ``plans``).

    ``reuse``: the input bank already holds this row of this value; skip the load.
    """

    def __init__(self, plans: Sequence[LinearPlan], element_bits: int, address_bits: int) -> None:
        self.plans = tuple(plans)
        self.element_bits = element_bits
        self.address_bits = address_bits
        super().__init__(
            {
                "start": In(1),
                "done": Out(1),
                "select": In(max(1, (len(self.plans) - 1).bit_length())),
                "reuse": In(1),
                "a": In(address_bits),
                "d": In(address_bits),
                "read_addr": Out(address_bits),
                "read_en": Out(1),
                "read_data": In(signed(element_bits)),
                "write_addr": Out(address_bits),
                "write_en": Out(1),
                "write_data": Out(signed(element_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        return Module()


def cycles(plan: LinearPlan, reuse: bool) -> int:
    """Cycles from ``start`` to ``done`` inclusive."""
    raise NotImplementedError
