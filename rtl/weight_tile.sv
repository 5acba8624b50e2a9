// SPDX-License-Identifier: Apache-2.0
//
// The shadow weight tile: Pe rows of Simd weights (registers).
module weight_tile #(
  parameter int unsigned Simd = 16,
  parameter int unsigned Pe = 8,
  parameter int unsigned Classes = 4,
  parameter int unsigned Chunks = Simd / 16
) (
  input  logic                   clk_i,
  input  logic [Pe*Chunks-1:0]   chunk_we_i,
  input  logic [Classes*128-1:0] chunk_data_i,
  input  logic                   by_lane_i,
  input  logic [Simd-1:0]        lane_we_i,
  input  logic [Pe*8-1:0]        lane_data_i,
  output logic [Pe*Simd*8-1:0]   weights_o
);

  for (genvar p = 0; p < Pe; p++) begin : gen_row
    weight_row #(.Simd(Simd)) u_row (
      .clk_i,
      .chunk_we_i(chunk_we_i[p*Chunks +: Chunks]),
      .chunk_data_i(chunk_data_i[((p*Chunks)%Classes)*128 +: Chunks*128]),
      .by_lane_i,
      .lane_we_i,
      .lane_data_i(lane_data_i[p*8 +: 8]),
      .weights_o(weights_o[p*Simd*8 +: Simd*8])
    );
  end

endmodule
