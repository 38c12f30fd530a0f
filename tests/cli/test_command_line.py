"""The command line: exit codes, help, what is said and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwcompile.compiler import cli, pipeline
from hwcompile.compiler.cli import build_parser, main
from hwcompile.compiler.stages import Stage

MODEL = Path(__file__).parents[2] / "examples" / "tiny" / "tiny.onnx"
COMMANDS = (
    *("compile", "run", "generate", "verify", "eval", "estimate", "explore"),
    *("report", "inspect", "targets", "ops", "passes"),
)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"example:\n  hwcompile {command}" in help_of(command, capsys).replace(
        "example:\n  hwcompile model.onnx", "example:\n  hwcompile compile"
    )


def test_the_commands_are_those_that_were_promised() -> None:
    text = build_parser().format_help()
    assert all(f"\n    {command} " in text for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["compile"],
        ["compile", "none.onnx"],
        ["none.onnx"],
        ["compile", str(MODEL), "--style", "rom"],
        ["compile", str(MODEL), "--clock-period-ns", "-1"],
        ["compile", str(MODEL), "--stop-after", "nowhere"],
        ["compile", str(MODEL), "--shape", "x"],
        ["compile", str(MODEL), "--config", "none.yaml"],
        ["compile", str(MODEL), "--target", "nowhere", "--stop-after", "import"],
        ["run", "none", "--inputs", "x.npz"],
        ["generate", "none", "--prompt", "a,b"],
        ["eval", "none", "--data", "x.npz", "--metric", "beauty"],
        ["targets", "--colour"],
    ],
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr().err
    assert code == 2
    assert said and "Traceback" not in said


@pytest.mark.parametrize("content", [b"", b"not a model", MODEL.read_bytes()[:5000]])
def test_a_broken_model(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("m.onnx").write_bytes(content)
    assert main(["m.onnx", "-o", "d"]) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "Traceback" not in said
    assert not Path("d").exists()


def test_a_foreign_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("d").mkdir()
    Path("d/thesis.tex").write_text("")
    assert main([str(MODEL), "-o", "d"]) == 7
    assert "--force" in capsys.readouterr().err
    assert [p.name for p in Path("d").iterdir()] == ["thesis.tex"]


def test_a_bare_model_is_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-v", str(MODEL), "--stop-after", "import"]) == 0
    said = capsys.readouterr()
    assert "stopped after import" in said.out and "import: " in said.err
    assert not Path("tiny-hwcompile").exists()


def test_representations_are_written_as_text() -> None:
    assert main([str(MODEL), "--stop-after", "quantise", "--dump-ir", "ir", "--check"]) == 0
    assert "attend(" in Path("ir/graph.txt").read_text()
    assert " = linear(" in Path("ir/program.txt").read_text()


def _failing(error: BaseException) -> tuple[Stage, ...]:
    def run(*_: object) -> tuple[object, ...]:
        raise error

    return (Stage("import", "Failing", run, ("content",), ("graph",), cached=False),)


def test_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "STAGES", _failing(KeyboardInterrupt()))
    assert main([str(MODEL)]) == 130
    assert "unchanged" in capsys.readouterr().err


def test_a_defect_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "STAGES", _failing(RuntimeError("so\x1b[31m sorry")))
    assert main([str(MODEL)]) == 1
    said = capsys.readouterr().err
    assert "report" in said and "Traceback" not in said and "\x1b" not in said
    assert main([str(MODEL), "-vv"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["targets", "ops", "passes"])
def test_lists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert entries and all(entry["name"] and entry["about"] for entry in entries)


def test_inspect_answers_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(MODEL), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["form"] == "step" and facts["matrix_weights"] > 3000


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out.startswith("hwcompile ")


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(MODEL), "--stop-after", "import", "-q"]) == 0
    said = capsys.readouterr()
    assert said.out == "" and said.err == ""


def test_no_command_starts_with_a_model_that_looks_like_one() -> None:
    assert cli._with_command(["m.onnx", "-o", "d"], build_parser())[0] == "compile"
    assert cli._with_command(["run", "d"], build_parser())[0] == "run"
