"""The chip as hierarchical Verilog: one module a file, generated names only, the same bytes each
time.

Amaranth's netlist goes through Yosys in a child process (an error inside Yosys ends the process it
runs in).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from amaranth.back import rtlil

from hwcompile.compiler.errors import ToolError
from hwcompile.compiler.ir.chip import Chip
from hwcompile.hdl.linear import LinearPlan
from hwcompile.hdl.memory import ram_verilog
from hwcompile.hdl.top import CORE_NAME, TOP_NAME, Core, top_verilog

FILE_LIST = "filelist.f"
WAIVERS = "waivers.vlt"

_CHILD = """
import sys
from pyosys import libyosys as ys
design = ys.Design()
for line in sys.stdin.read().splitlines():
    ys.run_pass(line, design)
"""
_CONVERSION = (
    "read_rtlil core.il",
    "proc -nomux -norom -noopt",
    "memory_collect",
    "opt_clean",
    "setattr -unset init w:*",
    "write_verilog -noattr core.v",
)
_RAM = re.compile(r"\bcell \\(hw_ram_(\d+)x(\d+)) ")
_DUMMY = re.compile(r"\\\$auto\$verilog_backend\.cc:\d+:dump_module\$(\d+) ")
_ONCE = re.compile(r"^( *)reg (always_once_\d+) = 0;$", re.M)
_KEYWORD = re.compile(r"\\([a-z]+) ")  # a name that Yosys escaped, as it is a word of Verilog
_DOLLAR = re.compile(r"\\([\w$]*\$[\w$]*)")
_MODULE = re.compile(r"^module (\S+?)\s*\(.*?^endmodule\n", re.M | re.S)


def run_yosys(commands: Sequence[str], folder: Path, timeout_s: float = 600) -> str:
    """Run Yosys commands in ``folder`` in a child process; its log. Raises ToolError."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input="\n".join(commands),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"Yosys took more than {timeout_s:.0f} s", "see --timeout") from error
    if done.returncode:
        tail = (done.stdout + done.stderr)[-2000:]
        raise ToolError(f"Yosys failed:\n{tail}", "check `pip show pyosys`")
    return done.stdout


def chip_verilog(
    chip: Chip, plans: Sequence[LinearPlan], blocks: Mapping[str, str]
) -> dict[str, str]:
    """All files of ``rtl/``: file name -> text.

    ``plans``: the linear unit's, in ``select`` order. ``blocks``: Verilog of the weight blocks and
    the primitives they use, by module name. ``filelist.f`` names the files, the top last;
    Verilator reads ``waivers.vlt`` before them.
    """
    netlist = rtlil.convert(Core(chip, plans), name=CORE_NAME, emit_src=False)
    modules = core_modules(netlist)
    for match in _RAM.finditer(netlist):
        modules[match[1]] = ram_verilog(int(match[2]), int(match[3]))
    modules |= blocks
    names = sorted(modules)
    files = {f"{name}.v": modules[name] for name in names}
    files[f"{TOP_NAME}.v"] = top_verilog(chip)
    files[FILE_LIST] = "".join(f"{name}.v\n" for name in [*names, TOP_NAME])
    files[WAIVERS] = WAIVER_TEXT
    return files


def check_verilog(folder: Path, top: str = TOP_NAME) -> str:
    """``yosys check -assert`` of a folder of Verilog (``filelist.f``); the log. Raises
    ToolError.
    """
    names = (folder / FILE_LIST).read_text().split()
    reads = [f"read_verilog {name}" for name in names]
    return run_yosys([*reads, f"hierarchy -check -top {top}", "proc", "check -assert"], folder)


def core_modules(netlist: str) -> dict[str, str]:
    """Verilog text by module name from Amaranth's RTLIL."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "core.il").write_text(flat_names(netlist))
        run_yosys(_CONVERSION, path)
        text = _DUMMY.sub(r"always_once_\1", (path / "core.v").read_text())
        # Initialised where it is declared it wakes no process of Icarus: a reset that is there
        # from time 0 would go unseen.
        text = _ONCE.sub(r"\1reg \2;\n\1initial \2 = 0;", text)
        text = _KEYWORD.sub(r"\1_ ", text)
    return {match[1]: match[0] for match in _MODULE.finditer(text)}


def flat_names(netlist: str) -> str:
    """RTLIL with names that Verilog need not escape: module ``hw_core.linear.x`` becomes
    ``hw_core_linear_x``, signal ``a$1`` becomes ``a__1``.
    """

    def flat(match: re.Match[str]) -> str:
        return match[1] + re.sub(r"\W", "_", match[2])

    text = re.sub(
        rf"^((?:module|\s+cell) \\)({CORE_NAME}(?:\.[\w.$]+)?)(?=\s)", flat, netlist, flags=re.M
    )
    return _DOLLAR.sub(lambda match: "\\" + match[1].replace("$", "__"), text)


WAIVER_TEXT = """\
`verilator_config
// Reviewed; only for the modules that Yosys writes from Amaranth's netlist (hw_core*).
// Operands of different widths: Amaranth's rule (extend each by its own sign) is Verilog's rule.
lint_off -rule WIDTHEXPAND -file "*hw_core*.v"
// Combinational processes assign a default first, so a case need not name every value: no latch.
lint_off -rule CASEINCOMPLETE -file "*hw_core*.v"
// Results are computed whole and used in part.
lint_off -rule UNUSEDSIGNAL -file "*hw_core*.v"
"""
