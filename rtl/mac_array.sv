// SPDX-License-Identifier: Apache-2.0
//
// The MAC array: Pe rows of Simd lanes, weights stationary, one activation word a cycle.
// `load_i` comes with the first word that meets `weights_i`, which must hold for the 8 cycles from then on.
// Sums are short by Simd/8 and by their carry. Latency: 10 + $clog2(Simd/8) cycles.
module mac_array #(
  parameter int unsigned Simd = 16,
  parameter int unsigned Pe = 16,
  parameter int unsigned SumBits = 18 + $clog2(Simd / 8)
) (
  input  logic                  clk_i,
  input  logic                  load_i,
  input  logic [Pe*Simd*8-1:0]  weights_i,
  input  logic [Simd*8-1:0]     x_i,
  output logic [Pe*SumBits-1:0] sums_o,
  output logic [Pe-1:0]         carries_o
);

  // Lane c of each cascade of eight lags c cycles.
  logic [Simd*8-1:0] skewed;
  logic [6:0]        load_q;
  logic [7:0]        load;

  for (genvar c = 0; c < 8; c++) begin : gen_skew
    logic [Simd-1:0] lane, late;  // lane c of every cascade

    always_comb begin
      for (int unsigned i = 0; i < Simd / 8; i++) lane[i*8 +: 8] = x_i[i*64+c*8 +: 8];
    end
    if (c == 0) begin : gen_none
      assign late = lane;
    end else begin : gen_delay
      delay_line #(.Width(Simd), .Stages(c)) u_delay (.clk_i, .d_i(lane), .q_o(late));
    end
    for (genvar i = 0; i < Simd / 8; i++) begin : gen_lane
      assign skewed[i*64+c*8 +: 8] = late[i*8 +: 8];
    end
  end

  always_ff @(posedge clk_i) load_q <= {load_q[5:0], load_i};

  assign load = {load_q, load_i};

  for (genvar i = 0; i < Pe / 2; i++) begin : gen_pair
    mac_row_pair #(.Simd(Simd)) u_pair (
      .clk_i,
      .load_i(load),
      .w0_i(weights_i[2*i*Simd*8 +: Simd*8]),
      .w1_i(weights_i[(2*i+1)*Simd*8 +: Simd*8]),
      .x_i(skewed),
      .sum0_o(sums_o[2*i*SumBits +: SumBits]),
      .sum1_o(sums_o[(2*i+1)*SumBits +: SumBits]),
      .carry1_o(carries_o[2*i+1])
    );
    assign carries_o[2*i] = 1'b0;
  end

endmodule
