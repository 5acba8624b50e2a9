// SPDX-License-Identifier: Apache-2.0
//
// Eight lanes of two array rows: eight cells in a DSP cascade. Lane c arrives c cycles after lane 0, as does its `load_i`.
// The sums leave 10 cycles after lane 0 arrived.
//
// Eight products of int8 reach 2**17, one more than the 18 bits of a field hold: both fields start at -1. A negative low field has
// borrowed one from the high field: `borrow_o` has to be added to `high_o`. Both sums are then short by one.
module mac_chain (
  input  logic               clk_i,
  input  logic [7:0]         load_i,
  input  logic [63:0]        w0_i,
  input  logic [63:0]        w1_i,
  input  logic [63:0]        x_i,
  output logic signed [17:0] low_o,
  output logic signed [17:0] high_o,
  output logic               borrow_o
);

  localparam logic signed [36:0] Start = -(37'sd1 <<< 18) - 37'sd1;

  logic signed [36:0] sum0, sum1, sum2, sum3, sum4, sum5, sum6, sum7;

  mac_cell u_cell0 (
    .clk_i, .load_i(load_i[0]), .w0_i(w0_i[7:0]), .w1_i(w1_i[7:0]), .x_i(x_i[7:0]), .sum_i(Start), .sum_o(sum0)
  );
  mac_cell u_cell1 (
    .clk_i, .load_i(load_i[1]), .w0_i(w0_i[15:8]), .w1_i(w1_i[15:8]), .x_i(x_i[15:8]), .sum_i(sum0), .sum_o(sum1)
  );
  mac_cell u_cell2 (
    .clk_i, .load_i(load_i[2]), .w0_i(w0_i[23:16]), .w1_i(w1_i[23:16]), .x_i(x_i[23:16]), .sum_i(sum1), .sum_o(sum2)
  );
  mac_cell u_cell3 (
    .clk_i, .load_i(load_i[3]), .w0_i(w0_i[31:24]), .w1_i(w1_i[31:24]), .x_i(x_i[31:24]), .sum_i(sum2), .sum_o(sum3)
  );
  mac_cell u_cell4 (
    .clk_i, .load_i(load_i[4]), .w0_i(w0_i[39:32]), .w1_i(w1_i[39:32]), .x_i(x_i[39:32]), .sum_i(sum3), .sum_o(sum4)
  );
  mac_cell u_cell5 (
    .clk_i, .load_i(load_i[5]), .w0_i(w0_i[47:40]), .w1_i(w1_i[47:40]), .x_i(x_i[47:40]), .sum_i(sum4), .sum_o(sum5)
  );
  mac_cell u_cell6 (
    .clk_i, .load_i(load_i[6]), .w0_i(w0_i[55:48]), .w1_i(w1_i[55:48]), .x_i(x_i[55:48]), .sum_i(sum5), .sum_o(sum6)
  );
  mac_cell u_cell7 (
    .clk_i, .load_i(load_i[7]), .w0_i(w0_i[63:56]), .w1_i(w1_i[63:56]), .x_i(x_i[63:56]), .sum_i(sum6), .sum_o(sum7)
  );

  assign low_o = sum7[17:0];
  assign high_o = sum7[35:18];
  assign borrow_o = sum7[17];

  logic unused_sign;
  assign unused_sign = sum7[36];

endmodule
