"""Weight logic: a constant matrix block as arrays of adders over bits.

The block computes ``y = W x``, p bit-planes of every input a cycle. With ``x' = x + 2^(x_bits-1)``
(offset binary, unsigned) and planes ``x'[j]``, least significant first (0 from ``x_bits`` on), each
of the G output trees sums weighted *leaves* of planes ``c p .. c p + p - 1`` in cycle c, and the
sum enters a shift accumulator, over ``C = ceil(x_bits / p)`` cycles::

    leaf   = inverted XOR ((x'_i[c p + tap_plane] XOR sign(phase)) AND mask(phase))
    part_c = sum of leaf * 2^column                              (one number a tree)
    upper  = part_c + (0 if first else upper >> p);  the p bits shifted out enter the lower part
    acc    = upper * 2^(p (C - 1)) + lower = sum over cycles of part_c * 2^(p c)

With ``p = x_bits`` there is one cycle, no feedback and no lower part.

Phase k of tree g makes output column ``k * G + g``. Every constant (offset binary, signs, inverted
leaves) is left out of the logic: ``W x = acc + correction[column]``.

Bits are numbered: first the leaves, then the feedback bits ``upper >> p`` of each tree, then the
outputs of the stages in order. A stage is a vector of equal gates that read lower numbers only.

A *cut* is a row of registers through all trees, between the leaves and what the feedback enters:
what a cycle's planes add up to arrives that much later, and ``first`` with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.errors import HwcompileError

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

WORD_BITS = 64
"""Longest vector of gates: one machine word, which simulators handle fastest."""

GateKind = Literal["full_adder", "half_adder", "xor", "inverter", "register"]


@dataclass(frozen=True, slots=True)
class Stage:
    """``n`` gates of one kind. ``inputs``: bit numbers ``[arity, n]`` (3, 2, 2, 1 and 1).

    Results are bits ``first .. first + n - 1``; an adder's carries are the n bits after its sums.
    """

    kind: GateKind
    inputs: IntArray
    first: int

    @property
    def size(self) -> int:
        """n."""
        return int(self.inputs.shape[1])

    @property
    def end(self) -> int:
        """One past the last output bit."""
        return self.first + self.size * (2 if self.kind.endswith("adder") else 1)


@dataclass(frozen=True, slots=True)
class WeightBlock:
    """The block of one matrix: N ``inputs``, M ``outputs``, ``phases`` P, trees G = ceil(M / P).

    ``planes``: p, bit-planes a cycle. A *tap* is a bit of an input under a sign: ``tap_input[T]``,
    ``tap_plane[T]`` (0 .. p - 1), ``tap_sign[T, P]``; it belongs to tree ``tap_tree[T]``, or to all
    (-1) when P = 1. A *leaf* is a tap under a mask: ``leaf_tap[L]``,
    ``leaf_mask[L, P]``; ``inverted`` complements every leaf (NAND instead of AND).
    ``upper_bits[upper_start[g] : upper_start[g + 1]]`` are the bits of tree g's new upper part,
    least significant first, -1 for a bit that is always 0; a tree without weights has none.
    ``zero_digits``: places of a digit (tree, input, power of two) that hold zero in every phase and
    so cost nothing.
    ``correction[M]``: what :func:`expand` finds missing to W x.
    ``cuts``: registers on every way from a leaf to an accumulator, none on that of the feedback.
    """

    inputs: int
    outputs: int
    phases: int
    planes: int
    x_bits: int
    tap_input: IntArray
    tap_plane: IntArray
    tap_tree: IntArray
    tap_sign: BoolArray
    leaf_tap: IntArray
    leaf_mask: BoolArray
    inverted: bool
    stages: tuple[Stage, ...]
    upper_bits: IntArray
    upper_start: IntArray
    zero_digits: int
    correction: IntArray
    cuts: int = 0

    @property
    def trees(self) -> int:
        """G: output trees."""
        return -(-self.outputs // self.phases)

    @property
    def cycles(self) -> int:
        """C: cycles of a phase."""
        return -(-self.x_bits // self.planes)

    @property
    def lower_bits(self) -> int:
        """Width of the part of an accumulator that only shifts."""
        return self.planes * (self.cycles - 1)

    @property
    def ones(self) -> int:
        """``sum of 2^(p c)`` over the cycles: what a constant 1 of every cycle adds up to."""
        return sum(1 << self.planes * c for c in range(self.cycles))

    @property
    def upper_widths(self) -> IntArray:
        """Width of each tree's upper part ``[G]``."""
        return np.diff(self.upper_start)

    @property
    def feedback_start(self) -> IntArray:
        """First feedback bit of each tree, and one past the last: ``[G + 1]``."""
        widths = np.maximum(self.upper_widths - self.planes, 0) * (self.cycles > 1)
        return len(self.leaf_tap) + np.concatenate([[0], np.cumsum(widths)])

    @property
    def feeds_back(self) -> bool:
        """Whether some accumulator returns to its tree, so that ``first`` matters."""
        return int(self.feedback_start[-1]) > len(self.leaf_tap)

    @property
    def acc_bits(self) -> int:
        """Width of one accumulator."""
        return max(1, int(self.upper_widths.max(initial=0)) + self.lower_bits)


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """What a block is made of.

    ``flip_flops``: those of the accumulators and of the cuts, ``first`` included.
    ``leaves``: bits that enter the trees from inputs, each use counted; ``literals``: distinct
    ones. ``functions``: phase functions that are not constant. ``taps``: places (tree, input) with
    a weight that is not zero in some phase; ``idle_taps``: those without, which cost nothing.
    """

    full_adders: int
    half_adders: int
    xors: int
    inverters: int
    flip_flops: int
    leaves: int
    literals: int
    sign_gates: int
    mask_gates: int
    functions: int
    zero_digits: int
    taps: int
    idle_taps: int

    @property
    def spared_adders(self) -> float:
        """Full adders that zero weights save: each idle tap what a tap needs on average.

        At P = 1 every zero weight is an idle tap; at P > 1 only P zeros of one place are.
        """
        return self.idle_taps * self.full_adders / max(self.taps, 1)


@dataclass(frozen=True, slots=True)
class Expansion:
    """What the arrays stand for: ``acc = x @ weight - correction``; ``weight [N, M]``,
    ``correction [M]``."""

    weight: IntArray
    correction: IntArray


class WeightLogicError(HwcompileError):
    """The arrays of a block are not a matrix product: a defect of the compiler."""


def counts(block: WeightBlock) -> BlockCounts:
    """Cells and leaves of a block."""
    size = dict.fromkeys(get_args(GateKind), 0)
    upper = block.upper_bits
    leaf_uses = int(((upper >= 0) & (upper < len(block.leaf_tap))).sum())
    for stage in block.stages:
        size[stage.kind] += stage.size
        leaf_uses += int((stage.inputs < len(block.leaf_tap)).sum())
    widths = block.upper_widths
    sign_varies = block.tap_sign.any(1) & ~block.tap_sign.all(1)
    mask_varies = ~block.leaf_mask.all(1)
    taps = len(block.tap_input) // block.planes if block.phases > 1 else _weights_in_use(block)
    return BlockCounts(
        full_adders=size["full_adder"],
        half_adders=size["half_adder"],
        xors=size["xor"],
        inverters=size["inverter"],
        flip_flops=int((widths + block.lower_bits * (widths > 0)).sum())
        + size["register"]
        + block.cuts * block.feeds_back,
        leaves=leaf_uses,
        literals=len(block.leaf_tap),
        sign_gates=int(sign_varies.sum()),
        mask_gates=int(mask_varies.sum()),
        functions=int(sign_varies.sum() + mask_varies.sum()),
        zero_digits=block.zero_digits,
        taps=taps,
        idle_taps=block.inputs * block.trees - taps,
    )


def _weights_in_use(block: WeightBlock) -> int:
    """Weights of a P = 1 block that are not zero."""
    (leaf, tree, _), _ = plane_form(block)
    return len(np.unique(block.tap_input[block.leaf_tap[leaf]] * block.trees + tree))


# --- execution ------------------------------------------------------------------------------------


def offset_planes(x: IntArray, x_bits: int, planes: int = 1) -> BoolArray:
    """Bit-planes of ``x + 2^(x_bits-1)``: ``[rows, N]`` to ``[C, planes * N, rows]``.

    The rows of one cycle's result are the bits of the block's port ``x``.
    """
    shifted = np.asarray(x, np.int64).T + (1 << (x_bits - 1))
    bits = [(shifted >> j & 1).astype(bool) for j in range(-(-x_bits // planes) * planes)]
    return np.stack(bits).reshape(-1, planes * len(shifted), shifted.shape[1])


def evaluate(block: WeightBlock, x: IntArray) -> IntArray:
    """Run the arrays bit by bit: signed ``x [rows, N]`` to accumulators ``[rows, M]``."""
    planes = offset_planes(x, block.x_bits, block.planes)
    acc = np.zeros((len(x), block.phases * block.trees), np.int64)
    for phase in range(block.phases):
        columns = slice(phase * block.trees, (phase + 1) * block.trees)
        acc[:, columns] = _run_phase(block, planes, phase)
    return acc[:, : block.outputs]


def _run_phase(block: WeightBlock, planes: BoolArray, phase: int) -> IntArray:
    rows, start, leaves, p = planes.shape[2], block.upper_start, len(block.leaf_tap), block.planes
    tap_bit = block.tap_plane * block.inputs + block.tap_input
    total = block.stages[-1].end if block.stages else int(block.feedback_start[-1])
    bits = np.zeros((total, rows), bool)
    shifted_in = _feedback_source(block)
    acc = np.zeros((rows, block.trees), np.int64)
    upper = np.zeros((len(block.upper_bits), rows), bool)
    registers = [stage for stage in block.stages if stage.kind == "register"]
    held = [np.zeros((stage.size, rows), bool) for stage in registers]
    idle = np.zeros((block.cuts, *planes.shape[1:]), bool)
    for c, plane in enumerate(np.concatenate([planes, idle]), -block.cuts):
        taps = plane[tap_bit] ^ block.tap_sign[:, phase, None]
        bits[:leaves] = (taps[block.leaf_tap] & block.leaf_mask[:, phase, None]) ^ block.inverted
        bits[leaves : block.feedback_start[-1]] = upper[shifted_in] & (c > 0)
        for stage, now in zip(registers, held, strict=True):
            bits[stage.first : stage.end] = now
        for stage in block.stages:
            if stage.kind != "register":
                _run_stage(bits, stage)
        held = [bits[stage.inputs[0]] for stage in registers]
        upper = bits[block.upper_bits] & (block.upper_bits >= 0)[:, None]
        for g in np.flatnonzero(block.upper_widths) if c >= 0 else ():
            word = upper[start[g] : start[g + 1]]
            word = word if c == len(planes) - 1 else word[:p]
            acc[:, g] += (1 << np.arange(p * c, p * c + len(word))) @ word.astype(np.int64)
    return acc


def _feedback_source(block: WeightBlock) -> IntArray:
    """Position in ``upper_bits`` that each feedback bit repeats one cycle later."""
    widths = block.upper_widths
    place = np.arange(len(block.upper_bits)) - np.repeat(block.upper_start[:-1], widths)
    return np.flatnonzero((place >= block.planes) & (block.cycles > 1))


def _run_stage(bits: BoolArray, stage: Stage) -> None:
    operands = bits[stage.inputs]
    n, first = stage.size, stage.first
    result = np.logical_xor.reduce(operands, axis=0)
    bits[first : first + n] = result ^ (stage.kind == "inverter")
    if stage.kind == "half_adder":
        bits[first + n : first + 2 * n] = operands[0] & operands[1]
    elif stage.kind == "full_adder":
        a, b, c = operands
        bits[first + n : first + 2 * n] = (a & b) | (c & (a | b))


# --- what the arrays stand for --------------------------------------------------------------------


def expand(block: WeightBlock) -> Expansion:
    """Walk the arrays back from the accumulators to the inputs: the exact matrix they stand for.

    Each tree's upper part is the sum of its bits times their powers of two. A full adder's outputs
    with coefficients (c, 2c) stand for c times the sum of its inputs; a carry may be missing only
    where its coefficient is a multiple of the tree's modulus. An inverter is 1 - input. What is
    left is a constant and the coefficients of leaves and feedback bits. Raises WeightLogicError
    when the walk does not close, when a tree can exceed its width, when the feedback is not
    ``upper >> p``, when the planes of a cycle do not all have the same matrix, or when bits of
    different cycles would meet.
    """
    _check_cuts(block)
    terms, constant = plane_form(block)
    on, off = _leaf_sums(block, terms)
    least = np.minimum(on, off).sum((0, 1)).min(1) + constant
    greatest = np.maximum(on, off).sum((0, 1)).max(1) + constant
    if (least < 0).any() or (greatest * block.ones >> block.lower_bits >> block.upper_widths).any():
        raise WeightLogicError("An accumulator of a weight block is too narrow.")
    weight = on[0] - off[0]
    place = np.arange(block.planes)[:, None, None, None]
    if (on - off != weight << place).any():
        raise WeightLogicError("The planes of a weight block have different matrices.")
    by_column = weight.transpose(0, 2, 1).reshape(block.inputs, -1)[:, : block.outputs]
    lost = (off.sum((0, 1)) + constant[:, None]).T.ravel()[: block.outputs] * block.ones
    half = 1 << (block.x_bits - 1)
    return Expansion(by_column, -(by_column.sum(0) * half + lost))


def _check_cuts(block: WeightBlock) -> None:
    """All bits that meet must be of one cycle; a feedback bit is of the cycle of its accumulator.

    Raises WeightLogicError.
    """
    leaves, start = len(block.leaf_tap), int(block.feedback_start[-1])
    late = np.zeros(block.stages[-1].end if block.stages else start, np.int64)
    late[leaves:start] = block.cuts
    for stage in block.stages:
        own = late[stage.inputs]
        if (own != own[0]).any():
            raise WeightLogicError("A gate of a weight block reads bits of different cycles.")
        repeat = (stage.end - stage.first) // stage.size
        late[stage.first : stage.end] = np.tile(own[0] + (stage.kind == "register"), repeat)
    if (late[block.upper_bits[block.upper_bits >= 0]] != block.cuts).any():
        raise WeightLogicError("An accumulator of a weight block takes bits of another cycle.")


def plane_form(block: WeightBlock) -> tuple[IntArray, IntArray]:
    """The linear form of the leaves that each tree's adders stand for, feedback left out.

    Terms (leaf, tree, coefficient) ``[3, n]``, sorted by leaf and tree, and constants ``[G]``.
    Raises WeightLogicError as :func:`expand`.
    """
    widths = block.upper_widths
    trees = np.repeat(np.arange(block.trees), widths)
    place = np.arange(len(block.upper_bits)) - np.repeat(block.upper_start[:-1], widths)
    firsts = np.array([s.first for s in block.stages], np.int64)
    constant = np.zeros(block.trees, np.int64)
    pending: list[list[IntArray]] = [[] for _ in range(len(firsts) + 1)]
    made = block.upper_bits >= 0
    _spread(pending, firsts, np.stack([block.upper_bits, trees, 1 << place])[:, made])
    for s in range(len(firsts) - 1, -1, -1):
        if pending[s + 1]:
            terms = _combine(np.concatenate(pending[s + 1], axis=1), block.trees)
            pending[s + 1] = []
            if block.stages[s].kind == "inverter":
                np.add.at(constant, terms[1], terms[2])
            _spread(pending, firsts, _stage_back(block.stages[s], terms, widths, block.trees))
    rest = _combine(np.concatenate([np.zeros((3, 0), np.int64), *pending[0]], axis=1), block.trees)
    is_leaf = rest[0] < len(block.leaf_tap)
    _check_feedback(block, rest[:, ~is_leaf])
    return rest[:, is_leaf], constant


def _spread(pending: list[list[IntArray]], firsts: IntArray, terms: IntArray) -> None:
    """File terms (bit, tree, coefficient) under the stage that makes their bit (0: no stage)."""
    stage = np.searchsorted(firsts, terms[0], side="right")
    order = np.argsort(stage, kind="stable")
    edges = np.flatnonzero(np.diff(stage[order])) + 1
    for part in np.split(order, edges):
        if len(part):
            pending[int(stage[part[0]])].append(terms[:, part])


def _combine(terms: IntArray, trees: int) -> IntArray:
    """Add the coefficients of equal (bit, tree); sorted by bit, then tree."""
    key = terms[0] * trees + terms[1]
    unique, inverse = np.unique(key, return_inverse=True)
    total = np.zeros(len(unique), np.int64)
    np.add.at(total, inverse, terms[2])
    return np.stack([unique // trees, unique % trees, total])


def _stage_back(stage: Stage, terms: IntArray, widths: IntArray, trees: int) -> IntArray:
    """Replace terms of a stage's outputs by terms of its inputs."""
    is_carry = terms[0] >= stage.first + stage.size
    key = (terms[0] - stage.first - is_carry * stage.size) * trees + terms[1]
    sum_key, value = key[~is_carry], terms[2, ~is_carry]
    if stage.kind == "inverter":
        value = -value
    elif stage.kind != "register":
        _check_carries(sum_key, value, key[is_carry], terms[2, is_carry], widths, trees)
    arity = len(stage.inputs)
    bits = stage.inputs[:, sum_key // trees].ravel()
    return np.stack([bits, np.tile(sum_key % trees, arity), np.tile(value, arity)])


def _check_carries(
    sum_key: IntArray,
    value: IntArray,
    carry_key: IntArray,
    carry_value: IntArray,
    widths: IntArray,
    trees: int,
) -> None:
    """A carry must weigh twice its sum, in each tree, modulo the tree's width."""
    at = np.searchsorted(sum_key, carry_key)
    found = at < len(sum_key)
    found[found] = sum_key[at[found]] == carry_key[found]
    carried = np.zeros(len(sum_key), np.int64)
    carried[at[found]] = carry_value[found]
    modulus = np.left_shift(1, widths[sum_key % trees])
    if not found.all() or ((carried - 2 * value) % modulus).any():
        raise WeightLogicError("An adder of a weight block has a wrong weight.")


def _check_feedback(block: WeightBlock, terms: IntArray) -> None:
    """Feedback bit j of a tree must enter that tree, and no other, with weight ``2^j``."""
    start = block.feedback_start
    bits = np.arange(start[0], start[-1])
    tree = np.repeat(np.arange(block.trees), np.diff(start))
    wanted = np.stack([bits, tree, 1 << (bits - start[:-1][tree])])
    if terms.shape != wanted.shape or (terms != wanted).any():
        raise WeightLogicError("The feedback of a weight block's accumulator is wrong.")


def _leaf_sums(block: WeightBlock, terms: IntArray) -> tuple[IntArray, IntArray]:
    """Sum of leaf coefficients when an input bit is 1, and when it is 0: two ``[p, N, G, P]``."""
    leaf, tree, coefficient = terms
    shape = (block.planes, block.inputs, block.trees, block.phases)
    tap = block.leaf_tap[leaf]
    row = (block.tap_plane[tap] * block.inputs + block.tap_input[tap]) * block.trees + tree
    sums = []
    for bit in (True, False):
        value = ((block.tap_sign[tap] ^ bit) & block.leaf_mask[leaf]) ^ block.inverted
        total = np.zeros((block.planes * block.inputs * block.trees, block.phases), np.int64)
        np.add.at(total, row, coefficient[:, None] * value)
        sums.append(total.reshape(shape))
    return sums[0], sums[1]
