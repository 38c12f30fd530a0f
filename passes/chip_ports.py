"""The streams of a chip: names, widths and order of its ports (``docs/hardware.md``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Port

CACHE_PORT = "s_axis_cache"


def input_ports(program: ir.Program) -> tuple[Port, ...]:
    two = len(program.sections) == 2
    ports: list[Port] = []
    for index, port in enumerate(program.inputs):
        peers = [i for i, p in enumerate(program.inputs) if p.section == port.section or not two]
        stem = "s_axis_src" if two and port.section == 0 else "s_axis"
        name = stem if len(peers) == 1 else f"{stem}_{peers.index(index)}"
        value = port.value
        unsigned = port.kind != "tensor"
        bits = max(1, value.high.bit_length()) if unsigned else value.bits
        ports.append(
            Port(
                name=name,
                direction="in",
                kind=port.kind,
                value=value.key,
                section=port.section,
                rows=value.rows,
                cols=value.cols,
                bits=bits,
                signed=not unsigned,
                pad=_padding(program, value.key) if port.kind == "ids" else 0,
                tlast="matrix",
            )
        )
    return tuple(ports)


def _padding(program: ir.Program, ids: str) -> int:
    """The id whose row a flag table of these ids switches off; 0 when there is no such table."""
    flags = {
        key
        for op in program.operations
        for key in (op.inputs[3:] if isinstance(op, ir.Attend) else ())
        + (op.inputs[1:] if isinstance(op, ir.SumRows) else ())
    }
    for op in program.operations:
        if isinstance(op, ir.Lookup) and op.inputs == (ids,) and op.output.key in flags:
            absent = [i for i, flag in enumerate(op.table.tolist()) if flag == 0]
            return op.first + absent[0] if absent else 0
    return 0


def output_ports(program: ir.Program, logits_port: bool) -> tuple[Port, ...]:
    ports: list[Port] = []
    producers = {o.output.key: o.section for o in program.operations}
    for index, output in enumerate(program.outputs):
        name = "m_axis" if len(program.outputs) == 1 else f"m_axis_{index}"
        value = program.values[output.value]
        section = producers.get(value.key, 0)
        sequence = program.sections[section] == "sequence"
        tensor = Port(
            name=name,
            direction="out",
            kind="tensor",
            value=value.key,
            section=section,
            rows=value.rows,
            cols=value.cols,
            bits=value.bits,
            signed=True,
            tlast="row" if sequence else "matrix",
        )
        if output.kind == "tensor" or not sequence:
            ports.append(tensor)
            continue
        bits = max(1, (value.cols - 1).bit_length())
        ports.append(replace(tensor, kind="token", cols=1, bits=bits, signed=False, tlast="matrix"))
        if logits_port:
            ports.append(replace(tensor, name=f"{name}_logits", kind="logits", tlast="row"))
    return tuple(ports)


def cache_port_of(values: Sequence[ir.Value]) -> Port:
    """The port that loads these keys and values, a row of each in turn.

    Raises UsageError for keys and values of different widths.
    """
    if len({value.cols for value in values}) != 1:
        raise UsageError("keys and values of different widths have no common cache port")
    return Port(
        name=CACHE_PORT,
        direction="in",
        kind="cache",
        value="",
        section=0,
        rows=values[0].rows * len(values),
        cols=values[0].cols,
        bits=max(value.bits for value in values),
        signed=True,
    )
