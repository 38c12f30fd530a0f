"""Area of a weight block from what it is made of, without synthesis.

    area = cells of adders and registers, as counted
         + gates a leaf and a literal, in NAND2, fitted
         + nodes of the phase decoders by their number of variables, in NAND2, fitted

The nodes are those of the decoders' ordered decision diagrams: the different functions, up to
complement, that are left of the phase functions of one decoder when the highest phase bits are
given. They count what is shared inside a decoder, and cost about a multiplexer each.

The fitted figures are in ``data/cost_model.yaml``, written by ``python -m benchmarks.cost_model``.
Counts come from the arrays of a block, or from a sample of its matrix, or from the histogram of
its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import yaml

from hwcompile.compiler.estimate.cells import CellLibrary
from hwcompile.compiler.ir.weight_logic import (
    BoolArray,
    IntArray,
    WeightBlock,
    counts,
)
from hwcompile.hdl.matrix_block import PhaseDecode, decoder_of_tap
from hwcompile.passes.lower_matrix import lower_matrix

FITTED = ("fed_back", "flip_flops", "literals", "signs", "masks", "nodes2", "nodes3", "nodes4")
"""Features whose gates are fitted, in NAND2 each; the others are cells, as counted."""

SAMPLE_INPUTS = 64
SAMPLE_COLUMNS = 1024


@dataclass(frozen=True, slots=True)
class BlockFeatures:
    """What a block's area is computed from.

    ``fed_back``: bits of the accumulators that return to the trees. ``literals``: complemented
    inputs of a P = 1 block and its inverters. ``signs``, ``masks``: gates of taps and leaves that
    depend on the phase. ``nodes2``, ``nodes3``, ``nodes4``: decoder nodes of two, three, four and
    more variables.
    """

    full_adders: float
    half_adders: float
    xors: float
    flip_flops: float
    fed_back: float
    literals: float
    signs: float
    masks: float
    nodes2: float
    nodes3: float
    nodes4: float

    def fitted(self) -> list[float]:
        """Values of the features named by ``FITTED``."""
        return [getattr(self, name) for name in FITTED]


@dataclass(frozen=True, slots=True)
class AreaRange:
    """um2: what the model says, and the range that held nine of ten measured blocks."""

    low: float
    mid: float
    high: float


# --- features -------------------------------------------------------------------------------------


def block_features(block: WeightBlock, decode: PhaseDecode = "local") -> BlockFeatures:
    """The features of a block, from its arrays."""
    made = counts(block)
    nodes = _decoder_nodes(block, decode) if block.phases > 1 else (0, 0, 0)
    complements = int(block.tap_sign.any(1).sum()) if block.phases == 1 else 0
    return BlockFeatures(
        full_adders=made.full_adders,
        half_adders=made.half_adders,
        xors=made.xors,
        flip_flops=made.flip_flops,
        fed_back=int(np.diff(block.feedback_start).sum()),
        literals=complements + made.inverters,
        signs=made.sign_gates,
        masks=made.mask_gates,
        nodes2=nodes[0],
        nodes3=nodes[1],
        nodes4=nodes[2],
    )


def _decoder_nodes(block: WeightBlock, decode: PhaseDecode) -> tuple[int, int, int]:
    """Nodes of two, of three, and of four or more variables, over all decoders."""
    decoder = decoder_of_tap(block, decode)
    functions = np.concatenate([block.tap_sign, block.leaf_mask])
    group = np.concatenate([decoder, decoder[block.leaf_tap]])
    width = (block.phases - 1).bit_length()
    padded = np.pad(functions, ((0, 0), (0, (1 << width) - block.phases)), mode="edge")
    nodes = [0, 0, 0]
    for variables in range(width, 1, -1):
        group, padded = _distinct(group, padded)
        half = padded.shape[1] // 2
        differ = (padded[:, :half] != padded[:, half:]).any(1)
        nodes[min(variables, 4) - 2] += int(differ.sum())
        rest = padded[:, :half][~differ]
        split = padded[differ].reshape(-1, half)
        padded = np.concatenate([rest, split])
        group = np.concatenate([group[~differ], np.repeat(group[differ], 2)])
    return nodes[0], nodes[1], nodes[2]


def _distinct(group: IntArray, functions: BoolArray) -> tuple[IntArray, BoolArray]:
    """Different functions of each group up to complement, constants left out."""
    functions = functions ^ functions[:, :1]
    kept = functions.any(1)
    group, functions = group[kept], functions[kept]
    if not len(group):
        return group, functions
    key = np.concatenate(
        [
            np.ascontiguousarray(group[:, None]).view(np.uint8).reshape(len(group), -1),
            np.packbits(functions, axis=1),
        ],
        axis=1,
    )
    rows = np.ascontiguousarray(key).view(np.dtype((np.void, key.shape[1]))).ravel()
    _, first = np.unique(rows, return_index=True)
    first.sort()
    return group[first], functions[first]


# --- area -----------------------------------------------------------------------------------------


@cache
def _fit() -> Mapping[str, float]:
    file = resources.files("hwcompile.compiler.estimate") / "data" / "cost_model.yaml"
    content = yaml.safe_load(file.read_text("utf-8"))
    return {name: float(value) for name, value in content.items()}


def counted_area(features: BlockFeatures, library: CellLibrary) -> float:
    """um2 of the cells that are counted one by one: adders and flip-flops."""
    xor = library.smallest_gate(2, 0b0110)
    nand = library.nand2.area_um2
    full = 2 * xor + 3 * nand
    half = xor + nand
    if library.full_adder is not None:
        full = library.cell(library.full_adder.cell).area_um2
    if library.half_adder is not None:
        half = min(half, library.cell(library.half_adder.cell).area_um2)
    return (
        features.full_adders * full
        + features.half_adders * half
        + features.xors * xor
        + features.flip_flops * library.flip_flop.area_um2
    )


def area_um2(features: BlockFeatures, library: CellLibrary) -> AreaRange:
    """Cell area of a block with these features."""
    fit = _fit()
    gates = sum(fit[name] * value for name, value in zip(FITTED, features.fitted(), strict=True))
    mid = counted_area(features, library) + gates * library.nand2.area_um2
    return AreaRange(mid * fit["low"], mid, mid * fit["high"])


def block_area(
    block: WeightBlock, library: CellLibrary, decode: PhaseDecode = "local"
) -> AreaRange:
    """Cell area of a block."""
    return area_um2(block_features(block, decode), library)


# --- from a part of the matrix --------------------------------------------------------------------


def sampled_area(
    weight: IntArray,
    x_bits: int,
    phases: int,
    planes: int,
    library: CellLibrary,
    decode: PhaseDecode = "local",
) -> AreaRange:
    """Cell area of the block of ``weight [N, M]``, from a sample of its rows and columns."""
    n, m = weight.shape
    trees = -(-m // phases)
    rows = _spaced(n, SAMPLE_INPUTS)
    kept = max(1, min(trees, SAMPLE_COLUMNS // max(1, phases)))
    first = _spaced(trees, kept)
    columns = np.concatenate([first + k * trees for k in range(phases)])
    tile = weight[np.ix_(rows, columns[columns < m])]
    return _scaled_area(tile, (n, m), x_bits, phases, planes, library, decode)


def block_area_from_statistics(
    inputs: int,
    outputs: int,
    weights: Mapping[int, float],
    x_bits: int,
    phases: int,
    planes: int,
    library: CellLibrary,
    decode: PhaseDecode = "local",
) -> AreaRange:
    """Cell area of the block of an unseen matrix ``[inputs, outputs]``.

    ``weights``: how often each value occurs (any scale). The values are taken as independent of
    their place.
    """
    phases = min(phases, outputs)
    trees = -(-outputs // phases)
    kept = max(1, min(trees, SAMPLE_COLUMNS // phases))
    values = sorted(weights)
    share = np.array([weights[v] for v in values], np.float64)
    rng = np.random.default_rng(0)
    shape = (min(inputs, SAMPLE_INPUTS), kept * min(phases, SAMPLE_COLUMNS))
    tile = rng.choice(np.array(values, np.int64), shape, p=share / share.sum())
    return _scaled_area(tile, (inputs, outputs), x_bits, phases, planes, library, decode)


def _spaced(count: int, most: int) -> IntArray:
    """At most ``most`` of ``0 .. count - 1``, in neighbourhoods that decoders share."""
    return np.arange(count) if count <= most else np.arange(most) + (count - most) // 2


def _scaled_area(
    tile: IntArray,
    shape: tuple[int, int],
    x_bits: int,
    phases: int,
    planes: int,
    library: CellLibrary,
    decode: PhaseDecode,
) -> AreaRange:
    """The block of a tile, its parts grown to ``shape`` each by its own law."""
    n, m = shape
    phases = min(phases, tile.shape[1])
    block = lower_matrix(tile, x_bits, phases, planes)
    small = block_features(block, decode)
    trees, own = -(-m // phases), block.trees
    wide, deep = trees / own, n / len(tile)
    grown = int(np.ceil(np.log2(deep))) if deep > 1 else 0
    used = int((block.upper_widths > 0).sum())
    # An adder removes a bit: those of the leaves grow with the inputs, those of the bits fed back
    # and kept with the accumulators' width.
    kept = int(block.upper_widths.sum()) - small.fed_back
    leaves = small.full_adders + kept
    features = BlockFeatures(
        full_adders=max(0.0, wide * (leaves * deep - kept)),
        half_adders=wide * small.half_adders,
        xors=wide * small.xors,
        flip_flops=wide * (small.flip_flops + used * grown),
        fed_back=wide * (small.fed_back + used * grown * (block.cycles > 1)),
        literals=small.literals * deep,
        signs=wide * deep * small.signs,
        masks=wide * deep * small.masks,
        nodes2=wide * deep * small.nodes2,
        nodes3=wide * deep * small.nodes3,
        nodes4=wide * deep * small.nodes4,
    )
    return area_um2(features, library)
