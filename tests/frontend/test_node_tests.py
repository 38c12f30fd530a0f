"""The node tests of the onnx package, and the counts of them that `hwcompile ops` prints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.node_cases import Case
from benchmarks.node_tests import Result, cases, counts, judge
from hwcompile.compiler import catalogue
from hwcompile.compiler.frontend import OPERATORS
from hwcompile.compiler.ir.graph import Graph

_SOME = "Gelu,RotaryEmbedding,Softmax,Einsum,MaxPool,ScatterND"


@pytest.fixture(scope="module")
def some() -> list[Case]:
    return list(cases(_SOME))


@pytest.fixture(scope="module")
def results(some: list[Case]) -> list[Result]:
    graphs: dict[str, tuple[list[str], Graph]] = {}
    return [judge(case, False, graphs) for case in some]


def test_operators_mean_what_the_standard_says(results: list[Result]) -> None:
    assert len(results) > 60
    assert [r.name for r in results if r.meaning] == []


def test_what_has_a_form_in_hardware_gives_the_expected_numbers(results: list[Result]) -> None:
    assert [r.name for r in results if r.hardware and "off by" in r.hardware] == []
    assert sum(r.hardware == "" for r in results) > 50


def test_expanded_forms_are_recognised(results: list[Result]) -> None:
    asked = [r for r in results if r.recognised is not None]
    assert len(asked) > 20
    assert [r.name for r in asked if not r.recognised] == []


def test_other_numbers_are_noticed(some: list[Case]) -> None:
    case = next(c for c in some if c.operator[1] == "Gelu" and not c.expanded)
    wrong = replace(case, outputs={name: x * 1.1 for name, x in case.outputs.items()})
    assert "off by" in judge(wrong, False, {}).meaning


def test_counts_add_up(results: list[Result]) -> None:
    assert sum(row["tests"] for row in counts(results).values()) == len(results)


def test_every_operator_is_listed_with_its_tests() -> None:
    listed = catalogue.operators()
    assert len(listed) == len(OPERATORS)
    about = {entry.name: entry.about for entry in listed if entry.about.startswith("ai.onnx")}
    assert "node tests" in about["LayerNormalization"]
