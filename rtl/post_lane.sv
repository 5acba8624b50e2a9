// SPDX-License-Identifier: Apache-2.0
//
// One lane of the post-processor: stage 1 requantizes (accumulator >> align) + bias to int16, GELU or nothing, stage 2 requantizes
// again (multiplier 2, shift 1 is the identity). One DSP slice a stage while AccBits <= 27. Timing, counted from `acc_i`:
// `align_i`, `bias_i` 0, `multiplier_i`, `shift_i` 1, `middle_o`, `gelu_i` 7, `multiplier2_i`, `shift2_i` 14, `value_o` 20.
// An accumulator holds its sum with and without the bias (codesign.passes.bounds), so AccBits bits do for both.
module post_lane #(
  parameter int unsigned AccBits = 24
) (
  input  logic                      clk_i,
  input  logic signed [AccBits-1:0] acc_i,
  input  logic [2:0]                align_i,  // 0, 4 or 6
  input  logic signed [31:0]        bias_i,
  input  logic [15:0]               multiplier_i,
  input  logic [5:0]                shift_i,
  input  logic                      gelu_i,
  input  logic [15:0]               multiplier2_i,
  input  logic [5:0]                shift2_i,
  output logic signed [15:0]        middle_o,
  output logic signed [15:0]        value_o
);

  logic signed [AccBits-1:0] aligned, sum_q;
  logic signed [15:0]        middle, between;

  always_comb begin
    aligned = acc_i;
    if (align_i[2]) aligned = align_i[1] ? acc_i >>> 6 : acc_i >>> 4;
  end

  always_ff @(posedge clk_i) sum_q <= aligned + AccBits'(bias_i);

  requantizer #(.InBits(AccBits)) u_stage1 (.clk_i, .a_i(sum_q), .multiplier_i, .shift_i, .q_o(middle));
  gelu_lane u_gelu (.clk_i, .enable_i(gelu_i), .u_i(middle), .g_o(between));
  requantizer #(.InBits(16)) u_stage2 (
    .clk_i, .a_i(between), .multiplier_i(multiplier2_i), .shift_i(shift2_i), .q_o(value_o)
  );

  assign middle_o = middle;

  logic unused_bits;
  assign unused_bits = ^{align_i, bias_i};

endmodule
