// SPDX-License-Identifier: Apache-2.0
//
// Accepts passes, finds a head's words and lanes, and issues one slot (tile, row) a cycle: for each n tile, each k word, each row.
// A tile has at least `MinSlots` slots: the read-modify-write of a row's partial sums takes that long.
// A pass may be accepted while the one before still runs: its weights load early, its first slot waits for `pass_done_i`.
module pass_control #(
  parameter int unsigned Simd = codesign_pkg::Simd,
  parameter int unsigned Pe = codesign_pkg::Pe,
  parameter int unsigned MinSlots = 4,
  parameter int unsigned ScoreAddrBits = 8,
  parameter int unsigned Groups = Simd / Pe,
  parameter int unsigned SubBits = Groups > 1 ? $clog2(Groups) : 1
) (
  input  logic                             clk_i,
  input  logic                             rst_ni,
  input  codesign_pkg::pass_t              pass_i,
  input  logic                             pass_valid_i,
  output logic                             pass_ready_o,
  input  logic                             pass_done_i,
  // weight loader
  output codesign_pkg::pass_t              load_pass_o,
  output logic                             load_start_o,
  input  logic                             load_idle_i,
  input  logic                             tile_done_i,
  // the running pass and the place of its head
  output codesign_pkg::pass_t              pass_o,
  output logic [15:0]                      first_word_o,
  output logic [SubBits-1:0]               first_sub_o,
  output logic [15:0]                      units_o,       // words (SCORE) or groups of Pe lanes (MIX) the head overlaps
  output logic [Simd-1:0]                  first_lanes_o, // lanes of the head in the first and in the last of them
  output logic [Simd-1:0]                  last_lanes_o,
  output logic [Simd-1:0]                  key_lanes_o,   // lanes that hold keys in the last tile (SCORE) or word (MIX) of keys
  // slot
  output logic                             slot_valid_o,  // the row exists
  output logic [codesign_pkg::RowBits-1:0] slot_row_o,
  output logic                             slot_first_k_o,
  output logic                             slot_last_k_o,
  output logic                             slot_first_n_o,
  output logic                             slot_last_n_o,
  output logic                             slot_tile_end_o,
  output logic                             slot_pass_end_o,
  output logic [15:0]                      slot_word_o,   // word of x in its row
  output logic [ScoreAddrBits-1:0]         slot_score_o,  // address of the row's scores
  output logic [15:0]                      slot_out_o,    // word of the result in its row
  output logic [SubBits-1:0]               slot_sub_o     // group of Pe lanes in that word
);

  typedef enum logic [2:0] {
    StIdle,
    StFind,
    StSpan,
    StMask,
    StRun,
    StDrain
  } state_t;

  state_t              state_q;
  codesign_pkg::pass_t next_q, pass_q;
  logic                next_load_q, next_run_q, dense, mix, narrow, to_words;
  logic [15:0]         unit, span_q, low_q, key_tail_q, first_word_q, units_q;
  logic [SubBits-1:0]  first_sub_q;
  logic [Simd-1:0]     first_lanes_q, last_lanes_q, key_lanes_q;
  logic [15:0]         row_q, rows_last_q, k_q, n_q, k_last_q, n_last_q, out_q;
  logic [SubBits-1:0]  sub_q;
  logic [1:0]          tiles_q;
  logic                issue, tile_start, row_end, k_end, n_end, sub_end;

  assign pass_ready_o = !next_load_q && !next_run_q;
  assign load_pass_o = next_q;
  assign load_start_o = next_load_q && load_idle_i && (next_q.kind == codesign_pkg::KindDense || state_q == StMask);
  assign pass_o = pass_q;
  assign first_word_o = first_word_q;
  assign first_sub_o = first_sub_q;
  assign units_o = units_q;
  assign first_lanes_o = first_lanes_q;
  assign last_lanes_o = last_lanes_q;
  assign key_lanes_o = key_lanes_q;

  assign dense = pass_q.kind == codesign_pkg::KindDense;
  assign mix = pass_q.kind == codesign_pkg::KindMix;
  assign unit = mix ? 16'(Pe) : 16'(Simd);
  // Results of Pe lanes a word (RES, router), or of Simd lanes a word (ACT, scores).
  assign narrow = pass_q.post == codesign_pkg::PostInt16 || pass_q.post == codesign_pkg::PostAdd ||
                  pass_q.post == codesign_pkg::PostGated || pass_q.post == codesign_pkg::PostLogits;
  assign sub_end = narrow || sub_q == SubBits'(Groups - 1);
  assign to_words = first_sub_q == SubBits'(Groups - 1) || !mix;

  assign issue = state_q == StRun && (row_q != 16'd0 || tiles_q != 2'd0);
  assign tile_start = issue && row_q == 16'd0;
  assign row_end = row_q == rows_last_q;
  assign k_end = k_q == k_last_q;
  assign n_end = n_q == n_last_q;

  always_ff @(posedge clk_i) begin
    if (pass_valid_i && pass_ready_o) begin
      next_q <= pass_i;
      next_load_q <= 1'b1;
      next_run_q <= 1'b1;
    end
    if (load_start_o) next_load_q <= 1'b0;
    tiles_q <= tiles_q + 2'(tile_done_i) - 2'(tile_start);

    unique case (state_q)
      StIdle: if (next_run_q) begin
        pass_q <= next_q;
        next_run_q <= 1'b0;
        first_word_q <= '0;
        first_sub_q <= '0;
        low_q <= next_q.column;
        units_q <= 16'd1;
        k_last_q <= next_q.k_words - 16'd1;
        n_last_q <= next_q.n_tiles - 16'd1;
        rows_last_q <= next_q.rows < 16'(MinSlots) ? 16'(MinSlots - 1) : next_q.rows - 16'd1;
        row_q <= '0;
        k_q <= '0;
        n_q <= '0;
        out_q <= '0;
        sub_q <= '0;
        state_q <= next_q.kind == codesign_pkg::KindDense ? StRun : StFind;
      end
      StFind: begin  // the head's first word or group
        key_tail_q <= mix ? pass_q.rows - 16'(k_last_q * 16'(Simd)) : pass_q.rows - 16'(n_last_q * 16'(Pe));
        if (low_q < unit) begin
          span_q <= low_q + pass_q.dim;
          state_q <= StSpan;
        end else begin
          low_q <= low_q - unit;
          first_sub_q <= to_words ? '0 : first_sub_q + SubBits'(1);
          if (to_words) first_word_q <= first_word_q + 16'd1;
        end
      end
      StSpan: begin  // and how many there are
        for (int unsigned i = 0; i < Simd; i++) begin
          first_lanes_q[i] <= 16'(i) >= low_q;
          last_lanes_q[i] <= 16'(i) < span_q;
          key_lanes_q[i] <= 16'(i) < key_tail_q;
        end
        if (span_q <= unit) begin
          state_q <= StMask;
        end else begin
          span_q <= span_q - unit;
          units_q <= units_q + 16'd1;
        end
      end
      StMask: begin
        if (mix) begin
          n_last_q <= units_q - 16'd1;
          out_q <= first_word_q;
          sub_q <= first_sub_q;
        end else begin
          k_last_q <= units_q - 16'd1;
        end
        if (load_start_o) state_q <= StRun;
      end
      StRun: if (issue) begin
        row_q <= row_end ? '0 : row_q + 16'd1;
        if (row_end) begin
          k_q <= k_end ? '0 : k_q + 16'd1;
          if (k_end) begin
            n_q <= n_q + 16'd1;
            sub_q <= sub_end ? '0 : sub_q + SubBits'(1);
            if (sub_end) out_q <= out_q + 16'd1;
            if (n_end) state_q <= StDrain;
          end
        end
      end
      StDrain: if (pass_done_i) state_q <= StIdle;
      default: state_q <= StIdle;
    endcase

    if (!rst_ni) begin
      state_q <= StIdle;
      next_load_q <= 1'b0;
      next_run_q <= 1'b0;
      tiles_q <= '0;
    end
  end

  always_ff @(posedge clk_i) begin
    slot_valid_o <= issue && row_q < pass_q.rows && rst_ni;
    slot_row_o <= codesign_pkg::RowBits'(row_q);
    slot_first_k_o <= k_q == 16'd0;
    slot_last_k_o <= k_end;
    slot_first_n_o <= n_q == 16'd0;
    slot_last_n_o <= n_end;
    slot_tile_end_o <= issue && row_end && rst_ni;
    slot_pass_end_o <= issue && row_end && k_end && n_end && rst_ni;
    slot_word_o <= dense ? k_q : first_word_q + k_q;
    slot_score_o <= row_q == 16'd0 ? ScoreAddrBits'(k_q) : slot_score_o + ScoreAddrBits'(codesign_pkg::KeyWords);
    slot_out_o <= out_q;
    slot_sub_o <= sub_q;
  end

endmodule
