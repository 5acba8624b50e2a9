// SPDX-License-Identifier: Apache-2.0
//
// GELU on int16 with 10 fraction bits: max(u, 0) - delta(|u|), delta interpolated in a table. With `enable_i` low the argument
// passes through. Latency 6 cycles, one result a cycle.
module gelu_lane (
  input  logic               clk_i,
  input  logic               enable_i,
  input  logic signed [15:0] u_i,
  output logic signed [15:0] g_o
);

  localparam int unsigned DomainBits = codesign_pkg::GeluDomainBits;
  localparam int unsigned SegmentBits = codesign_pkg::GeluSegmentBits;
  localparam int unsigned IndexBits = DomainBits - SegmentBits;
  localparam int unsigned Width = codesign_pkg::GeluDeltaTableWidth;
  localparam int unsigned DropBits = SegmentBits + codesign_pkg::GeluGuardBits;
  localparam int unsigned SumBits = Width + SegmentBits + 2;

  logic signed [15:0]        u1_q, u2_q, u3_q, u4_q, u5_q;
  logic [16:0]               magnitude;
  logic [DomainBits-1:0]     a_q;
  logic                      beyond1_q, beyond2_q, beyond3_q, beyond4_q;
  logic [IndexBits:0]        index;
  logic [Width-1:0]          left2_q, left3_q, left4_q, right2_q;
  logic signed [Width:0]     step_q;
  logic [SegmentBits-1:0]    fraction2_q, fraction3_q;
  logic signed [SumBits-1:0] product_q, sum;
  logic [15:0]               delta_q;

  always_comb begin
    magnitude = u_i[15] ? 17'd0 - 17'(u_i) : 17'(u_i);
    index = {1'b0, a_q[DomainBits-1:SegmentBits]};
    sum = signed'(SumBits'({left4_q, {SegmentBits{1'b0}}})) + product_q + signed'(SumBits'(1 << (DropBits - 1)));
  end

  always_ff @(posedge clk_i) begin
    a_q <= magnitude[DomainBits-1:0];
    beyond1_q <= |magnitude[16:DomainBits];

    left2_q <= codesign_pkg::GeluDeltaTable[32'(index)*Width +: Width];
    right2_q <= codesign_pkg::GeluDeltaTable[(32'(index)+1)*Width +: Width];
    fraction2_q <= a_q[SegmentBits-1:0];
    beyond2_q <= beyond1_q;

    step_q <= signed'({1'b0, right2_q}) - signed'({1'b0, left2_q});
    left3_q <= left2_q;
    fraction3_q <= fraction2_q;
    beyond3_q <= beyond2_q;

    product_q <= SumBits'(step_q) * signed'(SumBits'(fraction3_q));
    left4_q <= left3_q;
    beyond4_q <= beyond3_q || !enable_i;

    delta_q <= beyond4_q ? 16'd0 : 16'(sum >>> DropBits);
    g_o <= (u5_q[15] && enable_i ? 16'sd0 : u5_q) - signed'(delta_q);

    u1_q <= u_i;
    u2_q <= u1_q;
    u3_q <= u2_q;
    u4_q <= u3_q;
    u5_q <= u4_q;
  end

endmodule
