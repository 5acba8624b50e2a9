// SPDX-License-Identifier: Apache-2.0
//
// sat16((x + (1 << (s - 1))) >> s) with `shift_i` = s - 1, as floor((floor(x >> (s - 1)) + 1) / 2), which is the same number.
// Latency 3 cycles, one result a cycle.
module round_shift #(
  parameter int unsigned InBits = 50
) (
  input  logic                     clk_i,
  input  logic signed [InBits-1:0] x_i,
  input  logic [5:0]               shift_i,
  output logic signed [15:0]       q_o
);

  logic signed [InBits-1:0] coarse_q, fine;
  logic [2:0]               shift_q;
  logic signed [17:0]       clamped_q, rounded;
  logic                     overflow;

  always_comb begin
    fine = coarse_q >>> shift_q;
    overflow = fine[InBits-1:17] != {(InBits-17){fine[InBits-1]}};
    rounded = (clamped_q + 18'sd1) >>> 1;
    if (clamped_q == 18'sh1ffff) rounded = 18'sh0ffff;
  end

  always_ff @(posedge clk_i) begin
    coarse_q <= x_i >>> {shift_i[5:3], 3'b0};
    shift_q <= shift_i[2:0];
    clamped_q <= overflow ? {fine[InBits-1], {17{~fine[InBits-1]}}} : fine[17:0];
    q_o <= rounded[17:15] == {3{rounded[17]}} ? rounded[15:0] : {rounded[17], {15{~rounded[17]}}};
  end

endmodule
