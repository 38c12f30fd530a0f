"""Adder graph: a constant matrix as shared additions of shifted words, before it becomes bits.

Nodes ``0 .. N-1`` are the inputs, the rest adders, in an order in which operands come first::

    node  = +-(left << left_shift) +- (right << right_shift)
    y[j]  = sum over the terms of output j of +-(node << shift)  +  constant[j]

An output is one sum of any number of terms: how it is added up is left to the lowering. ``low`` and
``high`` are the exact least and greatest value of every node over the box of the input intervals.

On disk (:func:`save`, :func:`load`) a graph is a folder with ``graph.json``::

    {"format": "hwcompile-adder-graph", "version": 1, "inputs": N, "outputs": M, "adders": A}

and ``graph.npz`` with the integer arrays of :class:`AdderGraph` under their names. The same graph
gives the same bytes. Loading trusts nothing and runs :func:`verify`.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.errors import HwcompileError

IntArray = NDArray[np.int64]

FORMAT = "hwcompile-adder-graph"
VERSION = 1
_BLOCK = 64  # inputs whose coefficients are expanded at a time: memory stays linear in the nodes
_LIMIT = float(1 << 62)
_MOST_SHIFT = 62
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the least time stamp of a zip entry


class AdderGraphError(HwcompileError):
    """The arrays are not an adder graph, or not that of a matrix: a defect of the compiler."""


class InvalidGraphFile(Exception):
    """The stored graph is damaged or of another version."""


@dataclass(frozen=True, slots=True)
class AdderGraph:
    """N inputs, A adders, M outputs, T terms; all arrays int64, negations 0 or 1.

    ``left``, ``right``, ``left_shift``, ``right_shift``, ``left_negative``, ``right_negative``:
    ``[A]``. ``low``, ``high``: ``[N + A]``. ``level``: adders on the longest path to a node
    ``[N + A]``. The terms of output j are ``term_start[j] .. term_start[j + 1]`` of ``term_node``,
    ``term_shift``, ``term_negative`` ``[T]``; ``constant`` ``[M]``.
    """

    left: IntArray
    right: IntArray
    left_shift: IntArray
    right_shift: IntArray
    left_negative: IntArray
    right_negative: IntArray
    low: IntArray
    high: IntArray
    level: IntArray
    term_start: IntArray
    term_node: IntArray
    term_shift: IntArray
    term_negative: IntArray
    constant: IntArray

    @property
    def adders(self) -> int:
        """A: two-operand nodes; the adders of the output sums come on top."""
        return len(self.left)

    @property
    def inputs(self) -> int:
        """N."""
        return len(self.low) - len(self.left)

    @property
    def outputs(self) -> int:
        """M."""
        return len(self.constant)


@dataclass(frozen=True, slots=True)
class GraphMetrics:
    """``adders``: two-operand additions, those of the output sums included. ``full_adder_bits``:
    sum over all additions of (width a + width b - width of the sum), widths by exact interval;
    what any carry-save realisation needs in full adders. ``depth``: additions on the longest path.
    """

    adders: int
    full_adder_bits: int
    depth: int


def build(
    operands: IntArray,
    terms: IntArray,
    term_start: IntArray,
    low: IntArray,
    high: IntArray,
    matrix: IntArray | None = None,
) -> AdderGraph:
    """A graph with its intervals and levels from its bare structure.

    ``operands [6, A]``: left, right, left_shift, right_shift, left_negative, right_negative;
    ``terms [3, T]``: node, shift, negative; ``low``, ``high [N]``: input intervals; ``matrix
    [N, M]``: what it must expand to, if given. Raises AdderGraphError when the structure is not
    sound or the matrix another.
    """
    rows = [np.ascontiguousarray(row, np.int64) for row in (*operands, *terms)]
    start = np.ascontiguousarray(term_start, np.int64)
    graph = AdderGraph(
        left=rows[0],
        right=rows[1],
        left_shift=rows[2],
        right_shift=rows[3],
        left_negative=rows[4],
        right_negative=rows[5],
        low=np.pad(np.asarray(low, np.int64), (0, operands.shape[1])),
        high=np.pad(np.asarray(high, np.int64), (0, operands.shape[1])),
        level=np.zeros(len(low) + operands.shape[1], np.int64),
        term_start=start,
        term_node=rows[6],
        term_shift=rows[7],
        term_negative=rows[8],
        constant=np.zeros(len(start) - 1, np.int64),
    )
    _verify_structure(graph)
    graph = replace(graph, level=_levels(graph))
    node_low, node_high, expansion = _walk(graph)
    if matrix is not None and not np.array_equal(expansion, matrix):
        raise AdderGraphError("An adder graph does not compute its matrix.")
    return replace(graph, low=node_low, high=node_high)


# --- what it means --------------------------------------------------------------------------------


def expand(graph: AdderGraph) -> IntArray:
    """The matrix ``[N, M]`` that the graph multiplies by (exact; the constants are apart)."""
    matrix = np.zeros((graph.inputs, graph.outputs), np.int64)
    by_level = _by_level(graph, graph.level)
    for first in range(0, graph.inputs, _BLOCK):
        last = min(first + _BLOCK, graph.inputs)
        matrix[first:last] = _sums(graph, _coefficients(graph, by_level, first, last)).T
    return matrix


def evaluate(graph: AdderGraph, x: IntArray) -> IntArray:
    """Run the graph: ``x [rows, N]`` to ``y [rows, M]``."""
    values = np.zeros((graph.inputs + graph.adders, len(x)), np.int64)
    values[: graph.inputs] = np.asarray(x, np.int64).T
    for adders in _by_level(graph, graph.level):
        values[graph.inputs + adders] = _add(graph, adders, values)
    return (_sums(graph, values) + graph.constant[:, None]).T


def output_interval(graph: AdderGraph) -> tuple[IntArray, IntArray]:
    """Exact least and greatest value of each output ``[M]``, constants included."""
    matrix = expand(graph)
    low, high = graph.low[: graph.inputs, None], graph.high[: graph.inputs, None]
    least = np.where(matrix > 0, matrix * low, matrix * high).sum(0)
    greatest = np.where(matrix > 0, matrix * high, matrix * low).sum(0)
    return least + graph.constant, greatest + graph.constant


def metrics(graph: AdderGraph) -> GraphMetrics:
    """Adders, full-adder bits and depth; an output sum is added up shallowest terms first."""
    width = _width(graph.low, graph.high)
    made = graph.inputs + np.arange(graph.adders)
    bits = int((width[graph.left] + width[graph.right] - width[made]).sum())
    sizes = np.diff(graph.term_start)
    used = sizes > 0
    least, greatest = output_interval(graph)
    shift = _least_shift(graph)
    out = _width((least - graph.constant) >> shift, (greatest - graph.constant) >> shift)
    bits += int(width[graph.term_node].sum() - out[used].sum())
    return GraphMetrics(
        adders=graph.adders + int((sizes[used] - 1).sum()),
        full_adder_bits=bits,
        depth=int(output_depth(graph).max(initial=0)),
    )


def output_depth(graph: AdderGraph) -> IntArray:
    """Additions on the longest path to each output ``[M]``: the least D with sum 2^level <= 2^D."""
    depth = np.zeros(graph.outputs, np.int64)
    levels = graph.level[graph.term_node].tolist()
    for j in range(graph.outputs):
        weight = sum(1 << level for level in levels[graph.term_start[j] : graph.term_start[j + 1]])
        depth[j] = max(weight - 1, 0).bit_length()
    return depth


def _width(low: IntArray, high: IntArray) -> IntArray:
    """Bits of a two's-complement word with this interval; no sign bit where low >= 0."""
    most = np.maximum(high, -low - 1)
    bits = np.zeros(len(low), np.int64)
    for k in range(63):
        bits += most >= 1 << k
    return bits + (low < 0)


def _least_shift(graph: AdderGraph) -> IntArray:
    shift = np.zeros(graph.outputs, np.int64)
    used = np.flatnonzero(np.diff(graph.term_start))
    if len(used):
        shift[used] = np.minimum.reduceat(graph.term_shift, graph.term_start[:-1][used])
    return shift


def _add(graph: AdderGraph, adders: IntArray, values: IntArray) -> IntArray:
    left = values[graph.left[adders]] << graph.left_shift[adders, None]
    right = values[graph.right[adders]] << graph.right_shift[adders, None]
    signs = 1 - 2 * np.stack([graph.left_negative[adders], graph.right_negative[adders]])
    total: IntArray = left * signs[0, :, None] + right * signs[1, :, None]
    return total


def _sums(graph: AdderGraph, values: IntArray) -> IntArray:
    """Output sums ``[M, k]`` of node values ``[N + A, k]``, constants left out."""
    total = np.zeros((graph.outputs, values.shape[1]), np.int64)
    used = np.flatnonzero(np.diff(graph.term_start))
    if len(used):
        terms = values[graph.term_node] << graph.term_shift[:, None]
        terms *= 1 - 2 * graph.term_negative[:, None]
        total[used] = np.add.reduceat(terms, graph.term_start[:-1][used], axis=0)
    return total


def _by_level(graph: AdderGraph, level: IntArray) -> list[IntArray]:
    """Adder numbers, one array a level."""
    order = np.argsort(level[graph.inputs :], kind="stable")
    edges = np.flatnonzero(np.diff(level[graph.inputs :][order])) + 1
    return [part for part in np.split(order, edges) if len(part)]


def _coefficients(graph: AdderGraph, by_level: list[IntArray], first: int, last: int) -> IntArray:
    """Coefficients of inputs ``first .. last - 1`` in every node."""
    values = np.zeros((graph.inputs + graph.adders, last - first), np.int64)
    values[np.arange(first, last), np.arange(last - first)] = 1
    for adders in by_level:
        values[graph.inputs + adders] = _add(graph, adders, values)
    return values


def _levels(graph: AdderGraph) -> IntArray:
    level = [0] * graph.inputs
    for a, b in zip(graph.left.tolist(), graph.right.tolist(), strict=True):
        level.append(1 + max(level[a], level[b]))
    return np.array(level, np.int64)


def _walk(graph: AdderGraph) -> tuple[IntArray, IntArray, IntArray]:
    """Exact intervals of all nodes, and the matrix.

    Raises AdderGraphError where a node or an output could pass 2^62.
    """
    by_level = _by_level(graph, graph.level)
    _verify_reach(graph, by_level)
    twice_middle = np.zeros(graph.inputs + graph.adders, np.int64)
    span = np.zeros_like(twice_middle)
    matrix = np.zeros((graph.inputs, graph.outputs), np.int64)
    for first in range(0, graph.inputs, _BLOCK):
        last = min(first + _BLOCK, graph.inputs)
        c = _coefficients(graph, by_level, first, last)
        matrix[first:last] = _sums(graph, c).T
        least, greatest = graph.low[first:last], graph.high[first:last]
        twice_middle += c @ (least + greatest)
        span += np.abs(c) @ (greatest - least)
    return (twice_middle - span) >> 1, (twice_middle + span) >> 1, matrix


def _verify_reach(graph: AdderGraph, by_level: list[IntArray]) -> None:
    """Raise AdderGraphError where a node or an output could pass 2^62, before it is computed."""
    reach = np.maximum(np.abs(graph.low), np.abs(graph.high)).astype(np.float64)
    for adders in by_level:
        reach[graph.inputs + adders] = np.ldexp(
            reach[graph.left[adders]], graph.left_shift[adders]
        ) + np.ldexp(reach[graph.right[adders]], graph.right_shift[adders])
    if (reach >= _LIMIT).any():
        raise AdderGraphError("A node of an adder graph does not fit in 62 bits.")
    sums: NDArray[np.float64] = np.abs(graph.constant).astype(np.float64)
    used = np.flatnonzero(np.diff(graph.term_start))
    if len(used):
        scaled = np.ldexp(reach[graph.term_node], graph.term_shift)
        sums[used] += np.add.reduceat(scaled, graph.term_start[:-1][used])
    if (sums >= _LIMIT).any():
        raise AdderGraphError("An output of an adder graph does not fit in 62 bits.")


# --- verification ---------------------------------------------------------------------------------


def verify(graph: AdderGraph, matrix: IntArray | None = None) -> None:
    """Check the structure, the exact intervals and levels, and, if given, the matrix ``[N, M]``.

    Raises AdderGraphError.
    """
    _verify_structure(graph)
    level = _levels(graph)
    if not np.array_equal(level, graph.level):
        raise AdderGraphError("The levels of an adder graph are wrong.")
    low, high, expansion = _walk(graph)
    if not (np.array_equal(low, graph.low) and np.array_equal(high, graph.high)):
        raise AdderGraphError("The intervals of an adder graph are wrong.")
    if matrix is not None and not np.array_equal(expansion, matrix):
        raise AdderGraphError("An adder graph does not compute its matrix.")


def _verify_structure(graph: AdderGraph) -> None:
    for field in fields(graph):
        array = getattr(graph, field.name)
        if array.dtype != np.int64 or array.ndim != 1:
            raise AdderGraphError("An array of an adder graph is not a vector of int64.")
    a, nodes, terms = len(graph.left), len(graph.low), len(graph.term_node)
    adders = [graph.right, graph.left_shift, graph.right_shift]
    adders += [graph.left_negative, graph.right_negative]
    lengths = [len(x) == a for x in adders] + [len(x) == nodes for x in (graph.high, graph.level)]
    lengths += [len(x) == terms for x in (graph.term_shift, graph.term_negative)]
    lengths += [len(graph.term_start) == graph.outputs + 1, a <= nodes]
    if not all(lengths):
        raise AdderGraphError("The arrays of an adder graph have different lengths.")
    made = graph.inputs + np.arange(a)
    for operand in (graph.left, graph.right):
        if (operand < 0).any() or (operand >= made).any():
            raise AdderGraphError("An adder reads a node that does not come before it.")
    if (graph.term_node < 0).any() or (graph.term_node >= nodes).any():
        raise AdderGraphError("An output reads a node that is not there.")
    for shift in (graph.left_shift, graph.right_shift, graph.term_shift):
        if (shift < 0).any() or (shift > _MOST_SHIFT).any():
            raise AdderGraphError("A shift of an adder graph is out of range.")
    for sign in (graph.left_negative, graph.right_negative, graph.term_negative):
        if ((sign != 0) & (sign != 1)).any():
            raise AdderGraphError("A sign of an adder graph is neither 0 nor 1.")
    start = graph.term_start
    if start[0] != 0 or start[-1] != terms or (np.diff(start) < 0).any():
        raise AdderGraphError("The terms of an adder graph are not in order.")
    if (graph.low > graph.high).any():
        raise AdderGraphError("An interval of an adder graph is empty.")


# --- on disk --------------------------------------------------------------------------------------


def save(graph: AdderGraph, folder: Path) -> None:
    """Write ``graph.json`` and ``graph.npz`` into an existing folder."""
    sizes = {"inputs": graph.inputs, "outputs": graph.outputs, "adders": graph.adders}
    document = {"format": FORMAT, "version": VERSION, **sizes}
    (folder / "graph.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for field in fields(graph):
            data = io.BytesIO()
            np.lib.format.write_array(data, getattr(graph, field.name), version=(1, 0))
            entry = zipfile.ZipInfo(f"{field.name}.npy", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, data.getvalue())
    (folder / "graph.npz").write_bytes(archive.getvalue())


def load(folder: Path) -> AdderGraph:
    """Read and check what :func:`save` wrote. Raises InvalidGraphFile."""
    try:
        document = json.loads((folder / "graph.json").read_bytes())
        with np.load(folder / "graph.npz", allow_pickle=False) as arrays:
            found = [np.ascontiguousarray(arrays[field.name]) for field in fields(AdderGraph)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidGraphFile(f"cannot read the adder graph: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InvalidGraphFile("not an adder graph")
    if document.get("version") != VERSION:
        raise InvalidGraphFile(f"adder graph of version {document.get('version')}, not {VERSION}")
    graph = AdderGraph(*found)
    try:
        verify(graph)
    except AdderGraphError as error:
        raise InvalidGraphFile(error.message) from error
    sizes = (graph.inputs, graph.outputs, graph.adders)
    if sizes != tuple(document.get(name) for name in ("inputs", "outputs", "adders")):
        raise InvalidGraphFile("the sizes of the adder graph are not those of its arrays")
    return graph
