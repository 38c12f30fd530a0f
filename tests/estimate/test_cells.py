"""Cell functions, roles and tables; liberty in and out."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.cells import (
    evaluate,
    library_from_text,
    library_to_text,
    load_library,
    parse_function,
    truth_table,
)
from hwcompile.compiler.estimate.liberty import (
    parse_liberty,
    read_liberty_text,
    read_library,
    write_liberty,
)

# A delay of 0.01 + 0.002 * load for a falling and 0.03 + 0.004 * load for a rising output.
TABLES = """
        cell_rise (t) { index_1 ("0.0, 1.0"); index_2 ("0.0, 0.1");
                        values ("0.03, 0.43", \\
                                "0.03, 0.43"); }
        cell_fall (t) { values ("0.01, 0.21", "0.01, 0.21"); index_1 ("0.0, 1.0");
                        index_2 ("0.0, 0.1"); }
        rise_transition (t) { index_1 ("0.0, 1.0"); index_2 ("0.0, 0.1"); values ("1,1", "1,1"); }
        fall_transition (t) { index_1 ("0.0, 1.0"); index_2 ("0.0, 0.1"); values ("1,1", "1,1"); }
"""


def _gate(name: str, area: float, function: str, pins: str, extra: str = "") -> str:
    inputs = "".join(
        f'pin ("{pin}") {{ direction : input; capacitance : 0.0015; }}\n' for pin in pins
    )
    sense = "timing_sense : negative_unate;" if function[0] != "A" else ""
    arcs = "".join(f'timing () {{ related_pin : "{pin}"; {sense} {TABLES} }}\n' for pin in pins)
    return f"""
    cell ("{name}") {{ area : {area}; cell_leakage_power : 2.5; {extra}
      {inputs} pin (Y) {{ direction : output; function : "{function}"; {arcs} }} }}
"""


LIBERTY = (
    """/* a comment
   of two lines */
library (tiny) {
  time_unit : "1ns"; capacitive_load_unit (1, pf); leakage_power_unit : "1uW";
  nom_voltage : 1.2; // a comment
  operating_conditions (typical) { process : 1; }
"""
    + _gate("INV", 1.5, "!A", "A")
    + _gate("BUF", 2.0, "A", "A")
    + _gate("NAND", 2.25, "(A B)'", "AB")
    + _gate("OAI", 3.0, "!((A + B) * C)", "ABC")
    + _gate("SECRET", 0.1, "!(A * B)", "AB", "dont_use : true;")
    + """
  cell (ADD) { area : 9;
    pin (A) { direction : input; capacitance : 0.003; }
    pin (B) { direction : input; capacitance : 0.003; }
    pin (S) { direction : output; function : "A ^ B"; }
    pin (C) { direction : output; function : "A * B"; }
  }
  cell (FLOP) { area : 8.5;
    ff (IQ, IQN) { clocked_on : "CK"; next_state : "D"; }
    pin (CK) { direction : input; clock : true; capacitance : 0.001; }
    pin (D) { direction : input; capacitance : 0.002;
      timing () { related_pin : "CK"; timing_type : setup_rising;
        rise_constraint (s) { index_1 ("0.0"); index_2 ("0.0"); values ("0.07"); } } }
    pin (Q) { direction : output; function : "IQ";
      timing () { related_pin : "CK"; timing_type : rising_edge; """
    + TABLES
    + """ } }
  }
  cell (RESET_FLOP) { area : 8; ff (IQ, IQN) { clocked_on : "CK"; next_state : "D"; clear : "!R"; }
    pin (CK) { direction : input; } pin (D) { direction : input; } pin (R) { direction : input; }
    pin (Q) { direction : output; function : "IQ"; } }
  cell (LATCH) { area : 4; latch (IQ, IQN) { enable : "G"; data_in : "D"; }
    pin (G) { direction : input; } pin (D) { direction : input; }
    pin (Q) { direction : output; function : "IQ"; } }
  cell (TRI) { area : 4; pin (A) { direction : input; } pin (E) { direction : input; }
    pin (Y) { direction : output; function : "A"; three_state : "!E"; } }
}
"""
)


@pytest.mark.parametrize(
    ("function", "table"),
    [
        ("!A", 0b0101),
        ("A'", 0b0101),
        ("A & B", 0b1000),
        ("A B", 0b1000),
        ("(A*B)'", 0b0111),
        ("A ^ B", 0b0110),
        ("A + B", 0b1110),
        ("!A B | A !B", 0b0110),
        ("A | B & !A", 0b1110),
        ("0", 0),
        ("1", 0b1111),
        ("A''", 0b1010),
    ],
)
def test_functions_mean_what_liberty_says(function: str, table: int) -> None:
    assert truth_table(parse_function(function), ("A", "B")) == table


@pytest.mark.parametrize("function", ["", "A &", "(A", "A)", "A $ B", "A | | B"])
def test_a_broken_function_is_refused(function: str) -> None:
    with pytest.raises(UsageError):
        parse_function(function)


def test_functions_work_on_words() -> None:
    a, b = np.array([0b1100], np.uint64), np.array([0b1010], np.uint64)
    assert evaluate(parse_function("A & !B"), {"A": a, "B": b})[0] == 0b0100


def test_facts_of_a_liberty() -> None:
    library = read_library(LIBERTY)
    assert sorted(library.cells) == ["ADD", "BUF", "FLOP", "INV", "NAND", "OAI"]
    inverter = library.cells["INV"]
    assert inverter.area_um2 == 1.5
    assert inverter.leakage_nw == 2500.0
    assert inverter.inputs == {"A": 1.5}
    # The mean of the two edges of a gate that inverts, the worse edge elsewhere; a load in fF.
    assert inverter.outputs[0].resistance_ns_per_ff == pytest.approx(0.003)
    assert inverter.outputs[0].intrinsic_ns == {"A": pytest.approx(0.02)}
    assert library.buffer.outputs[0].resistance_ns_per_ff == pytest.approx(0.004)
    assert library.buffer.outputs[0].intrinsic_ns == {"A": pytest.approx(0.03)}
    assert library.voltage_v == 1.2
    flop = library.flip_flop
    assert (flop.name, flop.clock, flop.setup_ns) == ("FLOP", "CK", 0.07)
    assert flop.outputs[0].intrinsic_ns.keys() == {"CK"}


def test_names_that_are_no_identifiers_are_left_out() -> None:
    text = LIBERTY.replace('cell ("OAI")', 'cell ("OAI; exec rm")')
    assert "OAI" not in "".join(read_library(text).cells)


def test_of_each_function_the_two_smallest() -> None:
    more = "".join(_gate(f"NAND_{i}", 2.25 + i, "!(A B)", "AB") for i in (1, 2, 3))
    more += _gate("NAND_probe", 0.1, "!(A B)", "AB") + _gate("INV_9", 9, "!A", "A")
    library = read_library(LIBERTY.rstrip()[:-1] + more + "}")
    assert [name for name in library.cells if name.startswith("NAND")] == ["NAND", "NAND_1"]
    assert "INV_9" in library.cells


@pytest.mark.parametrize("bad", ["A; exec", "A & Z", "A &"])
def test_a_table_with_strange_words_is_refused(bad: str) -> None:
    text = library_to_text(read_library(LIBERTY))
    with pytest.raises(UsageError):
        library_from_text(text.replace("function: '!A'", f"function: '{bad}'"))


def test_roles_are_found_by_function() -> None:
    library = read_library(LIBERTY)
    assert library.inverter.name == "INV"
    assert library.buffer.name == "BUF"
    assert library.nand2.name == "NAND"
    half = library.half_adder
    assert half is not None
    assert (half.cell, half.sum, half.carry) == ("ADD", "S", "C")
    assert library.full_adder is None
    assert library.tie_low is None


def test_a_written_liberty_says_the_same() -> None:
    library = read_library(LIBERTY)
    again = read_library(write_liberty(library))
    assert again.cells.keys() == library.cells.keys()
    for name, cell in library.cells.items():
        other = again.cells[name]
        assert other.area_um2 == cell.area_um2
        assert other.inputs == cell.inputs
        assert other.clock == cell.clock
        pins = tuple(cell.inputs)
        for out, same in zip(cell.outputs, other.outputs, strict=True):
            assert bool(same.intrinsic_ns) == bool(out.intrinsic_ns)
            assert truth_table(parse_function(out.function), pins) == truth_table(
                parse_function(same.function), pins
            )
            assert same.resistance_ns_per_ff == pytest.approx(out.resistance_ns_per_ff)
            assert same.intrinsic_ns == pytest.approx(dict(out.intrinsic_ns))


def test_a_table_survives_its_file() -> None:
    library = read_library(LIBERTY, source="made up", licence="none")
    assert library_from_text(library_to_text(library, "comment")) == library


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "expected 'library'"),
        ("module x; endmodule", "expected 'library'"),
        ("library (x) {\n cell (A) {\n area : 1;\n", "line 4"),
        (LIBERTY.replace("area : 1.5", "area : big"), "big"),
        ("library (x) { }", "no inverter"),
        ('library (x) { time_unit : "1 parsec"; }', "time_unit"),
        ("library (x) " + "{ a (b) " * 200, "deeply"),
    ],
)
def test_a_broken_liberty_is_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        read_library(text)


def test_a_missing_semicolon_ends_at_the_next_statement() -> None:
    root = parse_liberty('library (x) { a : 1\n b : "2" ; c (3) ; }')
    assert root.attributes == {"a": "1", "b": "2"}
    assert root.lists == {"c": ("3",)}


def test_packed_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tiny.lib.gz"
    path.write_bytes(gzip.compress(LIBERTY.encode()))
    assert read_liberty_text(path) == LIBERTY
    (tmp_path / "bad.lib.gz").write_bytes(b"not gzip")
    with pytest.raises(UsageError):
        read_liberty_text(tmp_path / "bad.lib.gz")
    with pytest.raises(UsageError):
        read_liberty_text(tmp_path / "missing.lib")


@pytest.mark.parametrize("name", ["nangate45", "sky130hd"])
def test_shipped_tables_have_every_role(name: str) -> None:
    library = load_library(name)
    assert library.full_adder is not None
    assert library.half_adder is not None
    assert library.tie_low is not None
    assert library.tie_high is not None
    assert library.flip_flop.setup_ns > 0
    assert library.buffers
    for cell in library.cells.values():
        assert cell.area_um2 > 0
        # Tie cells apart, every output has a delay from every pin it depends on.
        for out in cell.outputs:
            pins = (cell.clock,) if cell.is_flip_flop else tuple(cell.inputs)
            assert set(out.intrinsic_ns) == set(pins)


def test_figures_of_nangate45_that_everybody_knows() -> None:
    library = load_library("nangate45")
    areas = {"INV_X1": 0.532, "NAND2_X1": 0.798, "XOR2_X1": 1.596, "HA_X1": 2.66}
    areas |= {"FA_X1": 4.256, "DFF_X1": 4.522}
    assert {name: library.cells[name].area_um2 for name in areas} == areas
    assert library.voltage_v == 1.1
