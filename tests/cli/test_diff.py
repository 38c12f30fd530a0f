"""hwcompile diff: netlists side by side, masks, cost, the adapter."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic_llama import SPECS, write
from hwcompile.compiler.cli import main
from hwcompile.compiler.difference import Design, difference
from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.options import Options
from hwcompile.compiler.structural import compare, parse
from tests.facts import TOY
from tests.programs import tiny_decoder, tiny_encoder

PROGRAM = tiny_decoder()
PORTS = {"logits_port": True, "cache_port": False}

OLD = """module hw_matrix_0(clk, x, acc);
  input clk;
  input [1:0] x;
  output acc;
  wire a;
  NAND2_X1 _0_ (
    .A1(x[0]),
    .A2(x[1]),
    .ZN(a)
  );
  INV_X1 \\u9.bits[9]  (
    .A(a),
    .ZN(acc)
  );
endmodule
"""
WIRED = OLD.replace(".A2(x[1])", ".A2(x[0])")
RENAMED = WIRED.replace("_0_", "_7_")
GROWN = OLD.replace("NAND2_X1", "NOR2_X1")


def changed_program() -> ir.Program:
    operations = list(PROGRAM.operations)
    i = next(i for i, op in enumerate(operations) if isinstance(op, ir.Linear))
    op = operations[i]
    assert isinstance(op, ir.Linear)
    weight = op.weight.copy()
    weight[0, 0] += 1 if weight[0, 0] < 1 else -1
    operations[i] = replace(op, weight=weight)
    return replace(PROGRAM, operations=tuple(operations))


def side(netlist: str, program: ir.Program = PROGRAM) -> Design:
    return Design("toy", program, PORTS, {"hw_matrix_0": netlist, "hw_top": OLD}, TOY)


def test_a_netlist_is_read_with_its_escaped_names() -> None:
    made = parse(OLD)
    assert made.cells == {"_0_": "NAND2_X1", "\\u9.bits[9]": "INV_X1"}
    assert made.pins["_0_", "A2"] == "x[1]"
    assert made.ports == ("input clk", "input [1:0] x", "output acc")


@pytest.mark.parametrize(
    ("new", "change", "pins", "names"),
    [
        (OLD, "same", 0, True),
        (WIRED, "connections", 1, True),
        (RENAMED, "connections", 0, False),
        (GROWN, "cells", 0, False),
        (WIRED.replace("[1:0] x", "[2:0] x"), "cells", 1, True),
    ],
)
def test_what_changed(new: str, change: str, pins: int, names: bool) -> None:
    made = compare("m", OLD, new)
    assert (made.change, made.pins_changed, made.same_names) == (change, pins, names)


@pytest.mark.parametrize(("new", "masks"), [(OLD, "none"), (WIRED, "metal"), (GROWN, "all")])
def test_masks_follow_from_the_netlists(new: str, masks: str) -> None:
    made = difference(side(OLD), side(new), Options(), None)
    names = [q.name for q in made.quantities]
    assert made.masks == masks
    assert ("nre.respin_usd" in names) == (masks != "none")


def test_the_weight_blocks_are_judged_apart_from_the_tables() -> None:
    old, new = side(OLD), side(WIRED)
    new = replace(new, netlists={**new.netlists, "hw_core_lookup": GROWN})
    old = replace(old, netlists={**old.netlists, "hw_core_lookup": OLD})
    made = difference(old, new, Options(), None)
    assert (made.weights_masks, made.masks) == ("metal", "all")
    apart, whole = (
        {q.name: q.mid for q in of}["nre.respin_usd"]
        for of in (made.weights_quantities, made.quantities)
    )
    assert apart < whole


def test_connections_are_counted_by_the_bit() -> None:
    wide = OLD.replace(".A2(x[1])", ".A2({ x[1], a, x[0] })")
    other = wide.replace("{ x[1], a, x[0] }", "{ x[1], x[0], a }")
    assert compare("m", wide, other).pins_changed == 2


def test_a_metal_re_spin_is_cheaper_and_sooner() -> None:
    metal, whole = (
        {q.name: q.mid for q in difference(side(OLD), side(n), Options(), None).quantities}
        for n in (WIRED, GROWN)
    )
    for name in ("nre.variable_masks_usd", "nre.respin_usd", "nre.respin_weeks"):
        assert metal[name] < whole[name], name


def test_layers_count_the_constants_that_changed() -> None:
    made = difference(side(OLD), side(WIRED, changed_program()), Options(), None)
    changed = [layer for layer in made.layers if layer.changed]
    assert [layer.changed for layer in changed] == [1]
    assert changed[0].module.startswith("hw_matrix_")
    weights = [np.size(op.weight) for op in PROGRAM.operations if isinstance(op, ir.Linear)]
    assert sum(layer.constants for layer in made.layers) > sum(weights)


def test_an_adapter_grows_with_its_rank() -> None:
    small, large = (
        {q.name: q.mid for q in difference(side(OLD), side(GROWN), Options(), r).quantities}
        for r in (2, 8)
    )
    assert large["lora.weights"] == 4 * small["lora.weights"]
    assert large["lora.area_mm2"] > small["lora.area_mm2"] > 0
    assert large["lora.fleet_usd"] > small["lora.fleet_usd"]


def test_another_architecture_is_refused() -> None:
    with pytest.raises(UsageError, match="one architecture"):
        difference(side(OLD), side(OLD, tiny_encoder()), Options(), None)


def test_the_answer_is_plain_json() -> None:
    made = difference(side(OLD), side(WIRED), Options(), 4)
    assert json.loads(json.dumps(made.to_json()))["masks"] == "metal"


# --- files without netlists -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its successor: one weight matrix halved."""
    folder = tmp_path_factory.mktemp("models")
    old, new = folder / "old.onnx", folder / "new.onnx"
    write(SPECS["toy"], old)
    write(SPECS["toy"], new)
    data = np.fromfile(new.with_suffix(".data"), np.float32)
    data[64 * 32 : 64 * 32 + 1024] *= 0.5
    data.tofile(new.with_suffix(".data"))
    return old, new


def test_large_files_are_compared_weight_by_weight(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["diff", *map(str, files), "--hold", "rom", "--node", "7", "--lora-rank", "4"]
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    changed = [layer for layer in answer["layers"] if layer["changed"]]
    assert [layer["changed"] for layer in changed] == [1024]
    assert answer["masks"] == "via" and answer["modules"] == []
    assert answer["quantities"]["lora.weights"]["mid"] > 0


def test_a_file_is_the_same_as_itself_and_another_size_is_refused(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hold = ("--hold", "rom", "--node", "7")
    assert main(["diff", str(files[0]), str(files[0]), *hold, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["masks"] == "none"
    write(replace(SPECS["toy"], hidden=64), tmp_path / "other.onnx")
    assert main(["diff", str(files[0]), str(tmp_path / "other.onnx"), *hold]) == 2
    assert main(["diff", str(files[0]), "nowhere.onnx"]) == 2
