"""Clock and throughput. Every rate says on which basis it is counted."""

from __future__ import annotations

import math


def clock_hz(critical_path_ns: float, period_ns: float) -> float:
    """The wanted clock, or what the critical path allows if that is slower."""
    return 1e9 / max(critical_path_ns, period_ns)


def per_user_rate(
    clock_hz: float,
    cycles_per_item: float,
    hops: float = 0.0,
    latency_ns: float = 0.0,
    bits: float = 0.0,
    gbps: float = math.inf,
) -> float:
    """Items a second of one sequence alone (batch 1).

    ``hops``: how often an item goes from die to die, ``bits`` at a time over links of ``gbps``.
    """
    return 1 / (cycles_per_item / clock_hz + hops * (latency_ns + bits / gbps) * 1e-9)


def aggregate_rate(
    per_user: float, slots: float, hops: float = 0.0, bits: float = 0.0, gbps: float = math.inf
) -> float:
    """Items a second of all dies of a model with ``slots`` sequences in flight: no more than the
    links between the dies carry."""
    rate = per_user * slots
    return min(rate, gbps * 1e9 / bits) if hops and bits else rate


def link_w(rate: float, hops: float, bits: float, pj_per_bit: float) -> float:
    """Power of all links of one copy of the model."""
    return rate * hops * bits * pj_per_bit * 1e-12


def energy_j(power_w: float, rate_per_s: float) -> float:
    """Energy of one item at full load."""
    return power_w / rate_per_s
