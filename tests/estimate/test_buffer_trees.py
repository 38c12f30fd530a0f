"""Fan-out bounded: every net, the same function, the clock left out, cells independent of it."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwcompile.compiler.estimate.buffer_trees import (
    PREFIX,
    TreeRules,
    bounded,
    layers,
    most_buffers,
)
from hwcompile.compiler.estimate.netlist import flatten, read_netlist
from hwcompile.compiler.estimate.netlist_statistics import netlist_statistics, sink_counts
from hwcompile.compiler.estimate.synthesis import SynthesisResult, synthesise
from hwcompile.compiler.estimate.targets import Target, load_target
from hwcompile.compiler.estimate.timing import analyse_timing
from hwcompile.sim.gate_simulation import GateSimulator

BOUND = 16
RULES = TreeRules(("BUF", "A", "Z"), BOUND, [("ZERO", "Z")], {"DFF": ["CK"], "child": ["clk"]})

WIDE = """module wide (input clk, input [1:0] a, input [299:0] x, output reg [299:0] y,
    output [39:0] fixed, output same);
  always @(posedge clk) y <= (x & {300{a[0]}}) ^ {300{y[0] & a[1]}};
  assign fixed = 40'd0;
  assign same = a[0];
endmodule
"""


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("nangate45")


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory, target: Target) -> SynthesisResult:
    folder = tmp_path_factory.mktemp("wide")
    (folder / "wide.v").write_text(WIDE)
    return synthesise([folder / "wide.v"], "wide", target, cache=folder / "cache")


def _module(seed: int, connections: int = 0) -> dict[str, Any]:
    """Random gates, flip-flops and children on few nets; ``connections`` other than 0: only they
    differ.
    """
    shape, wiring = random.Random(seed), random.Random(f"{seed} {connections}")
    sources = shape.randrange(3, 12)
    inputs, clock, zero = list(range(3, 3 + sources)), 2, 3 + sources
    gates = shape.randrange(20, 400)
    outputs = list(range(zero + 1, zero + 1 + gates))
    nets = [*inputs, zero, *outputs[: shape.randrange(1, 4)], "0"]
    cells: dict[str, Any] = {"tie": _cell("ZERO", {}, {"Z": [zero]})}
    for number, out in enumerate(outputs):
        name, pick = f"g{number}", [wiring.choice(nets) for _ in range(3)]
        kind = shape.randrange(3)
        if kind == 0:
            cells[name] = _cell("DFF", {"CK": [clock], "D": pick[:1]}, {"Q": [out]})
        elif kind == 1:
            cells[name] = _cell("AND", {"A": pick[:1], "B": pick[1:2]}, {"Z": [out]})
        else:
            cells[name] = _cell("child", {"clk": [clock], "x": pick}, {"y": [out]})
    some = [wiring.choice(nets) for _ in range(40)]
    ports = {
        "clk": {"direction": "input", "bits": [clock]},
        "x": {"direction": "input", "bits": inputs},
        "y": {"direction": "output", "bits": [*some, *outputs[-3:]]},
    }
    names = {name: {"bits": list(port["bits"]), "hide_name": 0} for name, port in ports.items()}
    names["rest"] = {"bits": [zero, *outputs], "hide_name": 1}
    return {"attributes": {}, "ports": ports, "cells": cells, "netnames": names}


def _cell(kind: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    directions = {**dict.fromkeys(inputs, "input"), **dict.fromkeys(outputs, "output")}
    return {"type": kind, "port_directions": directions, "connections": {**inputs, **outputs}}


def _fan_out(module: dict[str, Any]) -> Counter[int | str]:
    count: Counter[int | str] = Counter()
    for cell in module["cells"].values():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                count.update(bits)
    count.update(module["ports"]["y"]["bits"])
    return count


def _dissolved(module: dict[str, Any]) -> dict[str, Any]:
    """The module without the cells that were put in, each net the one it stands for."""
    stands: dict[int | str, int | str] = {}
    ties = {c["connections"]["Z"][0] for c in module["cells"].values() if c["type"] == "ZERO"}
    first = module["cells"]["tie"]["connections"]["Z"][0]
    stands |= dict.fromkeys(ties - {first}, first)
    for name, cell in module["cells"].items():
        if name.startswith(PREFIX) and cell["type"] == "BUF":
            stands[cell["connections"]["Z"][0]] = cell["connections"]["A"][0]

    def root(bit: int | str) -> int | str:
        while bit in stands:
            bit = stands[bit]
        return bit

    def rooted(entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "bits": [root(bit) for bit in entry["bits"]]}

    cells = {
        name: {
            **cell,
            "connections": {p: list(map(root, b)) for p, b in cell["connections"].items()},
        }
        for name, cell in module["cells"].items()
        if not name.startswith(PREFIX)
    }
    ports = {name: rooted(port) for name, port in module["ports"].items()}
    names = {name: rooted(entry) for name, entry in module["netnames"].items()}
    return {**module, "cells": cells, "ports": ports, "netnames": names}


@pytest.mark.parametrize("seed", range(12))
def test_bounded_and_without_its_trees_the_same(seed: int) -> None:
    module = _module(seed)
    made, added = bounded(module, RULES)
    counts = _fan_out(made)
    wide = {bit for bit, sinks in counts.items() if sinks > BOUND}
    assert wide <= {2, "0"}
    assert counts[2] == _fan_out(module)[2]
    assert _dissolved(made) == module
    kinds = Counter(c["type"] for n, c in made["cells"].items() if n.startswith(PREFIX))
    assert kinds == added
    assert bounded(module, RULES) == (made, added)
    assert made["netnames"]["y"]["bits"] == made["ports"]["y"]["bits"]


def test_buffers_are_as_few_as_a_balanced_tree_has() -> None:
    assert [layers(n, 16) for n in (16, 17, 256, 257, 2433)] == [
        [],
        [2],
        [16],
        [17, 2],
        [153, 10],
    ]


@pytest.mark.parametrize("seed", range(8))
def test_spares_make_the_cells_those_of_any_connection(seed: int) -> None:
    rules = TreeRules(RULES.buffer, BOUND, RULES.ties, RULES.clocks, spares=True)
    found = []
    for connections in (1, 2, 3):
        module = _module(seed, connections)
        made, added = bounded(module, rules)
        found.append(added["BUF"])
        assert added["BUF"] == most_buffers(module, BOUND)
        assert bounded(module, RULES)[1].get("BUF", 0) <= added["BUF"]
        assert max(n for bit, n in _fan_out(made).items() if bit not in (2, "0")) <= BOUND
    assert len(set(found)) == 1


def test_spares_are_enough_where_every_buffer_but_one_wastes_its_sinks() -> None:
    nets = list(range(2, 14))
    ports = {
        "x": {"direction": "input", "bits": nets},
        "y": {"direction": "output", "bits": nets * (BOUND + 1)},
    }
    module = {"cells": {}, "ports": ports, "netnames": ports}
    assert bounded(module, RULES)[1] == {"BUF": 2 * len(nets)}
    assert most_buffers(module, BOUND) >= 2 * len(nets)


def test_no_net_of_a_mapped_module_but_the_clock_is_wide(
    mapped: SynthesisResult, target: Target
) -> None:
    module = mapped.modules["wide"]
    netlist = read_netlist(module.netlist_json, "wide", target.library)
    found = netlist_statistics(netlist, target.library)
    assert found.fan_out_max == int(sink_counts(netlist, target.library).max()) == BOUND
    assert module.tree_cells["BUF_X2"] == 2 * sum(layers(300, BOUND))
    assert sum(module.cells.values()) == found.cells == len(netlist.gates)
    assert module.netlist.read_text().count(f"BUF_X2 {PREFIX}") == module.tree_cells["BUF_X2"]
    assert f"LOGIC0_X1 {PREFIX}" in module.netlist.read_text()
    clocks = {g.pins["CK"] for g in netlist.gates if g.cell.startswith("DFF")}
    assert clocks == set(netlist.ports["clk"].nets)
    assert 0 < mapped.tree_area_um2 < mapped.area_um2
    assert found.pins_per_cell == pytest.approx(found.pins / found.cells)
    assert found.fan_out_mean == pytest.approx(found.sinks / found.nets)


def test_the_trees_are_timed(mapped: SynthesisResult, target: Target) -> None:
    timing = analyse_timing(mapped, target).modules["wide"]
    assert any("BUF_X2" in step for step in timing.path)
    assert timing.critical_ns < 0.5


def test_the_netlist_computes_what_the_source_says(mapped: SynthesisResult, target: Target) -> None:
    modules = {
        name: read_netlist(module.netlist_json, name, target.library)
        for name, module in mapped.modules.items()
    }
    gates = GateSimulator(flatten("wide", modules), target.library, 4)
    rng = np.random.default_rng(0)
    y = [0] * 4
    for _ in range(6):
        a = rng.integers(0, 4, 4).tolist()
        x = [int.from_bytes(rng.bytes(38), "little") >> 4 for _ in range(4)]
        gates.set("a", a)
        gates.set("x", x)
        assert gates.get("same") == [v & 1 for v in a]
        assert gates.get("fixed") == [0] * 4
        gates.clock()
        ones = (1 << 300) - 1
        y = [
            (ones if s & 1 else 0) & v ^ (ones if (s >> 1) & w & 1 else 0)
            for s, v, w in zip(a, x, y, strict=True)
        ]
        assert gates.get("y") == y


def test_large_modules_take_linear_time() -> None:
    sinks = 20_000
    cells = {f"g{n}": _cell("AND", {"A": [2], "B": [3]}, {"Z": [4 + n]}) for n in range(sinks)}
    ports = {
        "x": {"direction": "input", "bits": [2, 3]},
        "y": {"direction": "output", "bits": [4] * sinks},
    }
    names = {"x": {"bits": [2, 3]}, "y": {"bits": [4] * sinks}, "z": {"bits": [4 + sinks]}}
    made, added = bounded({"cells": cells, "ports": ports, "netnames": names}, RULES)
    assert added["BUF"] == 3 * sum(layers(sinks, BOUND))
    assert max(_fan_out(made).values()) == BOUND


def test_the_rules_are_part_of_what_is_cached(
    mapped: SynthesisResult, target: Target, tmp_path: Path
) -> None:
    import dataclasses

    figure = dataclasses.replace(target.figures["sinks_per_buffer"], value=8.0)
    other = dataclasses.replace(target, figures={**target.figures, "sinks_per_buffer": figure})
    (tmp_path / "wide.v").write_text(WIDE)
    again = synthesise(
        [tmp_path / "wide.v"], "wide", other, cache=mapped.modules["wide"].folder / "../.."
    )
    assert not again.modules["wide"].cached
    assert again.tree_area_um2 > 1.5 * mapped.tree_area_um2
