"""Adder graphs: meaning, exactness, verification, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwcompile.compiler.ir import adder_graph
from hwcompile.compiler.ir.adder_graph import AdderGraph, AdderGraphError, InvalidGraphFile


def small() -> AdderGraph:
    """n2 = x0 + 4 x1; n3 = n2 - x0; y0 = 2 n2 - x1, y1 = n3, y2 = 0."""
    operands = np.array([[0, 2], [1, 0], [0, 0], [2, 0], [0, 0], [0, 1]])
    terms = np.array([[2, 1, 3], [1, 0, 0], [0, 1, 0]])
    ends = np.array([-8, -8]), np.array([7, 7])
    return adder_graph.build(operands, terms, np.array([0, 2, 3, 3]), *ends)


MATRIX = np.array([[2, 0, 0], [7, 4, 0]])


def test_expansion_and_values() -> None:
    graph = small()
    adder_graph.verify(graph, MATRIX)
    x = np.array([[-8, 7], [3, -5]])
    assert np.array_equal(adder_graph.evaluate(graph, x), x @ MATRIX)


def test_intervals_are_exact_where_a_sum_cancels() -> None:
    graph = small()
    assert graph.low.tolist() == [-8, -8, -40, -32]
    assert graph.high.tolist() == [7, 7, 35, 28]
    least, greatest = adder_graph.output_interval(graph)
    assert (least.tolist(), greatest.tolist()) == ([-72, -32, 0], [63, 28, 0])


def test_metrics() -> None:
    # n2: 4 + 4 - 7, n3: 7 + 4 - 6, y0: 7 + 4 - 8 (its least shift is 0).
    found = adder_graph.metrics(small())
    assert (found.adders, found.full_adder_bits, found.depth) == (3, 1 + 5 + 3, 2)


@pytest.mark.parametrize(
    "damage",
    [
        {"left_shift": np.array([1, 0])},
        {"right_negative": np.array([0, 0])},
        {"left": np.array([0, 3])},
        {"term_node": np.array([2, 1, 2])},
        {"high": np.array([7, 7, 34, 28])},
        {"level": np.array([0, 0, 1, 1])},
        {"term_start": np.array([0, 1, 3, 3])},
        {"right_shift": np.array([2, 63])},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_damage_is_found(damage: dict[str, np.ndarray]) -> None:
    with pytest.raises(AdderGraphError):
        adder_graph.verify(replace(small(), **damage), MATRIX)


def test_a_sum_that_could_wrap_is_refused() -> None:
    operands = np.array([[0, 1], [0, 1], [40, 30], [0, 0], [0, 0], [0, 0]])
    with pytest.raises(AdderGraphError, match="62 bits"):
        adder_graph.build(
            operands, np.zeros((3, 0), int), np.array([0]), np.array([-8]), np.array([7])
        )


def test_round_trip_and_equal_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        adder_graph.save(small(), folder)
    again = adder_graph.load(folders[0])
    assert np.array_equal(adder_graph.expand(again), MATRIX)
    for name in ("graph.json", "graph.npz"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    adder_graph.save(small(), tmp_path)
    text = (tmp_path / "graph.json").read_text()
    for old, new in (('"version": 1', '"version": 2'), ('"adders": 2', '"adders": 3'), ("{", "")):
        (tmp_path / "graph.json").write_text(text.replace(old, new))
        with pytest.raises(InvalidGraphFile):
            adder_graph.load(tmp_path)
    (tmp_path / "graph.json").write_text(text)
    data = (tmp_path / "graph.npz").read_bytes()
    (tmp_path / "graph.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidGraphFile):
        adder_graph.load(tmp_path)
