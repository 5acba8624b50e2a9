// SPDX-License-Identifier: Apache-2.0
//
// sat16(rq(a, m, s)) = sat16((a * m + (1 << (s - 1))) >> s), s >= 1. Latency 6 cycles, one result a cycle.
module requantizer #(
  parameter int unsigned InBits = 33
) (
  input  logic                     clk_i,
  input  logic signed [InBits-1:0] a_i,
  input  logic [15:0]              multiplier_i,
  input  logic [5:0]               shift_i,
  output logic signed [15:0]       q_o
);

  localparam int unsigned ProductBits = InBits + 17;

  logic signed [InBits-1:0]      a_q;
  logic signed [16:0]            multiplier_q;
  logic signed [ProductBits-1:0] product_q, product2_q;
  logic [5:0]                    shift_q, shift2_q, shift3_q;

  always_ff @(posedge clk_i) begin
    a_q <= a_i;
    multiplier_q <= signed'({1'b0, multiplier_i});
    product_q <= ProductBits'(a_q) * ProductBits'(multiplier_q);
    product2_q <= product_q;
    shift_q <= shift_i;
    shift2_q <= shift_q;
    shift3_q <= shift2_q - 6'd1;
  end

  round_shift #(.InBits(ProductBits)) u_round (.clk_i, .x_i(product2_q), .shift_i(shift3_q), .q_o);

endmodule
