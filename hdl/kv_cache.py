"""The key and value memories and the packer in front of them.

A word holds one kv head of one row, its elements side by side, element 0 in the low bits. Units
write elements; the packer collects them and writes each word with its last element, at ascending
addresses from the instruction's ``d``.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Cat, Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwcompile.compiler.ir.chip import Chip, Space
from hwcompile.hdl.memory import Ram


def element_bits(chip: Chip, space: Space) -> int:
    """Bits of an element of the key or value memory: the widest key or value."""
    regions = chip.key_value_regions
    keys = [r.key if space == "key" else r.value for r in regions]
    return max(chip.program.values[key].bits for key in keys)


def lane_counts(chip: Chip) -> tuple[int, ...]:
    """The different numbers of elements a word has in this chip, ascending."""
    return tuple(sorted({i.lanes for i in chip.instructions if i.lanes}))


class Packer(wiring.Component):
    """Elements in, words out.

    ``start`` loads the word address ``d``; ``lanes`` selects from ``lane_counts`` how many
    elements a word has. An element is written with ``write_en``; with the last of a word
    ``word_en`` and the word follow in the same cycle.
    """

    def __init__(self, lane_counts: Sequence[int], bits: int, address_bits: int) -> None:
        self.lane_counts = tuple(lane_counts)
        self.bits = bits
        super().__init__(
            {
                "start": In(1),
                "d": In(address_bits),
                "lanes": In(range(max(2, len(self.lane_counts)))),
                "write_en": In(1),
                "write_data": In(signed(bits)),
                "word_en": Out(1),
                "word_addr": Out(address_bits),
                "word": Out(bits * max(self.lane_counts)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        most = max(self.lane_counts)
        held = Signal(self.bits * (most - 1), reset_less=True)
        lane = Signal(range(max(2, most)))
        shifted = Signal(self.bits * most)
        m.d.comb += shifted.eq(Cat(held, self.write_data))
        with m.Switch(self.lanes):
            for index, count in enumerate(self.lane_counts):
                with m.Case(index):
                    # Elements enter at the top: fewer than the most leave the low lanes unused.
                    m.d.comb += self.word.eq(shifted >> self.bits * (most - count))
                    m.d.comb += self.word_en.eq(self.write_en & (lane == count - 1))
        with m.If(self.write_en):
            m.d.sync += [held.eq(shifted[self.bits :]), lane.eq(lane + 1)]
        with m.If(self.word_en):
            m.d.sync += [lane.eq(0), self.word_addr.eq(self.word_addr + 1)]
        with m.If(self.start):
            m.d.sync += [lane.eq(0), self.word_addr.eq(self.d)]
        return m


class KeyValueCache(wiring.Component):
    """Packer and both memories.

    ``key_write``/``value_write``: elements go to that memory. ``key_addr``/``value_addr`` read
    words while ``read_en``, data in the next cycle.
    """

    def __init__(self, chip: Chip, bits: int) -> None:
        self.chip = chip
        self.packer = Packer(lane_counts(chip), bits, chip.memory("key").address_bits)
        self.key_ram = Ram(chip.memory("key").words, chip.memory("key").bits)
        self.value_ram = Ram(chip.memory("value").words, chip.memory("value").bits)
        address = chip.memory("key").address_bits
        super().__init__(
            {
                "start": In(1),
                "d": In(address),
                "lanes": In(self.packer.lanes.shape()),
                "key_write": In(1),
                "value_write": In(1),
                "write_data": In(signed(bits)),
                "read_en": In(1),
                "key_addr": In(address),
                "key_data": Out(self.key_ram.bits),
                "value_addr": In(address),
                "value_data": Out(self.value_ram.bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.packer = packer = self.packer
        m.submodules.key_ram = key = self.key_ram
        m.submodules.value_ram = value = self.value_ram
        m.d.comb += [
            packer.start.eq(self.start),
            packer.d.eq(self.d),
            packer.lanes.eq(self.lanes),
            packer.write_en.eq(self.key_write | self.value_write),
            packer.write_data.eq(self.write_data),
            key.we.eq(packer.word_en & self.key_write),
            key.wdata.eq(self._word(key.bits, element_bits(self.chip, "key"))),
            value.we.eq(packer.word_en & self.value_write),
            value.wdata.eq(self._word(value.bits, element_bits(self.chip, "value"))),
        ]
        for ram, address, data in (
            (key, self.key_addr, self.key_data),
            (value, self.value_addr, self.value_data),
        ):
            m.d.comb += [
                ram.waddr.eq(packer.word_addr),
                ram.re.eq(self.read_en),
                ram.raddr.eq(address),
                data.eq(ram.rdata),
            ]
        return m

    def _word(self, bits: int, element: int) -> Value:
        """The packer's word with elements cut to ``element`` bits."""
        step = self.packer.bits
        lanes = bits // element
        return Cat(self.packer.word[lane * step : lane * step + element] for lane in range(lanes))
