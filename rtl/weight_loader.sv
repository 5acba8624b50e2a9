// SPDX-License-Identifier: Apache-2.0
//
// Fills the shadow weight tile and the shadow records, tile after tile of a pass: from the stream (DENSE), from rows of K in ACT
// (SCORE: row p of the tile is key j*Pe + p) or from V in ACT (MIX: column s of the tile is Pe lanes of key w*Simd + s).
// It runs ahead of the array by one tile and one set of records, also into the stream of the next pass.
module weight_loader #(
  parameter int unsigned Simd = codesign_pkg::Simd,
  parameter int unsigned Pe = codesign_pkg::Pe,
  parameter int unsigned Chunks = Simd / 16,  // of 16 weights in a row
  parameter int unsigned Classes = Chunks % 4 == 0 ? Chunks : Chunks % 2 == 0 ? 2 * Chunks : 4 * Chunks,
  parameter int unsigned Groups = Simd / Pe,
  parameter int unsigned SubBits = Groups > 1 ? $clog2(Groups) : 1
) (
  input  logic                                clk_i,
  input  logic                                rst_ni,
  // the pass to load, and for attention the head's place
  input  logic                                start_i,
  output logic                                idle_o,
  input  codesign_pkg::pass_t                 pass_i,
  input  logic [15:0]                         first_word_i,
  input  logic [SubBits-1:0]                  first_sub_i,
  input  logic [15:0]                         units_i,
  input  logic [Simd-1:0]                     first_lanes_i,  // lanes of the head in its first word, in its last word
  input  logic [Simd-1:0]                     last_lanes_i,
  // stream
  input  logic [127:0]                        beat_i,
  input  logic                                beat_valid_i,
  output logic                                beat_ready_o,
  // activation memory
  output logic                                act_ren_o,
  output logic [codesign_pkg::ActAddrBits-1:0] act_addr_o,
  input  logic [Simd*8-1:0]                   act_data_i,
  // shadow tile: chunk c = 16 weights from c*16 of the tile takes class c % Classes of the bus
  output logic [Pe*Chunks-1:0]                chunk_we_o,
  output logic [Classes*128-1:0]              chunk_data_o,
  output logic                                by_lane_o,      // writes lanes, not chunks
  output logic [Simd-1:0]                     lane_we_o,
  output logic [Pe*8-1:0]                     lane_data_o,
  output logic                                tile_done_o,    // one more tile is complete
  output logic                                tile_full_o,    // the shadow holds a whole tile
  input  logic                                tile_take_i,    // the array takes it over in the next 4 cycles
  // shadow records
  output logic [codesign_pkg::RecordBeats-1:0] record_we_o,
  output logic                                record_full_o,
  input  logic                                record_take_i
);

  localparam int unsigned TileChunks = Pe * Chunks;
  localparam int unsigned CountBits = $clog2(TileChunks > Simd ? TileChunks : Simd) + 1;

  typedef enum logic [1:0] {
    StIdle,
    StRecords,
    StWait,
    StTile
  } state_t;

  // What travels with a word read from the activation memory.
  typedef struct packed {
    logic               valid;
    logic               key;     // the key exists
    logic               last;
    logic               first_word;
    logic               last_word;
    logic [SubBits-1:0] sub;
    logic [CountBits-1:0] index;
  } tag_t;

  state_t               state_q;
  // verilator lint_off UNUSEDSIGNAL
  codesign_pkg::pass_t  pass_q;  // of which a loader needs only some fields
  // verilator lint_on UNUSEDSIGNAL
  logic                 dense, score, taken_q, tile_full_q, record_full_q, last_we_q;
  logic [CountBits-1:0] count_q, count_last;
  logic [15:0]          n_q, k_q, n_last, k_last, word_q, key_q, tile_key_q;
  logic [15:0]          row_q, tile_row_q;
  logic [SubBits-1:0]   sub_q;
  logic                 accept, tile_end, pass_end;
  tag_t                 tag_d, tag1_q, tag2_q, tag3_q;

  assign dense = pass_q.kind == codesign_pkg::KindDense;
  assign score = pass_q.kind == codesign_pkg::KindScore;
  assign idle_o = state_q == StIdle && !tag1_q.valid && !tag2_q.valid && !tag3_q.valid;
  assign beat_ready_o = dense && ((state_q == StRecords && !record_full_q) || state_q == StTile);
  assign tile_full_o = tile_full_q;
  assign record_full_o = record_full_q;
  assign tile_done_o = last_we_q;

  always_comb begin
    k_last = score ? units_i - 16'd1 : pass_q.k_words - 16'd1;
    n_last = pass_q.kind == codesign_pkg::KindMix ? units_i - 16'd1 : pass_q.n_tiles - 16'd1;
    if (!dense) count_last = score ? CountBits'(Pe - 1) : CountBits'(Simd - 1);
    else count_last = pass_q.ternary ? CountBits'(TileChunks / 4 - 1) : CountBits'(TileChunks - 1);
    accept = state_q == StTile && (!dense || beat_valid_i);
    tile_end = accept && count_q == count_last;
    pass_end = k_q == k_last && n_q == n_last;
    tag_d.valid = accept && !dense;
    tag_d.key = key_q < pass_q.rows;
    tag_d.last = count_q == count_last;
    tag_d.first_word = k_q == 16'd0;
    tag_d.last_word = k_q == k_last;
    tag_d.sub = sub_q;
    tag_d.index = count_q;
  end

  always_comb begin
    for (int unsigned i = 0; i < codesign_pkg::RecordBeats; i++) begin
      record_we_o[i] = state_q == StRecords && !record_full_q && beat_valid_i && count_q == CountBits'(i);
    end
  end

  always_ff @(posedge clk_i) begin
    if (tile_take_i) taken_q <= 1'b0;
    if (record_take_i) record_full_q <= 1'b0;
    if (last_we_q) tile_full_q <= 1'b1;
    else if (tile_take_i) tile_full_q <= 1'b0;

    unique case (state_q)
      StIdle: if (start_i && idle_o) begin
        pass_q <= pass_i;
        n_q <= '0;
        k_q <= '0;
        count_q <= '0;
        word_q <= first_word_i;
        sub_q <= first_sub_i;
        tile_key_q <= '0;
        tile_row_q <= pass_i.kv_base;
        state_q <= pass_i.kind == codesign_pkg::KindDense ? StRecords : StWait;
      end
      StRecords: if (beat_valid_i && !record_full_q) begin
        count_q <= count_q + CountBits'(1);
        if (count_q == CountBits'(codesign_pkg::RecordBeats - 1)) begin
          record_full_q <= 1'b1;
          state_q <= StWait;
        end
      end
      StWait: if (!taken_q) begin
        taken_q <= 1'b1;
        count_q <= '0;
        key_q <= tile_key_q;
        row_q <= tile_row_q;
        state_q <= StTile;
      end
      StTile: if (accept) begin
        count_q <= count_q + CountBits'(1);
        key_q <= key_q + 16'd1;
        row_q <= row_q + pass_q.src_stride;
        if (tile_end) begin
          count_q <= '0;
          if (pass_end) state_q <= StIdle;
          else state_q <= dense && k_q == k_last ? StRecords : StWait;
          k_q <= k_q == k_last ? '0 : k_q + 16'd1;
          if (k_q == k_last) n_q <= n_q + 16'd1;
          // K: every word of the head from the same keys, then the next keys. V: all keys, then the next lanes from the first key.
          if (score ? k_q == k_last : k_q != k_last) begin
            tile_key_q <= key_q + 16'd1;
            tile_row_q <= row_q + pass_q.src_stride;
          end else if (!score) begin
            tile_key_q <= '0;
            tile_row_q <= pass_q.kv_base;
          end
          if (score) word_q <= k_q == k_last ? first_word_i : word_q + 16'd1;
          else if (k_q == k_last) begin
            sub_q <= sub_q == SubBits'(Groups - 1) ? '0 : sub_q + SubBits'(1);
            if (sub_q == SubBits'(Groups - 1)) word_q <= word_q + 16'd1;
          end
        end
      end
    endcase

    if (!rst_ni) begin
      state_q <= StIdle;
      taken_q <= 1'b0;
      tile_full_q <= 1'b0;
      record_full_q <= 1'b0;
    end
  end

  // Activation memory: address register, MemLatency, then the bus register.
  always_ff @(posedge clk_i) begin
    act_ren_o <= tag_d.valid && tag_d.key && rst_ni;
    act_addr_o <= codesign_pkg::ActAddrBits'(row_q + word_q);
    tag1_q <= tag_d;
    tag2_q <= tag1_q;
    tag3_q <= tag2_q;
    if (!rst_ni) begin
      tag1_q <= '0;
      tag2_q <= '0;
      tag3_q <= '0;
    end
  end

  logic [3:0][127:0] ternary_beat;
  logic [Simd-1:0]   lanes;
  logic [Simd*8-1:0] key_word;
  logic              chunk_write;

  always_comb begin
    for (int unsigned i = 0; i < 64; i++) begin
      ternary_beat[i/16][(i%16)*8 +: 8] = {{6{beat_i[i*2+1]}}, beat_i[i*2 +: 2]};
    end
    lanes = {Simd{tag3_q.key}};
    if (tag3_q.first_word) lanes = lanes & first_lanes_i;
    if (tag3_q.last_word) lanes = lanes & last_lanes_i;
    for (int unsigned i = 0; i < Simd; i++) key_word[i*8 +: 8] = lanes[i] ? act_data_i[i*8 +: 8] : 8'd0;
  end

  assign chunk_write = dense ? accept : tag3_q.valid && score;

  always_ff @(posedge clk_i) begin
    last_we_q <= dense ? tile_end : tag3_q.valid && tag3_q.last;
    chunk_we_o <= '0;
    lane_we_o <= '0;
    by_lane_o <= tag3_q.valid && !score;
    if (chunk_write) begin
      for (int unsigned i = 0; i < TileChunks; i++) begin
        if (!dense) chunk_we_o[i] <= tag3_q.index == CountBits'(i / Chunks);
        else chunk_we_o[i] <= count_q == (pass_q.ternary ? CountBits'(i / 4) : CountBits'(i));
      end
      for (int unsigned i = 0; i < Classes; i++) begin
        if (!dense) chunk_data_o[i*128 +: 128] <= key_word[(i%Chunks)*128 +: 128];
        else chunk_data_o[i*128 +: 128] <= pass_q.ternary ? ternary_beat[i%4] : beat_i;
      end
    end
    if (tag3_q.valid && !score) begin
      for (int unsigned i = 0; i < Simd; i++) lane_we_o[i] <= tag3_q.index == CountBits'(i);
      for (int unsigned i = 0; i < Pe; i++) begin
        lane_data_o[i*8 +: 8] <= tag3_q.key ? act_data_i[(32'(tag3_q.sub)*Pe+i)*8 +: 8] : 8'd0;
      end
    end
    if (!rst_ni) last_we_q <= 1'b0;
  end

endmodule
