"""The gate-level simulator on mapped netlists: arithmetic, state, memories, hierarchy."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.netlist import Gate, Netlist, Port, flatten, read_netlist
from hwcompile.compiler.estimate.synthesis import synthesise
from hwcompile.compiler.estimate.targets import Target, load_target
from hwcompile.hdl.memory import ram_name, ram_verilog
from hwcompile.sim.gate_simulation import GateSimulator

SUM = """module total (input clk, input clear, input signed [7:0] a, b,
    output reg signed [19:0] acc);
  wire signed [15:0] p = a * b;
  always @(posedge clk) acc <= clear ? 0 : acc + p;
endmodule
"""
TOP = f"""module keeper (input clk, input clear, input signed [7:0] a, b, input [7:0] addr,
    output [19:0] kept);
  wire [19:0] acc;
  total unit (.clk(clk), .clear(clear), .a(a), .b(b), .acc(acc));
  {ram_name(200, 20)} ram (.clk(clk), .we(1'b1), .waddr(addr), .wdata(acc), .re(1'b1),
    .raddr(addr), .rdata(kept));
endmodule
"""


def _simulator(
    folder: Path, texts: dict[str, str], top: str, target: Target, vectors: int
) -> GateSimulator:
    files = []
    for name, text in texts.items():
        files.append(folder / f"{name}.v")
        files[-1].write_text(text)
    result = synthesise(files, top, target, cache=folder / "cache")
    netlists = {
        name: read_netlist(module.netlist_json, name, target.library)
        for name, module in result.modules.items()
    }
    return GateSimulator(flatten(top, netlists), target.library, vectors)


@pytest.mark.parametrize("name", ["nangate45", "sky130hd"])
def test_multiply_and_accumulate(name: str, tmp_path: Path) -> None:
    vectors, rng = 100, random.Random(1)
    gates = _simulator(tmp_path, {"total": SUM}, "total", load_target(name), vectors)
    expected = [0] * vectors
    for cycle in range(6):
        a = [rng.choice((-128, 127, rng.randrange(-128, 128))) for _ in range(vectors)]
        b = [rng.choice((-128, 127, rng.randrange(-128, 128))) for _ in range(vectors)]
        clear = [int(cycle == 0 or rng.random() < 0.1) for _ in range(vectors)]
        gates.set("a", a)
        gates.set("b", b)
        gates.set("clear", clear)
        gates.clock()
        expected = [
            0 if c else (e + x * y) % (1 << 20)
            for e, x, y, c in zip(expected, a, b, clear, strict=True)
        ]
        assert gates.get("acc") == expected


def test_hierarchy_with_a_memory(tmp_path: Path) -> None:
    texts = {"total": SUM, "keeper": TOP, "ram": ram_verilog(200, 20)}
    gates = _simulator(tmp_path, texts, "keeper", load_target("nangate45"), 3)

    def step(clear: int, a: int, addr: list[int]) -> list[int]:
        gates.set("clear", [clear] * 3)
        gates.set("a", [a] * 3)
        gates.set("b", [1, 2, -3])
        gates.set("addr", addr)
        gates.clock()
        return gates.get("kept")

    step(1, 0, [0, 0, 0])
    step(0, 5, [1, 1, 1])
    step(0, 0, [9, 10, 199])  # writes 5, 10, -15
    step(0, 0, [3, 3, 3])
    assert step(0, 0, [9, 10, 199]) == [5, 10, (1 << 20) - 15]
    assert step(0, 0, [9, 9, 9])[0] == 5


def test_what_cannot_be_simulated() -> None:
    library = load_target("nangate45").library
    port = {"y": Port("y", False, (3,))}
    loop = (
        Gate("g", "INV_X1", {"A": 2, "ZN": 3}),
        Gate("h", "INV_X1", {"A": 3, "ZN": 2}),
    )
    with pytest.raises(UsageError, match="loop"):
        GateSimulator(Netlist("ring", port, loop, (), 4, {}), library)
    flops = (
        Gate("g", "DFF_X1", {"CK": 4, "D": 2, "Q": 3}),
        Gate("h", "DFF_X1", {"CK": 5, "D": 3, "Q": 2}),
    )
    with pytest.raises(UsageError, match="several clocks"):
        GateSimulator(Netlist("two", port, flops, (), 6, {}), library)


def test_inverted_outputs_start_high() -> None:
    library = load_target("nangate45").library
    ports = {"d": Port("d", True, (3,)), "n": Port("n", False, (4,))}
    flop = (Gate("g", "DFF_X1", {"CK": 2, "D": 3, "QN": 4}),)
    gates = GateSimulator(Netlist("one", ports, flop, (), 5, {}), library, 2)
    assert gates.get("n") == [1, 1]
    gates.set("d", [1, 0])
    gates.clock()
    assert gates.get("n") == [0, 1]
