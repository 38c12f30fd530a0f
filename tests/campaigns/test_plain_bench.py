"""The bench of plain Verilog passes a good chip and fails on wrong beats, TLASTs, X and resets."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hwcompile.compiler.errors import MismatchError
from hwcompile.sim import plain_bench
from tests import chips, programs

pytestmark = pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> chips.Built:
    return chips.build(programs.tiny_encoder(rows=2, d=4), tmp_path_factory.mktemp("rtl"))


def run(built: chips.Built, work: Path, rtl: Path | None = None, gaps: int | None = 1) -> int:
    work.mkdir(exist_ok=True)
    samples = chips.random_samples(built, 2)
    return plain_bench.run(rtl or built.folder, built.ports, samples, work, gaps, 20_000)


def damaged(built: chips.Built, folder: Path, name: str, old: str, new: str) -> Path:
    shutil.copytree(built.folder, folder)
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    return folder


def test_a_good_chip_passes_in_the_cycles_of_its_schedule(
    built: chips.Built, tmp_path: Path
) -> None:
    cycles = run(built, tmp_path, gaps=None)
    assert abs(cycles - 2 * built.chip.cycles_once()) < 20
    (tmp_path / "gaps").mkdir()
    assert run(built, tmp_path / "gaps") > cycles


def test_a_wrong_beat_fails(built: chips.Built, tmp_path: Path) -> None:
    sample = chips.random_samples(built, 1)[0]
    name, beats = next(iter(sample.expected.items()))
    wrong = replace(sample, expected={name: [beats[0] ^ 1, *beats[1:]]})
    with pytest.raises(MismatchError, match="another beat"):
        plain_bench.run(built.folder, built.ports, [wrong], tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("hw_top.v", ".m_axis_tlast(m_axis_tlast)", ".m_axis_tlast()", "another beat"),
        ("hw_top.v", "aresetn & core_m_axis_tvalid", "~aresetn | core_m_axis_tvalid", "in reset"),
        ("hw_core_emit.v", "  initial always_once", "  // initial always_once", "X|stuck|beat"),
    ],
)
def test_a_damaged_chip_fails(
    built: chips.Built, tmp_path: Path, name: str, old: str, new: str, said: str
) -> None:
    rtl = damaged(built, tmp_path / "rtl", name, old, new)
    with pytest.raises(MismatchError, match=said):
        run(built, tmp_path / "work", rtl)
