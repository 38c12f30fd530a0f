"""Options: one declaration gives flags, config keys, the record and the checks."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.options import Options, add_arguments, flag, from_sources, recorded


def parse(*arguments: str) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return from_sources(vars(parser.parse_args(arguments)))


def test_no_argument_gives_the_defaults() -> None:
    assert parse() == Options()


def test_flags() -> None:
    options = parse("--clock-period-ns", "2.5", "--no-model-copy", "--shape", "x=1x4", "-j", "1")
    assert parse("-O3", "--objective", "depth") == Options(optimise=3, objective="depth")
    assert options == Options(clock_period_ns=2.5, model_copy=False, shape=("x=1x4",), jobs=1)


def test_the_command_line_wins_over_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("clock-period-ns: 5\nseed: 3\nshape: [x=1x4]\n")
    options = from_sources({"seed": 4}, str(tmp_path / "c.yaml"))
    assert options == Options(clock_period_ns=5, seed=4, shape=("x=1x4",))


def test_every_option_is_a_config_key(tmp_path: Path) -> None:
    for f in dataclasses.fields(Options):
        value = list(f.default) if isinstance(f.default, tuple) else f.default
        (tmp_path / "c.yaml").write_text(f"{f.name}: {'null' if value is None else str(value)}\n")
        text = str(value)
        if value is not None and not isinstance(value, str):
            text = text.lower()
        (tmp_path / "c.yaml").write_text(f"{f.name}: {'null' if value is None else text}\n")
        assert from_sources({}, str(tmp_path / "c.yaml")) == Options()


@pytest.mark.parametrize(
    "text",
    ["colour: red", "seed: [1]", "verify: maybe", "- a", "seed: true", "jobs: 0", "a: b: c"],
)
def test_a_bad_config_is_a_usage_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError):
        from_sources({}, str(tmp_path / "c.yaml"))


def test_the_user_guide_has_every_option() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "user-guide.md").read_text()
    for f in dataclasses.fields(Options):
        assert f"`{f.metadata['off'] or flag(f.name)}" in guide, f.name


def test_the_record_holds_contents_not_paths(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"data")
    record = recorded(Options(calibration=str(tmp_path / "x.npz"), jobs=7, output="somewhere"))
    assert record["calibration"]["sha256"].startswith("3a6eb0790f39")
    assert "jobs" not in record and "output" not in record
    assert str(tmp_path) not in str(record)


def test_a_missing_file_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot read"):
        recorded(Options(liberty="/nowhere/x.lib"))
