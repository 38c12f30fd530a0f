"""Static timing on chains whose delay is known by hand, and the area report above it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwcompile.compiler.estimate.area import area_report
from hwcompile.compiler.estimate.netlist import Gate, Instance, Netlist, Port
from hwcompile.compiler.estimate.synthesis import SynthesisResult, synthesise
from hwcompile.compiler.estimate.targets import Target, load_target
from hwcompile.compiler.estimate.timing import TimingReport, analyse_timing, module_timing
from hwcompile.hdl.memory import ram_name, ram_verilog


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("nangate45")


def _netlist(gates: list[Gate], ports: list[Port], nets: int) -> Netlist:
    return Netlist("unit", {port.name: port for port in ports}, tuple(gates), (), nets, {})


def _inverter_delay(target: Target, load_ff: float) -> float:
    out = target.library.cells["INV_X1"].outputs[0]
    return out.intrinsic_ns["A"] + out.resistance_ns_per_ff * load_ff


def test_a_chain_of_inverters(target: Target) -> None:
    gates = [Gate(f"g{i}", "INV_X1", {"A": 2 + i, "ZN": 3 + i}) for i in range(3)]
    ports = [Port("a", True, (2,)), Port("y", False, (5,))]
    timing = module_timing(_netlist(gates, ports, 6), target, {})
    load = target.library.cells["INV_X1"].inputs["A"] + target.value("wire_ff_per_sink")
    expected = 2 * _inverter_delay(target, load) + _inverter_delay(target, 0.0)
    assert timing.critical_ns == pytest.approx(expected)
    assert timing.end == "y"
    assert len(timing.path) == 4
    assert timing.inputs["a"].capacitance_ff == pytest.approx(load)
    assert timing.outputs["y"].from_input_ns == {"a": pytest.approx(expected)}
    assert timing.outputs["y"].clock_to_out_ns == float("-inf")


def test_from_flip_flop_to_flip_flop(target: Target) -> None:
    gates = [
        Gate("r0", "DFF_X1", {"CK": 2, "D": 3, "Q": 4}),
        Gate("g", "INV_X1", {"A": 4, "ZN": 5}),
        Gate("r1", "DFF_X1", {"CK": 2, "D": 5, "Q": 6}),
    ]
    ports = [Port("clk", True, (2,)), Port("d", True, (3,)), Port("q", False, (6,))]
    timing = module_timing(_netlist(gates, ports, 7), target, {})
    flop = target.library.cells["DFF_X1"]
    wire = target.value("wire_ff_per_sink")
    q = flop.outputs[0]
    launch = q.intrinsic_ns["CK"] + q.resistance_ns_per_ff * (
        target.library.cells["INV_X1"].inputs["A"] + wire
    )
    expected = launch + _inverter_delay(target, flop.inputs["D"] + wire) + flop.setup_ns
    assert timing.critical_ns == pytest.approx(expected)
    assert timing.inputs["d"].setup_ns == pytest.approx(flop.setup_ns)
    assert timing.clock_capacitance_ff == pytest.approx(2 * flop.inputs["CK"])


def test_the_tree_of_a_clock_is_counted(target: Target) -> None:
    flops = 200
    gates = [Gate(f"r{i}", "DFF_X1", {"CK": 2, "D": 3, "Q": 4 + i}) for i in range(flops)]
    ports = [
        Port("clk", True, (2,)),
        Port("d", True, (3,)),
        Port("q", False, tuple(range(4, 4 + flops))),
    ]
    timing = module_timing(_netlist(gates[:16], ports, 4 + flops), target, {})
    assert timing.clock_buffers == timing.clock_buffer_area_um2 == 0
    gates = [Gate(g.name, g.cell, {**g.pins, "D": 4 + i}) for i, g in enumerate(gates)]
    timing = module_timing(_netlist(gates, ports, 4 + flops), target, {})
    assert timing.clock_buffers == 13
    area = target.library.cells["BUF_X2"].area_um2
    assert timing.clock_buffer_area_um2 == pytest.approx(13 * area)


def test_children_are_seen_through_their_ports(target: Target) -> None:
    inverter = [Gate("g", "INV_X1", {"A": 2, "ZN": 3})]
    child = module_timing(
        _netlist(inverter, [Port("a", True, (2,)), Port("y", False, (3,))], 4), target, {}
    )
    boxes = tuple(
        Instance(f"u{i}", "unit", {"a": (2 + i,), "y": (3 + i,)}, ("y",)) for i in range(3)
    )
    ports = {"a": Port("a", True, (2,)), "y": Port("y", False, (5,))}
    parent = module_timing(Netlist("top", ports, (), boxes, 6, {}), target, {"unit": child})
    flat = [Gate(f"g{i}", "INV_X1", {"A": 2 + i, "ZN": 3 + i}) for i in range(3)]
    whole = module_timing(
        _netlist(flat, [Port("a", True, (2,)), Port("y", False, (5,))], 6), target, {}
    )
    # The wire between two modules is counted on either side of the port.
    extra = 2 * target.library.cells["INV_X1"].outputs[0].resistance_ns_per_ff
    extra *= target.value("wire_ff_per_sink")
    assert parent.critical_ns == pytest.approx(whole.critical_ns + extra)


def test_a_loop_through_ports_does_not_hang(target: Target) -> None:
    child = module_timing(
        _netlist(
            [Gate("g", "INV_X1", {"A": 2, "ZN": 3})],
            [Port("a", True, (2,)), Port("y", False, (3,))],
            4,
        ),
        target,
        {},
    )
    boxes = (
        Instance("u", "unit", {"a": (2,), "y": (3,)}, ("y",)),
        Instance("v", "unit", {"a": (3,), "y": (2,)}, ("y",)),
    )
    parent = module_timing(Netlist("top", {}, (), boxes, 4, {}), target, {"unit": child})
    assert parent.critical_ns >= 0


MEMORY = f"""module store (input clk, we, re, input [6:0] wa, ra, input [31:0] d,
    output reg [31:0] q);
  wire [31:0] r;
  {ram_name(128, 32)} ram (.clk(clk), .we(we), .waddr(wa), .wdata(d), .re(re), .raddr(ra),
    .rdata(r));
  always @(posedge clk) q <= ~r;
endmodule
"""


@pytest.fixture(scope="module")
def store(
    target: Target, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SynthesisResult, TimingReport]:
    folder: Path = tmp_path_factory.mktemp("store")
    (folder / "store.v").write_text(MEMORY)
    (folder / "ram.v").write_text(ram_verilog(128, 32))
    files = [folder / "store.v", folder / "ram.v"]
    synthesis = synthesise(files, "store", target, cache=folder / "cache")
    return synthesis, analyse_timing(synthesis, target)


def test_a_path_from_a_memory(store: tuple[SynthesisResult, TimingReport], target: Target) -> None:
    _, timing = store
    access = target.value("ram_access_ns")
    setup = target.library.flip_flop.setup_ns
    assert access + setup < timing.critical_ns < access + setup + 0.2
    assert timing.slowest.name == "store"
    assert timing.slowest.start.startswith(ram_name(128, 32))


def test_area_report(store: tuple[SynthesisResult, TimingReport], target: Target) -> None:
    synthesis, timing = store
    report = area_report(
        synthesis,
        timing,
        target,
        layers={"store": "layer 0"},
        weights={"store": 64},
        memories={ram_name(128, 32): "kv"},
    )
    cells = synthesis.area_um2 + timing.modules["store"].clock_buffer_area_um2
    assert report.cell_area_um2 == pytest.approx(cells)
    assert report.um2_per_weight == pytest.approx(cells / 64)
    (layer,) = report.layers
    assert (layer.name, layer.um2_per_weight) == ("layer 0", pytest.approx(cells / 64))
    (memory,) = report.memories
    assert (memory.kind, memory.words, memory.bits) == ("kv", 128, 32)
    expected = cells / target.value("utilisation") + memory.area_um2
    assert report.core_area_um2 == pytest.approx(expected)
    assert report.core_low_um2 < report.core_area_um2 < report.core_high_um2
    content = report.to_json()
    assert content["layers"][0]["um2_per_weight"] == layer.um2_per_weight
    assert content["gate_equivalents"] == pytest.approx(cells / 0.798)


def test_unchanged_modules_are_not_analysed_again(
    store: tuple[SynthesisResult, TimingReport], target: Target
) -> None:
    again = analyse_timing(store[0], target, earlier=store)
    assert again.modules["store"] is store[1].modules["store"]
