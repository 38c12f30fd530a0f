"""The whole chip: units around the memories, driven by the sequencer; and its thin Verilog top."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from amaranth import Module, Signal, Value, signed
from amaranth.hdl import Elaboratable
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Member, Out

from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Chip, Instruction, Loop, Port, Section, UnitKind
from hwcompile.hdl import linear
from hwcompile.hdl.attend import AttendUnit
from hwcompile.hdl.delay import DelayUnit
from hwcompile.hdl.elementwise import ElementwiseUnit
from hwcompile.hdl.embed import EmbedUnit
from hwcompile.hdl.gather import GatherUnit
from hwcompile.hdl.kv_cache import KeyValueCache, element_bits
from hwcompile.hdl.lookup import LookupUnit
from hwcompile.hdl.memory import Ram
from hwcompile.hdl.normalise import NormaliseUnit
from hwcompile.hdl.rotate import RotateUnit
from hwcompile.hdl.sequencer import Sequencer, row_bits
from hwcompile.hdl.stream import (
    Emit,
    Receive,
    emit_cycles,
    emit_of,
    output_ports,
    receive_cycles,
    receive_of,
)
from hwcompile.hdl.sum_rows import SumRowsUnit
from hwcompile.hdl.unit import Task, Unit, Widths

CORE_NAME = "hw_core"
TOP_NAME = "hw_top"

_UNITS: Mapping[UnitKind, Callable[[Sequence[Task], Widths], Unit]] = {
    "embed": EmbedUnit,
    "elementwise": ElementwiseUnit,
    "lookup": LookupUnit,
    "normalise": NormaliseUnit,
    "rotate": RotateUnit,
    "attend": AttendUnit,
    "gather": GatherUnit,
    "sum_rows": SumRowsUnit,
    "delay": DelayUnit,
}


def widths_of(chip: Chip) -> Widths:
    """Bus widths of a chip."""
    keys = chip.key_value_regions
    return Widths(
        element=chip.element_bits,
        address=chip.memory("data").address_bits,
        row=row_bits(chip),
        key_address=chip.memory("key").address_bits if keys else 1,
    )


def unit_tasks(chip: Chip, kind: UnitKind) -> tuple[Task, ...]:
    """The tasks of a unit in ``select`` order."""
    unit = chip.unit(kind)
    gathers = iter(chip.gathers)
    values = chip.program.values
    found: list[Task] = []
    for op in unit.operations if unit else ():
        inputs = tuple(values[key] for key in op.inputs)
        addresses = None
        if isinstance(op, ir.Gather):
            addresses = np.asarray(next(gathers), np.int64).reshape(-1, op.output.cols)
        found.append(Task(op, inputs, addresses))
    return tuple(found)


def build_unit(chip: Chip, kind: UnitKind) -> Unit:
    """The unit of a kind (not ``receive``, ``emit`` or ``linear``)."""
    return _UNITS[kind](unit_tasks(chip, kind), widths_of(chip))


def with_cycles(chip: Chip, plans: Sequence[linear.LinearPlan]) -> Chip:
    """The chip with the cycles of every instruction, by the formulas of its units."""
    units = {
        u.kind: build_unit(chip, u.kind)
        for u in chip.units
        if u.kind not in ("receive", "emit", "linear")
    }
    for component in units.values():
        component._MustUse__silence = True

    scales = linear.scales(plans)

    def cost(i: Instruction, loop: Loop) -> Instruction:
        if i.unit == "receive":
            return replace(i, cycles=receive_cycles(chip.inputs()[i.select]))
        if i.unit == "emit":
            token = any(p.kind == "token" for p in output_ports(chip, i.select))
            return replace(i, cycles=emit_cycles(chip.program.values[i.output].cols, token))
        if i.unit == "linear":
            return replace(i, cycles=linear.cycles(plans[i.select], i.reuse, scales))
        first = units[i.unit].cycles(i.select, 0)
        each = units[i.unit].cycles(i.select, 1) - first if loop.rows > 1 else 0
        return replace(i, cycles=first - each, key_cycles=each)

    return replace(
        chip,
        sections=tuple(
            Section(
                s.kind,
                tuple(replace(x, body=tuple(cost(i, x) for i in x.body)) for x in s.loops),
            )
            for s in chip.sections
        ),
    )


class Core(wiring.Component):
    """The chip on internal names: ``clk``, active-high ``rst``, and ``<port>_tdata`` and so on."""

    def __init__(self, chip: Chip, plans: Sequence[linear.LinearPlan]) -> None:
        self.chip = chip
        self.plans = tuple(plans)
        members: dict[str, Member] = {}
        for port in chip.ports:
            flow, back = (In, Out) if port.direction == "in" else (Out, In)
            members[f"{port.name}_tvalid"] = flow(1)
            members[f"{port.name}_tready"] = back(1)
            members[f"{port.name}_tlast"] = flow(1)
            members[f"{port.name}_tdata"] = flow(port.lane_bits)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chip, widths = self.chip, widths_of(self.chip)
        m.submodules.sequencer = sequencer = Sequencer(chip)
        units = self._units(m, widths)
        data = chip.memory("data")
        m.submodules.data_ram = ram = Ram(data.words, data.bits)

        write_en = Signal()
        write_data = Signal(signed(widths.element))
        active = [Signal(name=f"{kind}_active") for kind in units]
        for index, (kind, unit) in enumerate(units.items()):
            m.d.comb += active[index].eq(sequencer.unit == index)
            self._connect_operands(m, unit, sequencer, active[index])
            with m.If(active[index]):
                m.d.comb += sequencer.done.eq(unit.done)
                if hasattr(unit, "read_en"):
                    m.d.comb += [ram.re.eq(unit.read_en), ram.raddr.eq(unit.read_addr)]
                if kind != "emit":
                    m.d.comb += [
                        write_en.eq(unit.write_en),
                        write_data.eq(unit.write_data),
                        ram.waddr.eq(unit.write_addr),
                    ]
            if hasattr(unit, "read_data"):
                m.d.comb += unit.read_data.eq(ram.rdata)
        m.d.comb += [ram.we.eq(write_en & (sequencer.space == 0)), ram.wdata.eq(write_data)]
        if chip.key_value_regions:
            self._connect_cache(m, sequencer, units, active, write_en, write_data)
        self._connect_streams(m, sequencer, units)
        return m

    def _units(self, m: Module, widths: Widths) -> dict[UnitKind, Any]:
        units: dict[UnitKind, Any] = {}
        for unit in self.chip.units:
            component: Elaboratable
            if unit.kind == "receive":
                component = receive_of(self.chip, widths)
            elif unit.kind == "emit":
                component = emit_of(self.chip, widths)
            elif unit.kind == "linear":
                component = linear.Linear(self.plans, widths.element, widths.address)
            else:
                component = build_unit(self.chip, unit.kind)
            units[unit.kind] = component
            m.submodules[unit.kind] = component
        return units

    def _connect_operands(self, m: Module, unit: Any, sequencer: Sequencer, active: Value) -> None:
        m.d.comb += unit.start.eq(sequencer.start & active)
        for name in ("select", "a", "b", "c", "d", "row", "reuse"):
            if hasattr(unit, name):
                m.d.comb += getattr(unit, name).eq(getattr(sequencer, name))

    def _connect_cache(
        self,
        m: Module,
        sequencer: Sequencer,
        units: Mapping[UnitKind, Any],
        active: Sequence[Signal],
        write_en: Signal,
        write_data: Signal,
    ) -> None:
        bits = max(element_bits(self.chip, "key"), element_bits(self.chip, "value"))
        m.submodules.cache = cache = KeyValueCache(self.chip, bits)
        attend = units["attend"]
        m.d.comb += [
            cache.start.eq(sequencer.start),
            cache.d.eq(sequencer.d),
            cache.lanes.eq(sequencer.lanes),
            cache.key_write.eq(write_en & (sequencer.space == 1)),
            cache.value_write.eq(write_en & (sequencer.space == 2)),
            cache.write_data.eq(write_data),
            cache.read_en.eq(active[list(units).index("attend")]),
            cache.key_addr.eq(attend.key_addr),
            cache.value_addr.eq(attend.value_addr),
            attend.key_data.eq(cache.key_data),
            attend.value_data.eq(cache.value_data),
        ]

    def _connect_streams(
        self, m: Module, sequencer: Sequencer, units: Mapping[UnitKind, Any]
    ) -> None:
        receive: Receive = units["receive"]
        m.d.comb += [receive.clear.eq(sequencer.clear), sequencer.ended.eq(receive.ended)]
        if sequencer.loads:
            cache = next(p for p in self.chip.inputs() if p.kind == "cache")
            m.d.comb += [
                sequencer.load_offered.eq(getattr(self, f"{cache.name}_tvalid")),
                sequencer.token_offered.eq(getattr(self, f"{self.chip.inputs()[0].name}_tvalid")),
            ]
        for index, port in enumerate(self.chip.inputs()):
            self._connect_port(m, port, receive, "", index)
        emit: Emit = units["emit"]
        # The token's TLAST also marks the last row of a full context.
        last_row = emit.row == max(emit.rows) - 1
        m.d.comb += emit.ended.eq(receive.ended | last_row)
        for index in range(len(self.chip.program.outputs)):
            for port in output_ports(self.chip, index):
                prefix = "token_" if port.kind == "token" else "element_"
                self._connect_port(m, port, emit, prefix, index)

    def _connect_port(
        self, m: Module, port: Port, unit: Receive | Emit, prefix: str, index: int
    ) -> None:
        for name in ("tvalid", "tready", "tlast", "tdata"):
            outer = getattr(self, f"{port.name}_{name}")
            inner = getattr(unit, f"{prefix}{name}_{index}")
            outward = (name == "tready") == (port.direction == "in")
            m.d.comb += outer.eq(inner) if outward else inner.eq(outer)


def top_verilog(chip: Chip) -> str:
    """The top module: AXI4-Stream names, ``aclk``, ``aresetn``; handshakes are low in reset."""
    declarations = ["input  wire aclk", "input  wire aresetn"]
    wires: list[str] = []
    gates: list[str] = []
    connections = [".clk(aclk)", ".rst(!aresetn)"]
    for port in chip.ports:
        flow, back = ("input ", "output") if port.direction == "in" else ("output", "input ")
        span = f"[{port.lane_bits - 1}:0]"
        declarations += [
            f"{flow} wire {span} {port.name}_tdata",
            f"{flow} wire {port.name}_tvalid",
            f"{back} wire {port.name}_tready",
            f"{flow} wire {port.name}_tlast",
        ]
        gated = f"{port.name}_{'tready' if port.direction == 'in' else 'tvalid'}"
        wires.append(f"  wire core_{gated};")
        gates.append(f"  assign {gated} = aresetn & core_{gated};")
        for name in ("tdata", "tvalid", "tready", "tlast"):
            outer = f"{port.name}_{name}"
            connections.append(f".{outer}({'core_' + outer if outer == gated else outer})")
    return "\n".join(
        [
            f"module {TOP_NAME} (",
            ",\n".join(f"    {line}" for line in declarations),
            ");",
            *wires,
            f"  {CORE_NAME} core (",
            ",\n".join(f"      {line}" for line in connections),
            "  );",
            *gates,
            "endmodule",
            "",
        ]
    )
