// One adder or buffer as cells. Words in capitals are replaced by instances of the library's cells.
module hw_fa (input a, b, c, output sum, carry);
  parameter _TECHMAP_CONSTMSK_a_ = 1'b0;
  parameter _TECHMAP_CONSTMSK_b_ = 1'b0;
  parameter _TECHMAP_CONSTMSK_c_ = 1'b0;
  generate
    if (_TECHMAP_CONSTMSK_a_ || _TECHMAP_CONSTMSK_b_ || _TECHMAP_CONSTMSK_c_) FULL_ADDER_GATES
    else FULL_ADDER_CELL
  endgenerate
endmodule

module hw_ha (input a, b, output sum, carry);
  parameter _TECHMAP_CONSTMSK_a_ = 1'b0;
  parameter _TECHMAP_CONSTMSK_b_ = 1'b0;
  generate
    if (_TECHMAP_CONSTMSK_a_ || _TECHMAP_CONSTMSK_b_) HALF_ADDER_GATES
    else HALF_ADDER_CELL
  endgenerate
endmodule

module hw_fa_gates (input a, b, c, output sum, carry);
  assign sum = a ^ b ^ c;
  assign carry = a & b | c & (a | b);
endmodule

module hw_ha_gates (input a, b, output sum, carry);
  assign sum = a ^ b;
  assign carry = a & b;
endmodule

module hw_buf (input a, output y);
  BUFFER_CELL
endmodule
