"""The chip's micro-program executed on memories: what the hardware does, without the hardware.

Operations compute by the operation table; everything else is the machine of ``docs/hardware.md``:
places in the data, key and value memories, the linear unit's input bank, loops and their bounds,
streams cut short, caches that come in. A word is unknown until an instruction writes it, and to
read an unknown word is an error; so is an element outside its interval or too wide for its memory,
an address outside the memory, a row past the end of a value, and an instruction that reads and
writes the same place. Samples run side by side, as on as many chips::

    model = ChipModel(chip, samples=4)
    model.run({"v0": tokens})       # [4, rows, 1]; memories stay as they are for the next run
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwcompile.compiler.errors import MismatchError
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Chip, Instruction, Loop, Operand, Port, Section, Space
from hwcompile.compiler.ir.operations import spec
from hwcompile.compiler.ir.program import IntArray

_UNKNOWN = -(1 << 62)


class ChipModel:
    """The chip's state on N samples: memories (unknown at first), input bank, what was sent.

    Every fault of the program that hardware would not notice raises MismatchError, which names the
    instruction.
    """

    def __init__(self, chip: Chip, samples: int = 1) -> None:
        self.chip = chip
        self.samples = samples
        self._values = chip.program.values
        self._data = np.full((samples, chip.memory("data").words), _UNKNOWN, np.int64)
        self._words: dict[Space, IntArray] = {}
        self._element_bits: dict[Space, int] = {"data": chip.element_bits}
        sides: tuple[tuple[Space, list[str]], ...] = (
            ("key", [r.key for r in chip.key_value_regions]),
            ("value", [r.value for r in chip.key_value_regions]),
        )
        for space, keys in sides:
            if keys:
                memory = next(m for m in chip.memories if m.kind == space)
                bits = max(self._values[key].bits for key in keys)
                self._element_bits[space] = bits
                shape = (samples, memory.words, memory.bits // bits)
                self._words[space] = np.full(shape, _UNKNOWN, np.int64)
        self._bank: IntArray | None = None
        self._sent: dict[str, list[IntArray]] = {}

    def run(
        self,
        inputs: Mapping[str, IntArray],
        caches: Mapping[str, IntArray] | None = None,
    ) -> dict[str, IntArray]:
        """One sample on each chip: inputs ``[N, rows, cols]`` by value key -> outputs by value key.

        ``inputs`` may have fewer rows than the ports: TLAST came early. ``caches``: keys and values
        ``[N, length, cols]`` by value key, for the cache port.
        """
        self._sent = {output.value: [] for output in self.chip.program.outputs}
        for section in self.chip.sections:
            loaded = 0
            for loop in section.loops:
                if loop.load:
                    loaded = _rows_of(next(iter(caches.values()))) if caches else 0
                    for row in range(loaded):
                        self._row(loop, row, caches or {})
                    continue
                for row in range(loaded, loaded + self._rows(section, loop, loaded, inputs)):
                    self._row(loop, row, inputs, loaded)
        return {key: np.stack(rows, axis=1) for key, rows in self._sent.items() if rows}

    def _rows(
        self, section: Section, loop: Loop, loaded: int, inputs: Mapping[str, IntArray]
    ) -> int:
        """Iterations of a loop: all, but a sequence ends after the row of its first TLAST."""
        if section.kind == "once":
            return loop.rows
        received = [i.output for i in loop.body if i.unit == "receive"]
        return min(loop.rows - loaded, *(_rows_of(inputs[key]) for key in received))

    def _row(self, loop: Loop, row: int, inputs: Mapping[str, IntArray], loaded: int = 0) -> None:
        for instruction in loop.body:
            try:
                self._execute(instruction, row, inputs, loaded)
            except _Fault as fault:
                raise MismatchError(
                    f"{instruction.unit} {instruction.select}, row {row}, "
                    f"value {instruction.output}: {fault}"
                ) from fault

    # -- an instruction

    def _execute(
        self, i: Instruction, row: int, inputs: Mapping[str, IntArray], loaded: int
    ) -> None:
        index = row if i.indexed else 0
        if index >= self._values[i.output].rows:
            raise _Fault("the value has no such row")
        reads: list[tuple[int, int]] = []
        if i.unit == "receive":
            result = self._receive(self.chip.inputs()[i.select], i, index - loaded, inputs)
        elif i.unit == "emit":
            output = self.chip.program.outputs[i.select].value
            self._sent[output].append(self._read(_at(i.a, row), self._values[output].cols, reads))
            return
        else:
            unit = self.chip.unit(i.unit)
            if unit is None:
                raise _Fault("there is no such unit")
            result = self._compute(unit.operations[i.select], i, row, index, reads)
        self._write(i, _at(i.d, row), result, reads)

    def _receive(
        self, port: Port, i: Instruction, row: int, inputs: Mapping[str, IntArray]
    ) -> IntArray:
        matrix = inputs[i.output if port.kind == "cache" else port.value]
        if row < matrix.shape[1]:
            return matrix[:, row]
        return np.full((self.samples, port.cols), port.pad, np.int64)

    def _compute(
        self, op: ir.Operation, i: Instruction, row: int, index: int, reads: list[tuple[int, int]]
    ) -> IntArray:
        values = [self._values[key] for key in op.inputs]
        a, b, c = (_at(operand, row) for operand in (i.a, i.b, i.c))
        xs: list[IntArray]
        if isinstance(op, ir.Gather):
            table = self.chip.gathers[i.select][a : a + op.output.cols]
            return np.concatenate([self._read(at, 1, reads) for at in table], axis=1)
        if isinstance(op, ir.Attend):
            keys = index + 1 if op.causal else values[1].rows
            key, value = values[1:3]
            xs = [
                self._matrix(a, 1, values[0], reads),
                self._heads("key", b, keys, op.kv_heads, key),
                self._heads("value", b, keys, op.kv_heads, value),
                *(self._matrix(c, keys, v, reads) for v in values[3:]),
            ]
        elif isinstance(op, ir.SumRows):
            bases = zip((a, c), values, strict=False)
            xs = [self._matrix(base, v.rows, v, reads) for base, v in bases]
        elif isinstance(op, ir.Linear):
            if not i.reuse:
                self._bank = self._matrix(a, 1, values[0], reads)
            if self._bank is None or self._bank.shape[-1] != values[0].cols:
                raise _Fault("the input bank does not hold the row")
            xs = [_inside(self._bank, values[0])]
        elif isinstance(op, ir.Delay) and index == 0:
            return np.broadcast_to(op.initial, (self.samples, op.output.cols))
        elif spec(op).rowwise:
            bases = zip((a, b), values, strict=False)
            xs = [self._matrix(base, 1, v, reads) for base, v in bases]
        else:
            raise _Fault(f"no model of the operands of {spec(op).name}")
        result = spec(op).meaning(op, tuple(xs), index, 1)
        return np.broadcast_to(result, (self.samples, 1, op.output.cols))[:, 0]

    # -- memories

    def _read(self, base: int, count: int, reads: list[tuple[int, int]]) -> IntArray:
        if base < 0 or base + count > self._data.shape[1]:
            raise _Fault(f"reads {base} to {base + count - 1}, outside the data memory")
        found = self._data[:, base : base + count].copy()
        if (found == _UNKNOWN).any():
            raise _Fault(f"reads {base} to {base + count - 1} before all of it is written")
        reads.append((base, base + count))
        return found

    def _matrix(
        self, base: int, rows: int, value: ir.Value, reads: list[tuple[int, int]]
    ) -> IntArray:
        found = self._read(base, rows * value.cols, reads)
        return _inside(found.reshape(self.samples, rows, value.cols), value)

    def _heads(self, space: Space, base: int, rows: int, heads: int, value: ir.Value) -> IntArray:
        """Key or value rows ``[N, rows, cols]``, a word a head."""
        words = self._words[space]
        if base < 0 or base + rows * heads > words.shape[1]:
            raise _Fault(f"reads outside the {space} memory")
        found = words[:, base : base + rows * heads, : value.cols // heads]
        if (found == _UNKNOWN).any():
            raise _Fault(f"reads {space} words from {base} on before all are written")
        return _inside(found.reshape(self.samples, rows, value.cols), value)

    def _write(self, i: Instruction, at: int, row: IntArray, reads: list[tuple[int, int]]) -> None:
        most = 1 << self._element_bits[i.space] - 1
        if row.min(initial=0) < -most or row.max(initial=0) >= most:
            raise _Fault(f"an element does not fit the {i.space} memory")
        if i.space == "data":
            end = at + row.shape[1]
            if at < 0 or end > self._data.shape[1]:
                raise _Fault(f"writes {at} to {end - 1}, outside the data memory")
            if any(low < end and at < high for low, high in reads):
                raise _Fault(f"reads and writes {at} to {end - 1}")
            self._data[:, at:end] = row
            return
        words = row.reshape(self.samples, -1, i.lanes)
        memory = self._words[i.space]
        if at < 0 or at + words.shape[1] > memory.shape[1] or i.lanes > memory.shape[2]:
            raise _Fault(f"writes outside the {i.space} memory")
        # Lanes past a smaller head hold zeros.
        memory[:, at : at + words.shape[1]] = 0
        memory[:, at : at + words.shape[1], : i.lanes] = words


class _Fault(Exception):
    """What an instruction does wrong."""


def _inside(x: IntArray, value: ir.Value) -> IntArray:
    """The matrix, when it lies in the interval of the value it should be."""
    if x.min(initial=value.high) < value.low or x.max(initial=value.low) > value.high:
        raise _Fault(f"what it reads as {value.key} is outside its interval")
    return x


def _at(operand: Operand, row: int) -> int:
    return operand.base + operand.stride * row


def _rows_of(matrix: IntArray) -> int:
    """Of a matrix of all samples."""
    return int(matrix.shape[1])
