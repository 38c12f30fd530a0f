"""Scenarios: who uses the chip, how much, for how long, and what they would use otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.figures import Figure, parse_figures, read_yaml, shipped

DEFAULT = "chip-per-model"

_UNITS = {
    "users": "users",
    "items_per_user_day": "1/day",
    "usd_per_user_month": "USD/month",
    "life_years": "years",
    "lag_years": "years",
    "respins": "re-spins",
    "discount_per_year": "1/year",
    "hazard_per_year": "1/year",
    "alternative_decline_per_year": "1/year",
    "peak": "ratio",
    "loss_cap_usd": "USD",
    "required_probability": "share",
    "speed_usd_per_million": "USD",
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario. ``alternative`` names a GPU that would be rented, or the part (``mcu``, ``npu``,
    ``soc``) that a device would carry otherwise; ``figures`` by name, see docs."""

    name: str
    title: str
    description: str
    alternative: str
    figures: Mapping[str, Figure]


def shipped_scenarios() -> tuple[str, ...]:
    """Names of the scenarios that ship, in alphabetical order."""
    folder = files("hwcompile.compiler.estimate").joinpath("data", "scenarios")
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir()))


def load_scenario(name: str | Path = DEFAULT) -> Scenario:
    """A shipped scenario by name, or a YAML file. Figures it leaves out are the default's.

    Raises :class:`UsageError` for an unknown name, key or unit.
    """
    if str(name) in shipped_scenarios():
        text = shipped(f"scenarios/{name}.yaml")
    else:
        try:
            text = Path(name).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            known = ", ".join(shipped_scenarios())
            raise UsageError(f"no scenario {name}", f"a YAML file, or one of {known}") from None
    given = _parse(Path(name).stem, text)
    if len(given.figures) == len(_UNITS):
        return given
    base = _parse(DEFAULT, shipped(f"scenarios/{DEFAULT}.yaml"))
    figures = {**base.figures, **given.figures}
    return Scenario(given.name, given.title, given.description, given.alternative, figures)


def _parse(name: str, text: str) -> Scenario:
    content = read_yaml(text, f"scenario {name}")
    body = content.pop("figures", {})
    unknown = [key for key in content if key not in ("title", "description", "alternative")]
    if unknown or not isinstance(body, dict):
        raise UsageError(
            f"scenario {name}: unknown entries {unknown}",
            "title, description, alternative, figures",
        )
    figures = parse_figures(body, f"scenario {name}")
    for key, figure in figures.items():
        if _UNITS.get(key) != figure.unit:
            expected = _UNITS.get(key, "no such figure")
            raise UsageError(f"scenario {name}: {key} in {figure.unit} ({expected} expected)")
    return Scenario(
        name,
        str(content.get("title", name)),
        str(content.get("description", "")).strip(),
        str(content.get("alternative", "h100")),
        figures,
    )
