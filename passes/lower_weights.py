"""Lower a constant matrix to a weight block: digits, leaves, compressor trees.

1. P = 1: each weight becomes canonical signed digits; a digit ``+2^k`` puts ``x_i`` into column k
   of its output, ``-2^k`` puts ``NOT x_i``; zero digits put nothing.
2. P > 1: sign and magnitude; one tap (sign) for each tree and input, one leaf (mask) for each of
   its magnitude bits that is 1 in some phase. Phases where the tap is 0 leave its sign free: it
   takes the value that makes the phase function simplest.
3. Columns are compressed level by level: every three bits of a column become a sum and a carry to
   the next column; when all lower columns are down to one bit, a half adder settles the next two,
   so that a ripple follows the compressors up. The accumulator's ``upper >> p`` enters as leaves,
   or some levels later, so that a cut (:mod:`hwcompile.passes.cut_trees`) has room before it.
4. p planes a cycle: the leaves and shared adders of one plane p times over, each a column higher.
5. The widths are exact: no tree can exceed its upper part; carries out of it are never made.

What must NOT change: the arrays are walked back and must give the matrix, always.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir.weight_logic import (
    WORD_BITS,
    BoolArray,
    GateKind,
    IntArray,
    Stage,
    WeightBlock,
    WeightLogicError,
    expand,
)
from hwcompile.passes.cut_trees import Pace, cut_to_pace
from hwcompile.passes.share_terms import share_terms


def lower_weights(
    weight: IntArray,
    x_bits: int,
    phases: int = 1,
    share: bool = False,
    planes: int = 1,
    magnitude_bits: int = 0,
    pace: Pace | None = None,
) -> WeightBlock:
    """The block of ``y = W x``: weight ``[N, M]`` (rows inputs), at most ``phases`` phases.

    The block's ``phases`` is the number needed: ``ceil(M / ceil(M / phases))``. ``share``: share
    full adders across outputs and digits (P = 1 only). ``planes``: p, bits of every input a cycle.
    ``magnitude_bits`` (P > 1): a place for every weight of so many bits and a sign, used or not:
    the arrays but signs and masks are then the same for all matrices of a shape. ``pace``:
    how fast the block should be; rows of registers go through its trees where it would not be.
    Raises UsageError for an empty matrix, no phase, ``x_bits < 2``, ``planes`` not in
    ``1 .. x_bits``, or places for less than the weights.
    """
    weight = np.asarray(weight)
    if weight.ndim != 2 or 0 in weight.shape or not np.issubdtype(weight.dtype, np.integer):
        raise UsageError("A weight block needs an integer matrix with at least one entry.")
    if x_bits < 2 or phases < 1 or not 1 <= planes <= x_bits:
        raise UsageError("A weight block needs x_bits >= planes >= 1, x_bits >= 2, phases >= 1.")
    weight = weight.astype(np.int64)
    trees = -(-weight.shape[1] // phases)
    phases = -(-weight.shape[1] // trees)
    if magnitude_bits and (phases == 1 or (np.abs(weight) >> magnitude_bits).any()):
        raise UsageError("Places for all weights need two phases and room for the greatest.")
    leaves = _flat(weight, share) if phases == 1 else _folded(weight, trees, phases, magnitude_bits)
    leaves = _replicated(leaves, planes)
    block = cut_to_pace(partial(_assemble, weight.shape, x_bits, phases, planes, leaves), pace)
    expansion = expand(block)
    if not np.array_equal(expansion.weight, weight):
        raise WeightLogicError("A weight block does not compute its matrix.")
    return replace(block, correction=expansion.correction)


@dataclass(frozen=True, slots=True)
class _Leaves:
    """What enters the trees: leaf arrays as in WeightBlock, and where each leaf goes.

    ``columns[g][k]``: numbers of the bits of weight ``2^k`` in tree g: leaves, then outputs of the
    shared ``stages``, both numbered as if there were no feedback bits.
    ``greatest[g]``: largest sum of tree g in one cycle.
    """

    tap_input: IntArray
    tap_plane: IntArray
    tap_tree: IntArray
    tap_sign: BoolArray
    leaf_tap: IntArray
    leaf_mask: BoolArray
    inverted: bool
    stages: tuple[Stage, ...]
    columns: list[list[IntArray]]
    greatest: IntArray
    zero_digits: int


# --- P = 1: signed digits -------------------------------------------------------------------------


def signed_digits(weight: IntArray) -> IntArray:
    """Canonical signed digits, least significant first: -1, 0 or 1, ``[K, *weight.shape]``."""
    rest, digits = weight.copy(), []
    while rest.any():
        digit = np.where(rest & 1, 2 - (rest & 3), 0)
        digits.append(digit)
        rest = (rest - digit) >> 1
    return np.array(digits, np.int64).reshape(-1, *weight.shape)


def _flat(weight: IntArray, share: bool) -> _Leaves:
    digits = signed_digits(weight)
    shared = share_terms(digits, share)
    used = shared.literals()
    literals = used[np.abs(used) <= len(weight)]
    tap_input = np.abs(literals) - 1
    number = {int(v): i for i, v in enumerate(literals)}
    stages = shared.stages(number)
    place = 1 << np.arange(len(digits))
    positive = np.tensordot(place, digits > 0, 1)
    negative = np.tensordot(place, digits < 0, 1)
    return _Leaves(
        tap_input=tap_input,
        tap_plane=np.zeros(len(literals), np.int64),
        tap_tree=np.full(len(literals), -1),
        tap_sign=np.reshape(literals < 0, (-1, 1)),
        leaf_tap=np.arange(len(literals)),
        leaf_mask=np.ones((len(literals), 1), bool),
        inverted=False,
        stages=stages,
        columns=[
            [np.array([number[int(v)] for v in c], np.int64) for c in t] for t in shared.columns
        ],
        greatest=np.maximum(positive, negative).sum(0),
        zero_digits=int((digits == 0).sum()),
    )


# --- P > 1: phase functions -----------------------------------------------------------------------


def simplest(value: BoolArray, care: BoolArray) -> BoolArray:
    """Fill the free places of phase functions ``[F, P]`` so that they depend on few phase bits.

    From the highest phase bit down: where the two halves agree on all places that matter to both,
    they are made equal, and the function no longer depends on that bit.
    """
    count, phases = value.shape
    padded = 1 << (phases - 1).bit_length()
    grow = ((0, 0), (0, padded - phases))
    value, care = np.pad(value & care, grow), np.pad(care, grow)
    half = padded // 2
    while half:
        v, c = (t.reshape(-1, 2, half) for t in (value, care))
        agree = ~(c[:, 0] & c[:, 1] & (v[:, 0] ^ v[:, 1])).any(1).reshape(-1, 1, 1)
        both_v, both_c = (t.any(1, keepdims=True) for t in (v, c))
        value = np.where(agree, both_v, v).reshape(count, padded)
        care = np.where(agree, both_c, c).reshape(count, padded)
        half //= 2
    return value[:, :phases]


def _folded(weight: IntArray, trees: int, phases: int, magnitude_bits: int) -> _Leaves:
    n, m = weight.shape
    padded = np.zeros((n, phases * trees), np.int64)
    padded[:, :m] = weight
    table = padded.reshape(n, phases, trees).transpose(2, 0, 1)
    care = (np.arange(phases * trees) < m).reshape(phases, trees).T
    magnitude = np.abs(table)
    width = magnitude_bits or int(magnitude.max()).bit_length()
    places = np.arange(width)[:, None, None, None]
    digit = (magnitude >> places & 1).astype(bool).transpose(1, 0, 2, 3)  # [G, K, N, P]
    tree, k, i = np.nonzero(digit.any(3) | (magnitude_bits > 0))
    tap_tree, tap_input = np.nonzero(magnitude.any(2) | (magnitude_bits > 0))
    tap_number = np.full((trees, n), -1)
    tap_number[tap_tree, tap_input] = np.arange(len(tap_tree))
    tap_weight = table[tap_tree, tap_input]
    column = tree * width + k
    edges = np.searchsorted(column, np.arange(trees * width + 1))
    return _Leaves(
        tap_input=tap_input,
        tap_plane=np.zeros(len(tap_input), np.int64),
        tap_tree=tap_tree,
        # A leaf is NAND(x XOR sign, mask): a constant less what the opposite weight gives.
        tap_sign=simplest(tap_weight > 0, tap_weight != 0),
        leaf_tap=tap_number[tree, i],
        leaf_mask=simplest(digit[tree, k, i], np.broadcast_to(care[tree], (len(tree), phases))),
        inverted=True,
        stages=(),
        columns=[
            [np.arange(edges[g * width + c], edges[g * width + c + 1]) for c in range(width)]
            for g in range(trees)
        ],
        greatest=np.bincount(tree, 1 << k, minlength=trees).astype(np.int64),
        zero_digits=digit[..., 0].size - len(tree),
    )


# --- p planes a cycle -----------------------------------------------------------------------------


def _replicated(leaves: _Leaves, planes: int) -> _Leaves:
    """The leaves of one plane ``planes`` times over, plane t in columns t higher."""
    if planes == 1:
        return leaves
    taps, count = len(leaves.tap_input), len(leaves.leaf_tap)
    made = leaves.stages[-1].end - count if leaves.stages else 0

    def moved(bits: IntArray, t: int) -> IntArray:
        return np.where(bits < count, bits + t * count, bits + (planes - 1) * count + t * made)

    each = range(planes)
    stages = [
        Stage(s.kind, moved(s.inputs, t), s.first + (planes - 1) * count + t * made)
        for t in each
        for s in leaves.stages
    ]
    height = max((len(c) for c in leaves.columns), default=0) + planes - 1
    columns = [
        [
            np.concatenate(
                [np.zeros(0, np.int64)]
                + [moved(own[k - t], t) for t in each if 0 <= k - t < len(own)]
            )
            for k in range(height)
        ]
        for own in leaves.columns
    ]
    return _Leaves(
        tap_input=np.tile(leaves.tap_input, planes),
        tap_plane=np.repeat(np.arange(planes), taps),
        tap_tree=np.tile(leaves.tap_tree, planes),
        tap_sign=np.tile(leaves.tap_sign, (planes, 1)),
        leaf_tap=np.concatenate([leaves.leaf_tap + t * taps for t in each]),
        leaf_mask=np.tile(leaves.leaf_mask, (planes, 1)),
        inverted=leaves.inverted,
        stages=tuple(stages),
        columns=columns,
        greatest=leaves.greatest * ((1 << planes) - 1),
        zero_digits=leaves.zero_digits,
    )


# --- trees ----------------------------------------------------------------------------------------


def _assemble(
    shape: tuple[int, ...],
    x_bits: int,
    phases: int,
    planes: int,
    leaves: _Leaves,
    join: int,
) -> WeightBlock:
    """Number the feedback bits, compress the columns, and put the block together.

    ``join``: levels of compressors before the feedback enters.
    """
    block = WeightBlock(
        inputs=shape[0],
        outputs=shape[1],
        phases=phases,
        planes=planes,
        x_bits=x_bits,
        tap_input=leaves.tap_input,
        tap_plane=leaves.tap_plane,
        tap_tree=leaves.tap_tree,
        tap_sign=leaves.tap_sign,
        leaf_tap=leaves.leaf_tap,
        leaf_mask=leaves.leaf_mask,
        inverted=leaves.inverted,
        stages=(),
        upper_bits=np.zeros(0, np.int64),
        upper_start=np.zeros(1, np.int64),
        zero_digits=leaves.zero_digits,
        correction=np.zeros(shape[1], np.int64),
    )
    most = [int(v) * block.ones >> block.lower_bits for v in leaves.greatest]
    widths = np.array([v.bit_length() for v in most], np.int64)
    block = replace(block, upper_start=np.concatenate([[0], np.cumsum(widths)]))
    start = block.feedback_start
    feedback = np.diff(start)
    count = len(leaves.leaf_tap)
    moved = int(feedback.sum())

    def renumber(bits: IntArray) -> IntArray:
        return np.where(bits < count, bits, bits + moved)

    shared = tuple(Stage(s.kind, renumber(s.inputs), s.first + moved) for s in leaves.stages)
    queues = []
    for g, columns in enumerate(leaves.columns):
        queue = [renumber(c) for c in columns[: widths[g]]]
        queue += [np.zeros(0, np.int64)] * (int(widths[g]) - len(queue))
        queues.append(queue)
    first = shared[-1].end if shared else int(start[-1])
    stages = [*shared, *compress(queues, first, join)]
    for g, queue in enumerate(queues):
        for k in range(int(feedback[g])):
            queue[k] = np.append(queue[k], start[g] + k)
    stages += compress(queues, stages[-1].end if stages else first)
    upper = [q[0] if len(q) else -1 for queue in queues for q in queue]
    return replace(block, stages=tuple(stages), upper_bits=np.array(upper, np.int64))


_ARITY: dict[GateKind, int] = {"full_adder": 3, "half_adder": 2, "xor": 2}


def compress(queues: list[list[IntArray]], first: int, levels: int | None = None) -> list[Stage]:
    """Compress trees level by level, in place, until each column holds one bit.

    ``queues[g][k]``: bits of column k of tree g, oldest first. ``first``: the next free bit number.
    ``levels``: stop after so many.
    """
    stages: list[Stage] = []
    settled = [0] * len(queues)
    left = itertools.count() if levels is None else range(levels)
    for _ in left:
        if all(s == len(q) for s, q in zip(settled, queues, strict=True)):
            break
        gates: dict[GateKind, list[_Part]] = {kind: [] for kind in _ARITY}
        for g, queue in enumerate(queues):
            while settled[g] < len(queue) and len(queue[settled[g]]) <= 1:
                settled[g] += 1
            for k in range(settled[g], len(queue)):
                kind, taken = _take(queue[k], k == len(queue) - 1, k == settled[g])
                if taken:
                    arity = _ARITY[kind]
                    gates[kind].append((g, k, queue[k][: arity * taken].reshape(arity, taken)))
                    queue[k] = queue[k][arity * taken :]
        for kind, parts in gates.items():
            for packed in _pack(parts):
                inputs = np.concatenate([bits for _, _, bits in packed], axis=1)
                stages.append(Stage(kind, inputs, first))
                _return(queues, packed, stages[-1])
                first = stages[-1].end
    return stages


_Part = tuple[int, int, IntArray]
"""Gates of one column at one level: tree, column, input bits ``[arity, n]``."""


def _pack(parts: list[_Part]) -> Iterator[list[_Part]]:
    """Group parts, in order, to stages of at most ``WORD_BITS`` gates; long parts are split."""
    packed: list[_Part] = []
    room = WORD_BITS
    for g, k, bits in parts:
        while bits.shape[1]:
            packed.append((g, k, bits[:, :room]))
            bits = bits[:, room:]
            room -= packed[-1][2].shape[1]
            if not room:
                yield packed
                packed, room = [], WORD_BITS
    if packed:
        yield packed


def _take(bits: IntArray, top: bool, lowest: bool) -> tuple[GateKind, int]:
    """Which gates a column gets at this level, and how many."""
    if top:
        return "xor", len(bits) // 2
    if len(bits) == 2 and lowest:
        return "half_adder", 1
    return "full_adder", len(bits) // 3


def _return(queues: list[list[IntArray]], parts: list[_Part], stage: Stage) -> None:
    """Append a stage's sums to their columns and its carries to the next ones."""
    at = stage.first
    for g, k, bits in parts:
        made = np.arange(at, at + bits.shape[1])
        queues[g][k] = np.append(queues[g][k], made)
        if stage.kind != "xor":
            queues[g][k + 1] = np.append(queues[g][k + 1], made + stage.size)
        at += len(made)
