// SPDX-License-Identifier: Apache-2.0
//
// soft_multiplier in the widths that differ in their rows and stages: 1 to 9 rows, odd widths.
module tb_soft_multiplier (
  input  logic        clk_i,
  input  logic [31:0] a_i,
  input  logic [31:0] b_i,
  output logic [31:0] p16x16_o,
  output logic [24:0] p16x9_o,
  output logic [31:0] p17x15_o,
  output logic [19:0] p12x8_o,
  output logic [15:0] p12x4_o,
  output logic [10:0] p8x3_o,
  output logic [6:0]  p5x2_o,
  output logic [41:0] p25x17_o
);
  soft_multiplier #(.ABits(16), .BBits(16)) u_16x16 (.clk_i, .a_i(a_i[15:0]), .b_i(b_i[15:0]), .product_o(p16x16_o));
  soft_multiplier #(.ABits(16), .BBits(9)) u_16x9 (.clk_i, .a_i(a_i[15:0]), .b_i(b_i[8:0]), .product_o(p16x9_o));
  soft_multiplier #(.ABits(17), .BBits(15)) u_17x15 (.clk_i, .a_i(a_i[16:0]), .b_i(b_i[14:0]), .product_o(p17x15_o));
  soft_multiplier #(.ABits(12), .BBits(8)) u_12x8 (.clk_i, .a_i(a_i[11:0]), .b_i(b_i[7:0]), .product_o(p12x8_o));
  soft_multiplier #(.ABits(12), .BBits(4)) u_12x4 (.clk_i, .a_i(a_i[11:0]), .b_i(b_i[3:0]), .product_o(p12x4_o));
  soft_multiplier #(.ABits(8), .BBits(3)) u_8x3 (.clk_i, .a_i(a_i[7:0]), .b_i(b_i[2:0]), .product_o(p8x3_o));
  soft_multiplier #(.ABits(5), .BBits(2)) u_5x2 (.clk_i, .a_i(a_i[4:0]), .b_i(b_i[1:0]), .product_o(p5x2_o));
  soft_multiplier #(.ABits(25), .BBits(17)) u_25x17 (.clk_i, .a_i(a_i[24:0]), .b_i(b_i[16:0]), .product_o(p25x17_o));
endmodule
