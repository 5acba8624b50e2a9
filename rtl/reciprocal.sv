// SPDX-License-Identifier: Apache-2.0
//
// (R, e) with 1/z ~ R * 2**-(30 + e) for z > 0: a 16-bit mantissa and 64 interpolated segments. Latency 5 cycles, one a cycle.
module reciprocal #(
  parameter int unsigned InBits = 16
) (
  input  logic              clk_i,
  input  logic [InBits-1:0] z_i,
  output logic [15:0]       reciprocal_o,
  output logic signed [5:0] exponent_o
);

  localparam int unsigned Bits = InBits < 16 ? 16 : InBits;
  localparam int unsigned FractionBits = codesign_pkg::ReciprocalFractionBits;
  localparam int unsigned IndexBits = 15 - FractionBits;
  localparam int unsigned Width = codesign_pkg::ReciprocalTableWidth;

  logic [Bits-1:0]            z, z1_q, normal;
  logic [5:0]                 log2, log2_q;
  logic signed [5:0]          e2_q, e3_q, e4_q;
  logic [14:0]                mantissa_q;
  logic [IndexBits:0]         index;
  logic [Width-1:0]           left, right, left3_q, left4_q;
  logic [Width-1:0]           fall_q;
  logic [FractionBits-1:0]    fraction_q;
  logic [Width+FractionBits-1:0] product_q;

  assign z = Bits'(z_i);

  always_comb begin
    log2 = '0;
    for (int unsigned i = 0; i < Bits; i++) if (z[i]) log2 = 6'(i);
    normal = z1_q << (6'(Bits - 1) - log2_q);
    index = {1'b0, mantissa_q[14:FractionBits]};
    left = codesign_pkg::ReciprocalTable[32'(index)*Width +: Width];
    right = codesign_pkg::ReciprocalTable[(32'(index)+1)*Width +: Width];
  end

  always_ff @(posedge clk_i) begin
    z1_q <= z;
    log2_q <= log2;

    mantissa_q <= normal[Bits-2 -: 15];
    e2_q <= signed'(log2_q) - 6'sd15;

    left3_q <= left;
    fall_q <= left - right;
    fraction_q <= mantissa_q[FractionBits-1:0];
    e3_q <= e2_q;

    product_q <= (Width+FractionBits)'(fall_q) * (Width+FractionBits)'(fraction_q);
    left4_q <= left3_q;
    e4_q <= e3_q;

    reciprocal_o <= left4_q - Width'((product_q + (Width+FractionBits)'(1 << (FractionBits - 1))) >> FractionBits);
    exponent_o <= e4_q;
  end

  logic unused_bits;  // the leading one, and what lies below the mantissa
  assign unused_bits = ^normal;

endmodule
