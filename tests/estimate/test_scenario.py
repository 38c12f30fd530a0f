from pathlib import Path

import pytest

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.scenario import DEFAULT, load_scenario, shipped_scenarios

CELL = "{{value: 1, low: 1, high: 1, unit: {}, source: a, date: b, grade: assumed}}"


@pytest.mark.parametrize("name", shipped_scenarios())
def test_shipped_scenarios_are_complete(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.title and scenario.description
    assert len(scenario.figures) == len(load_scenario(DEFAULT).figures)


def test_the_default_is_the_case_of_a_chip_per_model() -> None:
    figures = load_scenario().figures
    wanted = {
        "life_years": 0.5,
        "users": 100e6,
        "usd_per_user_month": 20,
        "items_per_user_day": 5000,
    }
    assert {name: figures[name].value for name in wanted} == wanted


def test_what_a_file_leaves_out_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "title: Mine\nalternative: b200\nfigures:\n"
        "  users: {value: 5, low: 5, high: 5, unit: users, source: us, date: x, grade: assumed}\n"
    )
    scenario = load_scenario(path)
    assert (scenario.name, scenario.alternative) == ("mine", "b200")
    assert scenario.figures["users"].value == 5
    assert scenario.figures["peak"] == load_scenario().figures["peak"]


@pytest.mark.parametrize(
    "text",
    [
        "titel: Mine",
        "figures: 3",
        f"figures: {{users: {CELL.format('people')}}}",
        f"figures: {{user: {CELL.format('users')}}}",
    ],
)
def test_a_wrong_scenario_is_a_usage_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="mine"):
        load_scenario(path)


def test_an_unknown_scenario_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as error:
        load_scenario("nowhere")
    assert DEFAULT in error.value.hint
