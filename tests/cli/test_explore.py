"""Exploration: which designs are beaten, which cannot be built, what the user gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwcompile.compiler import explore, pipeline
from hwcompile.compiler.cli import main
from hwcompile.compiler.emit.front_chart import front_chart
from hwcompile.compiler.errors import BudgetError, UsageError
from hwcompile.compiler.explore import Exploration, Failure, Point
from hwcompile.compiler.options import Options

SMALL = Point("int4", "folded", 1.0, 10.0, 5.0, 0.9)
FAST = Point("int4", "bitplane", 2.0, 40.0, 4.0, 0.9)
EXACT = Point("auto", "folded", 3.0, 10.0, 6.0, 0.99)
BEATEN = Point("auto", "bitplane", 4.0, 9.0, 6.0, 0.99)
EQUAL = Point("int4", "auto", 1.0, 10.0, 5.0, 0.9)
FOUND = Exploration("token", "nangate45", (BEATEN, FAST, SMALL, EXACT, EQUAL), ())


def test_the_front_holds_what_nothing_beats_the_smallest_first() -> None:
    assert FOUND.front == (SMALL, FAST, EXACT)


def test_a_point_does_not_beat_itself() -> None:
    assert not SMALL.beats(SMALL)


def test_the_picture_fills_the_front_only() -> None:
    picture = front_chart(FOUND)
    assert picture == front_chart(FOUND)
    assert picture.count('r="5" fill="#fff"') == 2


def test_what_cannot_be_built_is_told_and_all_failing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise BudgetError("no room", "none")

    monkeypatch.setattr(pipeline, "compile_model", refuse)
    with pytest.raises(BudgetError):
        explore.explore("m.onnx", Options(), pipeline.Silent())
    found = Exploration("token", "nangate45", (SMALL,), (Failure("auto", "folded", "no room"),))
    monkeypatch.setattr(explore, "explore", lambda *_: found)
    assert main(["explore", "m.onnx", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["points"][0]["front"] is True
    assert document["failures"][0]["why"] == "no room"


def test_unknown_formats_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no style 'serial'"):
        explore.explore("m.onnx", Options(), pipeline.Silent(), styles=("serial",))
    assert main(["explore", "m.onnx", "--plot", str(tmp_path / "none" / "x.svg")]) == 2
