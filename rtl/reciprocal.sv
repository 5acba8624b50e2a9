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

  localparam int unsigned Bytes = InBits <= 16 ? 2 : (InBits + 7) / 8;
  localparam int unsigned FractionBits = codesign_pkg::ReciprocalFractionBits;
  localparam int unsigned IndexBits = 15 - FractionBits;
  localparam int unsigned Width = codesign_pkg::ReciprocalTableWidth;
  localparam int unsigned WindowBits = 16 + 7;  // of which up to 7 are leading zeros

  // Both ends of a segment, each with an index of its own: no adder in front of a table.
  localparam int unsigned TableBits = $bits(codesign_pkg::ReciprocalTable) - Width;
  localparam logic [TableBits-1:0] LeftEnds = TableBits'(codesign_pkg::ReciprocalTable);
  localparam logic [TableBits-1:0] RightEnds = TableBits'(codesign_pkg::ReciprocalTable >> Width);

  logic [WindowBits-1:0]      window, window_q, fine;
  logic [2:0]                 zeros_coarse, zeros_fine;
  logic [5:0]                 zeros1_q, zeros2_q;
  logic signed [5:0]          e3_q, e4_q;
  logic [14:0]                mantissa_q;
  logic [IndexBits-1:0]       index;
  logic [Width-1:0]           left, right, left3_q, left4_q;
  logic [Width-1:0]           fall_q;
  logic [FractionBits-1:0]    fraction_q;
  logic [Width+FractionBits-1:0] product_q;

  leading_byte #(.Bytes(Bytes), .WindowBits(WindowBits)) u_leading (
    .x_i((Bytes*8)'(z_i)), .window_o(window), .zeros_o(zeros_coarse)
  );

  always_comb begin
    fine = window_q;
    zeros_fine = '0;
    if (fine[WindowBits-1 -: 4] == '0) begin
      fine = fine << 4;
      zeros_fine[2] = 1'b1;
    end
    if (fine[WindowBits-1 -: 2] == '0) begin
      fine = fine << 2;
      zeros_fine[1] = 1'b1;
    end
    if (!fine[WindowBits-1]) begin
      fine = fine << 1;
      zeros_fine[0] = 1'b1;
    end
    index = mantissa_q[14:FractionBits];
    left = LeftEnds[32'(index)*Width +: Width];
    right = RightEnds[32'(index)*Width +: Width];
  end

  always_ff @(posedge clk_i) begin
    window_q <= window;
    zeros1_q <= {zeros_coarse, 3'b0};

    mantissa_q <= fine[WindowBits-2 -: 15];
    zeros2_q <= zeros1_q | 6'(zeros_fine);

    left3_q <= left;
    fall_q <= left - right;
    fraction_q <= mantissa_q[FractionBits-1:0];
    e3_q <= signed'(6'(Bytes * 8 - 16) - zeros2_q);

    product_q <= (Width+FractionBits)'(fall_q) * (Width+FractionBits)'(fraction_q);
    left4_q <= left3_q;
    e4_q <= e3_q;

    reciprocal_o <= left4_q - Width'((product_q + (Width+FractionBits)'(1 << (FractionBits - 1))) >> FractionBits);
    exponent_o <= e4_q;
  end

  logic unused_bits;  // the leading one, and what lies below the mantissa
  assign unused_bits = ^fine;

endmodule
