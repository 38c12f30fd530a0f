"""The verdict: build, try on a shuttle, or rent, by a rule that is printed with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hwcompile.compiler.estimate.ledger import Ledger, percentile

TAUGHT = ("geometry.", "energy.", "scenario.respins")
"""Groups of inputs that a trial chip reveals."""

VerdictName = Literal["BUILD", "SHUTTLE", "RENT"]

RULE = (
    "BUILD if the mean net present value is positive, it is positive in at least {share:.0%} of "
    "the draws, and its tenth percentile loses no more than the loss cap. Else SHUTTLE if a trial "
    "on a multi-project wafer, by what it teaches of area, timing, power and re-spins, is worth "
    "more than it costs and more than building or renting at once. Else RENT."
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``shuttle_value_usd`` is None when no shuttle carries the design."""

    name: VerdictName
    rule: str
    reasons: tuple[str, ...]
    npv_mean_usd: float
    npv_p10_usd: float
    npv_p50_usd: float
    npv_p90_usd: float
    probability_positive: float
    shuttle_value_usd: float | None


@dataclass(frozen=True, slots=True)
class Swing:
    """What the value becomes when one input alone is at its low and at its high.

    ``flip`` is the input's value at which the net present value is zero, all else at the middle;
    None when no value between a thousandth and a thousand times the middle does it.
    """

    name: str
    low: float
    high: float
    npv_at_low_usd: float
    npv_at_high_usd: float
    flip: float | None


def trial_value_usd(learned: Sequence[float], mean: float, price_usd: float) -> float:
    """Worth of a trial: build only where what it taught says that it pays, less its price.

    ``learned``: the net present value when only what a trial can teach is drawn, market and prices
    at their middle; shifted here so that its mean is ``mean``, that of the full draws.
    """
    shift = mean - math.fsum(learned) / len(learned)
    return math.fsum(max(v + shift, 0.0) for v in learned) / len(learned) - price_usd


def learned_values(ledger: Ledger, name: str, count: int) -> tuple[float, ...]:
    """``name`` on ``count`` draws of those inputs alone that a trial reveals."""
    taught = [q.name for q in ledger.given_under(name) if q.name.startswith(TAUGHT)]
    return tuple(
        ledger.evaluate(name, {key: ledger.samples(key)[i] for key in taught})
        for i in range(min(count, ledger.draws))
    )


def decide(
    npv: Sequence[float],
    learned: Sequence[float],
    loss_cap_usd: float,
    required_probability: float,
    shuttle_usd: float | None,
) -> Verdict:
    """Apply the rule to draws of the net present value; see :func:`trial_value_usd`."""
    mean = math.fsum(npv) / len(npv)
    p10, p50, p90 = (percentile(npv, share) for share in (0.1, 0.5, 0.9))
    probability = sum(v > 0 for v in npv) / len(npv)
    trial = None if shuttle_usd is None else trial_value_usd(learned, mean, shuttle_usd)
    tests = (
        (mean > 0, f"mean net present value {'is' if mean > 0 else 'is not'} positive"),
        (
            probability >= required_probability,
            f"positive in {probability:.0%} of the draws, {required_probability:.0%} required",
        ),
        (
            p10 >= -loss_cap_usd,
            f"tenth percentile {'within' if p10 >= -loss_cap_usd else 'beyond'} the loss cap",
        ),
    )
    name: VerdictName = "RENT"
    if all(passed for passed, _ in tests):
        name = "BUILD"
    elif trial is not None and trial > max(mean, 0.0):
        name = "SHUTTLE"
    if trial is None:
        shuttle = "no shuttle in the table carries this design"
    else:
        worth = "is" if trial > max(mean, 0.0) else "is not"
        shuttle = f"a trial on the cheapest shuttle {worth} worth its price"
    return Verdict(
        name,
        RULE.format(share=required_probability),
        (*(reason for _, reason in tests), shuttle),
        mean,
        p10,
        p50,
        p90,
        probability,
        trial,
    )


def swings(ledger: Ledger, name: str, count: int) -> tuple[Swing, ...]:
    """The inputs that move ``name`` most, largest first."""
    found = []
    for given in ledger.given_under(name):
        if given.low == given.high:
            continue
        at_low = ledger.evaluate(name, {given.name: given.low})
        at_high = ledger.evaluate(name, {given.name: given.high})
        found.append((given, at_low, at_high))
    found.sort(key=lambda entry: (-abs(entry[2] - entry[1]), entry[0].name))
    return tuple(
        Swing(
            given.name, given.low, given.high, at_low, at_high, flip_value(ledger, name, given.name)
        )
        for given, at_low, at_high in found[:count]
    )


def flip_value(ledger: Ledger, name: str, given: str) -> float | None:
    """The nearest value of an input at which ``name`` changes sign; see :class:`Swing`."""
    middle = ledger.mid(given)
    if middle <= 0:
        return None
    sign = ledger.mid(name) > 0
    for step in range(1, 31):
        for direction in (1, -1):
            factor = 10 ** (direction * step / 10)
            if (ledger.evaluate(name, {given: middle * factor}) > 0) != sign:
                inner = 10 ** (direction * (step - 1) / 10)
                return _bisect(ledger, name, given, middle * inner, middle * factor, sign)
    return None


def _bisect(ledger: Ledger, name: str, given: str, same: float, other: float, sign: bool) -> float:
    for _ in range(24):
        half = math.sqrt(same * other)
        if (ledger.evaluate(name, {given: half}) > 0) == sign:
            same = half
        else:
            other = half
    return other
