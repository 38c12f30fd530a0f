"""hwcompile targets: what is known of a node, and files of a user's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwcompile.compiler.cli import main

OWN = """\
nodes:
  "45":
    wafer_usd: {value: 3000, low: 2900, high: 3100, unit: USD, source: our foundry,
                date: 2026-10, grade: published}
"""
SCENARIO = "title: Ours\nalternative: h100\n"


@pytest.mark.parametrize("name", ["N45", "45", "45nm", "nangate45"])
def test_a_node_is_told_with_sources(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "--explain", name, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert "45.wafer_usd" in figures and "28.wafer_usd" not in figures
    assert ("nangate45.utilisation" in figures) == (name == "nangate45")
    for figure in figures.values():
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert figure["source"] and figure["date"] and figure["grade"] and figure["unit"]
    assert main(["targets", "--explain", name]) == 0
    said = capsys.readouterr().out
    assert all(f"{key} = " in said and figure["source"] in said for key, figure in figures.items())


def test_an_unknown_node_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "--explain", "N8"]) == 2
    said = capsys.readouterr().err
    assert "45" in said and "sky130hd" in said


@pytest.mark.parametrize(("text", "kind"), [(OWN, "figures"), (SCENARIO, "scenario")])
def test_good_files(
    tmp_path: Path, text: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert main(["targets", "validate", str(path)]) == 0
    assert kind in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "nodes: {'45': {}}\nwafers: {}", OWN.replace("USD", "EUR"), "name: mine"]
)
def test_bad_files(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert main(["targets", "validate", str(path)]) == 2
    assert "mine.yaml" in capsys.readouterr().err


def test_what_to_validate_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "validate"]) == 2
    assert "FILE" in capsys.readouterr().err


def test_a_scenario_against_nothing_known_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SCENARIO.replace("h100", "abacus"))
    assert main(["targets", "validate", str(path)]) == 2
    assert "abacus" in capsys.readouterr().err
