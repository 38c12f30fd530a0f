// Word-level adders as one hw_fa a bit: ripple carry, the smallest form.
(* techmap_celltype = "$alu" *)
module hw_map_alu (A, B, CI, BI, X, Y, CO);
  parameter A_SIGNED = 0;
  parameter B_SIGNED = 0;
  parameter A_WIDTH = 1;
  parameter B_WIDTH = 1;
  parameter Y_WIDTH = 1;
  input [A_WIDTH-1:0] A;
  input [B_WIDTH-1:0] B;
  input CI, BI;
  output [Y_WIDTH-1:0] X, Y, CO;
  wire [Y_WIDTH-1:0] a, extended, b;
  // An operand that is constant zero may have no bits at all.
  generate
    if (A_WIDTH == 0) assign a = 0;
    else
      \$pos #(.A_SIGNED(A_SIGNED), .A_WIDTH(A_WIDTH), .Y_WIDTH(Y_WIDTH)) extend_a (.A(A), .Y(a));
    if (B_WIDTH == 0) assign extended = 0;
    else
      \$pos #(.A_SIGNED(B_SIGNED), .A_WIDTH(B_WIDTH), .Y_WIDTH(Y_WIDTH)) extend_b (.A(B), .Y(extended));
  endgenerate
  assign b = BI ? ~extended : extended;
  wire [Y_WIDTH:0] c = {CO, CI};
  assign X = a ^ b;
  hw_fa bits [Y_WIDTH-1:0] (.a(a), .b(b), .c(c[Y_WIDTH-1:0]), .sum(Y), .carry(CO));
endmodule
