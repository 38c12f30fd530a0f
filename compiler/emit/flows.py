"""Hand-over files: constraints and the inputs of LibreLane, OpenROAD-flow-scripts and FuseSoC.

All of them name the RTL by relative path, file by file, and hold generated identifiers and numbers
only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from hwcompile.compiler.names import Ident

CLOCK_PORT = "aclk"
RESET_PORT = "aresetn"
IO_DELAY_SHARE = 0.2
_VENDOR = "hwcompile"
# Liberty time unit by ORFS platform; an SDC file is read in that unit. Every other platform: ns.
_PICOSECOND_PLATFORMS = ("asap7",)
# Our target names -> ORFS platforms.
_ORFS_PLATFORM = {"nangate45": "nangate45", "sky130hd": "sky130hd", "asap7": "asap7"}
# Our target names -> PDK and standard cell library of LibreLane.
_LIBRELANE_PDK = {"sky130hd": ("sky130A", "sky130_fd_sc_hd")}


@dataclass(frozen=True, slots=True)
class FlowFacts:
    """What the flow files need to know.

    ``rtl``: Verilog file names inside ``rtl/``, leaves first. ``period_ns``: clock period.
    """

    top: Ident
    rtl: Sequence[str]
    target: str
    period_ns: float


def files(facts: FlowFacts) -> dict[str, str]:
    """All hand-over files: path inside the bundle -> text."""
    return {
        "constraints/design.sdc": sdc(facts, unit_ns=1.0),
        "flow/librelane/config.yaml": librelane(facts),
        "flow/orfs/config.mk": orfs(facts),
        "flow/orfs/constraint.sdc": sdc(facts, unit_ns=_orfs_unit_ns(facts.target)),
        f"{facts.top}.core": fusesoc(facts),
    }


def _orfs_unit_ns(target: str) -> float:
    return 0.001 if target in _PICOSECOND_PLATFORMS else 1.0


def _number(value: float) -> str:
    return f"{value:.6g}"


def sdc(facts: FlowFacts, unit_ns: float) -> str:
    """Clock and input/output delays, in units of ``unit_ns`` nanoseconds.

    asap7's liberty counts in picoseconds, the others in nanoseconds, and SDC follows the liberty.
    """
    unit = "ps" if unit_ns < 1 else "ns"
    return "\n".join(
        [
            f"# time unit: {unit}",
            f"set clk_period {_number(facts.period_ns / unit_ns)}",
            f"set io_delay [expr $clk_period * {IO_DELAY_SHARE}]",
            f"create_clock -name {CLOCK_PORT} -period $clk_period [get_ports {CLOCK_PORT}]",
            "set data_inputs [all_inputs -no_clocks]",
            f"set_input_delay $io_delay -clock {CLOCK_PORT} $data_inputs",
            f"set_output_delay $io_delay -clock {CLOCK_PORT} [all_outputs]",
            "",
        ]
    )


def librelane(facts: FlowFacts) -> str:
    """LibreLane's ``config.yaml``; JSON strings are YAML strings: nothing escapes its place."""
    lines = [
        f"DESIGN_NAME: {facts.top}",
        "VERILOG_FILES:",
        *[f"  - {json.dumps(f'dir::../../rtl/{name}')}" for name in facts.rtl],
        f"CLOCK_PORT: {CLOCK_PORT}",
        f"CLOCK_PERIOD: {_number(facts.period_ns)}",
        'PNR_SDC_FILE: "dir::../../constraints/design.sdc"',
        'SIGNOFF_SDC_FILE: "dir::../../constraints/design.sdc"',
        "SYNTH_HIERARCHY_MODE: keep",
        "FP_CORE_UTIL: 40",
        "PL_TARGET_DENSITY_PCT: 50",
    ]
    return "\n".join([*lines, ""])


def orfs(facts: FlowFacts) -> str:
    """OpenROAD-flow-scripts' ``config.mk``; run ``make DESIGN_CONFIG=.../flow/orfs/config.mk``."""
    platform = _ORFS_PLATFORM.get(facts.target, "nangate45")
    sources = " \\\n\t".join(f"$(BUNDLE_RTL)/{name}" for name in facts.rtl)
    return "\n".join(
        [
            "BUNDLE_FLOW := $(patsubst %/,%,$(dir $(abspath $(DESIGN_CONFIG))))",
            "BUNDLE_RTL := $(abspath $(BUNDLE_FLOW)/../../rtl)",
            "",
            f"export DESIGN_NAME = {facts.top}",
            f"export DESIGN_NICKNAME = {facts.top}",
            f"export PLATFORM = {platform}",
            f"export VERILOG_FILES = {sources}",
            "export SDC_FILE = $(BUNDLE_FLOW)/constraint.sdc",
            "export SYNTH_HIERARCHICAL = 1",
            "export SYNTH_MINIMUM_KEEP_SIZE = 10000",
            "export SYNTH_MEMORY_MAX_BITS = 1048576",
            "export CORE_UTILIZATION = 40",
            "export PLACE_DENSITY_LB_ADDON = 0.10",
            "export TNS_END_PERCENT = 100",
            "",
        ]
    )


def fusesoc(facts: FlowFacts) -> str:
    """A FuseSoC core description (CAPI2) at the root of the bundle: its paths may not leave it."""
    return "\n".join(
        [
            "CAPI=2:",
            f"name: {_VENDOR}:chip:{facts.top}:1.0.0",
            "description: Transformer compiled to hardware by hwcompile",
            "filesets:",
            "  rtl:",
            "    files:",
            *[f"      - rtl/{name}" for name in facts.rtl],
            "    file_type: verilogSource",
            "  constraints:",
            "    files:",
            "      - constraints/design.sdc: {file_type: SDC}",
            "  waivers:",
            "    files:",
            "      - rtl/waivers.vlt: {file_type: vlt}",
            "targets:",
            "  default: &default",
            "    filesets: [rtl, constraints]",
            f"    toplevel: {facts.top}",
            "  lint:",
            "    <<: *default",
            "    filesets: [waivers, rtl]",
            "    flow: lint",
            "    flow_options: {tool: verilator}",
            "",
        ]
    )
