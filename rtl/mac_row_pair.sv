// SPDX-License-Identifier: Apache-2.0
//
// Two rows of the array: Simd/4 cascades of four lanes and an adder tree for each row.
// Latency from lane 0: 6 + $clog2(Simd/4) cycles.
module mac_row_pair #(
  parameter int unsigned Simd = 16,
  parameter int unsigned SumBits = 18 + $clog2(Simd / 4)
) (
  input  logic               clk_i,
  input  logic [3:0]         load_i,
  input  logic [Simd*8-1:0]  w0_i,
  input  logic [Simd*8-1:0]  w1_i,
  input  logic [Simd*8-1:0]  x_i,
  output logic [SumBits-1:0] sum0_o,
  output logic [SumBits-1:0] sum1_o
);

  localparam int unsigned Chains = Simd / 4;

  logic [Chains*18-1:0] chain0, chain1;

  for (genvar i = 0; i < Chains; i++) begin : gen_chain
    mac_chain u_chain (
      .clk_i,
      .load_i,
      .w0_i(w0_i[i*32 +: 32]),
      .w1_i(w1_i[i*32 +: 32]),
      .x_i(x_i[i*32 +: 32]),
      .sum0_o(chain0[i*18 +: 18]),
      .sum1_o(chain1[i*18 +: 18])
    );
  end

  adder_tree #(.Inputs(Chains), .InBits(18)) u_tree0 (.clk_i, .x_i(chain0), .sum_o(sum0_o));
  adder_tree #(.Inputs(Chains), .InBits(18)) u_tree1 (.clk_i, .x_i(chain1), .sum_o(sum1_o));

endmodule
