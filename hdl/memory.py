"""Memories: one write port, one read port of one cycle latency, as Verilog modules of their own.

A module of its own is inferred by any synthesis tool, and is the place where a memory macro of the
same ports goes. Reading a word in the cycle it is written gives the old word. The read data stays
until the next read.
"""

from __future__ import annotations

from amaranth import ClockSignal, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


def ram_name(words: int, bits: int) -> str:
    """Name of the Verilog module of a memory."""
    return f"hw_ram_{words}x{bits}"


def ram_verilog(words: int, bits: int) -> str:
    """Verilog of the memory module ``ram_name(words, bits)``."""
    address = max(1, (words - 1).bit_length()) - 1
    return f"""\
// {words} words of {bits} bits: one write port, one read port with one cycle of latency.
module {ram_name(words, bits)} (
    input  wire clk,
    input  wire we,
    input  wire [{address}:0] waddr,
    input  wire [{bits - 1}:0] wdata,
    input  wire re,
    input  wire [{address}:0] raddr,
    output reg  [{bits - 1}:0] rdata
);
  reg [{bits - 1}:0] words [0:{words - 1}];
  always @(posedge clk) begin
    if (we) words[waddr] <= wdata;
    if (re) rdata <= words[raddr];
  end
endmodule
"""


class Ram(wiring.Component):
    """An instance of a memory module. ``words >= 2``."""

    def __init__(self, words: int, bits: int) -> None:
        self.words = words
        self.bits = bits
        address = max(1, (words - 1).bit_length())
        super().__init__(
            {
                "we": In(1),
                "waddr": In(address),
                "wdata": In(bits),
                "re": In(1),
                "raddr": In(address),
                "rdata": Out(bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.macro = Instance(
            ram_name(self.words, self.bits),
            i_clk=ClockSignal(),
            i_we=self.we,
            i_waddr=self.waddr,
            i_wdata=self.wdata,
            i_re=self.re,
            i_raddr=self.raddr,
            o_rdata=self.rdata,
        )
        return m
