// SPDX-License-Identifier: Apache-2.0
//
// Four lanes of two array rows: four cells in a DSP cascade. Lane c arrives c cycles after lane 0, as does its `load_i`.
// The sums leave 6 cycles after lane 0 arrived.
module mac_chain (
  input  logic               clk_i,
  input  logic [3:0]         load_i,
  input  logic [31:0]        w0_i,
  input  logic [31:0]        w1_i,
  input  logic [31:0]        x_i,
  output logic signed [17:0] sum0_o,
  output logic signed [17:0] sum1_o
);

  logic signed [36:0] sum0, sum1, sum2, sum3;

  mac_cell u_cell0 (.clk_i, .load_i(load_i[0]), .w0_i(w0_i[7:0]), .w1_i(w1_i[7:0]), .x_i(x_i[7:0]), .sum_i(37'sd0), .sum_o(sum0));
  mac_cell u_cell1 (.clk_i, .load_i(load_i[1]), .w0_i(w0_i[15:8]), .w1_i(w1_i[15:8]), .x_i(x_i[15:8]), .sum_i(sum0), .sum_o(sum1));
  mac_cell u_cell2 (.clk_i, .load_i(load_i[2]), .w0_i(w0_i[23:16]), .w1_i(w1_i[23:16]), .x_i(x_i[23:16]), .sum_i(sum1), .sum_o(sum2));
  mac_cell u_cell3 (.clk_i, .load_i(load_i[3]), .w0_i(w0_i[31:24]), .w1_i(w1_i[31:24]), .x_i(x_i[31:24]), .sum_i(sum2), .sum_o(sum3));

  // A negative low sum has borrowed one from the high sum.
  always_ff @(posedge clk_i) begin
    sum0_o <= sum3[17:0];
    sum1_o <= sum3[35:18] + 18'(sum3[17]);
  end

  logic unused_sign;
  assign unused_sign = sum3[36];

endmodule
