import json
import re
from dataclasses import replace
from functools import cache

import pytest

from hwcompile.compiler.emit.explain_report import explain_report, numbers
from hwcompile.compiler.emit.report import (
    BlockArea,
    LayerZeros,
    ModuleArea,
    ModuleCheck,
    PassNote,
    Port,
    QualityLine,
    ReportInputs,
    build_report,
    parse_report,
    quantities,
    render_html,
    report_json,
)
from hwcompile.compiler.errors import OutputError, UsageError
from hwcompile.compiler.estimate.estimate import Estimate, estimate
from hwcompile.compiler.estimate.explain import explain, number
from hwcompile.compiler.estimate.facts import GroupArea
from hwcompile.compiler.estimate.figures import load_tables
from hwcompile.compiler.estimate.scenario import load_scenario
from tests.facts import TOY

HOSTILE = "<script>alert('x')</script>\"&{{ 7 * 7 }}"

FACTS = replace(
    TOY,
    name="a toy",
    groups=(GroupArea("weights", 120_000.0), GroupArea(HOSTILE, 8_000.0)),
    context=64,
)


@cache
def toy() -> Estimate:
    return estimate(FACTS, load_scenario(), load_tables(), draws=60)


def inputs() -> ReportInputs:
    return ReportInputs(
        title=HOSTILE,
        kind="decoder",
        estimate=toy(),
        zeros=(LayerZeros(HOSTILE, 1024, 100, 812.5), LayerZeros("head", 0, 0)),
        passes=(PassNote("fold_constants", True, HOSTILE), PassNote("dead_code", False, "")),
        quality=(QualityLine("perplexity", 3.4, 3.41, 256, HOSTILE),),
        verification=(
            ModuleCheck("linear_0", "proven", "certificate", HOSTILE),
            ModuleCheck("chip", "simulated", "cocotb", "64 tokens"),
            ModuleCheck("gather_0", "not verified", "none"),
        ),
        modules=(
            ModuleArea("linear_0", "weights", 9000, 120_000.0, 90.0, 20.0, 8000, 16, 2.5, 3.9),
        ),
        blocks=(
            BlockArea(
                "linear_0",
                HOSTILE,
                32,
                48,
                "folded",
                8,
                1,
                "local",
                9000,
                120_000.0,
                90.0,
                78.1,
                8000,
                16,
                2.5,
                3.9,
            ),
        ),
        ports=(Port("s_axis", "in", 16, "one token id a beat"),),
        assumptions=(HOSTILE,),
        limits=("no place and route",),
        options={"target": HOSTILE},
        tools={"yosys": "0.70"},
    )


def test_same_inputs_same_bytes() -> None:
    first, second = (report_json(build_report(inputs())) for _ in range(2))
    assert first == second
    assert render_html(parse_report(first)) == render_html(build_report(inputs()))


def test_document_is_strict_json_with_sorted_keys_and_reads_back() -> None:
    report = build_report(inputs())
    text = report_json(report)
    assert parse_report(text) == json.loads(text) == report
    assert list(json.loads(text)) == sorted(report)


def test_text_of_the_model_is_escaped() -> None:
    html = render_html(build_report(inputs()))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 6
    assert "{{ 7 * 7 }}" in html


def test_page_needs_nothing_from_outside() -> None:
    html = render_html(build_report(inputs()))
    addresses = set(re.findall(r"https?://[^\"'\s<]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img|iframe|object|embed)\b|@import|url\(", html)


def test_page_leads_with_the_verdict_and_names_the_basis() -> None:
    html = render_html(build_report(inputs()))
    verdict = html.index(f'<div class="word">{toy().verdict.name}</div>')
    order = [
        "What it costs",
        "Where the area",
        "Zero weights",
        "Quality",
        "Verification",
        "evidence",
    ]
    places = [html.index(text) for text in order]
    assert [verdict, *places] == sorted([verdict, *places])
    assert "batch 1" in html and "aggregate" in html


def test_page_says_how_hard_each_block_is_to_wire() -> None:
    html = render_html(build_report(inputs()))
    (row,) = [line for line in html.splitlines() if ">folded<" in line]
    for text in ("linear_0", "local", "8,000", ">16<", "2.5", "3.9", "78.1"):
        assert text in row
    assert "No matrix is held as logic" in render_html(build_report(replace(inputs(), blocks=())))
    assert "areas by block were not measured" in render_html(
        build_report(replace(inputs(), blocks=None))
    )


@pytest.mark.parametrize("cells_um2", [0.0, 120e6, 900e6])
def test_any_size_of_design_has_a_page(cells_um2: float) -> None:
    facts = replace(
        FACTS,
        node_nm=7,
        groups=(GroupArea("weights", cells_um2),),
        memories=(),
        macs_per_item=0 if not cells_um2 else 1e9,
        memory_bits_per_item=0,
        weights_total=int(cells_um2),
        weights_nonzero=int(cells_um2),
    )
    made = estimate(facts, load_scenario(), load_tables(), draws=20)
    html = render_html(build_report(replace(inputs(), estimate=made)))
    assert "does not fit" in html or cells_um2 < 1e6


def test_absent_parts_are_said_and_not_invented() -> None:
    html = render_html(build_report(ReportInputs("empty", "decoder")))
    for sentence in ("No estimate was made", "Not measured.", "Not verified.", "No netlist"):
        assert sentence in html
    assert "$" not in html and "mm²" not in html


@pytest.mark.parametrize(
    "field", ["zeros", "quality", "verification", "modules", "ports", "passes"]
)
def test_each_part_may_be_absent_or_empty(field: str) -> None:
    for value in (None, ()):
        report = build_report(replace(inputs(), **{field: value}))
        assert "<main>" in render_html(report)


def test_any_number_explains_itself_from_the_document() -> None:
    numbers = quantities(parse_report(report_json(build_report(inputs()))))
    text = explain(numbers, "cost.chip_usd")
    assert "unit_usd(" in text and "node.wafer_usd" in text and "published" in text


@pytest.mark.parametrize("scenario", ["chip-per-model", "automotive"])
def test_every_number_of_the_document_is_explained(scenario: str) -> None:
    made = estimate(FACTS, load_scenario(scenario), load_tables(), draws=20)
    report = build_report(replace(inputs(), estimate=made))
    found = dict(numbers(report))
    assert len(found) > 500
    for path, value in found.items():
        text = explain_report(report, path)
        assert path.startswith("estimate.quantities.") or text.startswith(f"{path} = "), path
        assert number(value) in text or path.startswith("estimate.quantities."), path


@pytest.mark.parametrize("name", ["verdict.npv_p10_usd", "sweep.3.die_usd", "npv_map.2.npv_usd"])
def test_a_path_leads_to_the_chain_below_it(name: str) -> None:
    text = explain_report(build_report(inputs()), name)
    assert f"estimate.{name} = " in text and "node.wafer_usd" in text


@pytest.mark.parametrize("name", ["verdict.rule", "sweep.99.die_usd", "nothing"])
def test_what_is_no_number_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError):
        explain_report(build_report(inputs()), name)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": "other"}', '{"schema": "hwcompile-report"}']
)
def test_a_foreign_document_is_refused(text: str) -> None:
    with pytest.raises(OutputError):
        parse_report(text)
