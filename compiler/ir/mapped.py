"""Mapped arrays: weights of a large file as read-only maps of it, in the file's own element type.

A map costs address space, not memory. What moves its elements (a transpose, a reshape, a slice) is
another map of the same bytes; what computes with it makes an array of its own. Pages that were read
stay in memory until :func:`release` gives them back, so whoever reads all of a map reads it by
:func:`blocks`.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Elements of a block: 16 MB as float32.
BLOCK = 1 << 22


def is_mapped(array: Any) -> bool:
    """Whether an array is (a view of) a map of a file, and not a copy made of one."""
    return isinstance(array, np.memmap) and getattr(array, "_mmap", None) is not None


def blocks(array: NDArray[Any], elements: int = BLOCK) -> Iterator[NDArray[Any]]:
    """All elements, about ``elements`` at a time and in no promised order; pages are given back.

    Blocks are parts of the array along the axis on which they lie together in memory.
    """
    if not array.ndim or not array.size:
        yield array
        return
    axis = int(np.argmax(np.abs(array.strides)))
    laid = np.moveaxis(array, axis, 0)
    step = max(1, elements // max(array.size // len(laid), 1))
    for start in range(0, len(laid), step):
        yield laid[start : start + step]
        release(array)


def release(array: NDArray[Any]) -> None:
    """Tell the system that the pages of a map that were read are not needed any more."""
    held = getattr(array, "_mmap", None)
    if isinstance(held, mmap.mmap):
        held.madvise(mmap.MADV_DONTNEED)


def same_place(array: NDArray[Any]) -> tuple[Any, ...]:
    """What tells views of living maps apart without reading them: address, shape, strides, type."""
    address = array.__array_interface__["data"][0]
    return address, array.shape, array.strides, array.dtype.str
