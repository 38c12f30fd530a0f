"""The unit protocol: what every unit of the machine has in common (``docs/hardware.md``).

A unit is built from the operations of one kind, in the order of ``select``; one instance serves
them all. Row addresses are loaded into registers at ``start`` and counted up, so that no address
adder lies in front of the data memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from amaranth import Module, Signal, Value, signed
from amaranth.hdl import Shape, ValueLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Member, Out

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.program import IntArray
from hwcompile.hdl import intervals
from hwcompile.hdl.tables import pick, shape_of

Operand = Literal["a", "b", "c", "d", "row"]


@dataclass(frozen=True, slots=True)
class Widths:
    """Bits of the machine's buses.

    ``element``: one word of the data memory. ``address``: a data memory address. ``row``: a row
    index. ``key_address``: a word address of the key and value memories (attend only).
    """

    element: int
    address: int
    row: int
    key_address: int = 1


@dataclass(frozen=True, slots=True)
class Task:
    """One operation a unit serves, with its input values.

    ``addresses``: gather only, the data memory address of each output element ``[rows, cols]``.
    """

    operation: ir.Operation
    inputs: tuple[ir.Value, ...] = ()
    addresses: IntArray | None = None


class Pipeline:
    """Data and its control bits, moved one register a stage.

    ``control`` bits are re-registered by every :meth:`step`; read the current ones with ``[name]``.
    Those in ``reset`` start at 0 and are cleared by reset; the others need no reset.
    """

    def __init__(self, m: Module, *, valid: ValueLike, **control: ValueLike) -> None:
        self.module = m
        self.depth = 0
        self._control: dict[str, Value] = {
            name: Value.cast(bit) for name, bit in {"valid": valid, **control}.items()
        }

    def __getitem__(self, name: str) -> Value:
        return self._control[name]

    def attach(self, **control: ValueLike) -> None:
        """Add control bits to the present stage."""
        self._control |= {name: Value.cast(bit) for name, bit in control.items()}

    def step(self, data: ValueLike, shape: Shape, name: str) -> Signal:
        """Register ``data`` (shape as proven by the caller) and every control bit."""
        register = Signal(shape, name=name, reset_less=True)
        self.module.d.sync += register.eq(data)
        self.wait(name)
        return register

    def wait(self, name: str) -> None:
        """Register the control bits alone."""
        self.depth += 1
        for key, bit in self._control.items():
            moved = Signal(bit.shape(), name=f"{name}_{key}", reset_less=key != "valid")
            self.module.d.sync += moved.eq(bit)
            self._control[key] = moved


@dataclass(frozen=True, slots=True)
class Scan:
    """A running count: ``active`` while elements are issued, ``index`` of the present one and
    ``last`` (the present one is the last)."""

    active: Signal
    index: Signal
    last: Signal


def scan(m: Module, start: ValueLike, final: ValueLike, name: str) -> Scan:
    """Count ``0 .. final``, one a cycle, from the cycle after ``start``."""
    active = Signal(name=f"{name}_active")
    index = Signal(Value.cast(final).shape(), name=f"{name}_index")
    last = Signal(name=f"{name}_last")
    m.d.comb += last.eq(active & (index == final))
    with m.If(active):
        m.d.sync += index.eq(index + 1)
    with m.If(start):
        m.d.sync += [active.eq(1), index.eq(0)]
    with m.Elif(last):
        m.d.sync += active.eq(0)
    return Scan(active, index, last)


def pointer(
    m: Module,
    load: ValueLike,
    base: ValueLike,
    step: ValueLike,
    name: str,
    by: ValueLike = 1,
) -> Signal:
    """A register that takes ``base`` at ``load`` and else grows by ``by`` at ``step``."""
    register = Signal(Value.cast(base).shape(), name=name, reset_less=True)
    with m.If(load):
        m.d.sync += register.eq(base)
    with m.Elif(step):
        m.d.sync += register.eq(register + by)
    return register


class Unit(wiring.Component):
    """Base of the units: ports of the protocol, and the write side.

    Args:
        tasks: the operations served; ``select`` is an index into them.
        widths: bits of the machine's buses.
        operands: the operands used, each a port.
        reads: whether there is a data memory read port.
        operand_bits: widths of operands that are not data memory addresses.
        extra: more ports (attend's key and value memories).
    """

    if TYPE_CHECKING:
        start: Signal
        done: Signal
        select: Signal
        a: Signal
        b: Signal
        c: Signal
        d: Signal
        row: Signal
        read_en: Signal
        read_addr: Signal
        read_data: Signal
        write_en: Signal
        write_addr: Signal
        write_data: Signal

    # A unit may also be made to ask for its cycles alone.
    _MustUse__silence = True

    def __init__(
        self,
        tasks: Sequence[Task],
        widths: Widths,
        operands: Sequence[Operand],
        *,
        reads: bool = True,
        operand_bits: Mapping[Operand, int] | None = None,
        extra: Mapping[str, Member] | None = None,
    ) -> None:
        self.tasks = tuple(tasks)
        self.widths = widths
        self.operands = tuple(operands)
        self.reads = reads
        bits: dict[Operand, int] = {"row": widths.row, **(operand_bits or {})}
        ports: dict[str, Member] = {
            "start": In(1),
            "done": Out(1),
            "select": In(max((len(self.tasks) - 1).bit_length(), 1)),
        }
        ports |= {name: In(bits.get(name, widths.address)) for name in self.operands}
        if reads:
            ports |= {
                "read_en": Out(1),
                "read_addr": Out(widths.address),
                "read_data": In(signed(widths.element)),
            }
        ports |= {
            "write_en": Out(1),
            "write_addr": Out(widths.address),
            "write_data": Out(signed(widths.element)),
        }
        super().__init__(wiring.Signature(ports | dict(extra or {})))

    def cycles(self, select: int, row: int = 0) -> int:
        """Cycles from ``start`` to ``done``, both counted, of a row of the task ``select``."""
        raise NotImplementedError

    def columns(self, select: int) -> int:
        """Output columns of the task ``select``."""
        return self.tasks[select].operation.output.cols

    def final_column(self, m: Module) -> Value:
        """Index of the last output column of the selected task."""
        return self.pick(m, [self.columns(s) - 1 for s in range(len(self.tasks))], "final_column")

    def scan_columns(self, m: Module) -> Scan:
        """Count the output columns, from the cycle after ``start``."""
        return scan(m, self.start, self.final_column(m), "column")

    def pick(self, m: Module, values: Sequence[int], name: str) -> Value:
        """The value of the selected task."""
        return pick(m, self.select, values, name)

    def read(self, m: Module, scan: Scan, base: ValueLike, begin: ValueLike) -> Pipeline:
        """Read the elements from address ``base`` on, as ``scan`` issues them after ``begin``.

        The pipeline is where ``read_data`` is valid.
        """
        m.d.comb += [
            self.read_en.eq(scan.active),
            self.read_addr.eq(pointer(m, begin, base, scan.active, "source")),
        ]
        pipe = Pipeline(m, valid=scan.active, last=scan.last)
        pipe.wait("arrived")
        return pipe

    def write(self, m: Module, pipe: Pipeline, data: ValueLike) -> None:
        """Write ``data`` to the next column; ``done`` with the ``last``. One register."""
        m.d.comb += self.write_addr.eq(pointer(m, self.start, self.d, self.write_en, "destination"))
        m.d.sync += [
            self.write_en.eq(pipe["valid"]),
            self.done.eq(pipe["valid"] & pipe["last"]),
            self.write_data.eq(data),
        ]


def element_shape(values: Iterable[ir.Value]) -> Shape:
    """The narrowest shape of an element of any of ``values``."""
    return shape_of(*intervals.hull(intervals.of(v) for v in values))
