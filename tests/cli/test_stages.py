"""Stages: results are used again exactly when nothing that could change them has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwcompile.compiler.cache import StageCache
from hwcompile.compiler.options import Options
from hwcompile.compiler.stages import Artefacts, Stage, cut, run_stages


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def started(self, stage: Stage, index: int, count: int) -> None:
        pass

    def finished(self, stage: Stage, seconds: float, cached: bool, made: Artefacts) -> None:
        self.lines.append(f"{stage.name} {'cached' if cached else 'run'}")


STAGES = (
    Stage("double", "Doubling", lambda o, x: (2 * x,), ("x",), ("y",)),
    Stage("add", "Adding", lambda o, y: (y + o.seed,), ("y",), ("z",), reads=("seed",)),
)


def run(folder: Path, x: int, seed: int) -> tuple[int, list[str]]:
    log = Log()
    made = run_stages(STAGES, {"x": (x, str(x))}, Options(seed=seed), StageCache(folder), log)
    return made["z"], log.lines


def test_results_are_kept_and_used_again(tmp_path: Path) -> None:
    assert run(tmp_path, 3, 1) == (7, ["double run", "add run"])
    assert run(tmp_path, 3, 1) == (7, ["double cached", "add cached"])
    assert run(tmp_path, 3, 2) == (8, ["double cached", "add run"])
    assert run(tmp_path, 4, 1) == (9, ["double run", "add run"])


def test_a_damaged_entry_is_made_again(tmp_path: Path) -> None:
    run(tmp_path, 3, 1)
    for path in (tmp_path / "stages").iterdir():
        path.write_bytes(b"not a pickle")
    assert run(tmp_path, 3, 1) == (7, ["double run", "add run"])


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "stages").write_text("a file in the way")
    assert run(tmp_path, 3, 1)[0] == 7


def test_cut() -> None:
    assert cut(STAGES, "double") == [STAGES[0]]
    with pytest.raises(ValueError):
        cut(STAGES, "nothing")
