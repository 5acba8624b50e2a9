// SPDX-License-Identifier: Apache-2.0
//
// Statistics of the rows of a layer norm (codesign/spec/ops.py, NormParams), which pass by one word a cycle: per row
// V = D*Q - S*S, (R, e) = RSQRT(V), and what norm_lane needs of them. Latency $clog2(Pe) + 16 cycles from a row's last word.
module norm_stats #(
  parameter int unsigned DimBits = 10
) (
  input  logic                         clk_i,
  input  logic                         rst_ni,
  input  logic [DimBits-1:0]           dim_i,     // D, constant while rows pass
  input  logic                         valid_i,
  input  logic                         begin_i,   // the first word of a row
  input  logic                         end_i,     // the last word of a row
  input  logic [codesign_pkg::Pe-1:0][15:0] x_i,
  output logic                         valid_o,
  output logic signed [DimBits+15:0]   scale_o,   // D * R
  output logic signed [DimBits+31:0]   offset_o,  // (1 << (11 + e)) - S * R
  output logic [4:0]                   half_o     // e + 7
);

  localparam int unsigned Pe = codesign_pkg::Pe;
  localparam int unsigned SumBits = 16 + DimBits;         // S, signed
  localparam int unsigned SquareBits = 30 + DimBits;      // Q, unsigned
  localparam int unsigned VarBits = SquareBits + DimBits;
  localparam int unsigned SumTreeBits = 16 + $clog2(Pe);
  localparam int unsigned SquareTreeBits = 32 + $clog2(Pe);

  // Stages, counted from `x_i`.
  localparam int unsigned ProductLatency = 3;
  localparam int unsigned TreeStage = ProductLatency + $clog2(Pe);
  localparam int unsigned RowStage = TreeStage + 1;       // S and Q of the whole row
  localparam int unsigned VarStage = RowStage + 4;
  localparam int unsigned RsqrtStage = VarStage + 5;
  localparam int unsigned OutStage = RsqrtStage + 3;

  logic [TreeStage:0] starts;
  logic [OutStage:0]  ends;

  assign starts[0] = begin_i;
  assign ends[0] = valid_i && end_i;
  assign valid_o = ends[OutStage];

  always_ff @(posedge clk_i) begin
    starts[TreeStage:1] <= starts[TreeStage-1:0];
    ends[OutStage:1] <= rst_ni ? ends[OutStage-1:0] : '0;
  end

  // ---- sums of a word, then of the row ----
  logic [Pe*32-1:0]          squares;
  logic [SumTreeBits-1:0]    sum_tree, sum_word;
  logic [SquareTreeBits-1:0] square_word;
  logic signed [SumBits-1:0] sum_q;
  logic [SquareBits-1:0]     squares_q;
  logic [TreeStage:0]        valids;

  assign valids[0] = valid_i;
  always_ff @(posedge clk_i) valids[TreeStage:1] <= valids[TreeStage-1:0];

  for (genvar i = 0; i < Pe; i++) begin : gen_square
    soft_multiplier #(.ABits(16), .BBits(16)) u_square (.clk_i, .a_i(x_i[i]), .b_i(x_i[i]), .product_o(squares[i*32 +: 32]));
  end

  adder_tree #(.Inputs(Pe), .InBits(16)) u_sum (.clk_i, .x_i, .sum_o(sum_tree));
  adder_tree #(.Inputs(Pe), .InBits(32)) u_squares (.clk_i, .x_i(squares), .sum_o(square_word));
  delay_line #(.Width(SumTreeBits), .Stages(ProductLatency)) u_sum_word (.clk_i, .d_i(sum_tree), .q_o(sum_word));

  always_ff @(posedge clk_i) begin
    if (valids[TreeStage]) begin
      sum_q <= (starts[TreeStage] ? '0 : sum_q) + SumBits'(signed'(sum_word));
      squares_q <= (starts[TreeStage] ? '0 : squares_q) + SquareBits'(square_word);
    end
  end

  logic unused_bits;  // the square of one word needs fewer bits than the row's, or more
  assign unused_bits = ^square_word;

  // ---- V = D*Q - S*S, each product in two parts of the size of a DSP slice, S = high << 17 | low and Q = high << 26 | low ----
  localparam int unsigned SumLow = 17;
  localparam int unsigned SquareLow = 26;
  localparam int unsigned SumHighProduct = 2 * SumBits - SumLow;
  localparam int unsigned SquareHighProduct = SquareBits - SquareLow + DimBits;

  logic signed [SumBits+SumLow:0]       ss_low1_q, ss_low2_q;
  logic signed [SumHighProduct-1:0]     ss_high1_q, ss_high2_q;
  logic [SquareLow+DimBits-1:0]         dq_low1_q, dq_low2_q;
  logic [SquareHighProduct-1:0]         dq_high1_q, dq_high2_q;
  logic [VarBits-1:0]                   ss_q, dq_q, variance_q;

  always_ff @(posedge clk_i) begin
    ss_low1_q <= (SumBits+SumLow+1)'(sum_q) * (SumBits+SumLow+1)'(signed'({1'b0, sum_q[SumLow-1:0]}));
    ss_high1_q <= SumHighProduct'(sum_q) * SumHighProduct'(signed'(sum_q[SumBits-1:SumLow]));
    dq_low1_q <= (SquareLow+DimBits)'(squares_q[SquareLow-1:0]) * (SquareLow+DimBits)'(dim_i);
    dq_high1_q <= SquareHighProduct'(squares_q[SquareBits-1:SquareLow]) * SquareHighProduct'(dim_i);

    ss_low2_q <= ss_low1_q;
    ss_high2_q <= ss_high1_q;
    dq_low2_q <= dq_low1_q;
    dq_high2_q <= dq_high1_q;

    ss_q <= VarBits'(ss_low2_q) + (VarBits'(ss_high2_q) << SumLow);
    dq_q <= VarBits'(dq_low2_q) + (VarBits'(dq_high2_q) << SquareLow);

    variance_q <= dq_q - ss_q;
  end

  // ---- R, then the row's factors ----
  logic [15:0]                root;
  logic [4:0]                 half, half1_q, half2_q;
  logic [SumBits-1:0]         sum;
  logic signed [DimBits+15:0] scale1_q, scale2_q;
  logic signed [DimBits+31:0] centre1_q, centre2_q, round2_q;

  rsqrt #(.InBits(VarBits)) u_rsqrt (.clk_i, .v_i(variance_q), .rsqrt_o(root), .half_o(half));
  delay_line #(.Width(SumBits), .Stages(RsqrtStage - RowStage)) u_row_sum (.clk_i, .d_i(sum_q), .q_o(sum));

  always_ff @(posedge clk_i) begin
    scale1_q <= (DimBits+16)'(root) * (DimBits+16)'(dim_i);
    centre1_q <= (DimBits+32)'(signed'(sum)) * (DimBits+32)'(signed'({1'b0, root}));
    half1_q <= half;

    scale2_q <= scale1_q;
    centre2_q <= centre1_q;
    round2_q <= (DimBits+32)'(1) << (6'(half1_q) + 6'd4);
    half2_q <= half1_q;

    scale_o <= scale2_q;
    offset_o <= round2_q - centre2_q;
    half_o <= half2_q;
  end

endmodule
