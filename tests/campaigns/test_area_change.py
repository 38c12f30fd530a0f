"""The table of areas before and after: resumed, failures said, means of what was measured."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from benchmarks import area_change
from benchmarks.area_change import Chip, before
from benchmarks.measure import Run

OLD = Chip(200.0, 100.0, 10.0)
CSV = {
    "cell_area_um2": "200.0",
    "group_area_um2": "linear unit: 100.0; weights: 100.0",
    "rate": "10.0",
}


class Compiler:
    """Stands for the command line: fails on what is named so, else writes a report."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, *arguments: object, cache: Path, timeout_s: float) -> Run:
        model, out = Path(str(arguments[0])), Path(str(arguments[2]))
        self.calls.append(model.parent.name)
        late = "late" in model.parent.name
        out.mkdir()
        modules = [
            {"group": "weights", "cell_area_um2": 25.0},
            {"group": "linear unit", "cell_area_um2": 75.0},
        ]
        rate = {"performance.chip_rate": {"mid": 20.0}}
        content = {"modules": modules, "estimate": {"quantities": rate}}
        (out / "report.json").write_text(json.dumps(content))
        return Run(124 if late else 0, "", "", 1.0, 1.0, 1 << 20)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    fake = Compiler()
    monkeypatch.setattr(area_change, "hwcompile", fake)
    return fake


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    table = {}
    for name in ("a", "b", "late", "unknown"):
        path = tmp_path / "corpus" / name / area_change.FILE
        path.parent.mkdir(parents=True)
        path.write_text(name)
        if name != "unknown":
            table[name, path.name, hashlib.sha256(path.read_bytes()).hexdigest()] = OLD
    monkeypatch.setattr(area_change, "earlier", lambda revision: table)
    return tmp_path / "corpus"


def _run(corpus: Path, *more: str) -> tuple[int, str]:
    out = corpus.parent / "change"
    code = area_change.main([str(corpus), "--out", str(out), *more])
    return code, out.with_suffix(".md").read_text()


def test_rows_and_their_mean(corpus: Path, compiler: Compiler) -> None:
    code, text = _run(corpus, "--only", "a,b")
    assert code == 0
    assert text.count("| 0.0002 | 0.0001 | -50% | 0.0001 | 0.0000 | -75% | 10 | 20 | +100% |") == 2
    assert "| geometric mean of 2 | | -50% | | -75% | | +100% | -75% |" in text
    assert "fell in 2 of 2 models" in text


def test_only_models_of_the_table_and_failures_are_rows(corpus: Path, compiler: Compiler) -> None:
    code, text = _run(corpus)
    assert code == 1
    assert compiler.calls == ["a", "b", "late"]
    assert "not finished after 1800 s" in text
    assert "fell in 2 of 3 models" in text


def test_a_run_goes_on_where_it_was(corpus: Path, compiler: Compiler) -> None:
    _run(corpus, "--only", "a,late")
    code, _ = _run(corpus, "--resume")
    assert compiler.calls == ["a", "late", "b", "late"]
    (corpus / "a" / area_change.FILE).write_text("another model")
    _run(corpus, "--resume", "--only", "a,b")
    assert compiler.calls == ["a", "late", "b", "late"]
    assert code == 1


def test_a_row_of_the_table_of_models() -> None:
    assert before(CSV) == OLD
