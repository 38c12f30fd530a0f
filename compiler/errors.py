"""Typed errors: each carries what went wrong, where, what to do, and its exit code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line; the public contract."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    MODEL = 3
    BUDGET = 4
    MISMATCH = 5
    TOOL = 6
    OUTPUT = 7
    INTERRUPTED = 130


class HwcompileError(Exception):
    """Base of all errors shown to a user. ``hint`` says what to do."""

    code = ExitCode.INTERNAL

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(HwcompileError):
    code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Problem:
    """A node that cannot be compiled; names are safe to print. ``place``: layer path, or ""."""

    operator: str
    name: str
    place: str
    why: str
    hint: str

    def __str__(self) -> str:
        where = f" in {self.place}" if self.place else ""
        return f"{self.operator} '{self.name}'{where}: {self.why}; {self.hint}"


class ModelError(HwcompileError):
    """The model file is invalid, unsupported or needs a shape. ``problems``: every bad node."""

    code = ExitCode.MODEL

    def __init__(self, message: str, hint: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message, hint)
        self.problems = problems


class BudgetError(HwcompileError):
    """The design does not fit the given budget or quality."""

    code = ExitCode.BUDGET


class MismatchError(HwcompileError):
    """Hardware and reference differ, or a bundle is not what its manifest says."""

    code = ExitCode.MISMATCH


class ToolError(HwcompileError):
    """An external tool is missing, failed or ran out of time."""

    code = ExitCode.TOOL


class OutputError(HwcompileError):
    """The output folder is refused."""

    code = ExitCode.OUTPUT
