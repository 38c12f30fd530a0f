"""Lists of what there is: targets, ONNX operators, stages and passes."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass

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


def operators() -> list[Entry]:
    """The ONNX operators that the front-end understands, with their domain."""
    return [Entry(name, domain or "ai.onnx") for domain, name in sorted(OPERATORS)]


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
