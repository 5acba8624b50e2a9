// SPDX-License-Identifier: Apache-2.0
//
// One channel of the layer norm: n = sat16(rq(D*x - S, R, s)), y = sat8((n * gain + bias + (1 << (shift - 1))) >> shift).
// Timing, counted from `x_i`: `sum_i` 2, `rsqrt_i`/`shift_i` 3, `gain_i`/`bias_i` 9, result 15.
module norm_lane #(
  parameter int unsigned DimBits = 10,
  parameter int unsigned SumBits = 26
) (
  input  logic                      clk_i,
  input  logic [DimBits-1:0]        dim_i,
  input  logic signed [15:0]        x_i,
  input  logic signed [SumBits-1:0] sum_i,
  input  logic [15:0]               rsqrt_i,
  input  logic [5:0]                shift_i,
  input  logic signed [15:0]        gain_i,
  input  logic signed [31:0]        bias_i,
  input  logic [5:0]                out_shift_less_one_i,
  output logic [7:0]                y_o
);

  localparam int unsigned CenteredBits = SumBits + 1;

  logic signed [15:0]             x_q, normalised, rounded;
  logic signed [SumBits-1:0]      product_q;
  logic signed [CenteredBits-1:0] centered_q;
  logic signed [31:0]             scaled_q, scaled2_q, bias_q, bias2_q;
  logic signed [32:0]             affine_q;

  always_ff @(posedge clk_i) begin
    x_q <= x_i;
    product_q <= SumBits'(x_q) * SumBits'(signed'({1'b0, dim_i}));
    centered_q <= CenteredBits'(product_q) - CenteredBits'(sum_i);
  end

  requantizer #(.InBits(CenteredBits)) u_normalise (
    .clk_i, .a_i(centered_q), .multiplier_i(rsqrt_i), .shift_i, .q_o(normalised)
  );

  always_ff @(posedge clk_i) begin
    scaled_q <= 32'(normalised) * 32'(gain_i);
    scaled2_q <= scaled_q;
    bias_q <= bias_i;
    bias2_q <= bias_q;
    affine_q <= 33'(scaled2_q) + 33'(bias2_q);
  end

  round_shift #(.InBits(33)) u_round (.clk_i, .x_i(affine_q), .shift_i(out_shift_less_one_i), .q_o(rounded));

  assign y_o = rounded[15:7] == {9{rounded[15]}} ? rounded[7:0] : {rounded[15], {7{~rounded[15]}}};

endmodule
