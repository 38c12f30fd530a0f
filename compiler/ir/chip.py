"""Chip: the third representation. A Program placed on the machine of ``docs/hardware.md``.

A chip is a static micro-program: sections of loops of instructions, each of which runs one row of
one operation on its unit, between places in the data memory and the key and value memories. All is
fixed when the chip is made, but the number of tokens of a sequence and the beats of a short source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hwcompile.compiler.ir.program import Linear, Operation, Program, SectionKind

UnitKind = Literal[
    "receive",
    "emit",
    "embed",
    "linear",
    "elementwise",
    "lookup",
    "normalise",
    "rotate",
    "attend",
    "gather",
    "sum_rows",
    "delay",
]
Space = Literal["data", "key", "value"]
LinearStyle = Literal["parallel", "bitplane", "folded"]
PortKind = Literal["ids", "flags", "tensor", "cache", "token", "logits"]
MemoryKind = Literal["data", "key", "value"]

FETCH_CYCLES = 1
"""Cycles the sequencer adds to each instruction, between the ``done`` before it and its
``start``.
"""


@dataclass(frozen=True, slots=True)
class Operand:
    """An address that steps with the loop: ``base + stride * row`` (row: the loop's counter)."""

    base: int = 0
    stride: int = 0


@dataclass(frozen=True, slots=True)
class Instruction:
    """One row of one operation.

    ``unit`` and ``select`` say what runs; ``a``, ``b``, ``c``, ``d`` are its operands (see the unit
    protocol), ``space`` where its output goes. ``lanes``: elements of a key or value word (0 for
    data). ``indexed``: the unit's ``row`` is the loop's counter, else 0. ``reuse``: a linear whose
    input row is still in the linear unit's input bank. ``output``: the Program value made or, for
    ``emit``, sent. Cycles from ``start`` to ``done``, both counted, are
    ``cycles + key_cycles * visible keys``; ``causal``: row r sees r + 1 keys, else none vary.
    """

    unit: UnitKind
    select: int
    output: str
    a: Operand = Operand()
    b: Operand = Operand()
    c: Operand = Operand()
    d: Operand = Operand()
    space: Space = "data"
    lanes: int = 0
    indexed: bool = True
    reuse: bool = False
    cycles: int = 0
    key_cycles: int = 0

    def row_cycles(self, row: int) -> int:
        """Cycles of this instruction at loop row ``row``, fetch included; streams never wait."""
        return FETCH_CYCLES + self.cycles + self.key_cycles * (row + 1)


@dataclass(frozen=True, slots=True)
class Loop:
    """``body`` once for each row 0 .. rows - 1; in a sequence section TLAST ends it earlier.

    ``load``: fills the caches, row by row; entered only when the cache port offers a beat before
    the first token, and the rows it loaded are rows that the loop of the tokens begins after.
    """

    rows: int
    body: tuple[Instruction, ...]
    load: bool = False

    def row_cycles(self, row: int) -> int:
        return sum(i.row_cycles(row) for i in self.body)


@dataclass(frozen=True, slots=True)
class Section:
    """Loops in order. A ``sequence`` section is one loop, its counter the position; before it,
    where there is a cache port, the loop that loads the caches.
    """

    kind: SectionKind
    loops: tuple[Loop, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """Where the data memory keeps a value: element (r, c) at ``base + r * cols + c``, ``rows``
    kept.
    """

    value: str
    base: int
    rows: int
    cols: int


@dataclass(frozen=True, slots=True)
class KeyValueRegion:
    """Words of the key and value memories: row r, kv head g at ``base + r * kv_heads + g``."""

    key: str
    value: str
    base: int
    rows: int
    kv_heads: int


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory of the chip, for hardware and estimate."""

    name: str
    words: int
    bits: int
    kind: MemoryKind

    @property
    def address_bits(self) -> int:
        return max(1, (self.words - 1).bit_length())


@dataclass(frozen=True, slots=True)
class MatrixPlan:
    """How the matrix of a Linear (by its output key) is built: ``phases`` output columns a tree,
    ``planes`` bits of every input a cycle.
    """

    operation: str
    style: LinearStyle
    phases: int
    planes: int = 1


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit and its operations in ``select`` order (none for ``receive`` and ``emit``)."""

    kind: UnitKind
    operations: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True)
class Port:
    """An AXI4-Stream port; one element a beat, in TDATA's low ``bits``, TDATA ``lane_bits`` wide.

    A matrix ``[rows, cols]`` of ``value`` goes row by row. ``signed``: TDATA is sign-extended.
    ``pad``: what stands for beats that an early TLAST leaves out. ``section``: when it is in use.
    ``tlast``: on an output, after each ``row`` or after the whole ``matrix``. A ``cache`` port
    takes for each position a row of the key and a row of the value of each attention, in order.
    """

    name: str
    direction: Literal["in", "out"]
    kind: PortKind
    value: str
    section: int
    rows: int
    cols: int
    bits: int
    signed: bool
    pad: int = 0
    tlast: Literal["row", "matrix"] = "matrix"

    @property
    def lane_bits(self) -> int:
        return -(-self.bits // 8) * 8


@dataclass(frozen=True, slots=True)
class Chip:
    """The whole machine. ``slots``: sequences in flight, each with its own key/value words.

    ``select`` of ``receive`` and ``emit`` counts the input ports and the Program's outputs;
    ``gathers`` holds, for each Gather in ``select`` order, the data addresses it reads, row-major.
    """

    program: Program
    sections: tuple[Section, ...]
    units: tuple[Unit, ...]
    matrices: tuple[MatrixPlan, ...]
    gathers: tuple[tuple[int, ...], ...]
    ports: tuple[Port, ...]
    memories: tuple[Memory, ...]
    regions: tuple[Region, ...]
    key_value_regions: tuple[KeyValueRegion, ...]
    slots: int = 1

    @property
    def element_bits(self) -> int:
        """Width of an element of the data memory."""
        return self.memory("data").bits

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """All instructions in program order."""
        return tuple(i for s in self.sections for loop in s.loops for i in loop.body)

    def memory(self, kind: MemoryKind) -> Memory:
        """The first memory of a kind; KeyError when the chip has none."""
        for memory in self.memories:
            if memory.kind == kind:
                return memory
        raise KeyError(kind)

    def unit(self, kind: UnitKind) -> Unit | None:
        """The unit of a kind, or None when no instruction needs it."""
        return next((u for u in self.units if u.kind == kind), None)

    @property
    def products(self) -> tuple[Linear, ...]:
        """Products with constant matrices in ``select`` order: that of the weight blocks."""
        unit = self.unit("linear")
        return tuple(op for op in unit.operations if isinstance(op, Linear)) if unit else ()

    def inputs(self) -> tuple[Port, ...]:
        return tuple(p for p in self.ports if p.direction == "in")

    def outputs(self) -> tuple[Port, ...]:
        return tuple(p for p in self.ports if p.direction == "out")

    def cycles_once(self) -> int:
        """Cycles of the ``once`` section for one sample (0 without one)."""
        return sum(
            loop.row_cycles(row)
            for section in self.sections
            if section.kind == "once"
            for loop in section.loops
            for row in range(loop.rows)
        )

    def cycles_per_token(self, position: int) -> int:
        """Cycles from a token's beat to the next ``receive``, at a position (0 without a
        sequence).
        """
        return sum(
            loop.row_cycles(position)
            for section in self.sections
            if section.kind == "sequence"
            for loop in section.loops
            if not loop.load
        )

    def cycles_total(self, tokens: int = 0) -> int:
        """Cycles of one sample: the once section, then ``tokens`` tokens of the sequence."""
        return self.cycles_once() + sum(self.cycles_per_token(p) for p in range(tokens))
