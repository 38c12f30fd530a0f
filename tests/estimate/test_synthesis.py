"""Mapping to cells: areas known by hand, adders to adder cells, hierarchy, cache, failures."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from hwcompile.compiler.errors import ToolError, UsageError
from hwcompile.compiler.estimate.closure import synthesise_to_period
from hwcompile.compiler.estimate.synthesis import (
    ModuleSynthesis,
    SynthesisResult,
    synthesise,
)
from hwcompile.compiler.estimate.synthesis_job import split_modules
from hwcompile.compiler.estimate.targets import Target, load_target
from hwcompile.hdl.cells import FULL_ADDERS, HALF_ADDERS
from hwcompile.hdl.memory import ram_name, ram_verilog


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("nangate45")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def _map(
    texts: Sequence[str], top: str, target: Target, cache: Path, **options: object
) -> SynthesisResult:
    files = []
    folder = cache / "sources"
    folder.mkdir(exist_ok=True)
    for index, text in enumerate(texts):
        files.append(folder / f"{top}_{index}.v")
        files[-1].write_text(text, encoding="utf-8")
    return synthesise(files, top, target, cache=cache, **options)  # type: ignore[arg-type]


GATES = (
    "module gates (input a, b, output y, z);\n assign y = ~(a & b); assign z = a ^ b;\nendmodule\n"
)
ADDERS = """module adders (input [3:0] a, b, c, output [3:0] s, t);
  hw_full_adders #(.WIDTH(4)) fa (.a(a), .b(b), .c(c), .sum(s), .carry(t));
endmodule
"""
LEAF = """module leaf (clk, d, q);
  input clk; input [1:0] d;
  output [1:0] q; reg [1:0] q;
  always @(posedge clk) q <= d;
endmodule
"""
PAIR = """// module ghost (input x); endmodule
module pair (input clk, input [3:0] d, output [3:0] q);
  leaf low (.clk(clk), .d(d[1:0]), .q(q[1:0]));
  leaf high (.clk(clk), .d(d[3:2]), .q(q[3:2]));
endmodule
"""
PARAMETRIC = """module inner #(parameter N = 1) (input x); endmodule
module user (input x);
  inner i (x);
endmodule
"""


def test_area_of_two_gates(target: Target, cache: Path) -> None:
    result = _map([GATES], "gates", target, cache)
    assert result.area_um2 == pytest.approx(0.798 + 1.596)
    assert result.area_by_kind == {"logic": pytest.approx(2.394)}
    netlist = result.modules["gates"].netlist.read_text()
    assert "NAND2_X1" in netlist
    assert "module gates" in netlist


def test_full_adders_become_cells(target: Target, cache: Path) -> None:
    result = _map([FULL_ADDERS, ADDERS], "adders", target, cache)
    assert result.cells == {"FA_X1": 4}


def test_the_cells_of_another_target(cache: Path) -> None:
    result = _map([FULL_ADDERS, ADDERS], "adders", load_target("sky130hd"), cache)
    assert result.cells == {"sky130_fd_sc_hd__fa_1": 4}


def test_half_used_adders_are_gates(target: Target, cache: Path) -> None:
    text = ADDERS.replace("adders (", "sums (").replace("s, t)", "s)").replace("(t)", "()")
    result = _map([FULL_ADDERS, text], "sums", target, cache)
    assert "FA_X1" not in result.cells
    assert result.area_um2 <= 4 * 2 * 1.596 + 1e-9


def test_a_constant_input_needs_no_full_adder(target: Target, cache: Path) -> None:
    text = ADDERS.replace("adders (", "fixed (").replace(".c(c)", ".c(4'b0101)")
    assert "FA_X1" not in _map([FULL_ADDERS, text], "fixed", target, cache).cells


def test_half_adder_cells_only_where_they_are_smaller(target: Target, cache: Path) -> None:
    text = """module halves (input a, b, output s, t);
  hw_half_adders #(.WIDTH(1)) ha (.a(a), .b(b), .sum(s), .carry(t));
endmodule
"""
    assert _map([HALF_ADDERS, text], "halves", target, cache).area_um2 <= 2.66 + 1e-9
    sky = _map([HALF_ADDERS, text], "halves", load_target("sky130hd"), cache)
    assert sky.cells == {"sky130_fd_sc_hd__ha_1": 1}


def test_word_adders_use_full_adder_cells(target: Target, cache: Path) -> None:
    text = "module plus (input [7:0] a, b, output [8:0] y);\n assign y = a + b;\nendmodule\n"
    cells = _map([text], "plus", target, cache).cells
    assert cells["FA_X1"] >= 6


def test_a_comparison_pays_for_carries_alone(target: Target, cache: Path) -> None:
    text = "module less (input [7:0] a, b, output y);\n assign y = a < b;\nendmodule\n"
    result = _map([text], "less", target, cache)
    assert "FA_X1" not in result.cells
    assert result.area_um2 < 8 * 4.256


def test_hierarchy_is_kept_and_counted(target: Target, cache: Path) -> None:
    seen: list[ModuleSynthesis] = []
    result = _map([LEAF, PAIR], "pair", target, cache, progress=seen.append, jobs=2)
    assert list(result.modules) == ["pair", "leaf"]
    assert result.instances == {"pair": 1, "leaf": 2}
    assert result.cells == {"DFF_X1": 4}
    assert result.modules["pair"].children == {"leaf": 2}
    assert result.area_by_kind == {"flip-flops": pytest.approx(4 * 4.522)}
    assert {module.name for module in seen} == {"pair", "leaf"}


def test_large_memories_are_black_boxes_small_ones_are_not(target: Target, cache: Path) -> None:
    def user(words: int) -> str:
        width = (words - 1).bit_length() - 1
        return f"""module user{words} (input clk, we, re, input [{width}:0] a, input [31:0] d,
    output [31:0] q);
  {ram_name(words, 32)} ram (.clk(clk), .we(we), .waddr(a), .wdata(d), .re(re), .raddr(a),
    .rdata(q));
endmodule
"""

    large = _map([ram_verilog(128, 32), user(128)], "user128", target, cache)
    assert large.black_boxes == {"hw_ram_128x32": 1}
    assert large.area_um2 == 0
    small = _map([ram_verilog(4, 32), user(4)], "user4", target, cache)
    assert not small.black_boxes
    assert small.cells["DFF_X1"] == 5 * 32


def test_constant_tables_shrink(target: Target, cache: Path) -> None:
    lines = "\n".join(f"    6'd{i}: y = 8'd{min(255, i * i // 16)};" for i in range(64))
    text = f"""module square (input [5:0] a, output reg [7:0] y);
  always @* case (a)
{lines}
  endcase
endmodule
"""
    assert _map([text], "square", target, cache).area_um2 < 120


def test_the_second_time_comes_from_the_cache(target: Target, tmp_path: Path) -> None:
    first = _map([GATES], "gates", target, tmp_path).modules["gates"]
    again = _map([GATES], "gates", target, tmp_path).modules["gates"]
    other = _map([GATES.replace("^", "|")], "gates", target, tmp_path).modules["gates"]
    assert (first.cached, again.cached, other.cached) == (False, True, False)
    assert again.cells == first.cells
    assert other.folder != first.folder


def test_the_same_bytes_each_time(target: Target, tmp_path: Path) -> None:
    first = _map([GATES], "gates", target, tmp_path).modules["gates"]
    bytes_first = [first.netlist.read_bytes(), first.netlist_json.read_bytes()]
    shutil.rmtree(first.folder)
    again = _map([GATES], "gates", target, tmp_path).modules["gates"]
    assert [again.netlist.read_bytes(), again.netlist_json.read_bytes()] == bytes_first


def test_an_error_of_yosys_is_told(target: Target, tmp_path: Path) -> None:
    broken = "module broken (input a, output y);\n assign y = a +* 1;\nendmodule\n"
    with pytest.raises(ToolError) as caught:
        _map([broken], "broken", target, tmp_path)
    assert "synthesis of broken" in caught.value.message
    assert "syntax error" in caught.value.hint


def test_two_drivers_are_refused(target: Target, tmp_path: Path) -> None:
    text = "module twice (input a, b, output y);\n assign y = a; assign y = b;\nendmodule\n"
    with pytest.raises(ToolError):
        _map([text], "twice", target, tmp_path)


def test_time_limit(target: Target, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="not finished after 0 s"):
        _map([GATES], "gates", target, tmp_path, timeout_s=0.01)


@pytest.mark.parametrize(
    ("texts", "top", "what"),
    [
        ([GATES], "gate", "no module gate"),
        ([GATES, GATES], "gates", "twice"),
        (
            [
                "module a #(parameter N = 1) (input x); endmodule\n",
                "module b (input x);\n a i (x);\nendmodule\n",
            ],
            "b",
            "parameters",
        ),
    ],
)
def test_sources_that_do_not_fit(
    texts: list[str], top: str, what: str, target: Target, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=what):
        _map(texts, top, target, tmp_path)


def test_modules_are_split_without_comments() -> None:
    assert list(split_modules(PAIR + LEAF)) == ["pair", "leaf"]


WIDE = """module wide (input clk, input [31:0] x, z, output reg [31:0] y);
  reg [31:0] a, b;
  always @(posedge clk) begin
    a <= x; b <= z; y <= a + b;
  end
endmodule
"""


def test_slow_modules_get_fast_adders(target: Target, cache: Path) -> None:
    source = cache / "wide.v"
    source.write_text(WIDE)
    small, relaxed = synthesise_to_period([source], "wide", target, goal_ns=9.0, cache=cache)
    quick, tight = synthesise_to_period([source], "wide", target, goal_ns=0.5, cache=cache)
    assert small.cells["FA_X1"] >= 30
    assert tight.critical_ns < 0.6 * relaxed.critical_ns
    assert quick.area_um2 > small.area_um2


def test_the_cache_has_a_bound(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwcompile.compiler.estimate.synthesis._CACHE_LIMIT_BYTES", 1)
    first = _map([GATES], "gates", target, tmp_path).modules["gates"]
    other = _map([GATES.replace("^", "|")], "gates", target, tmp_path).modules["gates"]
    assert not first.folder.exists()
    assert other.netlist.exists()


def test_a_cache_that_cannot_be_written(target: Target, tmp_path: Path) -> None:
    source = tmp_path / "gates.v"
    source.write_text(GATES)
    with pytest.raises(ToolError, match="cache folder"):
        synthesise([source], "gates", target, cache=source / "no folder")
