// SPDX-License-Identifier: Apache-2.0
//
// One row of the shadow weight tile, written in chunks of 16 lanes (stream, K rows) or one lane at a time (V columns).
module weight_row #(
  parameter int unsigned Simd = 16,
  parameter int unsigned Chunks = Simd / 16
) (
  input  logic              clk_i,
  input  logic [Chunks-1:0] chunk_we_i,
  input  logic [Simd*8-1:0] chunk_data_i,
  input  logic              by_lane_i,
  input  logic [Simd-1:0]   lane_we_i,
  input  logic [7:0]        lane_data_i,
  output logic [Simd*8-1:0] weights_o
);

  logic [Simd*8-1:0] weights_q;

  always_ff @(posedge clk_i) begin
    if (by_lane_i) begin
      for (int unsigned i = 0; i < Simd; i++) if (lane_we_i[i]) weights_q[i*8 +: 8] <= lane_data_i;
    end else begin
      for (int unsigned i = 0; i < Chunks; i++) if (chunk_we_i[i]) weights_q[i*128 +: 128] <= chunk_data_i[i*128 +: 128];
    end
  end

  assign weights_o = weights_q;

endmodule
