"""Targets: shipped ones, the user's own, clear errors; memory macros."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import yaml

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.memory_macro import macro_area_um2, memory_macro
from hwcompile.compiler.estimate.targets import FIGURES, load_target, target_names

SHIPPED = resources.files("hwcompile.compiler.estimate") / "data" / "targets"


def _content(name: str = "nangate45") -> dict[str, object]:
    content = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text("utf-8"))
    assert isinstance(content, dict)
    return content


def _write(path: Path, content: dict[str, object]) -> str:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", target_names())
def test_shipped_targets_load(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert set(FIGURES) <= set(target.figures)
    assert target.library.flip_flop.area_um2 > target.library.nand2.area_um2


def test_a_target_of_ones_own(tmp_path: Path) -> None:
    content = _content() | {"name": "mine"}
    assert load_target(_write(tmp_path / "mine.yaml", content)).name == "mine"


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UsageError) as caught:
        load_target("nangate54")
    assert "nangate45" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"cells": None}, "no table"),
        ({"extra": 1}, "unknown extra"),
        ({"figures": []}, "mapping"),
        ({"figures": {"node_nm": {"value": 45}}}, "node_nm"),
        ({"figures": {}}, "missing"),
        ({"cells": "missing.yaml"}, "cannot read"),
    ],
)
def test_bad_targets_say_what_is_wrong(
    tmp_path: Path, change: dict[str, object], what: str
) -> None:
    path = _write(tmp_path / "bad.yaml", _content() | change)
    with pytest.raises(UsageError, match=what):
        load_target(path)


def test_figures_must_make_sense(tmp_path: Path) -> None:
    content = _content()
    figures = content["figures"]
    assert isinstance(figures, dict)
    figures["utilisation"] |= {"high": 1.5}
    with pytest.raises(UsageError, match="utilisation"):
        load_target(_write(tmp_path / "bad.yaml", content))
    figures["utilisation"] |= {"high": 0.7, "unit": "percent"}
    with pytest.raises(UsageError, match="share"):
        load_target(_write(tmp_path / "bad.yaml", content))


def test_only_large_memories_are_macros() -> None:
    assert memory_macro("hw_ram_64x32") is None
    assert memory_macro("hw_linear_3") is None
    macro = memory_macro("hw_ram_65x32")
    assert macro is not None
    assert macro.size_bits == 2080


def test_memory_area_follows_the_macros_it_comes_from() -> None:
    target = load_target("sky130hd")
    for words, published_um2 in ((256, 479.78 * 397.5), (512, 683.1 * 416.54)):
        macro = memory_macro(f"hw_ram_{words}x32")
        assert macro is not None
        area = macro_area_um2(macro, target)
        assert area.value == pytest.approx(published_um2, rel=1e-3)
        assert area.low < area.value < area.high
