// SPDX-License-Identifier: Apache-2.0
//
// PROB(maximum - score): 127 * 2**(-d / 256) rounded half up, 0 for a masked lane. Three registers, then logic that the register of
// x takes: a result 3 cycles after the score, one a cycle.
module prob_lane (
  input  logic               clk_i,
  input  logic               mask_i,
  input  logic signed [15:0] maximum_i,
  input  logic signed [15:0] score_i,
  output logic [7:0]         probability_o
);

  localparam int unsigned FractionBits = codesign_pkg::Log2FractionBits;
  localparam int unsigned Width = codesign_pkg::Exp2TableWidth;

  logic [16:0] distance_q;
  logic        zero1_q, zero2_q, zero3_q;
  logic [15:0] exp2_q;
  logic [3:0]  shift2_q, shift3_q;
  logic [22:0] product_q;
  logic [8:0]  shifted;

  assign shifted = 9'(product_q >> (5'd14 + 5'(shift3_q)));
  assign probability_o = zero3_q ? 8'd0 : 8'((shifted + 9'd1) >> 1);

  always_ff @(posedge clk_i) begin
    distance_q <= 17'(maximum_i) - 17'(score_i);
    zero1_q <= mask_i;

    exp2_q <= codesign_pkg::Exp2Table[32'(distance_q[FractionBits-1:0])*Width +: Width];
    shift2_q <= distance_q[FractionBits +: 4];
    zero2_q <= zero1_q || |distance_q[16:FractionBits+4];

    product_q <= 23'({exp2_q, 7'b0}) - 23'(exp2_q);  // times ProbabilityMax = 127
    shift3_q <= shift2_q;
    zero3_q <= zero2_q;
  end

  if (codesign_pkg::ProbabilityMax != 127) begin : gen_check
    $error("prob_lane multiplies by 127");
  end

endmodule
