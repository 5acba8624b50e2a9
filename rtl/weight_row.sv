// SPDX-License-Identifier: Apache-2.0
//
// One row of the tile that the array takes its weights from, gathered from the bits of the shadow tile.
module weight_row #(
  parameter int unsigned Simd = 16
) (
  input  logic              clk_i,
  input  logic              take_i,
  input  logic [Simd*8-1:0] planes_i,  // bit b of all weights at b * Simd
  output logic [Simd*8-1:0] weights_o  // weight s at s * 8
);

  always_ff @(posedge clk_i) begin
    if (take_i) begin
      for (int unsigned s = 0; s < Simd; s++) begin
        for (int unsigned b = 0; b < 8; b++) weights_o[s*8+b] <= planes_i[b*Simd+s];
      end
    end
  end

endmodule
