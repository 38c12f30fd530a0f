"""Models by shape and statistics: the file reader, the published chips, the command."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.synthetic_llama import SPECS, shape_of, write
from hwcompile.compiler import large_model
from hwcompile.compiler.appraisal import appraise
from hwcompile.compiler.cli import main
from hwcompile.compiler.estimate.estimate import Estimate, estimate
from hwcompile.compiler.estimate.figures import load_tables
from hwcompile.compiler.estimate.scenario import load_scenario
from hwcompile.compiler.estimate.shape import (
    Embedding,
    LogicPlan,
    choose_plan,
    embedded_facts,
    logic_facts,
    matrix_areas,
)
from hwcompile.compiler.estimate.statistics import (
    HALF,
    float_histogram,
    integer_histogram,
    nibble_histogram,
    signed_digits,
)
from hwcompile.compiler.estimate.targets import load_target
from hwcompile.compiler.large_model import read_shape
from hwcompile.compiler.options import Options

TABLES = load_tables()
TOY = SPECS["toy"]


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "toy.onnx"
    write(TOY, path)
    return path


# --- statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "digits"), [(0, 0), (1, 1), (3, 2), (7, 2), (-7, 2), (5, 2)])
def test_signed_digits(value: int, digits: int) -> None:
    assert signed_digits(value) == digits


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("step", [3, 7, 1000])
def test_histogram_is_that_of_the_rounded_columns(axis: int, step: int) -> None:
    rng = np.random.default_rng(1)
    integers = rng.integers(-7, 8, (12, 10))
    np.moveaxis(integers, axis, 0)[:, 0] = 7
    integers[:, 4] = 7 if axis else integers[:, 4]
    scales = 2.0 ** rng.integers(-3, 4, integers.shape[axis])
    x = (integers * np.expand_dims(scales, 1 - axis)).astype(np.float32)
    flat = x.reshape(-1)
    blocks = [flat[i : i + step] for i in range(0, flat.size, step)]
    made = float_histogram(lambda: blocks, x.shape, axis, 4)
    assert made[HALF - 8 : HALF + 8] == [int((integers == v).sum()) for v in range(-8, 8)]


def test_weights_go_to_the_nearest_integer() -> None:
    column = np.array([7.0, 1.4, 1.6, -1.6, 0.4, -0.4, -7.0], np.float32)
    made = float_histogram(lambda: [column], (7, 1), 1, 4)
    found = {v - HALF: count for v, count in enumerate(made) if count}
    assert found == {7: 1, 1: 1, 2: 1, -2: 1, 0: 2, -7: 1}


def test_histograms_of_integers() -> None:
    values = np.array([-128, 0, 0, 5], np.int8)
    made = integer_histogram(lambda: [values])
    assert (made[0], made[HALF], made[HALF + 5]) == (1, 2, 1)
    packed = nibble_histogram(lambda: [np.array([0x8F, 0x08], np.uint8)])
    assert (packed[HALF], packed[HALF + 7], packed[HALF - 8]) == (2, 1, 1)


def test_a_column_of_zeros_is_zeros() -> None:
    made = float_histogram(lambda: [np.zeros(8, np.float32)], (4, 2), 1, 8)
    assert made[HALF] == 8


# --- the file -------------------------------------------------------------------------------------


def test_the_reader_finds_what_the_generator_wrote(toy_file: Path) -> None:
    found, made = read_shape(toy_file, 4, None, {}), shape_of(TOY, 4)
    assert (found.item, found.context, found.hidden) == ("token", 32, 32)
    assert found.weights == made.weights == TOY.weights
    assert found.attention == made.attention
    assert found.macs_per_item == made.macs_per_item
    assert (found.tables[0].rows, found.tables[0].columns) == (64, 32)


def test_statistics_of_the_file_are_those_of_the_shape(toy_file: Path) -> None:
    found, made = read_shape(toy_file, 4, None, {}), shape_of(TOY, 4)
    digits = [sum(m.digits for m in s.matrices) / s.weights for s in (found, made)]
    assert digits[0] == pytest.approx(digits[1], rel=0.1)


# --- published chips ------------------------------------------------------------------------------


@cache
def chip(name: str, style: Embedding, bits: float, context: int, node: float) -> Estimate:
    shape = shape_of(SPECS[name], 4, context)
    facts = embedded_facts(shape, style, bits, 8, node, TABLES["embedding"])
    if style == "metal":
        # The memory interface of HNLPU, 52 mm2, holds nothing of the model; its links are given.
        facts = replace(facts, interface_mm2=52 + 37.92 - 16)
    return estimate(facts, load_scenario(), TABLES, 20)


def test_llama_8b_in_rom_is_hc1() -> None:
    """815 mm2 in one die of N6, 16,960 tokens/s for one user, from the shape of the model alone."""
    n = chip("llama-3.1-8b", "rom", 3.03, 4096, 6).by_name()
    assert n["area.die_mm2"].mid == pytest.approx(815, rel=0.05)
    assert n["area.dies"].mid == 1
    assert n["area.rom_mm2"].mid == pytest.approx(421.3, rel=0.02)
    assert n["performance.per_user_rate"].mid == pytest.approx(16_960, rel=0.01)
    assert 200 / 2 < n["power.chip_w"].mid < 250 * 2


def test_gpt_oss_120b_in_metal_is_hnlpu() -> None:
    """16 dies of 827.08 mm2, 573.16 mm2 of each for the weights, 249,960 tokens/s."""
    n = chip("gpt-oss-120b", "metal", 4, 131_072, 5).by_name()
    assert n["area.dies"].mid == 16
    assert n["area.die_mm2"].mid == pytest.approx(827.08, rel=0.05)
    assert n["area.rom_mm2"].mid / 16 == pytest.approx(573.16, rel=0.01)
    assert n["area.memory_mm2"].mid / 16 == pytest.approx(136.11, rel=0.15)
    assert n["performance.chip_rate"].mid == pytest.approx(249_960, rel=0.01)
    assert n["yield.murphy"].mid == pytest.approx(0.43, abs=0.02)


@pytest.mark.parametrize("name", ["llama-3.2-1b", "llama-3.1-8b", "llama-3.1-70b"])
def test_a_larger_model_takes_more_of_everything(name: str) -> None:
    small, large = (chip(n, "rom", 4, 2048, 7).by_name() for n in ("llama-3.2-1b", name))
    for key in ("area.core_mm2", "area.dies", "nre.total_usd", "card.copy_usd"):
        assert small[key].mid <= large[key].mid, key


# --- weight logic ---------------------------------------------------------------------------------


def test_logic_has_a_range_and_grows_with_bits_and_trees() -> None:
    target = load_target("nangate45")
    three, eight = (shape_of(TOY, bits) for bits in (3, 8))

    def cells(shape: object, plan: LogicPlan) -> float:
        areas = matrix_areas(shape, plan, target)  # type: ignore[arg-type]
        assert all(a.area.low < a.area.mid < a.area.high for a in areas)
        return sum(a.area.mid for a in areas)

    assert cells(three, LogicPlan(trees=0)) < cells(eight, LogicPlan(trees=0))
    assert cells(eight, LogicPlan(trees=2)) < cells(eight, LogicPlan(trees=0))


def test_zero_weights_spare_area() -> None:
    target, shape = load_target("nangate45"), shape_of(TOY, 4)

    def sparse(histogram: tuple[int, ...]) -> tuple[int, ...]:
        kept = [count // 10 for count in histogram]
        kept[HALF] += sum(histogram) - sum(kept)
        return tuple(kept)

    pruned = replace(
        shape,
        matrices=tuple(replace(m, histogram=sparse(m.histogram)) for m in shape.matrices),
    )
    plan = LogicPlan(trees=0)
    dense, thin = (sum(a.area.mid for a in matrix_areas(s, plan, target)) for s in (shape, pruned))
    assert thin < 0.5 * dense


def test_facts_of_logic_survive_json_and_are_priced() -> None:
    target, shape = load_target("sky130hd"), shape_of(TOY, 4)
    plan = choose_plan(shape, "auto", 8)
    facts = logic_facts(shape, plan, target, matrix_areas(shape, plan, target))
    assert type(facts).from_json(json.loads(json.dumps(facts.to_json()))) == facts
    cells = estimate(facts, load_scenario(), TABLES, 20).by_name()["area.cells_mm2"]
    assert cells.low < cells.mid < cells.high


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prices_each_way_to_hold_the_weights(
    toy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for hold, node in (("logic", ()), ("rom", ("--node", "28")), ("metal", ("--node", "5"))):
        page = tmp_path / f"{hold}.html"
        command = ["estimate", str(toy_file), "--basis", "model", "--hold", hold, *node]
        assert main([*command, "--json", "--report", str(page)]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["basis"] == "modelled" and answer["verdict"]["name"] == "RENT"
        assert len(answer["layers"]) == 15
        assert (answer["layers"][0]["cells_um2"] is None) == (hold != "logic")
        assert "without a netlist" in page.read_text("utf-8")


def test_a_node_is_for_rom_and_metal(toy_file: Path) -> None:
    assert main(["estimate", str(toy_file), "--basis", "model", "--node", "7"]) == 2
    assert main(["estimate", "nowhere.onnx"]) == 2


def test_context_is_as_asked(toy_file: Path) -> None:
    made = appraise(toy_file, Options(), "rom", 1000, 7)
    kv = next(m for m in made.facts.memories if m.kind == "kv")
    assert kv.bits == 2 * 2 * 16 * 1000 * 8


def test_a_step_file_makes_tokens_and_an_image_beside_a_label_does_not() -> None:
    def graph(inputs: list[tuple[str, int, list[int]]]) -> onnx.GraphProto:
        made = [onnx.helper.make_tensor_value_info(n, t, d) for n, t, d in inputs]
        out = onnx.helper.make_tensor_value_info("y", 1, [1, 5])
        return onnx.helper.make_graph([], "g", made, [out])

    step = graph([("token", 7, [1, 1]), ("k", 1, [1, 2, 64, 8]), ("v", 1, [1, 2, 64, 8])])
    image = graph([("label", 7, [1]), ("pixels", 1, [1, 3, 8, 8])])
    assert large_model._caches(step) == [(2, 8)]
    assert large_model._caches(image) == []
    assert large_model._positions(step, None, {}) == (64, ())
