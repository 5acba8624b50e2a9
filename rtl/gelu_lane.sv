// SPDX-License-Identifier: Apache-2.0
//
// GELU on int16 with 10 fraction bits: max(u, 0) - delta(|u|), delta interpolated in a table. With `enable_i` low the argument
// passes through. The interpolation multiplies by 6 bits: sums of shifted steps, no DSP slice. Latency 7 cycles, one result a cycle.
(* use_dsp = "no" *)
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
  localparam int unsigned Segments = 1 << IndexBits;

  // Segments' left ends from table entry `first` on, a power of two apart: an index needs no multiplication.
  function automatic logic [Segments*16-1:0] ends(input int unsigned first);
    ends = '0;
    for (int unsigned i = 0; i < Segments; i++) begin
      ends[i*16 +: Width] = codesign_pkg::GeluDeltaTable[(first+i)*Width +: Width];
    end
  endfunction

  localparam logic [Segments*16-1:0] LeftEnds = ends(0);
  localparam logic [Segments*16-1:0] RightEnds = ends(1);

  logic signed [15:0]             u1_q, u2_q, u3_q, u4_q, u5_q, u6_q;
  logic [6:1]                     enable_q;
  logic [4:1]                     beyond_q;
  logic [15:0]                    magnitude;
  logic [DomainBits-1:0]          a_q;
  logic [IndexBits-1:0]           index;
  logic [Width-1:0]               left2_q, left3_q, right2_q;
  logic [Width:0]                 left4_q;
  logic signed [Width:0]          step_q;
  logic [SegmentBits-1:0]         fraction2_q, fraction3_q;
  logic signed [Width+2:0]        step, twice;
  logic signed [Width+2:0]        digit0_q, digit1_q, digit2_q;  // the step times two bits of the fraction
  logic signed [SumBits-1:0]      low_q, high_q, sum;
  logic                           beyond5_q;
  logic [15:0]                    delta_q;

  always_comb begin
    magnitude = u_i[15] ? 16'd0 - u_i : u_i;  // 32768 for the smallest
    index = a_q[DomainBits-1:SegmentBits];
    step = (Width+3)'(step_q);
    twice = step <<< 1;
    sum = low_q + high_q;
  end

  always_ff @(posedge clk_i) begin
    // 1
    a_q <= magnitude[DomainBits-1:0];
    beyond_q[1] <= |magnitude[15:DomainBits];
    // 2
    left2_q <= LeftEnds[{index, 4'b0} +: Width];
    right2_q <= RightEnds[{index, 4'b0} +: Width];
    fraction2_q <= a_q[SegmentBits-1:0];
    // 3
    step_q <= signed'({1'b0, right2_q}) - signed'({1'b0, left2_q});
    left3_q <= left2_q;
    fraction3_q <= fraction2_q;
    // 4
    digit0_q <= (step & {(Width+3){fraction3_q[0]}}) + (twice & {(Width+3){fraction3_q[1]}});
    digit1_q <= (step & {(Width+3){fraction3_q[2]}}) + (twice & {(Width+3){fraction3_q[3]}});
    digit2_q <= (step & {(Width+3){fraction3_q[4]}}) + (twice & {(Width+3){fraction3_q[5]}});
    left4_q <= (Width+1)'(left3_q) + (Width+1)'(1 << (DropBits - SegmentBits - 1));  // with what rounds
    // 5
    low_q <= SumBits'(digit0_q) + (SumBits'(digit1_q) <<< 2);
    high_q <= (SumBits'(digit2_q) <<< 4) + signed'(SumBits'({left4_q, {SegmentBits{1'b0}}}));
    beyond5_q <= beyond_q[4] || !enable_q[4];
    // 6
    delta_q <= beyond5_q ? 16'd0 : 16'(sum >>> DropBits);
    // 7
    g_o <= (u6_q[15] && enable_q[6] ? 16'sd0 : u6_q) - signed'(delta_q);

    beyond_q[4:2] <= beyond_q[3:1];
    enable_q <= {enable_q[5:1], enable_i};
    u1_q <= u_i;
    u2_q <= u1_q;
    u3_q <= u2_q;
    u4_q <= u3_q;
    u5_q <= u4_q;
    u6_q <= u5_q;
  end

endmodule
