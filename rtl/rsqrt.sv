// SPDX-License-Identifier: Apache-2.0
//
// RSQRT of codesign/spec/ops.py, NormParams: R with 1/sqrt(v) ~ R * 2**-(15 + half), half = floor(log2(v)) / 2 (rounded down), from
// a mantissa in [2**14, 2**16) and 96 interpolated segments. v = 0 gives R = 0 and some half. Latency 5 cycles, one a cycle.
module rsqrt #(
  parameter int unsigned InBits = 50
) (
  input  logic              clk_i,
  input  logic [InBits-1:0] v_i,
  output logic [15:0]       rsqrt_o,
  output logic [4:0]        half_o
);

  localparam int unsigned Bytes = (InBits + 7) / 8;            // at most 8
  localparam int unsigned WindowBits = 16 + 6;                 // of which up to 6 are leading zeros, by pairs
  localparam int unsigned FractionBits = codesign_pkg::RsqrtFractionBits;
  localparam int unsigned IndexBits = 16 - FractionBits;
  localparam int unsigned Width = codesign_pkg::RsqrtTableWidth;
  localparam int unsigned Skipped = 1 << (14 - FractionBits);  // segments below the mantissa 2**14
  localparam int unsigned FallBits = 10;                       // the table falls by at most 500 a segment

  // The table behind `Skipped` zeros is indexed by the mantissa itself, and gives 0 for v = 0.
  localparam int unsigned TableBits = $bits(codesign_pkg::RsqrtTable) + Skipped * Width;
  localparam logic [TableBits-1:0] Table = {codesign_pkg::RsqrtTable, (Skipped * Width)'(0)};
  localparam logic [TableBits-1:0] NextTable = Table >> Width;

  logic [WindowBits-1:0]         window, window_q, fine;
  logic [4:0]                    zeros_coarse_q, zeros_fine;  // pairs of leading zeros
  logic [2:0]                    bytes;
  logic [15:0]                   mantissa_q;
  logic [4:0]                    half2_q, half3_q, half4_q;
  logic [IndexBits-1:0]          index;
  logic [Width-1:0]              left, right, left3_q, left4_q;
  logic [FallBits-1:0]           fall_q;
  logic [FractionBits-1:0]       fraction_q;
  logic [FallBits+FractionBits-1:0] product_q;

  leading_byte #(.Bytes(Bytes), .WindowBits(WindowBits)) u_leading (
    .x_i((Bytes*8)'(v_i)), .window_o(window), .zeros_o(bytes)
  );

  always_comb begin
    fine = window_q;
    zeros_fine = zeros_coarse_q;
    if (fine[WindowBits-1 -: 4] == '0) begin
      fine = fine << 4;
      zeros_fine[1] = 1'b1;
    end
    if (fine[WindowBits-1 -: 2] == '0) begin
      fine = fine << 2;
      zeros_fine[0] = 1'b1;
    end

    index = mantissa_q[15:FractionBits];
    left = Table[32'(index)*Width +: Width];
    right = NextTable[32'(index)*Width +: Width];
  end

  always_ff @(posedge clk_i) begin
    window_q <= window;
    zeros_coarse_q <= {bytes, 2'b0};

    mantissa_q <= fine[WindowBits-1 -: 16];
    half2_q <= 5'(Bytes * 4 - 1) - zeros_fine;

    left3_q <= left;
    fall_q <= FallBits'(left - right);
    fraction_q <= mantissa_q[FractionBits-1:0];
    half3_q <= half2_q;

    product_q <= (FallBits+FractionBits)'(fall_q) * (FallBits+FractionBits)'(fraction_q);
    left4_q <= left3_q;
    half4_q <= half3_q;

    rsqrt_o <= left4_q - Width'((product_q + (FallBits+FractionBits)'(1 << (FractionBits - 1))) >> FractionBits);
    half_o <= half4_q;
  end

  logic unused_bits;  // what lies below the mantissa
  assign unused_bits = ^fine;

endmodule
