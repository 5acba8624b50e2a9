// SPDX-License-Identifier: Apache-2.0
//
// The scores of one head between its two passes: kept with the maximum of each row as they come, read back as probabilities.
// Times of what comes in are counted from a row's scores, times of what goes out from the read.
module head_scores #(
  parameter int unsigned Simd = codesign_pkg::Simd,
  parameter int unsigned Pe = codesign_pkg::Pe,
  parameter int unsigned RowBits = codesign_pkg::RowBits,
  parameter int unsigned GranuleBits = codesign_pkg::GranuleBits,
  parameter int unsigned AddrBits = 16,
  parameter int unsigned LaneBits = $clog2(Simd) + 1,
  parameter int unsigned TagBits = 3
) (
  input  logic                   clk_i,
  // the pass that is written
  input  logic                   plan_we_i,
  input  logic [TagBits-1:0]     plan_tag_i,
  input  logic [LaneBits-1:0]    plan_tail_i,      // keys in its last tile or word
  // a row's scores of one tile of keys
  input  logic [TagBits-1:0]     in_tag_i,         // 2 before
  input  logic                   in_last_n_i,      // 1 before
  input  logic                   in_valid_i,
  input  logic [AddrBits-1:0]    in_word_i,
  input  logic [GranuleBits-1:0] in_granule_i,
  input  logic [Pe*16-1:0]       in_scores_i,
  input  logic                   max_read_i,       // $clog2(Pe) - MemLatency
  input  logic [RowBits-1:0]     max_read_row_i,
  input  logic                   max_first_n_i,    // $clog2(Pe)
  input  logic                   max_write_i,      // $clog2(Pe) + 1
  input  logic [RowBits-1:0]     max_write_row_i,
  // a word of a row
  input  logic                   read_i,
  input  logic [AddrBits-1:0]    read_word_i,
  input  logic [RowBits-1:0]     read_row_i,
  input  logic [TagBits-1:0]     read_tag_i,
  input  logic                   read_last_k_i,    // MemLatency - 1
  output logic [Simd*8-1:0]      probability_o     // MemLatency + 3
);

  localparam int unsigned PeGranules = codesign_pkg::PeGranules;
  localparam int unsigned MaxRows = codesign_pkg::MaxRows;
  localparam int unsigned Words = MaxRows * codesign_pkg::KeyWords;
  localparam int unsigned WordBits = Words > 1 ? $clog2(Words) : 1;

  // ---- in ----
  logic [LaneBits-1:0]   in_tail;
  logic [Pe-1:0]         key_mask_q;  // lanes that hold a key
  logic [PeGranules-1:0] parts;
  logic [Pe*16-1:0]      candidates;
  logic signed [15:0]    tile_maximum, maximum_q, running;
  logic [Simd*16-1:0]    scores;
  logic [15:0]           maximum;

  pass_table #(.Width(LaneBits), .TagBits(TagBits)) u_in_tail (
    .clk_i, .we_i(plan_we_i), .wtag_i(plan_tag_i), .wdata_i(plan_tail_i), .rtag_i(in_tag_i), .rdata_o(in_tail)
  );

  always_ff @(posedge clk_i) begin
    for (int unsigned i = 0; i < Pe; i++) key_mask_q[i] <= !in_last_n_i || i < 32'(in_tail);
  end

  always_comb begin
    for (int unsigned i = 0; i < Pe; i++) candidates[i*16 +: 16] = key_mask_q[i] ? in_scores_i[i*16 +: 16] : 16'h8000;
    // A granule without a key may lie past the row's last word.
    for (int unsigned i = 0; i < PeGranules; i++) parts[i] = key_mask_q[i*16];
  end

  score_memory #(.Depth(Words)) u_scores (
    .clk_i, .w_valid_i(in_valid_i), .w_word_i(WordBits'(in_word_i)), .w_granule_i(in_granule_i), .w_mask_i(parts),
    .w_data_i(in_scores_i), .ren_i(read_i), .raddr_i(WordBits'(read_word_i)), .rdata_o(scores)
  );

  max_tree #(.Inputs(Pe)) u_max (.clk_i, .x_i(candidates), .maximum_o(tile_maximum));

  sdp_ram #(.Width(16), .Depth(MaxRows)) u_running (
    .clk_i, .we_i(max_write_i), .waddr_i(max_write_row_i), .wdata_i(maximum_q), .ren_i(max_read_i),
    .raddr_i(max_read_row_i), .rdata_o(running)
  );

  always_ff @(posedge clk_i) maximum_q <= !max_first_n_i && running > tile_maximum ? running : tile_maximum;

  // ---- out ----
  logic [LaneBits-1:0] read_tail;
  logic [Simd-1:0]     mask_q;

  sdp_ram #(.Width(16), .Depth(MaxRows)) u_maximum (
    .clk_i, .we_i(max_write_i), .waddr_i(max_write_row_i), .wdata_i(maximum_q), .ren_i(read_i), .raddr_i(read_row_i),
    .rdata_o(maximum)
  );

  pass_table #(.Width(LaneBits), .TagBits(TagBits)) u_read_tail (
    .clk_i, .we_i(plan_we_i), .wtag_i(plan_tag_i), .wdata_i(plan_tail_i), .rtag_i(read_tag_i), .rdata_o(read_tail)
  );

  always_ff @(posedge clk_i) begin
    for (int unsigned i = 0; i < Simd; i++) mask_q[i] <= read_last_k_i && i >= 32'(read_tail);
  end

  for (genvar i = 0; i < Simd; i++) begin : gen_prob
    prob_lane u_prob (
      .clk_i, .mask_i(mask_q[i]), .maximum_i(maximum), .score_i(scores[i*16 +: 16]), .probability_o(probability_o[i*8 +: 8])
    );
  end

  logic unused_bits;
  assign unused_bits = ^{in_word_i, read_word_i};

endmodule
