// SPDX-License-Identifier: Apache-2.0
//
// Two rows of the array: Simd/8 cascades of eight lanes and an adder tree for each row. Both sums are short by Simd/8, and the
// odd row's also by `carry1_o`. Latency from lane 0: 10 + $clog2(Simd/8) cycles.
module mac_row_pair #(
  parameter int unsigned Simd = 16,
  parameter int unsigned SumBits = 18 + $clog2(Simd / 8)
) (
  input  logic               clk_i,
  input  logic [7:0]         load_i,
  input  logic [Simd*8-1:0]  w0_i,
  input  logic [Simd*8-1:0]  w1_i,
  input  logic [Simd*8-1:0]  x_i,
  output logic [SumBits-1:0] sum0_o,
  output logic [SumBits-1:0] sum1_o,
  output logic               carry1_o
);

  localparam int unsigned Chains = Simd / 8;

  logic [Chains*18-1:0] low, high;
  logic [Chains-1:0]    borrow;
  logic                 unused_carry;

  for (genvar i = 0; i < Chains; i++) begin : gen_chain
    mac_chain u_chain (
      .clk_i,
      .load_i,
      .w0_i(w0_i[i*64 +: 64]),
      .w1_i(w1_i[i*64 +: 64]),
      .x_i(x_i[i*64 +: 64]),
      .low_o(low[i*18 +: 18]),
      .high_o(high[i*18 +: 18]),
      .borrow_o(borrow[i])
    );
  end

  carry_tree #(.Inputs(Chains), .InBits(18)) u_tree0 (
    .clk_i, .x_i(low), .carry_i('0), .sum_o(sum0_o), .carry_o(unused_carry)
  );
  carry_tree #(.Inputs(Chains), .InBits(18)) u_tree1 (
    .clk_i, .x_i(high), .carry_i(borrow), .sum_o(sum1_o), .carry_o(carry1_o)
  );

endmodule
