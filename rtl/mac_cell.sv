// SPDX-License-Identifier: Apache-2.0
//
// Two int8 products with one multiplier (one DSP48E2): (w1 * 2**18 + w0) * x, added to the neighbour's sum. Registers: x and the
// pre-adder, product, sum. x arrives a cycle before it meets the weights; `load_i` in that cycle takes the weights for it.
module mac_cell (
  input  logic               clk_i,
  input  logic               load_i,
  input  logic signed [7:0]  w0_i,
  input  logic signed [7:0]  w1_i,
  input  logic signed [7:0]  x_i,
  input  logic signed [36:0] sum_i,
  output logic signed [36:0] sum_o
);

  logic signed [26:0] weight_q;
  logic signed [7:0]  x_q;
  logic signed [34:0] product_q;
  logic signed [36:0] sum_q;

  always_ff @(posedge clk_i) begin
    if (load_i) weight_q <= 27'(signed'({w1_i, 18'b0})) + 27'(w0_i);
    x_q <= x_i;
    product_q <= 35'(weight_q) * 35'(x_q);
    sum_q <= sum_i + 37'(product_q);
  end

  assign sum_o = sum_q;

endmodule
