import math

import pytest

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.explain import explain, number
from hwcompile.compiler.estimate.figures import Figure
from hwcompile.compiler.estimate.ledger import Ledger


def figure(low: float, value: float, high: float, unit: str = "USD") -> Figure:
    return Figure(value, low, high, unit, "a paper", "2025-01", "published")


def small(draws: int = 400) -> Ledger:
    ledger = Ledger(draws)
    ledger.give("a.width", figure(1, 2, 4, "mm"))
    ledger.give("a.height", figure(3, 3, 3, "mm"))
    ledger.derive("b.area", "mm2", "width * height", "a.width", "a.height")
    ledger.derive("b.twice", "mm2", "area + same", "b.area", "same=b.area", note="twice the area")
    return ledger


def test_middle_is_the_formula_and_the_range_holds_it() -> None:
    area = small()["b.area"]
    assert area.mid == 6
    assert area.low == pytest.approx(3, rel=0.03) and area.high == pytest.approx(12, rel=0.03)


def test_a_shared_input_moves_together() -> None:
    twice = small()["b.twice"]
    assert twice.low == pytest.approx(6, rel=0.03) and twice.high == pytest.approx(24, rel=0.03)


def test_evaluate_changes_inputs_and_nothing_else() -> None:
    ledger = small()
    assert ledger.evaluate("b.twice", {"a.width": 10}) == 60
    assert ledger.mid("b.twice") == 12


def test_draws_depend_on_the_name_alone() -> None:
    ledger = Ledger(400)
    ledger.give("z.first", figure(1, 5, 9))
    ledger.give("a.width", figure(1, 2, 4, "mm"))
    assert ledger.samples("a.width") == small().samples("a.width")


def test_independent_inputs_are_drawn_independently() -> None:
    ledger = small()
    ledger.give("c.other", figure(1, 2, 4))
    pairs = zip(ledger.samples("a.width"), ledger.samples("c.other"), strict=True)
    logs = [(math.log(x / 2), math.log(y / 2)) for x, y in pairs]
    spread = math.fsum(x * x for x, _ in logs)
    assert abs(math.fsum(x * y for x, y in logs)) < 0.2 * spread


def test_a_share_stays_a_share() -> None:
    ledger = Ledger(400)
    ledger.give("a.share", figure(0.5, 0.9, 0.99, "share"))
    assert max(ledger.samples("a.share")) <= 1


def test_a_number_that_may_be_zero_is_never_drawn_below() -> None:
    ledger = Ledger(400)
    ledger.give("a.respins", figure(0, 1, 2, "re-spins"))
    ledger.give("a.decline", figure(-0.3, 0, 0.7, "1/year"))
    assert min(ledger.samples("a.respins")) == 0
    assert min(ledger.samples("a.decline")) < -0.3


def test_a_single_draw_is_the_middle() -> None:
    assert small(draws=1).samples("b.twice") == [12]


@pytest.mark.parametrize("inputs", [("a.width",), ("a.width", "a.height", "b.area")])
def test_a_formula_must_use_its_inputs_and_no_others(inputs: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"unknown|unused"):
        small().derive("c.wrong", "mm2", "width * height", *inputs)


def test_a_name_is_entered_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        small().give("a.width", figure(1, 2, 4))


def test_formulas_reach_no_builtins() -> None:
    with pytest.raises(ValueError, match="unknown"):
        small().derive("c.wrong", "mm2", "open(width)", "a.width")


def test_explain_prints_formula_alias_range_note_and_source() -> None:
    text = explain({q.name: q for q in small()}, "b.twice")
    assert text.splitlines()[:4] == [
        text.splitlines()[0],
        "    twice the area",
        "    = area + same",
        "    where same = b.area",
    ]
    assert text.startswith("b.twice = 12 mm2  [6")
    assert "        published: a paper (2025-01)" in text
    assert text.count("= width * height") == 1 and "(above)" in text


def test_explain_of_an_unknown_name_offers_near_ones() -> None:
    with pytest.raises(UsageError) as error:
        explain({q.name: q for q in small()}, "area_mm2")
    assert "b.area" in error.value.hint


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567, "1,235,000"),
        (1234.5, "1,234"),
        (0.00012345, "0.0001234"),
        (1e-9, "1.000e-09"),
        (2.0, "2"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (None, "∞"),
        (9.9999, "10"),
    ],
)
def test_numbers_for_reading(value: float | None, text: str) -> None:
    assert number(value) == text
