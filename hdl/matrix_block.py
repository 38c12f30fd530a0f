"""Verilog of a weight block, written straight from its arrays (IEEE 1364-2005).

One module a matrix, ports as in docs/hardware.md. Full and half adders are vectors of
``hw_full_adders`` and ``hw_half_adders`` (:mod:`hwcompile.hdl.cells`), so that synthesis can give them
the adder cells of the target. Phases are decoded next to where they are used: one table for each
output tree and ``DECODER_INPUTS`` inputs, behind its own copy of the phase bits, so that nothing
but the phase itself crosses the block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hwcompile.compiler.ir.weight_logic import BoolArray, IntArray, Stage, WeightBlock

DECODER_INPUTS = 16

_WIDTH = 100


def matrix_block_verilog(block: WeightBlock, name: str) -> str:
    """The module text of a block; the same text for the same arrays."""
    wires = _Wires(block)
    lines = [
        f"// y = W x: {block.inputs} inputs, {block.outputs} outputs, {block.phases} phases; "
        f"x of {block.x_bits} bits.",
        f"module {name} (",
        *_ports(block),
        ");",
        *(_folded_leaves(block) if block.phases > 1 else _flat_leaves(block)),
        *_feedback(block, wires),
    ]
    for number, stage in enumerate(block.stages):
        lines += _stage(number, stage, wires)
    lines += [*_accumulators(block, wires), *_unused(block, wires), "endmodule", ""]
    return "\n".join(lines)


def _ports(block: WeightBlock) -> Iterator[str]:
    yield "    input  wire clk,"
    yield "    input  wire en,"
    yield "    input  wire first,"
    if block.phases > 1:
        yield f"    input  wire {_range(phase_bits(block.phases))}phase,"
    yield f"    input  wire {_range(block.inputs)}x,"
    yield f"    output wire {_range(block.trees * block.acc_bits)}acc"


def phase_bits(phases: int) -> int:
    """Width of the ``phase`` port; 0: no port."""
    return (phases - 1).bit_length()


# --- text -----------------------------------------------------------------------------------------


def _range(width: int) -> str:
    return f"[{width - 1}:0] " if width > 1 else ""


def _slice(name: str, width: int, first: int, count: int) -> str:
    """Bits ``first .. first + count - 1`` of a vector of ``width`` bits."""
    if count == width:
        return name
    return f"{name}[{first}]" if count == 1 else f"{name}[{first + count - 1}:{first}]"


def _concat(pieces: list[str]) -> str:
    """Join pieces, lowest first, to one expression; long ones over several lines."""
    if len(pieces) == 1:
        return pieces[0]
    lines, line = [], ""
    for piece in reversed(pieces):
        if line and len(line) + len(piece) > _WIDTH - 12:
            lines.append(line)
            line = ""
        line += piece + ", "
    lines.append(line[:-2])
    return "{" + "\n        ".join(lines) + "}"


def _ones(value: BoolArray) -> str:
    """A binary vector as a sized hexadecimal literal; element 0 is the lowest bit."""
    number = int.from_bytes(np.packbits(value, bitorder="little").tobytes(), "little")
    return f"{len(value)}'h{number:x}"


class _Wires:
    """Names of the bits of a block: which vector holds each, and where."""

    def __init__(self, block: WeightBlock) -> None:
        self.names: list[str] = []
        self.firsts: list[int] = []
        self.widths: list[int] = []
        if block.phases > 1:
            trees = block.tap_tree[block.leaf_tap]
            for g in np.unique(trees):
                first, end = np.searchsorted(trees, [g, g + 1])
                self.add(f"leaf{g}", int(first), int(end - first))
        else:
            self.add("leaf", 0, len(block.leaf_tap))
        start = block.feedback_start
        for g in range(block.trees):
            self.add(f"back{g}", int(start[g]), int(start[g + 1] - start[g]))
        for number, stage in enumerate(block.stages):
            self.add(f"s{number}", stage.first, stage.size)
            if stage.kind.endswith("adder"):
                self.add(f"k{number}", stage.first + stage.size, stage.size)
        self._starts = np.array(self.firsts, np.int64)

    def add(self, name: str, first: int, width: int) -> None:
        if width:
            self.names.append(name)
            self.firsts.append(first)
            self.widths.append(width)

    def expression(self, bits: IntArray) -> str:
        """A vector of bits (element 0 lowest) as a concatenation of the fewest slices."""
        holder = np.searchsorted(self._starts, bits, side="right") - 1
        breaks = np.flatnonzero((np.diff(bits) != 1) | (np.diff(holder) != 0)) + 1
        edges = [0, *breaks.tolist(), len(bits)]
        pieces = []
        for a, b in zip(edges[:-1], edges[1:], strict=True):
            v = int(holder[a])
            first = int(bits[a]) - self.firsts[v]
            pieces.append(_slice(self.names[v], self.widths[v], first, b - a))
        return _concat(pieces)


# --- leaves ---------------------------------------------------------------------------------------


def _gather(name: str, width: int, index: IntArray) -> str:
    """Elements ``index`` of one vector as a concatenation of slices."""
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    edges = [0, *breaks.tolist(), len(index)]
    return _concat(
        [
            _slice(name, width, int(index[a]), b - a)
            for a, b in zip(edges[:-1], edges[1:], strict=True)
        ]
    )


def _flat_leaves(block: WeightBlock) -> Iterator[str]:
    """P = 1: a leaf is an input or its complement."""
    if len(block.leaf_tap):
        x = _gather("x", block.inputs, block.tap_input)
        negative = _ones(block.tap_sign[:, 0])
        yield f"  wire {_range(len(block.leaf_tap))}leaf = {x}\n      ^ {negative};"


def _folded_leaves(block: WeightBlock) -> Iterator[str]:
    leaf_tree = block.tap_tree[block.leaf_tap]
    for g in np.unique(block.tap_tree):
        taps = np.flatnonzero(block.tap_tree == g)
        leaves = np.flatnonzero(leaf_tree == g)
        group = block.tap_input // DECODER_INPUTS
        where: dict[tuple[str, int], str] = {}
        for b in np.unique(group[taps]):
            yield from _decoder(block, int(g), int(b), taps, leaves, group, where)
        sign = [_bit(block.tap_sign[t], where.get(("sign", int(t)))) for t in taps]
        mask = [_bit(block.leaf_mask[v], where.get(("mask", int(v)))) for v in leaves]
        x = _gather("x", block.inputs, block.tap_input[taps])
        yield f"  wire {_range(len(taps))}tap{g} = {x}\n      ^ {_packed(sign)};"
        position = np.searchsorted(taps, block.leaf_tap[leaves])
        picked = _gather(f"tap{g}", len(taps), position)
        yield f"  wire {_range(len(leaves))}leaf{g} = ~({picked}\n      & {_packed(mask)});"


def _decoder(
    block: WeightBlock,
    g: int,
    b: int,
    taps: IntArray,
    leaves: IntArray,
    group: IntArray,
    where: dict[tuple[str, int], str],
) -> Iterator[str]:
    """The table of phase functions of tree g, inputs 16 b .. 16 b + 15."""
    signs = taps[(group[taps] == b) & _varies(block.tap_sign[taps])]
    masks = leaves[(group[block.leaf_tap[leaves]] == b) & _varies(block.leaf_mask[leaves])]
    table = np.concatenate([block.tap_sign[signs], block.leaf_mask[masks]])
    if not len(table):
        return
    name = f"f{g}_{b}"
    for n, key in enumerate([("sign", int(t)) for t in signs] + [("mask", int(v)) for v in masks]):
        where[key] = f"{name}[{n}]" if len(table) > 1 else name
    width = phase_bits(block.phases)
    yield f"  wire {_range(width)}phase{g}_{b};"
    yield f"  hw_buffers #(.WIDTH({width})) p{g}_{b} (.a(phase), .y(phase{g}_{b}));"
    yield f"  reg {_range(len(table))}{name};"
    yield f"  always @*\n    case (phase{g}_{b})"
    for k in range(block.phases):
        label = f"{width}'d{k}" if k < block.phases - 1 else "default"
        yield f"      {label}: {name} = {_ones(table[:, k])};"
    yield "    endcase"


def _varies(functions: BoolArray) -> BoolArray:
    return functions.any(1) & ~functions.all(1)


def _bit(function: BoolArray, wire: str | None) -> str:
    return wire if wire is not None else f"1'b{int(function[0])}"


def _packed(bits: list[str]) -> str:
    """Concatenate single bits, lowest first; neighbours of one vector become a slice."""
    pieces: list[str] = []
    at = 0
    while at < len(bits):
        name, _, index = bits[at].partition("[")
        end = at + 1
        if index:
            first = int(index[:-1])
            while end < len(bits) and bits[end] == f"{name}[{first + end - at}]":
                end += 1
            last = first + end - at - 1
            pieces.append(f"{name}[{last}:{first}]" if last > first else bits[at])
        else:
            while end < len(bits) and bits[end] == name:
                end += 1
            pieces.append(f"{{{end - at}{{{name}}}}}" if end - at > 1 else name)
        at = end
    return _concat(pieces)


# --- trees ----------------------------------------------------------------------------------------


def _feedback(block: WeightBlock, wires: _Wires) -> Iterator[str]:
    for g, w in enumerate(block.upper_widths.tolist()):
        if w:
            yield f"  reg {_range(w)}upper{g};"
            yield f"  reg {_range(block.x_bits - 1)}lower{g};"
        if w > 1:
            high = _slice(f"upper{g}", w, 1, w - 1)
            yield f"  wire {_range(w - 1)}back{g} = {high} & {{{w - 1}{{~first}}}};"


_MODULE = {"full_adder": "hw_full_adders", "half_adder": "hw_half_adders"}


def _stage(number: int, stage: Stage, wires: _Wires) -> Iterator[str]:
    n = stage.size
    operands = [wires.expression(bits) for bits in stage.inputs]
    if stage.kind in _MODULE:
        yield f"  wire {_range(n)}s{number}, k{number};"
        ports = "".join(
            f"      .{port}({text}),\n" for port, text in zip("abc", operands, strict=False)
        )
        yield (
            f"  {_MODULE[stage.kind]} #(.WIDTH({n})) u{number} (\n{ports}"
            f"      .sum(s{number}), .carry(k{number}));"
        )
    else:
        text = " ^ ".join(operands) if stage.kind == "xor" else f"~{operands[0]}"
        yield f"  wire {_range(n)}s{number} = {text};"


def _accumulators(block: WeightBlock, wires: _Wires) -> Iterator[str]:
    shift = block.x_bits - 1
    words = []
    yield "  always @(posedge clk)\n    if (en) begin"
    for g, w in enumerate(block.upper_widths.tolist()):
        pad = block.acc_bits - (w + shift if w else 0)
        if w:
            start = int(block.upper_start[g])
            new = wires.expression(block.upper_bits[start : start + w])
            low = _slice(f"upper{g}", w, 0, 1)
            shifted = (
                low if shift == 1 else f"{{{low}, {_slice(f'lower{g}', shift, 1, shift - 1)}}}"
            )
            yield f"      upper{g} <= {new};"
            yield f"      lower{g} <= {shifted};"
            words += [f"lower{g}", f"upper{g}"]
        if pad:
            words.append(f"{pad}'d0")
    yield "    end"
    yield f"  assign acc = {_concat(words)};"


def _unused(block: WeightBlock, wires: _Wires) -> Iterator[str]:
    """Name what no gate reads, so that lint knows it is meant."""
    idle = np.setdiff1d(np.arange(block.inputs), block.tap_input)
    unused = [_gather("x", block.inputs, idle)] if len(idle) else []
    total = block.stages[-1].end if block.stages else int(block.feedback_start[-1])
    read = np.zeros(total, bool)
    read[block.upper_bits] = True
    for stage in block.stages:
        read[stage.inputs] = True
    if not read.all():
        unused.append(wires.expression(np.flatnonzero(~read)))
    if not (block.upper_widths > 1).any():
        unused.append("first")
    if not len(block.upper_bits):
        unused += ["clk", "en"]
    if block.phases > 1 and not (_varies(block.tap_sign).any() or _varies(block.leaf_mask).any()):
        unused.append("phase")
    if unused:
        yield f"  wire unused_ok = &{{1'b0, {_concat(unused)}}};"
