"""What a user sees while we work: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hwcompile.compiler.errors import HwcompileError
from hwcompile.compiler.names import label
from hwcompile.compiler.stages import Artefacts, Stage


@dataclass(slots=True)
class Output:
    """Where text goes. ``verbosity``: -1 quiet, 0 normal, 1 -v, 2 -vv."""

    verbosity: int = 0
    progress: bool = True
    json: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    def result(self, text: str) -> None:
        """A line of the answer, on stdout; under ``--json`` the document is the answer."""
        if not self.json and self.verbosity >= 0:
            print(text)

    def document(self, content: Any) -> None:
        """The machine-readable answer, on stdout, under ``--json`` only."""
        if self.json:
            print(json.dumps(content, indent=1, allow_nan=False, default=float))

    def message(self, text: str, level: int = 0) -> None:
        """A note, on stderr, at verbosity ``level`` and above."""
        if self.verbosity >= level:
            self.console.print(text, markup=False, soft_wrap=True)

    def error(self, error: HwcompileError) -> None:
        lines = [f"error: {error.message}"]
        if error.hint:
            lines.append(f"  hint: {error.hint}")
        for line in "\n".join(lines).splitlines():
            print(label(line), file=sys.stderr)

    @property
    def shows_progress(self) -> bool:
        return self.progress and self.verbosity >= 0 and self.console.is_terminal


class StageDisplay:
    """A pipeline listener: a progress bar on a terminal, else one line a stage under ``-v``."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            console=output.console,
            transient=True,
            disable=not output.shows_progress,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> StageDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, stage: Stage, index: int, count: int) -> None:
        self._bar.update(self._task, description=stage.title, completed=index, total=count)

    def finished(self, stage: Stage, seconds: float, cached: bool, made: Artefacts) -> None:
        self._bar.advance(self._task)
        note = "from the cache" if cached else f"{seconds:.1f} s"
        self._output.message(f"{stage.name}: {stage.title}: {note}", level=1)
