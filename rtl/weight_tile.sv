// SPDX-License-Identifier: Apache-2.0
//
// The shadow weight tile, filled in one of three ways, and the tile that the array takes its weights from.
// A bit plane writes one bit of every weight; the first plane of a tile clears the other bits. A row (K) enters at row Pe - 1 and
// moves the others down, a column of lanes (V) enters at lane Simd - 1 and moves the others: so every bit has one neighbour a
// direction and no enable of its own.
// `take_i` moves the tile on (in hardware: into the DSPs' input registers) and leaves the shadow free in the same cycle.
module weight_tile #(
  parameter int unsigned Simd = 16,
  parameter int unsigned Pe = 16
) (
  input  logic                 clk_i,
  input  logic                 plane_we_i,
  input  logic [2:0]           plane_index_i,  // counts from the most significant bit
  input  logic [Pe*Simd-1:0]   plane_i,        // bit p*Simd + s belongs to weight [p][s]
  input  logic                 row_we_i,
  input  logic [Simd*8-1:0]    row_i,
  input  logic                 lane_we_i,
  input  logic [Pe*8-1:0]      lane_i,
  input  logic                 take_i,
  output logic [Pe*Simd*8-1:0] weights_o
);

  localparam int unsigned Weights = Pe * Simd;

  logic [Weights*8-1:0] shadow;  // bit b of all weights at b * Weights

  for (genvar b = 0; b < 8; b++) begin : gen_bit
    logic [Weights-1:0] bit_q;
    logic [Simd-1:0]    row_bits;
    logic [Pe-1:0]      lane_bits;

    always_comb begin
      row_bits = '0;
      lane_bits = '0;
      if (row_we_i) for (int unsigned s = 0; s < Simd; s++) row_bits[s] = row_i[s*8+b];
      if (lane_we_i) for (int unsigned p = 0; p < Pe; p++) lane_bits[p] = lane_i[p*8+b];
    end

    always_ff @(posedge clk_i) begin
      if (plane_we_i && plane_index_i == 3'd0 && b != 7) begin
        bit_q <= '0;
      end else if (row_we_i) begin
        bit_q <= {row_bits, bit_q[Weights-1:Simd]};
      end else if (lane_we_i) begin
        for (int unsigned p = 0; p < Pe; p++) bit_q[p*Simd +: Simd] <= {lane_bits[p], bit_q[p*Simd+1 +: Simd-1]};
      end else if (plane_we_i && plane_index_i == 3'(7 - b)) begin
        bit_q <= plane_i;
      end
    end

    assign shadow[b*Weights +: Weights] = bit_q;
  end

  // A module a row: one loop over the whole tile would take Yosys minutes.
  for (genvar p = 0; p < Pe; p++) begin : gen_row
    logic [Simd*8-1:0] planes;

    for (genvar b = 0; b < 8; b++) begin : gen_plane
      assign planes[b*Simd +: Simd] = shadow[b*Weights+p*Simd +: Simd];
    end
    weight_row #(.Simd(Simd)) u_row (.clk_i, .take_i, .planes_i(planes), .weights_o(weights_o[p*Simd*8 +: Simd*8]));
  end

endmodule
