"""Verilog of a weight block, written straight from its arrays (IEEE 1364-2005).

One module a matrix, ports as in docs/hardware.md. Adders are vectors of ``hw_full_adders`` and
``hw_half_adders`` (:mod:`hwcompile.hdl.cells`), so that synthesis can give them the adder cells of
the target. Phases are decoded next to where they are used: one table for some inputs of one output
tree, behind its own copy of the phase bits, so that nothing but the phase itself crosses the block.

With the macro ``HW_COUNT_TREES`` a simulator adds up the leaves of each tree by counting ones
instead of adder by adder: the same numbers many times faster, for whole chips. The counts are taken
from the linear forms that the adders stand for (``plane_form``). Cuts delay the count as they delay
the trees.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import numpy as np

from hwcompile.compiler.ir.weight_logic import (
    WORD_BITS,
    BoolArray,
    IntArray,
    Stage,
    WeightBlock,
    plane_form,
)

DECODER_FUNCTIONS = 128
"""Most phase functions of a decoder: those of 16 int8 inputs, 64 ternary ones.

More share more logic (64 int8 inputs: 14 % less area at 64 phases) over longer wires.
"""

_WIDTH = 100


PhaseDecode = Literal["local", "shared"]

RESPIN_PHASES = 8
"""Most phases of a block whose weights are wires: of 8 phases there are 256 functions."""


def matrix_block_verilog(
    block: WeightBlock, name: str, decode: PhaseDecode = "local", respin: bool = False
) -> str:
    """The module text of a block; the same text for the same arrays.

    ``decode``: phase functions made next to where they are used, which is what routes, or once for
    the block, which is smaller. ``respin``: three modules, of which only the connections inside the
    first say what the weights are; the block must have a place for every weight.
    """
    if respin and block.phases > 1:
        return _respun(block, name, decode)
    wires = _Wires(block)
    lines = [
        _claim(block),
        f"module {name} (",
        *_ports(block),
        ");",
        *(_folded_leaves(block, decode) if block.phases > 1 else _flat_leaves(block)),
        *_feedback(block, wires),
    ]
    lines += ["`ifdef HW_COUNT_TREES", *_counts(block), "`else"]
    for number, stage in enumerate(block.stages):
        lines += _stage(number, stage, wires)
    lines += [*_sums(block, wires), *_unread(block, wires), "`endif"]
    lines += [*_accumulators(block), *_unused(block), "endmodule", ""]
    return "\n".join(lines)


def _claim(block: WeightBlock) -> str:
    """What the module says of itself."""
    cuts = f"; cuts: {block.cuts}" if block.cuts else ""
    return (
        f"// y = W x: {block.inputs} inputs, {block.outputs} outputs, {block.phases} phases; "
        f"x of {block.x_bits} bits, {block.planes} a cycle{cuts}."
    )


def _ports(block: WeightBlock) -> Iterator[str]:
    yield "    input  wire clk,"
    yield "    input  wire first,"
    if block.phases > 1:
        yield f"    input  wire {_range(phase_bits(block.phases))}phase,"
    yield f"    input  wire {_range(block.planes * block.inputs)}x,"
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
        for first, end in _leaf_vectors(block):
            self.add(f"leaf{first}", first, end - first)
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
        """A vector of bits (element 0 lowest) as a concatenation of the fewest slices; -1 is 0."""
        holder = np.searchsorted(self._starts, bits, side="right") - 1
        pieces = []
        at = 0
        for first, count in _runs(bits, np.where(bits < 0, -1 - np.arange(len(bits)), holder)):
            if first < 0:
                pieces.append("1'b0")
                at += 1
                continue
            v = int(holder[at])
            pieces.append(_slice(self.names[v], self.widths[v], first - self.firsts[v], count))
            at += count
        return _concat(pieces)


# --- leaves ---------------------------------------------------------------------------------------


def tap_bits(block: WeightBlock) -> IntArray:
    """The bit of port ``x`` that each tap reads."""
    return block.tap_plane * block.inputs + block.tap_input


def _leaf_vectors(block: WeightBlock) -> list[tuple[int, int]]:
    """Ranges of leaves that form a vector: neighbours with rising taps, at most WORD_BITS."""
    return _ranges(np.diff(block.leaf_tap) <= 0, len(block.leaf_tap))


def _ranges(breaks: BoolArray, count: int) -> list[tuple[int, int]]:
    """Cut ``0 .. count - 1`` after each break, and into pieces of at most WORD_BITS."""
    edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), count] if count else [0]
    return [
        (first, min(first + WORD_BITS, end))
        for begin, end in pairwise(edges)
        for first in range(begin, end, WORD_BITS)
    ]


def _gather(name: str, width: int, index: IntArray) -> str:
    """Elements ``index`` of one vector as a concatenation of slices."""
    edges = [0, *(np.flatnonzero(np.diff(index) != 1) + 1).tolist(), len(index)]
    return _concat([_slice(name, width, int(index[a]), b - a) for a, b in pairwise(edges)])


def _flat_leaves(block: WeightBlock) -> Iterator[str]:
    """P = 1: a leaf is an input or its complement."""
    for first, end in _leaf_vectors(block):
        x = _gather("x", block.planes * block.inputs, tap_bits(block)[first:end])
        negative = _ones(block.tap_sign[first:end, 0])
        yield f"  wire {_range(end - first)}leaf{first} = {x}\n      ^ {negative};"


def _folded_leaves(block: WeightBlock, decode: PhaseDecode) -> Iterator[str]:
    """P > 1: decoders, then taps (input XOR sign), then leaves (tap NAND mask)."""
    functions = np.concatenate([block.tap_sign, block.leaf_mask])
    wires = [f"1'b{int(f[0])}" for f in functions]
    tap = np.concatenate([np.arange(len(block.tap_input)), block.leaf_tap])
    group = decoder_of_tap(block, decode)
    varying = np.flatnonzero(_varies(functions))
    varying = varying[np.argsort(group[tap[varying]], kind="stable")]
    edges = np.flatnonzero(np.diff(group[tap[varying]])) + 1
    for part in np.split(varying, edges):
        if len(part):
            g, b = divmod(int(group[tap[part[0]]]), block.inputs)
            yield from _decoder(f"{g}_{b}", part, functions, wires)
    yield from _tap_leaves(block, wires)


def _tap_leaves(block: WeightBlock, wires: list[str]) -> Iterator[str]:
    """Taps and leaves; ``wires``: the bit of each tap's sign, then of each leaf's mask."""
    holder = np.zeros(len(block.tap_input), np.int64)
    width = np.zeros(len(block.tap_input), np.int64)
    edges = (np.diff(block.tap_tree) != 0) | (np.diff(block.tap_plane) != 0)
    for first, end in _ranges(edges, len(block.tap_input)):
        x = _gather("x", block.planes * block.inputs, tap_bits(block)[first:end])
        sign = _packed(wires[first:end])
        holder[first:end], width[first:end] = first, end - first
        yield f"  wire {_range(end - first)}tap{first} = {x}\n      ^ {sign};"
    for first, end in _leaf_vectors(block):
        taps = block.leaf_tap[first:end]
        pieces = [
            _slice(f"tap{holder[t]}", int(width[t]), int(t - holder[t]), n)
            for t, n in _runs(taps, holder[taps])
        ]
        mask = _packed(wires[len(block.tap_input) + first : len(block.tap_input) + end])
        yield f"  wire {_range(end - first)}leaf{first} = ~({_concat(pieces)}\n      & {mask});"


def _respun(block: WeightBlock, name: str, decode: PhaseDecode) -> str:
    """Wires, a rail of all phase functions, and the cells, whose signs and masks are ports.

    One rail serves an output tree, or with ``decode`` shared the block.
    """
    taps, leaves, size = len(block.tap_input), len(block.leaf_tap), 1 << block.phases
    rails = block.trees if decode == "local" else 1
    # A function's number on the rail is its table: bit k for phase k.
    numbers = (np.concatenate([block.tap_sign, block.leaf_mask]) << np.arange(block.phases)).sum(1)
    tree = np.concatenate([block.tap_tree, block.tap_tree[block.leaf_tap]]) % rails
    chosen = [f"rail{g}[{number}]" for g, number in zip(tree, numbers, strict=True)]
    every = (np.arange(size)[:, None] >> np.arange(block.phases) & 1).astype(bool)
    made = [""] * size
    decoder = list(_decoder("0", np.arange(size), every, made))
    wires = _Wires(block)
    ports = [line for line in _ports(block) if "phase," not in line]
    inside = [f"sign[{n}]" if taps > 1 else "sign" for n in range(taps)]
    inside += [f"mask[{n}]" if leaves > 1 else "mask" for n in range(leaves)]
    lines = [
        _claim(block),
        "// The weights are the connections to the rails of phase functions, and nothing else.",
        f"module {name} (",
        *_ports(block),
        ");",
    ]
    for g in range(rails):
        lines.append(f"  wire {_range(size)}rail{g};")
        lines.append(f"  {name}_rail functions{g} (.phase(phase), .rail(rail{g}));")
    lines += [
        f"  wire {_range(taps)}sign = {_concat(chosen[:taps])};",
        f"  wire {_range(leaves)}mask = {_concat(chosen[taps:])};",
        f"  {name}_cells cells (",
        "      .clk(clk), .first(first), .x(x), .sign(sign), .mask(mask), .acc(acc));",
        f"  wire unused_rails = &{{1'b0, {_concat([f'rail{g}' for g in range(rails)])}}};",
        "endmodule",
        "",
        "// The modules below belong to the one above, and so do their names.",
        "// verilator lint_off DECLFILENAME",
        "// rail[t] is bit `phase` of t.",
        f"module {name}_rail (",
        f"    input  wire {_range(phase_bits(block.phases))}phase,",
        f"    output wire {_range(size)}rail",
        ");",
        *decoder,
        f"  assign rail = {_concat(made)};",
        "endmodule",
        "",
        "// The same for all weights of this shape.",
        f"module {name}_cells (",
        f"    input  wire {_range(taps)}sign,",
        f"    input  wire {_range(leaves)}mask,",
        *ports,
        ");",
        *_tap_leaves(block, inside),
        *_feedback(block, wires),
        *("`ifdef HW_COUNT_TREES", *_counts(block), "`else"),
        *(line for n, stage in enumerate(block.stages) for line in _stage(n, stage, wires)),
        *(*_sums(block, wires), *_unread(block, wires), "`endif"),
        *_accumulators(block),
        "endmodule",
        "",
    ]
    return "\n".join(lines)


def decoder_of_tap(block: WeightBlock, decode: PhaseDecode) -> IntArray:
    """The decoder of each tap's functions: ``tree * inputs + place``; one (0) when shared."""
    if decode == "shared":
        return np.zeros(len(block.tap_tree), np.int64)
    each = 1 + int(np.bincount(block.leaf_tap).max(initial=0))
    inputs = max(1, DECODER_FUNCTIONS // each)
    return block.tap_tree * block.inputs + block.tap_input // inputs


def _decoder(name: str, part: IntArray, functions: BoolArray, wires: list[str]) -> Iterator[str]:
    """Tables of the phase functions ``part``, each different one once; puts the name of each bit
    in ``wires``.
    """
    phases = functions.shape[1]
    width = phase_bits(phases)
    _, first_of, same = np.unique(functions[part], axis=0, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first_of))
    same, users, part = order[same.ravel()], part, part[np.sort(first_of)]
    names: list[str] = []
    yield f"  wire {_range(width)}phase{name};"
    yield f"  hw_buffers #(.WIDTH({width})) p{name} (.a(phase), .y(phase{name}));"
    for first in range(0, len(part), WORD_BITS):
        word = part[first : first + WORD_BITS]
        vector = f"f{name}_{first // WORD_BITS}"
        names += [f"{vector}[{n}]" if len(word) > 1 else vector for n in range(len(word))]
        # A function, not an always block: it has its value from time 0 on in every simulator.
        yield f"  function {_range(len(word))}t{vector}(input {_range(width)}k);"
        yield "    case (k)"
        for k in range(phases):
            label = f"{width}'d{k}" if k < phases - 1 else "default"
            yield f"      {label}: t{vector} = {_ones(functions[word, k])};"
        yield "    endcase\n  endfunction"
        yield f"  wire {_range(len(word))}{vector} = t{vector}(phase{name});"
    for f, n in zip(users, same, strict=True):
        wires[f] = names[n]


def _varies(functions: BoolArray) -> BoolArray:
    return np.not_equal(functions.any(1), functions.all(1))


def _runs(values: IntArray, holder: IntArray) -> Iterator[tuple[int, int]]:
    """First value and length of each run of consecutive values of one holder."""
    breaks = (np.diff(values) != 1) | (np.diff(holder) != 0)
    edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(values)]
    return ((int(values[a]), b - a) for a, b in pairwise(edges))


def _packed(bits: list[str]) -> str:
    """Concatenate single bits, lowest first; neighbours of one vector become a slice."""
    pieces: list[str] = []
    at = 0
    while at < len(bits):
        name, _, index = bits[at].partition("[")
        first = int(index[:-1]) if index else 0
        end = at + 1
        while end < len(bits) and bits[end] == (f"{name}[{first + end - at}]" if index else name):
            end += 1
        count = end - at
        if count == 1:
            pieces.append(bits[at])
        elif index:
            pieces.append(f"{name}[{first + count - 1}:{first}]")
        else:
            pieces.append(f"{{{count}{{{name}}}}}")
        at = end
    return _concat(pieces)


# --- trees ----------------------------------------------------------------------------------------


def _feedback(block: WeightBlock, wires: _Wires) -> Iterator[str]:
    began = "first"
    for n in range(block.cuts if block.feeds_back else 0):
        yield f"  reg first{n};"
        yield f"  always @(posedge clk) first{n} <= {began};"
        began = f"first{n}"
    for g, w in enumerate(block.upper_widths.tolist()):
        if w:
            yield f"  reg {_range(w)}upper{g};"
            if block.lower_bits:
                yield f"  reg {_range(block.lower_bits)}lower{g};"
        kept = w - block.planes
        if kept > 0 and block.lower_bits:
            high = _slice(f"upper{g}", w, block.planes, kept)
            yield f"  wire {_range(kept)}back{g} = {high} & {{{kept}{{~{began}}}}};"


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
    elif stage.kind == "register":
        yield f"  reg {_range(n)}s{number};"
        yield f"  always @(posedge clk) s{number} <= {operands[0]};"
    else:
        text = " ^ ".join(operands) if stage.kind == "xor" else f"~{operands[0]}"
        yield f"  wire {_range(n)}s{number} = {text};"


def _sums(block: WeightBlock, wires: _Wires) -> Iterator[str]:
    for g, w in enumerate(block.upper_widths.tolist()):
        if w:
            start = int(block.upper_start[g])
            new = wires.expression(block.upper_bits[start : start + w])
            yield f"  wire {_range(w)}sum{g} = {new};"


def _counts(block: WeightBlock) -> Iterator[str]:
    """Each tree's sum by counting the leaves of each power of two."""
    (leaf, tree, coefficient), constant = plane_form(block)
    vectors = _leaf_vectors(block)
    kept = np.diff(block.feedback_start).tolist()
    for g, w in enumerate(block.upper_widths.tolist()):
        if not w:
            continue
        mine = tree == g
        weight = np.zeros(len(block.leaf_tap), np.int64)
        weight[leaf[mine]] = coefficient[mine] % (1 << w)
        terms = [f"64'd{constant[g] % (1 << w)}"]
        for first, end in vectors:
            for k in range(w):
                chosen = (weight[first:end] >> k & 1).astype(bool)
                if chosen.any():
                    mask = "" if chosen.all() else f" & {_ones(chosen)}"
                    terms.append(f"($countones(leaf{first}{mask}) << {k})")
        total = "\n      + ".join(terms)
        yield f"  wire [63:0] count{g} = {total};"
        counted = f"count{g}"
        for n in range(block.cuts):
            yield f"  reg [63:0] count{g}_{n};"
            yield f"  always @(posedge clk) count{g}_{n} <= {counted};"
            counted = f"count{g}_{n}"
        back = f" + {{{64 - kept[g]}'d0, back{g}}}" if kept[g] else ""
        yield f"  wire [63:0] total{g} = {counted}{back};"
        yield f"  wire {_range(w)}sum{g} = total{g}[{w - 1}:0];"


def _accumulators(block: WeightBlock) -> Iterator[str]:
    shift, p = block.lower_bits, block.planes
    words = []
    yield "  always @(posedge clk) begin"
    for g, w in enumerate(block.upper_widths.tolist()):
        pad = block.acc_bits - (w + shift if w else 0)
        if w:
            yield f"    upper{g} <= sum{g};"
            if shift:
                pieces = [_slice(f"lower{g}", shift, p, shift - p)] if shift > p else []
                pieces += [_slice(f"upper{g}", w, 0, min(w, p))]
                pieces += [f"{p - w}'d0"] if w < p else []
                yield f"    lower{g} <= {_concat(pieces)};"
                words.append(f"lower{g}")
            words.append(f"upper{g}")
        if pad:
            words.append(f"{pad}'d0")
    yield "  end"
    yield f"  assign acc = {_concat(words)};"


def _unread(block: WeightBlock, wires: _Wires) -> Iterator[str]:
    """Name the bits that no gate reads, so that lint knows it is meant."""
    total = block.stages[-1].end if block.stages else int(block.feedback_start[-1])
    read = np.zeros(total, bool)
    read[block.upper_bits[block.upper_bits >= 0]] = True
    for stage in block.stages:
        read[stage.inputs] = True
    if not read.all():
        yield f"  wire unused_bits = &{{1'b0, {wires.expression(np.flatnonzero(~read))}}};"


def _unused(block: WeightBlock) -> Iterator[str]:
    """Name the ports that nothing reads."""
    bits = block.planes * block.inputs
    idle = np.setdiff1d(np.arange(bits), tap_bits(block))
    unused = [_gather("x", bits, idle)] if len(idle) else []
    if not np.diff(block.feedback_start).any():
        unused.append("first")
    if not len(block.upper_bits):
        unused.append("clk")
    if block.phases > 1 and not (_varies(block.tap_sign).any() or _varies(block.leaf_mask).any()):
        unused.append("phase")
    if unused:
        yield f"  wire unused_ports = &{{1'b0, {_concat(unused)}}};"
