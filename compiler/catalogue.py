"""What there is: targets and the figures of their nodes, ONNX operators, stages and passes."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate import nodes
from hwcompile.compiler.estimate.figures import TABLES, Figure, load_tables, read_figures_file
from hwcompile.compiler.estimate.scenario import Scenario, load_scenario
from hwcompile.compiler.estimate.targets import load_target, target_names
from hwcompile.compiler.frontend.operators import OPERATORS
from hwcompile.compiler.importing import GRAPH_PASSES, TENSOR_PASSES
from hwcompile.compiler.pipeline import STAGES


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list."""

    name: str
    about: str


def targets() -> list[Entry]:
    """The cell targets that ship."""
    return [Entry(name, load_target(name).description) for name in target_names()]


def figures_of(name: str) -> dict[str, Figure]:
    """Every figure of a process node (``N5``, ``5nm``, ``45``), or of a target and its node.

    Raises:
        UsageError: there is neither; the hint lists both.
    """
    table = load_tables()["nodes"]
    if name in target_names():
        target = load_target(name)
        node = nodes.nearest(table, target.value("node_nm"))
        figures = {f"{name}.{key}": figure for key, figure in target.figures.items()}
    else:
        node, figures = name.lower().removeprefix("n").removesuffix("nm"), {}
    if node not in table.sections():
        known = ", ".join((*table.sections(), *target_names()))
        raise UsageError(f"there is no node {name!r}", f"one of {known}")
    return figures | {k: f for k, f in table.figures.items() if k.partition(".")[0] == node}


def figures_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Figures as plain values."""
    return {name: asdict(figure) for name, figure in figures.items()}


def validate(path: str) -> str:
    """Check a user's target, scenario, or figures over the tables; returns what the file is.

    Raises:
        UsageError: naming the first thing that is missing or wrong.
    """
    content = read_figures_file(Path(path))
    if not content:
        tables = ", ".join(TABLES)
        raise UsageError(f"{path} is empty", f"a target, a scenario, or tables of {tables}")
    if all(key in TABLES for key in content):
        load_tables(Path(path))
        return f"figures over the tables {', '.join(content)}"
    if "alternative" in content:
        return f"scenario {_scenario(path).title}"
    target = load_target(path)
    return f"target {target.name} with {len(target.library.cells)} cells of {target.library.name}"


def _scenario(path: str) -> Scenario:
    """A scenario whose alternative the tables know."""
    scenario, tables = load_scenario(path), load_tables()
    known = (*tables["gpus"].sections(), *tables["edge"].sections())
    if scenario.alternative not in known:
        raise UsageError(f"{path}: no alternative {scenario.alternative!r}", ", ".join(known))
    return scenario


def operators() -> list[Entry]:
    """The ONNX operators that the front-end understands, with their domain and node tests."""
    text = files("hwcompile.compiler.frontend").joinpath("node_tests.json").read_text("utf-8")
    tested: Mapping[str, Mapping[str, int]] = json.loads(text)
    return [
        Entry(name, f"{domain or 'ai.onnx'}{_tests(tested.get(name, {}) if not domain else {})}")
        for domain, name in sorted(OPERATORS)
    ]


def _tests(row: Mapping[str, int]) -> str:
    """How many node tests of the onnx package pass, and how many of them as integers of a chip."""
    if not row:
        return ""
    built = f"; {row['integers']} of {row['hardware']} in integers" if row["hardware"] else ""
    return f": {row['passed']} of {row['tests']} node tests{built}"


def passes() -> list[Entry]:
    """Stages in order; the passes of the front-end after the stage they belong to."""
    entries = []
    for stage in STAGES:
        entries.append(Entry(stage.name, stage.title))
        if stage.name == "import":
            entries += [
                Entry(f"import/{name}", _about(run.__module__))
                for name, run in (*TENSOR_PASSES, *GRAPH_PASSES)
            ]
    return entries


def _about(module: str) -> str:
    """The first line of a pass's own description."""
    text = inspect.getdoc(sys.modules[module]) or ""
    return text.splitlines()[0] if text else ""
