"""Clock and throughput. Every rate says on which basis it is counted."""

from __future__ import annotations


def clock_hz(critical_path_ns: float, period_ns: float) -> float:
    """The wanted clock, or what the critical path allows if that is slower."""
    return 1e9 / max(critical_path_ns, period_ns)


def per_user_rate(clock_hz: float, cycles_per_item: float) -> float:
    """Items a second of one sequence alone (batch 1)."""
    return clock_hz / cycles_per_item


def aggregate_rate(per_user: float, slots: float) -> float:
    """Items a second of a whole chip with ``slots`` sequences in flight."""
    return per_user * slots


def energy_j(power_w: float, rate_per_s: float) -> float:
    """Energy of one item at full load."""
    return power_w / rate_per_s
