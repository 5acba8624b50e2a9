// SPDX-License-Identifier: Apache-2.0
//
// The sum of a row's probabilities over the words of keys, and its reciprocal. Times are counted from a word's entry.
module row_sum #(
  parameter int unsigned Simd = codesign_pkg::Simd,
  parameter int unsigned RowBits = codesign_pkg::RowBits,
  parameter int unsigned Latency = 20                      // at least $clog2(Simd) + 7
) (
  input  logic               clk_i,
  input  logic [Simd*8-1:0]  x_i,
  input  logic               read_i,        // $clog2(Simd) - MemLatency
  input  logic [RowBits-1:0] read_row_i,
  input  logic               first_k_i,     // $clog2(Simd): with the word's sum
  input  logic               write_i,       // $clog2(Simd) + 1
  input  logic [RowBits-1:0] write_row_i,
  output logic [15:0]        reciprocal_o,  // Latency: of the sum with this word
  output logic [5:0]         exponent_o
);

  localparam int unsigned SumStage = $clog2(Simd);
  localparam int unsigned SumBits = 7 + $clog2(codesign_pkg::KeyWords * Simd);

  logic [SumStage+7:0] word_sum;
  logic [SumBits-1:0]  earlier, sum_q;
  logic [15:0]         reciprocal;
  logic signed [5:0]   exponent;

  adder_tree #(.Inputs(Simd), .InBits(8)) u_tree (.clk_i, .x_i, .sum_o(word_sum));

  sdp_ram #(.Width(SumBits), .Depth(codesign_pkg::MaxRows)) u_sums (
    .clk_i, .we_i(write_i), .waddr_i(write_row_i), .wdata_i(sum_q), .ren_i(read_i), .raddr_i(read_row_i), .rdata_o(earlier)
  );

  always_ff @(posedge clk_i) sum_q <= (first_k_i ? '0 : earlier) + SumBits'(word_sum);

  reciprocal #(.InBits(SumBits)) u_inverse (.clk_i, .z_i(sum_q), .reciprocal_o(reciprocal), .exponent_o(exponent));
  delay_line #(.Width(22), .Stages(Latency - SumStage - 6)) u_delay (
    .clk_i, .d_i({reciprocal, exponent}), .q_o({reciprocal_o, exponent_o})
  );

  logic unused_bits;
  assign unused_bits = ^word_sum;

endmodule
