"""The ends of the machine: receive and emit, units that speak AXI4-Stream on their other side.

One element is one beat. A beat moves when valid and ready are both high; neither unit lets go of an
element before that, so back-pressure loses and repeats nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Const, Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Member, Out

from hwcompile.compiler.ir.chip import Chip, Port
from hwcompile.hdl.tables import choose, pick
from hwcompile.hdl.unit import Widths


def receive_cycles(port: Port) -> int:
    """Cycles of a row when every beat is there, ``start`` to ``done``, both counted."""
    return 1 + port.cols


def emit_cycles(cols: int, token: bool) -> int:
    """Cycles of a row when every beat is taken at once, ``start`` to ``done``, both counted."""
    return 2 + cols + token


class Receive(wiring.Component):
    """Takes one row of a port's matrix to the data memory (unit protocol; operands ``row``, ``d``).

    TLAST before the end of the matrix: the rest is the port's ``pad``, without beats; the beat
    after the end of the matrix begins the next one. In a sequence section TLAST raises ``ended``
    until ``clear``: that was the last row.
    """

    def __init__(self, ports: Sequence[Port], sequence: Sequence[bool], widths: Widths) -> None:
        self.ports = tuple(ports)
        self.sequence = tuple(sequence)
        members: dict[str, Member] = {
            "start": In(1),
            "done": Out(1),
            "select": In(range(max(2, len(self.ports)))),
            "row": In(widths.row),
            "d": In(widths.address),
            "write_en": Out(1),
            "write_addr": Out(widths.address),
            "write_data": Out(signed(widths.element)),
            "clear": In(1),
            "ended": Out(1),
        }
        for index, port in enumerate(self.ports):
            members[f"tvalid_{index}"] = In(1)
            members[f"tready_{index}"] = Out(1)
            members[f"tlast_{index}"] = In(1)
            members[f"tdata_{index}"] = In(port.lane_bits)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports = range(len(self.ports))
        active = Signal()
        short = Signal(len(self.ports))  # TLAST came before the end of this port's matrix
        column = Signal(range(max(2, *(p.cols for p in self.ports))))
        valid = choose(m, self.select, [getattr(self, f"tvalid_{i}") for i in ports], "valid")
        last = choose(m, self.select, [getattr(self, f"tlast_{i}") for i in ports], "last")
        data = choose(m, self.select, [self._element(m, i) for i in ports], "element")
        pad = pick(m, self.select, [p.pad for p in self.ports], "pad")
        row_end = Signal()
        m.d.comb += row_end.eq(
            column == pick(m, self.select, [p.cols - 1 for p in self.ports], "last_column")
        )
        sequence = pick(m, self.select, [int(s) for s in self.sequence], "is_sequence")
        matrix_end = Signal()
        last_row = pick(m, self.select, [p.rows - 1 for p in self.ports], "last_row")
        m.d.comb += matrix_end.eq(row_end & (sequence | (self.row == last_row)))
        padding = Signal()
        m.d.comb += padding.eq(choose(m, self.select, [short[i] for i in ports], "short_of"))
        with m.If(padding):
            m.d.comb += self.write_data.eq(pad)
        with m.Else():
            m.d.comb += self.write_data.eq(data)
        m.d.comb += [
            self.write_en.eq(active & (padding | valid)),
            self.done.eq(self.write_en & row_end),
        ]
        for index in ports:
            ready = getattr(self, f"tready_{index}")
            m.d.comb += ready.eq(active & (self.select == index) & ~short[index])
            with m.If(self.write_en & (self.select == index)):
                m.d.sync += short[index].eq((short[index] | last) & ~matrix_end)
        ended = Signal()
        m.d.comb += self.ended.eq(ended | (self.write_en & ~padding & last & sequence))
        m.d.sync += ended.eq(self.ended & ~self.clear)
        with m.If(self.write_en):
            m.d.sync += [self.write_addr.eq(self.write_addr + 1), column.eq(column + 1)]
            with m.If(row_end):
                m.d.sync += [active.eq(0), column.eq(0)]
        with m.If(self.start):
            m.d.sync += [active.eq(1), self.write_addr.eq(self.d)]
        return m

    def _element(self, m: Module, index: int) -> Value:
        port = self.ports[index]
        element = Signal(signed(port.bits + (not port.signed)), name=f"element_{index}")
        data = getattr(self, f"tdata_{index}")[: port.bits]
        m.d.comb += element.eq(data.as_signed() if port.signed else data)
        return element


class Emit(wiring.Component):
    """Sends one row of an output (unit protocol; operands ``a``, ``row``).

    Each of ``outputs`` is (element port or None, token port or None) over the same row. Elements
    go out in order; the token, the column of the greatest element (the lowest of equal ones),
    follows. ``ended``: this row is the last of its sequence.
    """

    def __init__(
        self,
        outputs: Sequence[tuple[Port | None, Port | None]],
        cols: Sequence[int],
        rows: Sequence[int],
        widths: Widths,
    ) -> None:
        self.outputs = tuple(outputs)
        self.cols = tuple(cols)
        self.rows = tuple(rows)
        self.element_bits = widths.element
        members: dict[str, Member] = {
            "start": In(1),
            "done": Out(1),
            "select": In(range(max(2, len(self.outputs)))),
            "row": In(widths.row),
            "a": In(widths.address),
            "ended": In(1),
            "read_en": Out(1),
            "read_addr": Out(widths.address),
            "read_data": In(signed(widths.element)),
        }
        for index, pair in enumerate(self.outputs):
            for prefix, port in zip(("element", "token"), pair, strict=True):
                if port is not None:
                    members[f"{prefix}_tvalid_{index}"] = Out(1)
                    members[f"{prefix}_tready_{index}"] = In(1)
                    members[f"{prefix}_tlast_{index}"] = Out(1)
                    members[f"{prefix}_tdata_{index}"] = Out(port.lane_bits)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        most = max(2, *self.cols)
        asking = Signal()  # elements are still to be read
        held = Signal()  # read_data is an element that was not taken yet
        naming = Signal()  # the token waits to be taken
        column = Signal(range(most))
        taken = Signal()
        row_end = Signal()
        last_column = pick(m, self.select, [c - 1 for c in self.cols], "last_column")
        ready = choose(m, self.select, [self._ready(i) for i in range(len(self.cols))], "ready")
        reading = Signal(range(most))
        m.d.comb += [
            taken.eq(held & ready),
            row_end.eq(column == last_column),
            self.read_en.eq(asking & (~held | taken)),
        ]
        with m.If(self.read_en):
            m.d.sync += [
                held.eq(1),
                self.read_addr.eq(self.read_addr + 1),
                reading.eq(reading + 1),
            ]
            with m.If(reading == last_column):
                m.d.sync += [asking.eq(0), reading.eq(0)]
        with m.Elif(taken):
            m.d.sync += held.eq(0)
        with m.If(self.start):
            m.d.sync += [asking.eq(1), self.read_addr.eq(self.a)]
        has_token = pick(
            m, self.select, [int(token is not None) for _, token in self.outputs], "has_token"
        )
        with m.If(taken):
            m.d.sync += column.eq(column + 1)
            with m.If(row_end):
                m.d.sync += [column.eq(0), naming.eq(has_token)]
        self._elements(m, held, row_end)
        self._tokens(m, taken, row_end, column, naming, has_token)
        return m

    def _ready(self, index: int) -> Value:
        element, _ = self.outputs[index]
        return Const(1) if element is None else self._port(index, "tready")

    def _port(self, index: int, name: str, prefix: str = "element") -> Signal:
        port = getattr(self, f"{prefix}_{name}_{index}")
        assert isinstance(port, Signal)
        return port

    def _elements(self, m: Module, held: Signal, row_end: Signal) -> None:
        """The element ports: the data memory's output is the data."""
        for index, (port, _) in enumerate(self.outputs):
            if port is None:
                continue
            whole = port.tlast == "matrix"
            last = row_end & (self.row == self.rows[index] - 1) if whole else row_end
            m.d.comb += [
                self._port(index, "tvalid").eq(held & (self.select == index)),
                self._port(index, "tlast").eq(last),
                self._port(index, "tdata").eq(self.read_data[: port.bits].as_signed()),
            ]

    def _tokens(
        self,
        m: Module,
        taken: Signal,
        row_end: Signal,
        column: Signal,
        naming: Signal,
        has_token: Value,
    ) -> None:
        """Arg-max and the token ports."""
        best = Signal(signed(self.element_bits), reset_less=True)
        token = Signal.like(column, reset_less=True)
        named = Signal()
        tokens = [index for index, (_, port) in enumerate(self.outputs) if port is not None]
        if tokens:
            with m.If(taken & ((column == 0) | (self.read_data > best))):
                m.d.sync += [best.eq(self.read_data), token.eq(column)]
        for index in tokens:
            _, port = self.outputs[index]
            assert port is not None
            valid = self._port(index, "tvalid", "token")
            m.d.comb += [
                valid.eq(naming & (self.select == index)),
                self._port(index, "tlast", "token").eq(self.ended),
                self._port(index, "tdata", "token").eq(token[: port.bits]),
            ]
            with m.If(valid & self._port(index, "tready", "token")):
                m.d.comb += named.eq(1)
                m.d.sync += naming.eq(0)
        m.d.comb += self.done.eq(named | (taken & row_end & ~has_token))


def receive_of(chip: Chip, widths: Widths) -> Receive:
    """The receive unit of a chip; ``select`` counts its input ports."""
    ports = chip.inputs()
    return Receive(ports, [chip.sections[p.section].kind == "sequence" for p in ports], widths)


def emit_of(chip: Chip, widths: Widths) -> Emit:
    """The emit unit of a chip; ``select`` counts the Program's outputs."""
    pairs: list[tuple[Port | None, Port | None]] = []
    for index in range(len(chip.program.outputs)):
        own = output_ports(chip, index)
        element = next((p for p in own if p.kind != "token"), None)
        pairs.append((element, next((p for p in own if p.kind == "token"), None)))
    values = [chip.program.values[o.value] for o in chip.program.outputs]
    return Emit(pairs, [v.cols for v in values], [v.rows for v in values], widths)


def output_ports(chip: Chip, index: int) -> tuple[Port, ...]:
    """The ports of a Program output, by its index."""
    stem = "m_axis" if len(chip.program.outputs) == 1 else f"m_axis_{index}"
    return tuple(p for p in chip.outputs() if p.name in (stem, f"{stem}_logits"))
