"""The shape of the repository: packages, links and who may import whom."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("compiler", "hdl", "passes", "sim")
# Layer -> what of ours it may import. "compiler" alone (pipeline, command line) sees everything.
ALLOWED = {
    "compiler/ir": ("compiler.ir", "compiler.errors"),
    "compiler/frontend": ("compiler.ir", "compiler.errors", "compiler.frontend", "compiler.names"),
    "passes": ("compiler.ir", "compiler.errors", "passes"),
    "hdl": ("compiler.ir", "compiler.errors", "compiler.tools", "hdl"),
    "sim/reference.py": ("compiler.ir", "compiler.errors"),
}


def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *[f"{node.module}.{alias.name}" for alias in node.names]]
    return [name.removeprefix("hwcompile.") for name in found if name.startswith("hwcompile.")]


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_only_what_it_may(layer: str) -> None:
    place = ROOT / layer
    for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
        for name in _imports(path):
            allowed = any(name == a or name.startswith(a + ".") for a in ALLOWED[layer])
            parent = any(a.startswith(name + ".") for a in ALLOWED[layer])
            assert allowed or parent, f"{path.relative_to(ROOT)} imports {name}"


def test_the_list_of_packages_is_the_folders() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        "hwcompile." + ".".join(path.parent.relative_to(ROOT).parts)
        for source in SOURCES
        for path in (ROOT / source).rglob("__init__.py")
    }
    assert sorted(listed) == sorted({"hwcompile", *folders})


def test_every_folder_with_code_is_a_package() -> None:
    for source in SOURCES:
        for path in (ROOT / source).rglob("*.py"):
            assert (path.parent / "__init__.py").exists() or "data" in path.parts, path


@pytest.mark.parametrize("name", SOURCES)
def test_links_of_the_import_package(name: str) -> None:
    assert (ROOT / "hwcompile" / name).resolve() == ROOT / name
