"""Power: energy of the arithmetic and memories, clock, leakage.

The arithmetic is counted as multiply-accumulates at the published energy of an int8 multiplier and
an int32 adder, scaled to the node, times an overhead for wires, glitches and control. It is a model
at the level of published anchors, not an analysis of this netlist's activity.
"""

from __future__ import annotations


def scaled_pj(at_reference_pj: float, node_nm: float, reference_nm: float, slope: float) -> float:
    """Energy of an operation at another node: ``E * (node / reference) ^ slope``."""
    return float(at_reference_pj * (node_nm / reference_nm) ** slope)


def arithmetic_j(macs: float, mac_pj: float, overhead: float) -> float:
    """Energy of the multiply-accumulates of one item."""
    return macs * mac_pj * overhead * 1e-12


def memory_j(bits: float, pj_per_bit: float) -> float:
    """Energy of reading and writing ``bits`` of on-chip memory."""
    return bits * pj_per_bit * 1e-12


def clock_w(
    logic_mm2: float, memory_mm2: float, pj_per_mm2: float, array: float, hz: float
) -> float:
    """Clock tree and flip-flops; a memory array takes the share ``array`` of logic."""
    return (logic_mm2 + memory_mm2 * array) * pj_per_mm2 * 1e-12 * hz


def leakage_w(
    logic_mm2: float, memory_mm2: float, logic_w_per_mm2: float, memory_w_per_mm2: float
) -> float:
    """Leakage at typical temperature."""
    return logic_mm2 * logic_w_per_mm2 + memory_mm2 * memory_w_per_mm2
