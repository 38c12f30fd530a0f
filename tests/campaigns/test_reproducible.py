"""How the benchmark of reproducible bundles judges what it finds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.reproducible import Kill, Same, digest, killed_run, markdown, wrong

WRITER = """
import os, time
time.sleep({before})
hidden = os.path.join({folder!r}, f".bundle.hwcompile-{{os.getpid()}}")
os.mkdir(hidden)
time.sleep({writing})
"""


def script(folder: Path, before: float, writing: float) -> list[str]:
    text = WRITER.format(folder=str(folder), before=before, writing=writing)
    return [sys.executable, "-c", text]


@pytest.mark.parametrize(
    ("before", "writing", "aimed", "moment", "phase"),
    [
        (30.0, 0.0, False, 0.1, "before"),
        (0.0, 30.0, True, 0.05, "writing"),
        (0.0, 0.0, False, 20.0, "ended"),
    ],
)
def test_phases_of_a_kill(
    tmp_path: Path, before: float, writing: float, aimed: bool, moment: float, phase: str
) -> None:
    words = script(tmp_path, before, writing)
    found, seconds = killed_run(words, dict(os.environ), tmp_path / "bundle", moment, aimed)
    assert found == phase and seconds < 20


def test_digests_name_every_file(tmp_path: Path) -> None:
    assert digest(tmp_path / "nothing") == {}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("x")
    one = digest(tmp_path)
    assert list(one) == ["a/b"]
    (tmp_path / "a" / "b").write_text("y")
    assert digest(tmp_path) != one


def test_what_a_kill_must_not_leave() -> None:
    good = [("A", "A"), ("A", "B"), ("none", "none"), ("none", "A")]
    bad = [("A", "mixture"), ("none", "mixture"), ("A", "none")]
    for before, after in good:
        assert not wrong(Kill("any time", 1.0, "writing", before, after))
    for before, after in bad:
        assert wrong(Kill("any time", 1.0, "writing", before, after))
    assert wrong(Kill("none: the last run", 0.0, "1 folders left", "any", "A"))
    assert not wrong(Kill("none: the last run", 0.0, "0 folders left", "any", "A"))


def test_the_page_names_what_differs() -> None:
    same = [Same("tiny.onnx", "warm", 9, ("rtl/hw_top.v",), 1.0)]
    page = markdown(same, [Kill("any time", 1.0, "writing", "A", "mixture")], "command")
    assert "rtl/hw_top.v" in page and "1 kills, 1 times neither" in page
