"""From a float Graph to an integer Program: near the floats, by the rules, the same every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwcompile.compiler.errors import BudgetError, UsageError
from hwcompile.compiler.ir import graph, serialise
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.verify import verify_program
from hwcompile.passes import calibrate, choose_widths, grids, prune, quantise
from hwcompile.passes.calibrate import Feeds
from hwcompile.passes.needs import Widths
from hwcompile.passes.quantise import QuantiseOptions
from hwcompile.passes.round_weights import round_weights
from hwcompile.sim import float_reference, reference
from tests import networks

NETWORKS = {
    "llama": networks.decoder(),
    "gpt": networks.decoder(1, "layer", rope=False, kv_heads=2, swiglu=False),
    "encoder": networks.encoder(),
    "image": networks.image_model(),
}


def values(net: graph.Graph, feeds: Feeds) -> dict[str, np.ndarray]:
    return float_reference.evaluate(net, feeds, collect=True)[1]


def execute(program: ir.Program, feeds: Feeds) -> dict[str, np.ndarray]:
    return reference.run(program, reference.quantise_inputs(program, feeds))


def error(net: graph.Graph, options: QuantiseOptions) -> float:
    calibration = calibrate.run(net, values, None)
    program = quantise.run(net, calibration.samples, options)
    verify_program(program)
    return choose_widths.judge(net, calibration, program, execute).relative_error


def matrices(program: ir.Program) -> list[ir.Linear]:
    return [op for op in program.operations if isinstance(op, ir.Linear)]


def quantised(net: graph.Graph, **options: object) -> ir.Program:
    samples = calibrate.run(net, values, None).samples
    return quantise.run(net, samples, QuantiseOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORKS)
def test_integers_come_near_the_floats(name: str) -> None:
    wide = Widths(narrow=12, table=12, score=12, rotary=15)
    at_8, at_12 = (error(NETWORKS[name], QuantiseOptions(widths=w)) for w in (Widths(), wide))
    assert at_8 < 5e-3
    assert at_12 < 5e-4


def test_the_same_bytes_every_time() -> None:
    first, second = (serialise.to_bytes(quantised(networks.decoder())) for _ in range(2))
    assert first == second


def test_weights_need_no_multiplier_by_default() -> None:
    for op in matrices(quantised(NETWORKS["llama"])):
        assert np.all(op.multiplier == 1)
        assert np.abs(op.weight).max() <= 127


@pytest.mark.parametrize(("kind", "most"), [("int6", 31), ("int4", 7), ("ternary", 1)])
def test_narrow_weights(kind: str, most: int) -> None:
    program = quantised(NETWORKS["gpt"], weights=kind)
    assert max(np.abs(op.weight).max() for op in matrices(program)) == most


def test_one_scale_along_the_residual_stream() -> None:
    program = quantised(NETWORKS["gpt"])
    sums = [op for op in program.operations if isinstance(op, ir.Add)]
    assert len(sums) == 3
    scales = [program.values[k].scale for op in sums for k in (*op.inputs, op.output.key)]
    assert len({*scales}) == 1
    assert all((op.multiplier_a, op.multiplier_b, op.shift) == (1, 1, 0) for op in sums)


def test_integers_of_the_file_are_kept() -> None:
    network = networks.Network(0)
    ids = network.input("ids", 8, 1, "input_ids", 20)
    table = network.random.normal(size=(20, 16))
    x = network.normalise(network.add(graph.Embed(*network.base((ids,), 8, 16), table)), "rms")
    given = network.random.integers(-1, 2, (16, 12))
    scale = network.random.uniform(0.1, 0.3, 12)
    net = network.graph(network.linear(x, 12, grid_values=given, grid_scale=scale), "logits")
    (op,) = matrices(quantised(net))
    assert np.array_equal(op.weight, given)
    assert error(net, QuantiseOptions()) < 1e-3


def test_zero_weights_stay_zero() -> None:
    pruned = prune.run(NETWORKS["gpt"], "0.5").graph
    before = [op for op in pruned.operations if isinstance(op, graph.Linear)]
    for old, new in zip(before, matrices(quantised(pruned)), strict=True):
        assert not new.weight[old.weight == 0].any()


def test_pruning() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 6))
    assert (prune.prune(weight, "0.25") == 0).sum() == 12
    groups = prune.prune(weight, "2:4").reshape(2, 4, 6)
    assert ((groups != 0).sum(1) == 2).all()
    for text in ("1.5", "-1", "many", "5:4", "a:b"):
        with pytest.raises(UsageError):
            prune.prune(weight, text)


def test_rounding_by_outputs_beats_rounding_by_weights() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(500, 4)) @ random.normal(size=(4, 16))  # correlated
    weight = random.normal(size=(16, 8))
    step = np.full(8, 0.3)
    chosen = round_weights(weight, step, 4, inputs) * step
    plain = np.clip(np.rint(weight / step), -7, 7) * step
    errors = [((inputs @ (w - weight)) ** 2).mean() for w in (chosen, plain)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("ratio", [1.0, 0.75, 1 / 3, 1e-6, 12345.678])
def test_multiplier_and_shift_come_near_a_ratio(ratio: float) -> None:
    multiplier, shift = grids.multiplier_shift(ratio, 8)
    assert multiplier * 2.0**-shift == pytest.approx(ratio, rel=2**-9)
    multiplier, shift = grids.coarse_multiplier_shift(ratio)
    assert 0.85 * ratio < multiplier * 2.0**-shift <= ratio
    assert 1 <= multiplier < 16


def test_an_offset_is_used_where_one_side_is_flat() -> None:
    samples = np.random.default_rng(0).normal(size=4000) * 4
    grid = grids.shifted(samples, 8, lambda x: np.maximum(x, 0))
    assert grid.reals(np.array([-127]))[0] > -4
    assert grid.reals(np.array([127]))[0] > 8


# --- calibration and widths -----------------------------------------------------------------------


def test_made_sequences_follow_the_model() -> None:
    """A model that always continues 0, 1, 2, ... is calibrated on just that."""
    network = networks.Network(0)
    ids = network.input("ids", 10, 1, "input_ids", 8)
    x = network.add(graph.Embed(*network.base((ids,), 10, 8), 50 * np.eye(8)))
    step = graph.Linear(*network.base((x,), 10, 8), np.roll(np.eye(8), 1, 1), np.zeros(8))
    net = network.graph(network.add(step), "logits")
    made = calibrate.make(net, values)["input_ids"]
    assert np.array_equal((made[:, :-1] + 1) % 8, made[:, 1:])


def test_user_data_is_used_and_checked() -> None:
    net = NETWORKS["image"]
    data = {"image": np.ones((3, 6, 4)), "other": np.zeros(3)}
    assert calibrate.run(net, values, data).source == "given data"
    with pytest.raises(UsageError, match="image"):
        calibrate.run(net, values, {"picture": np.ones((3, 6, 4))})


def test_ranges_are_told() -> None:
    net = NETWORKS["image"]
    assert "unit normal" in calibrate.describe(net)
    proven = replace(net, inputs=(replace(net.inputs[0], low=0.0, high=1.0),))
    assert "0..1" in calibrate.describe(proven)
    assert calibrate.make(proven, values)["image"].min() >= 0


def test_widths_grow_until_answers_agree() -> None:
    net = NETWORKS["llama"]
    calibration = calibrate.run(net, values, None)
    fixed = choose_widths.run(net, calibration, execute, activation_bits=6)
    assert fixed.activation_bits == 6
    least = (fixed.fidelity.agreement or 0.0) + 0.01
    eager = choose_widths.run(net, calibration, execute, min_agreement=least)
    assert eager.activation_bits > 6
    assert (eager.fidelity.agreement or 0.0) >= least
    with pytest.raises(BudgetError):
        choose_widths.run(net, calibration, execute, activation_bits=4, min_agreement=0.999)


def test_widths_do_not_grow_where_weights_are_the_limit() -> None:
    net = NETWORKS["gpt"]
    calibration = calibrate.run(net, values, None)
    chosen = choose_widths.run(net, calibration, execute, QuantiseOptions(weights="ternary"))
    assert chosen.activation_bits == 8
    assert "do not help" in chosen.lines[-1]
