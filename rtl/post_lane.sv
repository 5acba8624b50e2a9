// SPDX-License-Identifier: Apache-2.0
//
// One lane of the post-processor: stage 1 requantizes accumulator + bias to int16, GELU or nothing, stage 2 requantizes again
// (multiplier 2, shift 1 is the identity). Timing, counted from `acc_i`: bias 0, `multiplier_i`/`shift_i` 1,
// `multiplier2_i`/`shift2_i` 13, result 19.
module post_lane #(
  parameter int unsigned AccBits = 24
) (
  input  logic                      clk_i,
  input  logic signed [AccBits-1:0] acc_i,
  input  logic signed [31:0]        bias_i,
  input  logic [15:0]               multiplier_i,
  input  logic [5:0]                shift_i,
  input  logic                      gelu_i,
  input  logic [15:0]               multiplier2_i,
  input  logic [5:0]                shift2_i,
  output logic signed [15:0]        value_o
);

  localparam int unsigned SumBits = (AccBits > 32 ? AccBits : 32) + 1;

  logic signed [SumBits-1:0] sum_q;
  logic signed [15:0]        middle, between;

  always_ff @(posedge clk_i) sum_q <= SumBits'(acc_i) + SumBits'(bias_i);

  requantizer #(.InBits(SumBits)) u_stage1 (.clk_i, .a_i(sum_q), .multiplier_i, .shift_i, .q_o(middle));
  gelu_lane u_gelu (.clk_i, .enable_i(gelu_i), .u_i(middle), .g_o(between));
  requantizer #(.InBits(16)) u_stage2 (
    .clk_i, .a_i(between), .multiplier_i(multiplier2_i), .shift_i(shift2_i), .q_o(value_o)
  );

endmodule
