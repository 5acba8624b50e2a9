// SPDX-License-Identifier: Apache-2.0
//
// What is known of the slot in every stage of the unified unit's pipeline: stage 1 is the slot as it comes. What starts something
// is reset.
module slot_stages #(
  parameter int unsigned Stages = 8,   // one more than the last stage
  parameter int unsigned TagBits = 3,
  parameter int unsigned RowBits = 8
) (
  input  logic                           clk_i,
  input  logic                           rst_ni,
  input  logic                           valid_i,
  input  logic                           load_i,
  input  logic                           tile_end_i,
  input  logic                           pass_end_i,
  input  logic                           first_k_i,
  input  logic                           last_k_i,
  input  logic                           first_n_i,
  input  logic                           last_n_i,
  input  logic                           score_i,
  input  logic                           mix_i,
  input  logic [RowBits-1:0]             row_i,
  input  logic [TagBits-1:0]             tag_i,
  output logic [Stages-1:1]              valid_o,
  output logic [Stages-1:1]              load_o,
  output logic [Stages-1:1]              tile_end_o,
  output logic [Stages-1:1]              pass_end_o,
  output logic [Stages-1:1]              first_k_o,
  output logic [Stages-1:1]              last_k_o,
  output logic [Stages-1:1]              first_n_o,
  output logic [Stages-1:1]              last_n_o,
  output logic [Stages-1:1]              score_o,
  output logic [Stages-1:1]              mix_o,
  output logic [Stages-1:1][RowBits-1:0] row_o,
  output logic [Stages-1:1][TagBits-1:0] tag_o
);

  logic [Stages-1:2]              valid_q, load_q, tile_end_q, pass_end_q, first_k_q, last_k_q, first_n_q, last_n_q, score_q, mix_q;
  logic [Stages-1:2][RowBits-1:0] row_q;
  logic [Stages-1:2][TagBits-1:0] tag_q;

  assign valid_o = {valid_q, valid_i};
  assign load_o = {load_q, load_i};
  assign tile_end_o = {tile_end_q, tile_end_i};
  assign pass_end_o = {pass_end_q, pass_end_i};
  assign first_k_o = {first_k_q, first_k_i};
  assign last_k_o = {last_k_q, last_k_i};
  assign first_n_o = {first_n_q, first_n_i};
  assign last_n_o = {last_n_q, last_n_i};
  assign score_o = {score_q, score_i};
  assign mix_o = {mix_q, mix_i};
  assign row_o = {row_q, row_i};
  assign tag_o = {tag_q, tag_i};

  always_ff @(posedge clk_i) begin
    valid_q <= valid_o[Stages-2:1];
    load_q <= load_o[Stages-2:1];
    tile_end_q <= tile_end_o[Stages-2:1];
    pass_end_q <= pass_end_o[Stages-2:1];
    first_k_q <= first_k_o[Stages-2:1];
    last_k_q <= last_k_o[Stages-2:1];
    first_n_q <= first_n_o[Stages-2:1];
    last_n_q <= last_n_o[Stages-2:1];
    score_q <= score_o[Stages-2:1];
    mix_q <= mix_o[Stages-2:1];
    row_q <= row_o[Stages-2:1];
    tag_q <= tag_o[Stages-2:1];
    if (!rst_ni) begin
      valid_q <= '0;
      load_q <= '0;
      tile_end_q <= '0;
      pass_end_q <= '0;
    end
  end

endmodule
