"""Solve a constant matrix: from ``y = x K`` to an adder graph that shares what outputs have alike.

1. Level 0: every output is the sum of the signed digits of its column; linear time, no search.
2. Level 1: one run of the greedy sharing of :mod:`hwcompile.passes.cmvm_core`.
3. Level 2: a portfolio of runs (canonical or all minimal digit forms, ways to rank patterns and to
   break ties); the best by ``objective`` is kept, the first of equals.
4. Level 3: the run of level 1, then ruin and recreate: a few nodes are dissolved in all outputs and
   what they gave is shared anew; what is no worse stays, early on also what is a little worse.
   Steps are counted, not seconds: a budget gives the same graph on every machine.
5. A matrix with too many weights for one piece is cut into tiles of inputs, which keep all outputs;
   each output then sums the terms of all tiles.

The matrix is read by value whatever its dtype, memory order or strides. What must NOT change: the
graph expands to exactly the matrix; it is checked each time.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir import adder_graph
from hwcompile.compiler.ir.adder_graph import AdderGraph, IntArray
from hwcompile.passes.cmvm_tile import SolverOptions, Tile, digit_terms, signed_weight

SOLVER_VERSION = 2
"""Part of every cache key: raised when the same input gives another graph."""

WIDEST_WEIGHT = 1 << 16
_TILE_WEIGHTS = ((1, 1 << 20), (15, 1 << 17), (WIDEST_WEIGHT, 1 << 16))
"""Weights solved in one piece, by the greatest magnitude in the matrix."""


class Store(Protocol):
    """Keeps solved tiles between calls (the compiler's stage cache is one)."""

    def get(self, key: str) -> Any | None: ...

    def put(self, key: str, value: Any) -> None: ...


def solve_cmvm(
    matrix: NDArray[Any],
    low: IntArray | int = -128,
    high: IntArray | int = 127,
    options: SolverOptions = SolverOptions(),  # noqa: B008 (frozen)
    jobs: int = 1,
    store: Store | None = None,
) -> AdderGraph:
    """The adder graph of ``y = x K``: K ``[N, M]`` integers, ``low <= x <= high`` ``[N]`` or one.

    Tiles are solved by ``jobs`` processes; ``store`` keeps them, so that a run that was stopped
    goes on where it was. Raises UsageError for what is not an integer matrix or interval, for
    weights beyond 2^16 and for a depth that cannot be met.
    """
    weight, least, greatest = _checked(matrix, low, high, options)
    bound = _depth_bound(weight, options)
    tiles = list(_tiles(weight, options))
    if len(tiles) > 1 and bound is not None:
        raise UsageError("A depth bound needs a matrix that is solved in one piece.")
    tasks = [(weight[t], least[t], greatest[t], options, bound) for t in tiles]
    keys = [_key(task) for task in tasks]
    solved = [store.get(key) if store else None for key in keys]
    missing = [i for i, tile in enumerate(solved) if tile is None]
    for i, tile in zip(missing, _solve_all([tasks[i] for i in missing], jobs), strict=True):
        solved[i] = tile
        if store:
            store.put(keys[i], tile)
    return _joined(weight, least, greatest, [tile for tile in solved if tile])


def _checked(
    matrix: NDArray[Any], low: IntArray | int, high: IntArray | int, options: SolverOptions
) -> tuple[IntArray, IntArray, IntArray]:
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.integer):
        raise UsageError("The solver needs a matrix of integers.")
    if options.level not in range(4) or options.objective not in ("area", "adders", "depth"):
        raise UsageError("The solver has levels 0 to 3 and objectives area, adders and depth.")
    if matrix.size and (matrix.min() < -WIDEST_WEIGHT or matrix.max() > WIDEST_WEIGHT):
        raise UsageError("The solver takes weights of magnitude up to 2^16.")
    ends = []
    for end in (low, high):
        if not np.issubdtype(np.asarray(end).dtype, np.integer):
            raise UsageError("The ends of the input intervals must be integers.")
        if np.shape(end) not in ((), (len(matrix),)):
            raise UsageError("The solver needs one interval for all inputs, or one for each.")
        ends.append(np.broadcast_to(np.asarray(end, np.int64), len(matrix)).copy())
    if (ends[0] > ends[1]).any() or (np.abs(ends).astype(float) >= 2.0**31).any():
        raise UsageError("Input intervals must not be empty and fit in 32 bits.")
    return np.ascontiguousarray(matrix, np.int64), ends[0], ends[1]


def _depth_bound(weight: IntArray, options: SolverOptions) -> int | None:
    """Most additions on a path. The least possible halves the digits of the largest column."""
    if options.depth is None and options.objective != "depth":
        return None
    least = max(int(signed_weight(weight).sum(0).max(initial=0)) - 1, 0).bit_length()
    if options.depth is not None and options.depth < least:
        raise UsageError(f"This matrix needs at least {least} additions in a row.")
    return least if options.depth is None else options.depth


def _tiles(weight: IntArray, options: SolverOptions) -> Iterator[slice]:
    inputs, outputs = weight.shape
    size = options.tile
    if not size:
        most = int(np.abs(weight).max(initial=0))
        room = next(room for magnitude, room in _TILE_WEIGHTS if most <= magnitude)
        size = max(room // max(outputs, 1), 1)
    count = max(-(-inputs // size), 1)
    edges = [inputs * i // count for i in range(count + 1)]
    return (slice(a, b) for a, b in pairwise(edges))


_Task = tuple[IntArray, IntArray, IntArray, SolverOptions, int | None]


def _key(task: _Task) -> str:
    weight, low, high, options, bound = task
    plain = (SOLVER_VERSION, weight.shape, astuple(options), bound)
    digest = hashlib.sha256(repr(plain).encode())
    for array in (weight, low, high):
        digest.update(array.tobytes())
    return f"cmvm-{digest.hexdigest()}"


def _solve_all(tasks: list[_Task], jobs: int) -> Iterator[Tile]:
    if jobs < 2 or len(tasks) < 2:
        yield from map(_solve_tile, tasks)
        return
    # Children of threads must not be forked: the compiled core would inherit their locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context) as pool:
        yield from pool.map(_solve_tile, tasks)


def _joined(weight: IntArray, low: IntArray, high: IntArray, tiles: list[Tile]) -> AdderGraph:
    """One graph of all tiles: their adders in a row, their terms output by output; checked."""
    operands, terms = [np.zeros((6, 0), np.int64)], [np.zeros((4, 0), np.int64)]
    first_input, first_adder = 0, len(low)
    for tile in tiles:

        def moved(
            nodes: IntArray, tile: Tile = tile, i: int = first_input, a: int = first_adder
        ) -> IntArray:
            return np.where(nodes < tile.inputs, nodes + i, nodes - tile.inputs + a)

        operands.append(np.concatenate([moved(tile.operands[:2]), tile.operands[2:]]))
        terms.append(np.stack([tile.terms[0], moved(tile.terms[1]), *tile.terms[2:]]))
        first_input += tile.inputs
        first_adder += tile.operands.shape[1]
    joined = np.concatenate(terms, axis=1)
    joined = joined[:, np.argsort(joined[0], kind="stable")]
    start = np.searchsorted(joined[0], np.arange(weight.shape[1] + 1))
    made = np.concatenate(operands, axis=1)
    return adder_graph.build(made, joined[1:], start, low, high, weight)


# --- one tile -------------------------------------------------------------------------------------


def _solve_tile(task: _Task) -> Tile:
    weight, low, high, options, bound = task
    if options.level == 0 or not weight.any():
        return _unshared(weight)
    from hwcompile.passes import search_cmvm  # compiled code: loaded only when it is needed

    return search_cmvm.search(weight, high - low, bound, options)


def _unshared(weight: IntArray) -> Tile:
    return Tile(len(weight), np.zeros((6, 0), np.int64), digit_terms(weight))
