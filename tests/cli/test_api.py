"""The Python interface, and the examples in its documentation."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import hwcompile
from hwcompile.compiler.names import Ident, label

STANDALONE = "hwcompile.sim.chip_bench"  # runs inside a simulator only


def modules() -> list[str]:
    found = pkgutil.walk_packages(hwcompile.__path__, "hwcompile.")
    return [m.name for m in found if m.name != STANDALONE and not m.name.endswith("__main__")]


def test_every_public_name_is_there() -> None:
    for name in hwcompile.__all__:
        assert getattr(hwcompile, name) is not None
    with pytest.raises(AttributeError):
        hwcompile.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_examples_in_docstrings_run() -> None:
    names = modules()
    assert "hwcompile.compiler.pipeline" in names
    for name in names:
        assert doctest.testmod(importlib.import_module(name)).failed == 0, name


def test_the_guide_uses_names_that_exist() -> None:
    text = (Path(__file__).parents[2] / "docs" / "user-guide.md").read_text()
    used = {part.split("(")[0].split(")")[0] for part in text.split("hwcompile.")[1:]}
    used = {name.strip("`.,\n").split()[0] for name in used if name[:1].isalpha()}
    known = {*hwcompile.__all__, "yaml"}
    assert {name for name in used if name.split("`")[0] not in known} == set()


@pytest.mark.parametrize("text", ["", "a b", "A", "1a", "a;rm", "a\n", "x" * 99, "ä"])
def test_identifiers_are_checked_when_made(text: str) -> None:
    with pytest.raises(ValueError):
        Ident(text)


def test_labels_hold_no_control_characters() -> None:
    assert label("a\x1b[0m\nb\u202e") == "a?[0m?b?"
