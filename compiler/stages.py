"""The machinery of the pipeline: stages over named artefacts, with a content-hash cache.

A stage says which artefacts it reads and makes and which options it looks at. Its key is made of
these, of our own source code and of the keys of its inputs, so that a result is used again exactly
when nothing that could change it has changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hwcompile.compiler.cache import StageCache, code_hash, combine
from hwcompile.compiler.options import Options, recorded


class Listener(Protocol):
    """Told what the pipeline does: a progress display, a log, a test."""

    def started(self, stage: Stage, index: int, count: int) -> None: ...

    def finished(self, stage: Stage, seconds: float, cached: bool, made: Artefacts) -> None: ...


Artefacts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step. ``run(options, *inputs)`` returns the outputs as a tuple, in the order named.

    ``reads``: names of the options that can change the result. ``cached``: worth keeping on disk.
    """

    name: str
    title: str
    run: Callable[..., tuple[Any, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reads: tuple[str, ...] = ()
    cached: bool = True


@dataclass(slots=True)
class _Keyed:
    values: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def run_stages(
    stages: Sequence[Stage],
    given: Mapping[str, tuple[Any, str]],
    options: Options,
    cache: StageCache,
    listener: Listener,
) -> dict[str, Any]:
    """Run the stages in order; returns every artefact by name.

    ``given``: the artefacts at hand with the content key of each.
    """
    state = _Keyed(
        {name: value for name, (value, _) in given.items()},
        {name: key for name, (_, key) in given.items()},
    )
    for index, stage in enumerate(stages):
        listener.started(stage, index, len(stages))
        began = time.monotonic()
        key = combine(
            code_hash(),
            stage.name,
            sorted(recorded(options, stage.reads).items()),
            [state.keys[name] for name in stage.inputs],
        )
        made = cache.get(key) if stage.cached else None
        cached = made is not None
        if made is None:
            made = stage.run(options, *[state.values[name] for name in stage.inputs])
            if stage.cached:
                cache.put(key, made)
        outputs = dict(zip(stage.outputs, made, strict=True))
        state.values.update(outputs)
        state.keys.update({name: combine(key, name) for name in stage.outputs})
        listener.finished(stage, time.monotonic() - began, cached, outputs)
    return state.values


def cut(stages: Sequence[Stage], last: str) -> list[Stage]:
    """The stages up to and including the one named ``last``."""
    names = [stage.name for stage in stages]
    return list(stages[: names.index(last) + 1])
