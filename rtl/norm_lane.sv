// SPDX-License-Identifier: Apache-2.0
//
// One channel of the layer norm (codesign/spec/ops.py, NormParams). With the row's scale = D * R and offset = (1 << (11 + e)) - S * R,
// (D*x - S) * R + (1 << (11 + e)) = x * scale + offset: one DSP slice. Then n = sat16(that >> (12 + e)) and
// y = sat8((n * gain + bias + (1 << (shift - 1))) >> shift).
// Timing, counted from `x_i` and `scale_i`: `offset_i` 1, `half_i` (= e + 7) 3, `gain_i` 5, `bias_i` 8, result 12.
module norm_lane #(
  parameter int unsigned DimBits = 10
) (
  input  logic                         clk_i,
  input  logic signed [15:0]           x_i,
  input  logic signed [DimBits+15:0]   scale_i,
  input  logic signed [DimBits+31:0]   offset_i,
  input  logic [4:0]                   half_i,
  input  logic signed [15:0]           gain_i,
  input  logic signed [31:0]           bias_i,
  input  logic [5:0]                   out_shift_less_one_i,  // at most 32
  output logic [7:0]                   y_o
);

  localparam int unsigned SumBits = DimBits + 33;
  localparam int unsigned LeastShift = 5;  // 12 + e for half = 0

  // ---- normalise ----
  logic signed [15:0]                   x_q, normal_q;
  logic signed [DimBits+15:0]           scale_q;
  logic signed [DimBits+31:0]           offset_q, product_q;
  logic signed [SumBits-1:0]            sum_q;
  logic signed [SumBits-LeastShift-1:0] sum, coarse;
  logic signed [22:0]                   coarse_q, fine;
  logic                                 sign, over, fine_over, over_q, sign_q;
  logic [2:0]                           fine_shift_q;

  // A bit above the 16 that remain overflows if it differs from the sign; of the sum, those above the 23 that the coarse shift keeps.
  always_comb begin
    sum = sum_q[SumBits-1:LeastShift];
    sign = sum_q[SumBits-1];
    coarse = sum >>> {half_i[4:3], 3'b0};
    over = 1'b0;
    for (int unsigned i = 22; i < SumBits - LeastShift; i++) over |= sum[i] != sign && 2'((i - 22) / 8) >= half_i[4:3];
    fine = coarse_q >>> fine_shift_q;
    fine_over = over_q;
    for (int unsigned i = 15; i < 22; i++) fine_over |= coarse_q[i] != sign_q && 3'(i - 15) >= fine_shift_q;
  end

  always_ff @(posedge clk_i) begin
    x_q <= x_i;
    scale_q <= scale_i;

    product_q <= (DimBits+32)'(x_q) * (DimBits+32)'(scale_q);
    offset_q <= offset_i;

    sum_q <= SumBits'(product_q) + SumBits'(offset_q);

    coarse_q <= coarse[22:0];
    over_q <= over;
    sign_q <= sign;
    fine_shift_q <= half_i[2:0];

    normal_q <= fine_over ? {sign_q, {15{~sign_q}}} : fine[15:0];
  end

  // ---- gain and bias ----
  logic signed [31:0] scaled;
  logic signed [32:0] affine_q, out_coarse;
  logic signed [16:0] out_coarse_q, out_fine;
  logic               out_sign, out_over, out_fine_over, out_over_q, out_sign_q;
  logic signed [9:0]  half_steps_q;  // the result in units of 1/2, at least twice the range of int8
  logic signed [10:0] rounded;

  logic unused_bits;  // above the bits that remain, as looked at for overflow
  assign unused_bits = ^{coarse, fine, out_coarse, out_fine};

  soft_multiplier #(.ABits(16), .BBits(16)) u_gain (.clk_i, .a_i(normal_q), .b_i(gain_i), .product_o(scaled));

  always_comb begin
    out_sign = affine_q[32];
    out_coarse = affine_q >>> {out_shift_less_one_i[5:3], 3'b0};
    out_over = 1'b0;
    for (int unsigned i = 16; i < 32; i++) out_over |= affine_q[i] != out_sign && 3'((i - 16) / 8) >= out_shift_less_one_i[5:3];
    out_fine = out_coarse_q >>> out_shift_less_one_i[2:0];
    out_fine_over = out_over_q;
    for (int unsigned i = 9; i < 16; i++) out_fine_over |= out_coarse_q[i] != out_sign_q && 3'(i - 9) >= out_shift_less_one_i[2:0];
    rounded = (11'(half_steps_q) + 11'sd1) >>> 1;
  end

  always_ff @(posedge clk_i) begin
    affine_q <= 33'(scaled) + 33'(bias_i);

    out_coarse_q <= out_coarse[16:0];
    out_over_q <= out_over;
    out_sign_q <= out_sign;

    half_steps_q <= out_fine_over ? {out_sign_q, {9{~out_sign_q}}} : out_fine[9:0];

    y_o <= rounded[10:7] == {4{rounded[10]}} ? rounded[7:0] : {rounded[10], {7{~rounded[10]}}};
  end

endmodule
