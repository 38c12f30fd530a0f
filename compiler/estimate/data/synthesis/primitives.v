// The modules of weight blocks that the mapper takes over, one hw_fa, hw_ha or hw_buf a bit.
module hw_full_adders #(parameter WIDTH = 1) (
    input [WIDTH-1:0] a, b, c, output [WIDTH-1:0] sum, carry
);
  hw_fa bits [WIDTH-1:0] (.a(a), .b(b), .c(c), .sum(sum), .carry(carry));
endmodule

module hw_half_adders #(parameter WIDTH = 1) (
    input [WIDTH-1:0] a, b, output [WIDTH-1:0] sum, carry
);
  hw_ha bits [WIDTH-1:0] (.a(a), .b(b), .sum(sum), .carry(carry));
endmodule

module hw_buffers #(parameter WIDTH = 1) (input [WIDTH-1:0] a, output [WIDTH-1:0] y);
  hw_buf bits [WIDTH-1:0] (.a(a), .y(y));
endmodule
