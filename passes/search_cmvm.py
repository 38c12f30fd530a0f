"""Search for the sharing of one tile: the levels above the compiled core."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.ir.adder_graph import IntArray
from hwcompile.passes import cmvm_core as core
from hwcompile.passes.cmvm_tile import SolverOptions, Tile, digit_terms, signed_masks, signed_weight

HALF_ADDER = 0.625
"""Area of a half adder over that of a full adder (Nangate45: 2.66 and 4.256 um2)."""

_SPARE_NODES = 256
_NO_BOUND = 1 << 60
_HALF = 0.3  # worth of a node's half adders while it is searched; some go when sums are merged
_HEAT = {True: 1.0, False: 0.1}  # mean loss that the first steps may make: full adders; adders
_LEAST_NODES = 100  # a small matrix is searched as long as one with so many nodes
_SPREAD = 3  # nodes dissolved together, at most
_SEED = 88172645463325252


def search(weight: IntArray, span: IntArray, bound: int | None, options: SolverOptions) -> Tile:
    """The best tile that the level finds.

    ``weight [N, M]``; ``span [N]``: greatest less least value of each input; ``bound``: most
    additions on a path.
    """
    best: tuple[float, core.State] | None = None
    runs = list(_portfolio(options))
    for minimal, rule in runs:
        tables = make_tables(int(np.abs(weight).max()), minimal)
        state = _start(weight, span, tables, bound)
        core.greedy(state, tables, rule, bound is not None, len(state.held) - _SPARE_NODES)
        if options.level == 3:
            state = _improve(state, tables, rule, len(weight), bound, options)
        cost = _cost(state, rule, len(weight)) if len(runs) > 1 else 0.0
        if best is None or cost < best[0]:
            best = cost, state
    assert best is not None
    return _tile(best[1], len(weight))


def _portfolio(options: SolverOptions) -> Iterator[tuple[bool, core.Rule]]:
    """Digit forms (True: all minimal ones) and rules to try."""
    bits = options.objective != "adders"
    first = core.Rule(bits, _HALF if options.level == 3 else 0.0, 1, False)
    if options.level in (1, 3):
        yield True, first
        return
    for minimal, oldest, conflict in product((True, False), (False, True), (1, 0, 2)):
        yield minimal, core.Rule(bits, 0.0, conflict, oldest)


@cache
def make_tables(most: int, minimal: bool) -> core.Tables:
    """Digits of all coefficients that can occur with weights of magnitude up to ``most``."""
    places = 1 if most == 1 else most.bit_length() + 1
    reach = 1 << (places + 1)
    values = np.arange(-reach, reach + 1)
    weight = signed_weight(values)
    plus, minus = signed_masks(values)
    if minimal:
        plus, minus = np.zeros_like(values), np.zeros_like(values)
        for place in range(places):
            for mask, rest in ((plus, values - (1 << place)), (minus, values + (1 << place))):
                mask |= (signed_weight(rest) == weight - 1).astype(np.int64) << place
    return core.Tables(
        plus.astype(np.uint32), minus.astype(np.uint32), weight.astype(np.uint8), places, reach
    )


def _start(weight: IntArray, span: IntArray, tables: core.Tables, bound: int | None) -> core.State:
    inputs, outputs = weight.shape
    digits = signed_weight(weight)
    nodes = inputs + int(digits.sum()) // 2 + _SPARE_NODES
    words = -(-outputs // 64)
    places = 1 << np.arange(tables.places)
    signs = np.stack([tables.plus[weight + tables.reach], tables.minus[weight + tables.reach]])
    # [N, M, places, 2] -> bit sets of outputs [N, words, 2 places]
    taken = (signs.transpose(1, 2, 0)[:, :, None, :] & places[:, None].astype(np.uint32)) != 0
    taken = taken.reshape(inputs, outputs, 2 * tables.places)
    state = core.State(
        coef=np.zeros((nodes, outputs), np.int32),
        plane=np.zeros((nodes, words, 2 * tables.places), np.uint64),
        mask=np.zeros((nodes, words), np.uint64),
        held=np.zeros(nodes, np.int64),
        left=np.full(nodes, -1, np.int64),
        right=np.full(nodes, -1, np.int64),
        shift=np.zeros(nodes, np.int64),
        negative=np.zeros(nodes, np.int64),
        span=np.zeros(nodes, np.int64),
        width=np.zeros(nodes, np.int64),
        level=np.zeros(nodes, np.int64),
        row=np.zeros((outputs, -(-nodes // 64)), np.uint64),
        room=np.full(outputs, _NO_BOUND if bound is None else 1 << bound) - digits.sum(0),
        size=np.array([inputs]),
    )
    state.coef[:inputs] = weight
    state.span[:inputs] = span
    state.width[:inputs] = [int(v).bit_length() for v in span.tolist()]
    state.held[:inputs] = np.count_nonzero(weight, axis=1)
    state.plane[:inputs] = _bit_sets(taken.transpose(0, 2, 1)).transpose(0, 2, 1)
    state.mask[:inputs] = _bit_sets(weight != 0)
    state.row[:, : -(-inputs // 64)] = _bit_sets(weight.T != 0)
    return state


def _bit_sets(flags: core.BoolArray) -> NDArray[np.uint64]:
    """Flags ``[..., n]`` as words ``[..., ceil(n / 64)]``, the lowest bit first."""
    packed = np.packbits(flags, axis=-1, bitorder="little")
    padded = np.zeros((*packed.shape[:-1], -(-flags.shape[-1] // 64) * 8), np.uint8)
    padded[..., : packed.shape[-1]] = packed
    return padded.view(np.uint64)


def _improve(
    state: core.State,
    tables: core.Tables,
    rule: core.Rule,
    inputs: int,
    bound: int | None,
    options: SolverOptions,
) -> core.State:
    """Ruin and recreate; the returned state has only the nodes that are left."""
    search = core.new_search(state, tables, _SEED)
    steps = options.steps * max(int(state.size[0]) - inputs, _LEAST_NODES)
    core.improve(
        state, tables, rule, search, bound is not None, inputs, steps, _HEAT[rule.bits], _SPREAD
    )
    return _compact(state, search.alive, inputs)


def _compact(state: core.State, alive: core.BoolArray, inputs: int) -> core.State:
    """Nodes renumbered by level, dead ones dropped."""
    size = int(state.size[0])
    nodes = np.flatnonzero(alive[:size])
    nodes = nodes[np.lexsort((nodes, state.level[nodes]))]
    number = np.full(size + 1, -1, np.int64)
    number[nodes] = np.arange(len(nodes))
    return state._replace(
        coef=state.coef[nodes],
        left=number[state.left[nodes]],
        right=number[state.right[nodes]],
        shift=state.shift[nodes],
        negative=state.negative[nodes],
        span=state.span[nodes],
        level=state.level[nodes],
        size=np.array([len(nodes)]),
    )


def _cost(state: core.State, rule: core.Rule, inputs: int) -> float:
    """Full adders of all sums, half adders at their worth; or adders. Constant parts left out."""
    size = int(state.size[0])
    digits = signed_weight(state.coef[:size].astype(np.int64)).sum(1)
    if not rule.bits:
        return float(size - inputs + digits.sum())
    width = np.array([int(s).bit_length() for s in state.span[:size]])
    made = slice(inputs, size)
    full = width[state.left[made]] + width[state.right[made]] - width[made]
    half = np.maximum(width[made] - 1 - np.abs(state.shift[made].astype(int)) - full, 0)
    return float(full.sum() + HALF_ADDER * half.sum() + (digits * width).sum())


def _tile(state: core.State, inputs: int) -> Tile:
    size = int(state.size[0])
    made = slice(inputs, size)
    shift = state.shift[made].astype(np.int64)
    zero = np.zeros_like(shift)
    operands = np.stack(
        [
            state.left[made].astype(np.int64),
            state.right[made].astype(np.int64),
            np.maximum(-shift, 0),
            np.maximum(shift, 0),
            zero,
            state.negative[made].astype(np.int64),
        ]
    )
    return Tile(inputs, operands, digit_terms(state.coef[:size].astype(np.int64)))
