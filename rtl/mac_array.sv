// SPDX-License-Identifier: Apache-2.0
//
// The MAC array: Pe rows of Simd lanes, weights stationary, one activation word a cycle.
// `load_i` takes the weights for the words that arrive in later cycles; weights must hold for 3 cycles after `load_i`.
// Latency: 6 + $clog2(Simd/4) cycles.
module mac_array #(
  parameter int unsigned Simd = 16,
  parameter int unsigned Pe = 8,
  parameter int unsigned SumBits = 18 + $clog2(Simd / 4)
) (
  input  logic                  clk_i,
  input  logic                  load_i,
  input  logic [Pe*Simd*8-1:0]  weights_i,
  input  logic [Simd*8-1:0]     x_i,
  output logic [Pe*SumBits-1:0] sums_o
);

  // Lane c of each cascade of four lags c cycles.
  logic [Simd*8-1:0] delay1_q, delay2_q, delay3_q, skewed;
  logic [2:0]        load_q;
  logic [3:0]        load;

  always_ff @(posedge clk_i) begin
    load_q <= {load_q[1:0], load_i};
    delay1_q <= x_i;
    delay2_q <= delay1_q;
    delay3_q <= delay2_q;
  end

  assign load = {load_q, load_i};

  always_comb begin
    for (int unsigned i = 0; i < Simd / 4; i++) begin
      skewed[i*32 +: 8] = x_i[i*32 +: 8];
      skewed[i*32+8 +: 8] = delay1_q[i*32+8 +: 8];
      skewed[i*32+16 +: 8] = delay2_q[i*32+16 +: 8];
      skewed[i*32+24 +: 8] = delay3_q[i*32+24 +: 8];
    end
  end

  for (genvar i = 0; i < Pe / 2; i++) begin : gen_pair
    mac_row_pair #(.Simd(Simd)) u_pair (
      .clk_i,
      .load_i(load),
      .w0_i(weights_i[2*i*Simd*8 +: Simd*8]),
      .w1_i(weights_i[(2*i+1)*Simd*8 +: Simd*8]),
      .x_i(skewed),
      .sum0_o(sums_o[2*i*SumBits +: SumBits]),
      .sum1_o(sums_o[(2*i+1)*SumBits +: SumBits])
    );
  end

  logic unused_lanes;  // only lanes c >= d of delay d are used
  assign unused_lanes = ^{delay1_q, delay2_q, delay3_q};

endmodule
