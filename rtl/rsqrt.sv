// SPDX-License-Identifier: Apache-2.0
//
// (R, e) with 1/sqrt(v) ~ R * 2**-(22 + e): a mantissa in [2**14, 2**16) and 96 interpolated segments. v = 0 gives some R.
// Latency 5 cycles, one a cycle.
module rsqrt #(
  parameter int unsigned InBits = 52
) (
  input  logic              clk_i,
  input  logic [InBits-1:0] v_i,
  output logic [15:0]       rsqrt_o,
  output logic signed [5:0] exponent_o
);

  localparam int unsigned Bits = InBits < 16 ? 16 : InBits + InBits % 2;
  localparam int unsigned FractionBits = codesign_pkg::RsqrtFractionBits;
  localparam int unsigned IndexBits = 16 - FractionBits;
  localparam int unsigned Width = codesign_pkg::RsqrtTableWidth;

  logic [Bits-1:0]               v, v1_q, normal;
  logic [4:0]                    half, half_q;  // floor(log2(v) / 2)
  logic signed [5:0]             e2_q, e3_q, e4_q;
  logic [15:0]                   mantissa_q;
  logic [IndexBits-1:0]          index;
  logic [Width-1:0]              left, right, left3_q, left4_q, fall_q;
  logic [FractionBits-1:0]       fraction_q;
  logic [Width+FractionBits-1:0] product_q;

  assign v = Bits'(v_i);

  always_comb begin
    half = '0;
    for (int unsigned i = 0; i < Bits / 2; i++) if (|v[2*i +: 2]) half = 5'(i);
    normal = v1_q << {5'(Bits / 2 - 1) - half_q, 1'b0};
    index = mantissa_q[15:FractionBits];
    left = codesign_pkg::RsqrtTable[32'(index)*Width +: Width];
    right = codesign_pkg::RsqrtTable[(32'(index)+1)*Width +: Width];
  end

  always_ff @(posedge clk_i) begin
    v1_q <= v;
    half_q <= half;

    mantissa_q <= |normal[Bits-1 -: 2] ? normal[Bits-1 -: 16] - 16'h4000 : 16'd0;
    e2_q <= signed'({1'b0, half_q}) - 6'sd7;

    left3_q <= left;
    fall_q <= left - right;
    fraction_q <= mantissa_q[FractionBits-1:0];
    e3_q <= e2_q;

    product_q <= (Width+FractionBits)'(fall_q) * (Width+FractionBits)'(fraction_q);
    left4_q <= left3_q;
    e4_q <= e3_q;

    rsqrt_o <= left4_q - Width'((product_q + (Width+FractionBits)'(1 << (FractionBits - 1))) >> FractionBits);
    exponent_o <= e4_q;
  end

  logic unused_bits;  // what lies below the mantissa
  assign unused_bits = ^normal;

endmodule
