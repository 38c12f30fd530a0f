"""A fault in a bundle turns ``hwcompile verify`` red, with the manifest made to agree with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.faults import inject
from hwcompile.compiler import checks, pipeline
from hwcompile.compiler.cli import main
from hwcompile.compiler.emit import bundle
from hwcompile.compiler.emit.manifest import Manifest, tool_versions
from hwcompile.compiler.ir import serialise
from hwcompile.compiler.options import Options, recorded
from hwcompile.sim.faults import KINDS, NoSite, make_fault

MODEL = Path(__file__).parents[2] / "examples" / "tiny" / "tiny.onnx"
MISMATCH = 5


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the smallest example, without what needs synthesis."""
    options = Options(stop_after="verify", verify="none", cache=False)
    made = pipeline.compile_model(MODEL, options).artefacts
    document, arrays = serialise.to_bytes(made["program"])
    texts = {
        **{f"rtl/{name}": text for name, text in made["hardware"].rtl.items()},
        **{f"sim/{name}": text for name, text in checks.bundle_files(made["vectors"]).items()},
    }
    files = {name: text.encode() for name, text in texts.items()}
    files |= {"reference/program.json": document, "reference/program.npz": arrays}
    folder = tmp_path_factory.mktemp("faults") / "design"
    bundle.write(folder, files, Manifest({}, recorded(options), tool_versions(), {}))
    return folder


@pytest.fixture
def copy(design: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(design, tmp_path / "design"))


def complaint(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``hwcompile verify`` says of a damaged bundle."""
    assert main(["verify", str(folder), "--no-progress"]) == MISMATCH
    return capsys.readouterr().err


def test_a_file_that_the_manifest_does_not_know(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = make_fault(copy, "weight bit", 0)
    inject(copy, fault, new_manifest=False)
    assert next(iter(fault.files)) in complaint(copy, capsys)


def test_an_expected_value(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fault = make_fault(copy, "expected value", 0)
    inject(copy, fault, new_manifest=True)
    said = complaint(copy, capsys)
    assert "sample" in said and "m_axis" in said


@pytest.mark.parametrize("kind", ["reference weight", "reference constant"])
def test_a_number_of_the_reference(
    kind: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inject(copy, make_fault(copy, kind, 1), new_manifest=True)
    assert "reference" in complaint(copy, capsys)


def test_the_verilog(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the signal, the vector and the layer."""
    file = "hw_core_embed.v"
    inject(copy, make_fault(copy, "table entry", 0, only=file), new_manifest=True)
    said = complaint(copy, capsys)
    assert "sample" in said and "m_axis" in said
    assert file in said and "embed:" in said


def test_a_weight(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names block, layer, output column, input and both coefficients."""
    inject(copy, make_fault(copy, "weight bit", 0, only="hw_matrix_6.v"), new_manifest=True)
    said = complaint(copy, capsys)
    assert "weight block hw_matrix_6: output column " in said and "weights of" in said
    assert "expected coefficient" in said and "found" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_one_change(kind: str, design: Path) -> None:
    fault = make_fault(design, kind, 3)
    changed = [n for n, content in fault.files.items() if (design / n).read_bytes() != content]
    assert changed
    assert make_fault(design, kind, 3) == fault


def test_no_place_for_a_fault(tmp_path: Path) -> None:
    (tmp_path / "rtl").mkdir()
    with pytest.raises(NoSite):
        make_fault(tmp_path, "table entry", 0)
