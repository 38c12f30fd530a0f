"""Functions over arrays compiled by numba; the one place that says how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """``numba.njit`` without the interpreter's lock, kept on disk where a folder can be written.

    An installation that nobody may write to compiles anew in each process.
    """
    return _compiled(function)


def borrowing(function: F) -> F:
    """A compiled function without reference counts, which allocates nothing: the arrays are kept by
    its caller. Counting those of a tuple of arrays costs more than a small function does."""
    return _compiled(function, _nrt=False)


def inlined(function: F) -> F:
    """A borrowing function that becomes part of each that calls it."""
    return _compiled(function, _nrt=False, forceinline=True)


def _compiled(function: F, **options: Any) -> F:
    try:
        return cast(F, numba.njit(cache=True, nogil=True, **options)(function))
    except RuntimeError:
        return cast(F, numba.njit(nogil=True, **options)(function))
