from pathlib import Path

import pytest

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.figures import TABLES, Figure, load_tables, shipped_sources
from hwcompile.compiler.estimate.nodes import nearest

TABLES_READ = load_tables()
CELL = (
    "{value: 3000, low: 2000, high: 4000, unit: USD, source: my foundry, date: 2026-01,"
    " grade: measured}"
)


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_is_graded_dated_sourced_and_ranged(name: str) -> None:
    for key, figure in TABLES_READ[name].figures.items():
        assert figure.low <= figure.value <= figure.high, key
        assert figure.source and figure.date and figure.unit, key


@pytest.mark.parametrize("name", TABLES)
def test_unchecked_figures_are_graded_assumed(name: str) -> None:
    sources = shipped_sources()
    unchecked = {sources["recalled"], sources["judgement"]}
    for key, figure in TABLES_READ[name].figures.items():
        if figure.source in unchecked:
            assert figure.grade == "assumed", key


def test_one_name_has_one_unit_at_every_node() -> None:
    units: dict[str, str] = {}
    for key, figure in TABLES_READ["nodes"].figures.items():
        name = key.partition(".")[2]
        assert units.setdefault(name, figure.unit) == figure.unit


def test_nodes_shrink_and_cost_more() -> None:
    nodes = TABLES_READ["nodes"]
    for name, sign in (
        ("nand2_um2", -1),
        ("sram_bit_um2", -1),
        ("wafer_usd", 1),
        ("mask_set_usd", 1),
    ):
        column = [sign * nodes[f"{node}.{name}"].value for node in nodes.sections()]
        assert column == sorted(column), name


@pytest.mark.parametrize(
    ("nm", "node"), [(40, "45"), (6, "6"), (7, "7"), (12, "10"), (14, "16"), (130, "130")]
)
def test_nearest_node(nm: float, node: str) -> None:
    assert nearest(TABLES_READ["nodes"], nm) == node


def test_an_overlay_replaces_single_cells(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(f'nodes: {{"45": {{wafer_usd: {CELL}}}}}')
    mine = load_tables(overlay)
    assert mine["nodes"]["45.wafer_usd"] == Figure(
        3000, 2000, 4000, "USD", "my foundry", "2026-01", "measured"
    )
    assert mine["nodes"]["28.wafer_usd"] == TABLES_READ["nodes"]["28.wafer_usd"]


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "a: [",
        "unknown: {}",
        f"nodes: {{x: {CELL.replace('2000', '9000')}}}",
        f"nodes: {{x: {CELL.replace('measured', 'guessed')}}}",
        f"nodes: {{x: {CELL.replace('unit: USD, ', '')}}}",
        f"nodes: {{x: {CELL.replace('3000', 'much')}}}",
        f"nodes: {{x: {CELL.replace('3000', '.nan')}}}",
        f"nodes: {{'45': {{wafer_us: {CELL}}}}}",
        f"nodes: {{'45': {{nand2_um2: {CELL}}}}}",
        f"nodes: {{'6': {{sram_bit_um2: {CELL}}}}}",
    ],
)
def test_a_bad_overlay_is_a_usage_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(text)
    with pytest.raises(UsageError, match=r"mine\.yaml"):
        load_tables(overlay)


def test_a_missing_overlay_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        load_tables(tmp_path / "none.yaml")
