// SPDX-License-Identifier: Apache-2.0
//
// Signed product in LUTs and carry chains, without a DSP slice. Radix-4 Booth rows (MacSorley 1961), one LUT6 a bit: three bits of
// `b_i`, two of `a_i` and the running sum are the inputs of the LUT in front of a carry chain (Kumm, Abbas and Zipf 2015). About
// (ABits + 3) * BBits / 2 LUTs, so the shorter factor belongs at `b_i`. Latency 3 cycles, one product a cycle.
(* use_dsp = "no" *)
module soft_multiplier #(
  parameter int unsigned ABits = 16,
  parameter int unsigned BBits = 16
) (
  input  logic                          clk_i,
  input  logic signed [ABits-1:0]       a_i,
  input  logic signed [BBits-1:0]       b_i,
  output logic signed [ABits+BBits-1:0] product_o
);

  localparam int unsigned Rows = (BBits + 1) / 2;
  localparam int unsigned StageRows = (Rows + 2) / 3;  // rows of one of the three stages
  localparam int unsigned DigitBits = 2 * Rows + 1;    // b, sign extended to whole digits, and the 0 below it
  localparam int unsigned SumBits = ABits + 2 * Rows;
  localparam int unsigned RowBits = ABits + 2;

  logic [ABits-1:0]     a1_q, a2_q, a_row;
  logic [DigitBits-1:0] b, b1_q, b2_q, b_row;
  logic [SumBits-1:0]   sum, sum1, sum2, sum1_q, sum2_q, sum3_q;
  logic [RowBits-1:0]   multiple;
  logic [RowBits:0]     added;
  logic                 one, two, minus;

  assign b = {{(2 * Rows - BBits) {b_i[BBits-1]}}, b_i, 1'b0};

  // The sum of the rows before row r is a signed number of ABits + 2r bits. A digit below 0 adds the complement of its multiple, and
  // 1 as carry in.
  always_comb begin
    a_row = a_i;
    b_row = b;
    sum = '0;
    sum1 = '0;
    sum2 = sum1_q;
    added = '0;
    for (int unsigned r = 0; r < Rows; r++) begin
      if (r == StageRows) begin
        sum1 = sum;
        a_row = a1_q;
        b_row = b1_q;
        sum = sum1_q;
      end
      if (r == 2 * StageRows) begin
        sum2 = sum;
        a_row = a2_q;
        b_row = b2_q;
        sum = sum2_q;
      end
      minus = b_row[2*r+2];
      one = b_row[2*r+1] ^ b_row[2*r];
      two = b_row[2*r+1] == b_row[2*r] && b_row[2*r] != minus;
      multiple = {RowBits{one}} & {{2{a_row[ABits-1]}}, a_row} | {RowBits{two}} & {a_row[ABits-1], a_row, 1'b0};
      added = {{2{sum[2*r+ABits-1]}}, sum[2*r +: ABits], 1'b1} + {multiple ^ {RowBits{minus}}, minus};
      sum[2*r +: RowBits] = added[RowBits:1];
    end
    if (Rows == StageRows) sum1 = sum;
    else if (Rows <= 2 * StageRows) sum2 = sum;
  end

  always_ff @(posedge clk_i) begin
    a1_q <= a_i;
    b1_q <= b;
    sum1_q <= sum1;
    a2_q <= a1_q;
    b2_q <= b1_q;
    sum2_q <= sum2;
    sum3_q <= Rows > 2 * StageRows ? sum : sum2_q;
  end

  assign product_o = sum3_q[ABits+BBits-1:0];

  logic unused_bits;
  assign unused_bits = ^{added[0], a1_q, a2_q, b1_q, b2_q, sum3_q};

endmodule
