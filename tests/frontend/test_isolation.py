"""A model is read first in a limited child: whatever happens to the child is a ModelError."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwcompile.compiler import isolation
from hwcompile.compiler.cli import main
from hwcompile.compiler.errors import ModelError
from hwcompile.compiler.isolation import GIB, Limits, check_isolated, limits_for

TINY = Path("examples/tiny/tiny.onnx")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return Path(shutil.copy(TINY, tmp_path / "tiny.onnx"))


def limited(code: str, limits: Limits) -> subprocess.CompletedProcess[str]:
    """A process that limits itself and then runs ``code``."""
    text = f"from hwcompile.compiler.isolation import *\nlimit_process({limits!r})\n"
    return subprocess.run(
        [sys.executable, "-c", text + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_sound_file_passes_and_memory_is_limited(tiny: Path) -> None:
    check_isolated([tiny], {})
    shape = numpy_helper.from_array(np.array([1 << 13, 1 << 12]), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["many"]),
        helper.make_node("ReduceSum", ["many"], ["one"]),
        helper.make_node("Add", ["x", "one"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 4]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [shape])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tiny)
    with pytest.raises(ModelError, match="took over 64 MiB of memory"):
        check_isolated([tiny], {}, Limits(64 << 20, 60))


def test_the_childs_reasons_are_the_imports(tiny: Path) -> None:
    model = onnx.load(tiny)
    for node in model.graph.node[:2]:
        node.op_type = "Nonsense"
    onnx.save(model, tiny)
    with pytest.raises(ModelError, match="cannot be compiled") as caught:
        check_isolated([tiny], {})
    assert [p.operator for p in caught.value.problems] == ["Nonsense", "Nonsense"]


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (b"", -11, "ended by SIGSEGV"),
        (b"", -9, "ended by SIGKILL"),
        (b"", -24, "took over 7 s"),
        (b'{"verdict": "ok"}', 1, "failed"),
        (b"[[[[", 0, "failed"),
        (b'{"verdict": "refused", "problems": 3}', 0, "failed"),
    ],
)
def test_an_end_of_any_kind_is_a_model_error(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, code: int, said: str
) -> None:
    done = subprocess.CompletedProcess([], code, answer)
    monkeypatch.setattr(isolation.subprocess, "run", lambda *a, **k: done)
    with pytest.raises(ModelError, match=said):
        check_isolated([tiny], {}, Limits(GIB, 7))


def test_a_limited_process_writes_nothing_and_is_ended_in_time(tmp_path: Path) -> None:
    file = tmp_path / "x"
    wrote = limited(f"f = open({str(file)!r}, 'w'); f.write('x'); f.flush()", Limits(GIB, 60))
    assert "File too large" in wrote.stderr
    assert not file.exists() or not file.stat().st_size
    assert "MemoryError" in limited("bytearray(2 << 30)", Limits(GIB, 60)).stderr
    assert limited("while True: pass", Limits(GIB, 0)).returncode == -24


def test_the_limits_grow_with_the_files_but_not_with_what_is_mapped(tiny: Path) -> None:
    size = tiny.stat().st_size
    assert limits_for([tiny]) == Limits(GIB + 4 * size, 60)
    with (tiny.parent / "data").open("wb") as stream:
        stream.truncate(3 * GIB)
    assert limits_for([tiny]) == Limits(5 * GIB, 240)


def test_commands_take_it(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny), "--isolate", "--no-cache", "--no-progress"]) == 0
    tiny.write_bytes(tiny.read_bytes()[:-100])
    assert main(["inspect", str(tiny), "--isolate", "--no-progress"]) == 3
    assert main(["estimate", str(tiny), "--isolate", "--no-progress"]) == 3
    assert main([str(tiny), "--isolate", "--no-progress"]) == 3
    assert "protobuf" in capsys.readouterr().err
