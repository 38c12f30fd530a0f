"""What the report says of a module that was simulated."""

from __future__ import annotations

import pytest

from hwcompile.compiler.checks import simulated


def test_a_weight_block_says_how_its_adders_were_simulated() -> None:
    counted = simulated("hw_matrix_3", "whole chip", "12 values", True)
    full = simulated("hw_matrix_3", "whole chip", "12 values", False)
    assert counted.status == full.status == "simulated"
    assert "counts of ones" in counted.detail and "counts of ones" not in full.detail
    assert all("expanded back" in line.detail for line in (counted, full))


@pytest.mark.parametrize("name", ["hw_full_adders", "hw_half_adders"])
def test_adders_that_were_left_out_are_not_called_simulated(name: str) -> None:
    assert simulated(name, "whole chip", "12 values", True).status == "not verified"
    assert simulated(name, "whole chip", "12 values", False).status == "simulated"


def test_other_modules_are_simulated_either_way() -> None:
    lines = [simulated("hw_core", "whole chip", "12 values", c) for c in (True, False)]
    assert lines[0] == lines[1] and lines[0].detail == "12 values"
