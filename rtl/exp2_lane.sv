// SPDX-License-Identifier: Apache-2.0
//
// 2**(15 - (maximum - t) / 256), truncated, 0 for a masked lane or below 1. Latency 3 cycles, one result a cycle.
module exp2_lane (
  input  logic               clk_i,
  input  logic               mask_i,
  input  logic signed [15:0] maximum_i,
  input  logic signed [15:0] t_i,
  output logic [15:0]        exp2_o
);

  localparam int unsigned FractionBits = codesign_pkg::Log2FractionBits;
  localparam int unsigned Width = codesign_pkg::Exp2TableWidth;

  logic [16:0] distance_q;
  logic        zero1_q, zero2_q;
  logic [15:0] exp2_q;
  logic [3:0]  shift_q;

  always_ff @(posedge clk_i) begin
    distance_q <= 17'(maximum_i) - 17'(t_i);
    zero1_q <= mask_i;

    exp2_q <= codesign_pkg::Exp2Table[32'(distance_q[FractionBits-1:0])*Width +: Width];
    shift_q <= distance_q[FractionBits +: 4];
    zero2_q <= zero1_q || |distance_q[16:FractionBits+4];

    exp2_o <= zero2_q ? 16'd0 : exp2_q >> shift_q;
  end

endmodule
