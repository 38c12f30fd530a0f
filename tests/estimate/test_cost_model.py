"""The area model of weight blocks against mapped netlists, samples and statistics."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hwcompile.compiler.estimate.cost_model import (
    block_area,
    block_area_from_statistics,
    sampled_area,
)
from hwcompile.compiler.estimate.synthesis import synthesise
from hwcompile.compiler.estimate.targets import load_target
from hwcompile.hdl.matrix_block import matrix_block_verilog
from hwcompile.passes.lower_weights import lower_weights

TARGET = load_target("nangate45")


def _gaussian(n: int, m: int, most: int) -> np.ndarray:
    w = np.random.default_rng(n + m + most).standard_normal((n, m))
    return np.rint(w / np.abs(w).max(0) * most).astype(np.int64)


@pytest.mark.parametrize(("most", "phases", "planes"), [(127, 1, 1), (7, 6, 1), (1, 12, 2)])
def test_counts_give_the_mapped_area(most: int, phases: int, planes: int, tmp_path: Path) -> None:
    block = lower_weights(_gaussian(20, 12, most), 8, phases, True, planes)
    source = tmp_path / "block.v"
    source.write_text(matrix_block_verilog(block, "block"))
    result = synthesise([source], "block", TARGET, cache=tmp_path)
    mapped = result.area_um2 - result.tree_area_um2
    found = block_area(block, TARGET.library)
    assert found.low < found.mid < found.high
    assert found.mid == pytest.approx(mapped, rel=0.08)


@pytest.mark.parametrize("phases", [1, 8, 48])
@pytest.mark.parametrize("most", [1, 7, 127])
def test_samples_and_statistics_give_the_same(most: int, phases: int) -> None:
    w = _gaussian(160, 96, most)
    whole = block_area(lower_weights(w, 8, phases, True), TARGET.library).mid
    values = Counter(w.ravel().tolist())
    sampled = sampled_area(w, 8, phases, 1, TARGET.library).mid
    drawn = block_area_from_statistics(160, 96, values, 8, phases, 1, TARGET.library).mid
    assert sampled == pytest.approx(whole, rel=0.06)
    assert drawn == pytest.approx(whole, rel=0.06)


def test_more_of_anything_is_more_area() -> None:
    def area(n: int, m: int, phases: int, most: int) -> float:
        return sampled_area(_gaussian(n, m, most), 8, phases, 1, TARGET.library).mid

    base = area(64, 64, 8, 7)
    assert area(128, 64, 8, 7) > 1.7 * base
    assert area(64, 128, 8, 7) > 1.7 * base
    assert area(64, 64, 8, 127) > 1.7 * base
    assert area(64, 64, 16, 7) < base
