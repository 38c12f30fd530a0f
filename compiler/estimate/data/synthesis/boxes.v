// The modules that the mapper takes over, and single adders and buffers, as black boxes.
(* blackbox *)
module hw_full_adders #(parameter WIDTH = 1) (
    input [WIDTH-1:0] a, b, c, output [WIDTH-1:0] sum, carry
);
endmodule

(* blackbox *)
module hw_half_adders #(parameter WIDTH = 1) (
    input [WIDTH-1:0] a, b, output [WIDTH-1:0] sum, carry
);
endmodule

(* blackbox *)
module hw_buffers #(parameter WIDTH = 1) (input [WIDTH-1:0] a, output [WIDTH-1:0] y);
endmodule

(* blackbox *) module hw_fa (input a, b, c, output sum, carry); endmodule
(* blackbox *) module hw_ha (input a, b, output sum, carry); endmodule
(* blackbox *) module hw_buf (input a, output y); endmodule
