"""Primitive Verilog modules that weight blocks instantiate.

Each is behavioural, so that any simulator and any synthesis tool takes it as it is; the area flow
maps the adders to the full- and half-adder cells of the target instead. ``hw_buffers`` keeps the
phase bits of one decoder apart from its neighbours' (it maps to buffers, or to wires).
"""

from __future__ import annotations

from collections.abc import Mapping

FULL_ADDERS = """\
// WIDTH independent full adders: 2 * carry + sum = a + b + c, bit by bit.
module hw_full_adders #(
    parameter WIDTH = 1
) (
    input  wire [WIDTH-1:0] a,
    input  wire [WIDTH-1:0] b,
    input  wire [WIDTH-1:0] c,
    output wire [WIDTH-1:0] sum,
    output wire [WIDTH-1:0] carry
);
  assign sum = a ^ b ^ c;
  assign carry = (a & b) | (c & (a | b));
endmodule
"""

HALF_ADDERS = """\
// WIDTH independent half adders: 2 * carry + sum = a + b, bit by bit.
module hw_half_adders #(
    parameter WIDTH = 1
) (
    input  wire [WIDTH-1:0] a,
    input  wire [WIDTH-1:0] b,
    output wire [WIDTH-1:0] sum,
    output wire [WIDTH-1:0] carry
);
  assign sum = a ^ b;
  assign carry = a & b;
endmodule
"""

BUFFERS = """\
// WIDTH buffers: a copy of a signal that synthesis does not merge with another copy.
(* keep_hierarchy *)
module hw_buffers #(
    parameter WIDTH = 1
) (
    input  wire [WIDTH-1:0] a,
    output wire [WIDTH-1:0] y
);
  assign y = a;
endmodule
"""

PRIMITIVES: Mapping[str, str] = {
    "hw_full_adders": FULL_ADDERS,
    "hw_half_adders": HALF_ADDERS,
    "hw_buffers": BUFFERS,
}
