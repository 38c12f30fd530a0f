"""Hand-over files: current keys, right units, paths that lead to the RTL."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from hwcompile.compiler.emit import flows
from hwcompile.compiler.names import Ident

FACTS = flows.FlowFacts(Ident("hw_top"), ("hw_core.v", "hw_top.v"), "sky130hd", 12.5)


def test_librelane_config() -> None:
    config = yaml.safe_load(flows.librelane(FACTS))
    assert config["DESIGN_NAME"] == "hw_top"
    assert config["CLOCK_PORT"] == "aclk" and config["CLOCK_PERIOD"] == 12.5
    assert config["VERILOG_FILES"] == ["dir::../../rtl/hw_core.v", "dir::../../rtl/hw_top.v"]
    assert config["PNR_SDC_FILE"] == "dir::../../constraints/design.sdc"


def test_fusesoc_core() -> None:
    text = flows.fusesoc(FACTS)
    assert text.startswith("CAPI=2:\n")
    core = yaml.safe_load(text.split("\n", 1)[1])
    assert core["filesets"]["rtl"]["files"] == ["rtl/hw_core.v", "rtl/hw_top.v"]
    assert core["targets"]["lint"]["toplevel"] == "hw_top"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_orfs_config_finds_the_rtl_from_anywhere(tmp_path: Path) -> None:
    for name, text in flows.files(FACTS).items():
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text(text)
    config = tmp_path / "d/flow/orfs/config.mk"
    (tmp_path / "Makefile").write_text(
        "include $(DESIGN_CONFIG)\nall:\n\t@echo $(VERILOG_FILES) $(SDC_FILE) $(PLATFORM)\n"
    )
    command = ["make", "-s", f"DESIGN_CONFIG={config}"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    rtl = tmp_path / "d/rtl"
    sdc = config.parent / "constraint.sdc"
    assert said.split() == [f"{rtl}/hw_core.v", f"{rtl}/hw_top.v", str(sdc), "sky130hd"]


def test_constraints_follow_the_unit_of_the_liberty() -> None:
    assert "set clk_period 12.5\n" in flows.files(FACTS)["flow/orfs/constraint.sdc"]
    asap7 = flows.files(dataclasses.replace(FACTS, target="asap7", period_ns=0.31))
    assert "set clk_period 310\n" in asap7["flow/orfs/constraint.sdc"]
    assert "set clk_period 0.31\n" in asap7["constraints/design.sdc"]


def test_json_strings_are_safe_yaml() -> None:
    name = 'x": !!python/object "\n'
    assert yaml.safe_load("- " + json.dumps(name)) == [name]
