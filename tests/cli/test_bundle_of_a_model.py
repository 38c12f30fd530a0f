"""The smallest example from model to bundle, and everything that can be done with the bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from hwcompile.compiler import audit, evaluate, execute, rebuild
from hwcompile.compiler.cli import main
from hwcompile.compiler.emit import manifest
from hwcompile.compiler.errors import MismatchError

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = EXAMPLES / "tiny" / "tiny.onnx"


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    assert main([str(MODEL), "-o", str(folder), "--no-progress", "--no-cache"]) == 0
    return folder


def test_the_bundle_has_its_parts(design: Path) -> None:
    for name in (
        "manifest.json",
        "report.html",
        "report.json",
        "rtl/filelist.f",
        "rtl/hw_top.v",
        "netlist/areas.json",
        "constraints/design.sdc",
        "flow/librelane/config.yaml",
        "flow/orfs/config.mk",
        "hw_top.core",
        "sim/Makefile",
        "reference/program.json",
        "reference/model.onnx",
    ):
        assert (design / name).is_file(), name
    files = (design / "rtl/filelist.f").read_text().split()
    assert all((design / "rtl" / name).is_file() for name in files)
    config = yaml.safe_load((design / "flow/librelane/config.yaml").read_text())
    paths = [name.removeprefix("dir::") for name in config["VERILOG_FILES"]]
    assert all((design / "flow/librelane" / path).is_file() for path in paths)


def test_nothing_in_the_bundle_names_this_machine(design: Path) -> None:
    machine = [str(design.parent), str(EXAMPLES.parent), f"{Path.home()}/"]
    for path in design.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(name.encode() in content for name in machine), path


def test_a_second_run_finds_it_up_to_date(design: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (design / "manifest.json").stat().st_mtime_ns
    assert main([str(MODEL), "-o", str(design), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verification"] and report["estimate"]
    assert (design / "manifest.json").stat().st_mtime_ns == before


def test_the_rtl_equals_the_reference(design: Path, tmp_path: Path) -> None:
    tokens = np.arange(10).reshape(2, 5) * 3
    np.savez(tmp_path / "x.npz", token=tokens)
    for engine in ("reference", "rtl"):
        out = tmp_path / f"{engine}.npz"
        command = ["run", str(design), "--inputs", str(tmp_path / "x.npz"), "-o", str(out)]
        assert main([*command, "--engine", engine]) == 0
    with np.load(tmp_path / "reference.npz") as want, np.load(tmp_path / "rtl.npz") as got:
        assert want["logits__int"].shape == (2, 5, 30)
        assert sorted(want.files) == sorted(got.files)
        for name in want.files:
            np.testing.assert_array_equal(want[name], got[name])


def test_it_writes_as_the_float_model_does(design: Path) -> None:
    opened = execute.open_design(design)
    data = execute.read_npz(EXAMPLES / "tiny" / "eval.npz")
    found = evaluate.evaluate(opened, data, "perplexity")
    assert found.design_value <= 1.01 * found.float_value
    assert evaluate.evaluate(opened, data, "agreement").design_value >= 0.95


def test_both_engines_generate_the_same(design: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary = str(EXAMPLES / "tiny" / "vocab.json")
    said = []
    for engine in ("reference", "rtl"):
        command = ["generate", str(design), "--vocab", vocabulary, "--text", "the "]
        assert main([*command, "--tokens", "6", "--engine", engine]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and len(said[0].splitlines()) >= 2


def test_the_audit_is_green_and_names_every_module(design: Path) -> None:
    found = audit.verify(design)
    assert {check.module for check in found} >= {"hw_top", "hw_core", "hw_matrix_0"}
    status = {check.module: check.status for check in found}
    assert all(status[name] == "proven" for name in status if name.startswith("hw_matrix_"))
    assert status["hw_full_adders"] == status["hw_half_adders"] == "proven"
    assert [name for name, s in status.items() if s == "not verified"] == [found[-1].module]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("constraints/design.sdc", "create_clock", "create_clock -add"),
        ("flow/orfs/config.mk", "CORE_UTILIZATION = 40", "CORE_UTILIZATION = 90"),
        ("hw_top.core", "lint", "lint "),
        ("sim/Makefile", "\n", "\n\n"),
        ("report.html", "<title>", "<title>Cheap "),
    ],
)
def test_an_edited_file_of_a_bundle(
    name: str, old: str, new: str, design: Path, tmp_path: Path
) -> None:
    """The audit notices it without the manifest."""
    copy = Path(shutil.copytree(design, tmp_path / "copy"))
    opened = execute.open_design(copy)
    hardware = audit.rebuild(opened)
    rebuild.compare_following(opened, hardware)
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new, 1))
    with pytest.raises(MismatchError, match=name):
        rebuild.compare_following(opened, hardware)


def test_an_edited_netlist(design: Path, tmp_path: Path) -> None:
    """Compiling the bundle's model again notices it."""
    name = "netlist/hw_matrix_0.v"
    copy = Path(shutil.copytree(design, tmp_path / "copy"))
    text = (copy / name).read_text()
    (copy / name).write_text(text.replace("1", "2", 1))
    with pytest.raises(MismatchError, match=name):
        rebuild.compiled_anew(execute.open_design(copy), {}, 1, lambda text: None)


def test_the_simulation_runs_without_us(design: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(design, tmp_path / "copy"))
    command = ["make", "-C", str(copy / "sim"), f"PYTHON={sys.executable}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "PASS" in done.stdout
    found = manifest.read(copy)
    assert found is not None and manifest.differences(copy, found) == []
    vectors = copy / "sim" / "vectors.json"
    content = json.loads(vectors.read_text())
    content["samples"][0]["expected"]["m_axis_logits"][3] ^= 1
    vectors.write_text(json.dumps(content))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "sample 0" in done.stdout + done.stderr
    with pytest.raises(MismatchError, match=r"sim/vectors\.json"):
        audit.verify(copy)


def test_a_missed_bound_is_a_budget_error(design: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(EXAMPLES / "tiny" / "eval.npz")
    command = ["eval", str(design), "--data", data, "--metric", "top1", "--limit", "2"]
    assert main([*command, "--min", "0.1"]) == 0
    assert main([*command, "--min", "1.0"]) == 4
    assert "top1" in capsys.readouterr().err


def test_the_report_is_where_it_is_said_to_be(
    design: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "r.html"
    assert main(["report", str(design), "--no-open", "-o", str(page)]) == 0
    assert page.read_text() == (design / "report.html").read_text()
    assert capsys.readouterr().out.strip() == str(page)
