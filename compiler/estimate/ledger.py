"""The ledger: every number of an estimate with its formula, its inputs and its range.

A derived number is written as the text of its formula, and that text is what is evaluated: the
formula a reader sees is the formula that was computed. Each given number is drawn ``draws`` times
from its range (two half log-normals, or half normals where it may be zero, between the tenth and
the ninetieth percentile), stratified and seeded by its name, so that the result depends on nothing
else; a derived number is evaluated on every draw, so inputs that two numbers share move together.
``low`` and ``high`` of a derived number are the tenth and ninetieth percentile of its draws,
``mid`` its value at the middle of all inputs.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from types import CodeType

import numpy as np

from hwcompile.compiler.estimate import cost, datacentre, die, economics, nre, performance, power
from hwcompile.compiler.estimate import yields as yield_models
from hwcompile.compiler.estimate.figures import Figure

_P90 = NormalDist().inv_cdf(0.9)

_FUNCTIONS: dict[str, Callable[..., float]] = {
    "ceil": math.ceil,
    "max": max,
    "min": min,
    **{
        name: function
        for module in (cost, datacentre, die, economics, nre, performance, power, yield_models)
        for name, function in vars(module).items()
        if callable(function) and getattr(function, "__module__", "") == module.__name__
    },
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of the estimate.

    ``formula`` is empty for a given number; ``inputs`` maps the formula's symbols to names of other
    quantities. ``source``, ``date`` and ``grade`` are empty for a derived one.
    """

    name: str
    unit: str
    low: float
    mid: float
    high: float
    formula: str = ""
    inputs: tuple[tuple[str, str], ...] = ()
    source: str = ""
    date: str = ""
    grade: str = ""
    note: str = ""


class Ledger:
    """Quantities in the order of their derivation, which is topological."""

    def __init__(self, draws: int = 1000) -> None:
        self._strata = tuple(NormalDist().inv_cdf((i + 0.5) / draws) for i in range(draws))
        self._quantities: dict[str, Quantity] = {}
        self._samples: dict[str, list[float]] = {}
        self._code: dict[str, CodeType] = {}

    def __getitem__(self, name: str) -> Quantity:
        return self._quantities[name]

    def __contains__(self, name: str) -> bool:
        return name in self._quantities

    def __iter__(self) -> Iterator[Quantity]:
        return iter(self._quantities.values())

    @property
    def draws(self) -> int:
        """How often each quantity is drawn."""
        return len(self._strata)

    def mid(self, name: str) -> float:
        """Value at the middle of all inputs."""
        return self._quantities[name].mid

    def samples(self, name: str) -> list[float]:
        """The draws, the same index of two quantities being the same state of the world."""
        return self._samples[name]

    def give(self, name: str, figure: Figure, note: str = "") -> Quantity:
        """Enter an input number."""
        order = np.random.default_rng(zlib.crc32(name.encode())).permutation(len(self._strata))
        self._samples[name] = [_draw(figure, self._strata[i]) for i in order]
        f = figure
        return self._enter(
            Quantity(name, f.unit, f.low, f.value, f.high, "", (), f.source, f.date, f.grade, note)
        )

    def derive(self, name: str, unit: str, formula: str, *inputs: str, note: str = "") -> Quantity:
        """Enter ``formula`` over other quantities.

        An input is ``"symbol=name"``, or ``"group.symbol"`` alone. Formulas are literals of this
        package, never text of a user or a model.
        """
        links = tuple(_link(text) for text in inputs)
        symbols = [symbol for symbol, _ in links]
        code = compile(formula, name, "eval")
        strange = [s for s in code.co_names if s not in symbols and s not in _FUNCTIONS]
        unused = [s for s in symbols if s not in code.co_names]
        if strange or unused:
            raise ValueError(f"{name}: {formula!r}: unknown {strange}, unused {unused}")
        self._code[name] = code
        columns = zip(*(self._samples[key] for _, key in links), strict=True)
        draws = [_run(code, dict(zip(symbols, values, strict=True))) for values in columns]
        self._samples[name] = draws
        mid = _run(code, {symbol: self.mid(key) for symbol, key in links})
        low, high = percentile(draws, 0.1), percentile(draws, 0.9)
        return self._enter(
            Quantity(name, unit, min(low, mid), mid, max(high, mid), formula, links, note=note)
        )

    def evaluate(self, name: str, changes: Mapping[str, float]) -> float:
        """The middle value of ``name`` when some inputs are given other values."""
        values = dict(changes)
        for quantity in self:
            if quantity.name not in values:
                values[quantity.name] = (
                    _run(self._code[quantity.name], {s: values[key] for s, key in quantity.inputs})
                    if quantity.formula
                    else quantity.mid
                )
            if quantity.name == name:
                break
        return values[name]

    def given_under(self, name: str) -> tuple[Quantity, ...]:
        """The input numbers that ``name`` rests on, in order of entry."""
        wanted = {name}
        for quantity in reversed(self._quantities.values()):
            if quantity.name in wanted:
                wanted.update(key for _, key in quantity.inputs)
        return tuple(q for q in self if q.name in wanted and not q.formula)

    def _enter(self, quantity: Quantity) -> Quantity:
        if quantity.name in self._quantities:
            raise ValueError(f"{quantity.name} is entered twice")
        self._quantities[quantity.name] = quantity
        return quantity


def percentile(draws: Sequence[float], share: float) -> float:
    """The draw that ``share`` of the draws do not exceed."""
    return sorted(draws)[round(share * (len(draws) - 1))]


def _link(text: str) -> tuple[str, str]:
    symbol, equals, key = text.partition("=")
    return (symbol, key) if equals else (text.rpartition(".")[2], text)


def _run(code: CodeType, values: Mapping[str, float]) -> float:
    return float(eval(code, {"__builtins__": {}, **_FUNCTIONS, **values}))


def _draw(figure: Figure, z: float) -> float:
    """The figure at ``z`` standard deviations; signs hold and shares stay below 1."""
    side = figure.high if z > 0 else figure.low
    drawn: float
    if min(figure.low, figure.value) > 0:
        drawn = figure.value * (side / figure.value) ** (abs(z) / _P90)
    else:
        drawn = figure.value + (side - figure.value) * abs(z) / _P90
        if figure.low >= 0:
            drawn = max(0.0, drawn)
    return min(1.0, drawn) if figure.unit == "share" else drawn
