"""The order of operations: what is live, and which run row by row together.

For Graph and Program alike. An operation reads values made before it, but a Delay, whose input is
made after it in the same row: from a Delay to its input lies a recurrence, which only makes sense
row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class _Value(Protocol):
    @property
    def key(self) -> str: ...


class _Operation(Protocol):
    @property
    def output(self) -> _Value: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def reads(self) -> tuple[str, ...]: ...


Op = TypeVar("Op", bound=_Operation)


@dataclass(frozen=True, slots=True)
class Run(Generic[Op]):
    """Operations in order; ``recurrent``: they must be executed together, row by row."""

    recurrent: bool
    operations: tuple[Op, ...]


def runs(operations: Sequence[Op]) -> list[Run[Op]]:
    """All operations, those of each recurrence together and the others in between."""
    places = {op.output.key: i for i, op in enumerate(operations)}
    found: list[Run[Op]] = []
    start = 0
    while start < len(operations):
        end = _end(operations, places, start)
        if end > start:
            found.append(Run(True, tuple(operations[start:end])))
        else:
            end = start + 1
            while end < len(operations) and _end(operations, places, end) == end:
                end += 1
            found.append(Run(False, tuple(operations[start:end])))
        start = end
    return found


def _end(operations: Sequence[Op], places: dict[str, int], start: int) -> int:
    """One past the last operation of the recurrence that begins at ``start``; else ``start``."""
    end, at = start, start
    while at < max(end, start + 1):
        op = operations[at]
        for key in op.inputs:
            if key not in op.reads:
                end = max(end, places[key] + 1)
        at += 1
    return end


def live(operations: Sequence[Op], ends: Iterable[str]) -> tuple[Op, ...]:
    """The operations that the values ``ends`` depend on, in order."""
    makers = {op.output.key: op for op in operations}
    found: set[str] = set()
    front = list(ends)
    while front:
        key = front.pop()
        if key in makers and key not in found:
            found.add(key)
            front += makers[key].inputs
    return tuple(op for op in operations if op.output.key in found)
