// SPDX-License-Identifier: Apache-2.0
//
// Makes the slots of pass after pass (for each n tile, each k word, each row), looks up their rows and addresses ahead of time,
// and issues one a cycle as soon as its weights and its row are there. Nothing is lost between tiles or between passes.
//
// A tile has at least `MinSlots` slots: from the read of a row's partial sums, row sum, maximum or residual to its write, and the
// hand-over of weights to cascades of eight cells, take that long. A tile that brings a record set begins `RecordSlots` after the
// one before: its blocks take that.
module slot_issuer #(
  parameter int unsigned MinSlots = codesign_pkg::MinSlots,
  parameter int unsigned RecordSlots = 9,
  parameter int unsigned TagBits = 3,
  parameter int unsigned AddrBits = 16,
  parameter int unsigned GranuleBits = codesign_pkg::GranuleBits,
  parameter int unsigned RowBits = codesign_pkg::RowBits
) (
  input  logic                                   clk_i,
  input  logic                                   rst_ni,
  // the tables' write port
  input  logic                                   plan_we_i,
  input  logic [TagBits-1:0]                     plan_tag_i,
  input  codesign_pkg::pass_t                    plan_pass_i,
  // the pass to make slots of next
  input  logic                                   next_valid_i,
  input  logic [TagBits-1:0]                     next_tag_i,
  input  codesign_pkg::pass_t                    next_pass_i,
  input  logic [15:0]                            next_k_last_i,
  input  logic [15:0]                            next_n_last_i,
  input  logic [15:0]                            next_word_i,
  input  logic [GranuleBits-1:0]                 next_granule_i,
  output logic                                   next_take_o,
  // expert queues
  output logic                                   queue_ren_o,
  output logic [codesign_pkg::QueueAddrBits-1:0] queue_addr_o,
  input  logic [31:0]                            queue_rdata_i,
  // what slots wait for
  input  logic                                   tile_avail_i,
  output logic                                   tile_issue_o,
  input  logic [TagBits-1:0]                     landing_tag_i,   // the pass that lands now, and its rows that have
  input  logic [RowBits:0]                       landed_rows_i,
  input  logic [RowBits:0]                       norm_rows_i,
  output logic                                   norm_seen_o,     // a pass has seen all its rows of the norm unit
  output logic                                   wait_tile_o,
  output logic                                   wait_rows_o,
  // the slot issued in the cycle before
  output logic                                   slot_valid_o,    // the row exists
  output logic                                   slot_load_o,     // the first slot of a tile
  output logic                                   slot_first_k_o,
  output logic                                   slot_last_k_o,
  output logic                                   slot_first_n_o,
  output logic                                   slot_last_n_o,
  output logic                                   slot_tile_end_o,
  output logic                                   slot_pass_end_o,
  output logic                                   slot_score_o,
  output logic                                   slot_mix_o,
  output logic [TagBits-1:0]                     slot_tag_o,
  output logic [RowBits-1:0]                     slot_row_o,
  output logic [AddrBits-1:0]                    slot_x_o,        // word of x
  output logic [GranuleBits-1:0]                 slot_x_granule_o,
  output logic [AddrBits-1:0]                    slot_out_o,      // word of the result
  output logic [GranuleBits-1:0]                 slot_out_granule_o,
  output logic [15:0]                            slot_gate_o
);

  localparam int unsigned SimdGranules = codesign_pkg::ActGranules;
  localparam int unsigned PeGranules = codesign_pkg::PeGranules;
  localparam int unsigned PtrBits = 5;
  localparam int unsigned GapBits = $clog2(RecordSlots + 1);

  typedef struct packed {
    codesign_pkg::row_source_t source;
    logic                      valid;
    logic                      first_k;
    logic                      last_k;
    logic                      first_n;
    logic                      last_n;
    logic                      tile_start;
    logic                      tile_end;
    logic                      pass_end;
    logic                      score;
    logic                      mix;
    logic                      drop;       // not a slot, the end of a DROP
    logic                      norm_seen;  // the last slot that waits for the norm unit
    logic                      token_in;   // the row of x is the queue's token
    logic                      token_out;  // the row of the result is
    logic [TagBits-1:0]        tag;
    logic [TagBits-1:0]        tag_before;
    logic [RowBits-1:0]        row;
    logic [GranuleBits-1:0]    x_granule;
    logic [GranuleBits-1:0]    out_granule;
  } slot_t;

  typedef struct packed {
    logic [15:0] x_base;
    logic [15:0] x_stride;
    logic [15:0] out_base;
    logic [15:0] out_stride;
  } place_t;

  // ---- the loops over a pass ----
  // verilator lint_off UNUSEDSIGNAL
  codesign_pkg::pass_t             pass_q;  // of which this needs only some fields
  // verilator lint_on UNUSEDSIGNAL
  logic                            active_q, go, score, mix, drop, narrow, row_end, k_end, n_end, pass_end, credit_q;
  logic [TagBits-1:0]              tag_q;
  logic [15:0]                     row_q, k_q, n_q, rows_last_q, k_last_q, n_last_q, word_q, out_q;
  logic [GranuleBits-1:0]          x_granule_q, out_granule_q;
  logic [3:0]                      next_granule;
  logic [PtrBits:0]                held_q;
  slot_t                           slot, slot1_q, slot3, slot7, head;
  logic [15:0]                     x_word1_q, out_word1_q, x_word4, out_word4;
  logic [7:1]                      there_q;

  assign score = pass_q.kind == codesign_pkg::KindScore;
  assign mix = pass_q.kind == codesign_pkg::KindMix;
  assign drop = pass_q.kind == codesign_pkg::KindDrop;
  // Results of Pe lanes a word (RES, router), or at granules of words of Simd lanes (ACT, scores).
  assign narrow = pass_q.post == codesign_pkg::PostInt16 || pass_q.post == codesign_pkg::PostAdd ||
                  pass_q.post == codesign_pkg::PostGated || pass_q.post == codesign_pkg::PostLogits;
  assign row_end = drop || row_q == rows_last_q;
  assign k_end = k_q == k_last_q;
  assign n_end = n_q == n_last_q;
  assign next_granule = 4'(out_granule_q) + 4'(PeGranules);
  assign go = active_q && credit_q;
  assign pass_end = go && row_end && k_end && n_end;
  assign next_take_o = next_valid_i && (!active_q || pass_end);

  always_ff @(posedge clk_i) begin
    if (go) begin
      row_q <= row_end ? '0 : row_q + 16'd1;
      if (row_end) begin
        k_q <= k_end ? '0 : k_q + 16'd1;
        if (k_end) begin
          n_q <= n_q + 16'd1;
          out_granule_q <= GranuleBits'(next_granule);
          if (narrow || next_granule >= 4'(SimdGranules)) begin
            out_granule_q <= narrow ? '0 : GranuleBits'(next_granule - 4'(SimdGranules));
            out_q <= out_q + 16'd1;
          end
        end
      end
    end
    if (pass_end) active_q <= 1'b0;
    if (next_take_o) begin
      active_q <= 1'b1;
      tag_q <= next_tag_i;
      pass_q <= next_pass_i;
      row_q <= '0;
      k_q <= '0;
      n_q <= '0;
      rows_last_q <= next_pass_i.rows < 16'(MinSlots) ? 16'(MinSlots - 1) : next_pass_i.rows - 16'd1;
      k_last_q <= next_k_last_i;
      n_last_q <= next_n_last_i;
      word_q <= next_pass_i.kind == codesign_pkg::KindScore ? next_word_i : '0;
      x_granule_q <= next_pass_i.kind == codesign_pkg::KindScore ? next_granule_i : '0;
      out_q <= next_pass_i.kind == codesign_pkg::KindMix ? next_word_i : '0;
      out_granule_q <= next_pass_i.kind == codesign_pkg::KindMix ? next_granule_i : '0;
    end
    if (!rst_ni) active_q <= 1'b0;
  end

  always_comb begin
    slot.source = codesign_pkg::RowsReady;
    slot.valid = !drop && row_q < pass_q.rows;
    // Later tiles come after the first one, which has seen every row.
    if (slot.valid && k_q == '0 && n_q == '0) slot.source = pass_q.source;
    slot.first_k = k_q == '0;
    slot.last_k = k_end;
    slot.first_n = n_q == '0;
    slot.last_n = n_end;
    slot.tile_start = row_q == '0;
    slot.tile_end = row_end && !drop;
    slot.norm_seen = row_end && k_q == '0 && n_q == '0 && pass_q.source == codesign_pkg::RowsNorm;
    slot.pass_end = row_end && k_end && n_end;
    slot.score = score;
    slot.mix = mix;
    slot.drop = drop;
    slot.token_in = pass_q.queued && pass_q.post != codesign_pkg::PostGated;
    slot.token_out = pass_q.queued && pass_q.post == codesign_pkg::PostGated;
    slot.tag = tag_q;
    slot.tag_before = tag_q - TagBits'(1);
    slot.row = RowBits'(row_q);
    slot.x_granule = x_granule_q;
    slot.out_granule = out_granule_q;
  end

  // ---- rows and addresses: 1 queue read, 3 its entry, 4 row, 5 and 6 product, 7 address ----
  place_t              plan_place, place4;
  logic [15:0]         x_row4_q, out_row4_q, gate4_q, gate7;
  logic [AddrBits-1:0] x5_q, x6_q, x7_q, out5_q, out6_q, out7_q, x_offset5_q, x_offset6_q, out_offset5_q, out_offset6_q;

  always_comb begin
    plan_place.x_base = plan_pass_i.src_base;
    plan_place.x_stride = plan_pass_i.src_stride;
    plan_place.out_base = plan_pass_i.dst_base;
    plan_place.out_stride = plan_pass_i.dst_stride;
    if (plan_pass_i.kind == codesign_pkg::KindScore) begin
      plan_place.out_base = '0;
      plan_place.out_stride = 16'(codesign_pkg::KeyWords);
    end
    if (plan_pass_i.kind == codesign_pkg::KindMix) begin
      plan_place.x_base = '0;
      plan_place.x_stride = 16'(codesign_pkg::KeyWords);
    end
  end

  pass_table #(.Width(64), .TagBits(TagBits)) u_places (
    .clk_i, .we_i(plan_we_i), .wtag_i(plan_tag_i), .wdata_i(plan_place), .rtag_i(slot3.tag), .rdata_o(place4)
  );
  delay_line #(.Width($bits(slot)), .Stages(2)) u_slot3 (.clk_i, .d_i(slot1_q), .q_o(slot3));
  delay_line #(.Width($bits(slot)), .Stages(4)) u_slot7 (.clk_i, .d_i(slot3), .q_o(slot7));
  delay_line #(.Width(32), .Stages(3)) u_word4 (.clk_i, .d_i({x_word1_q, out_word1_q}), .q_o({x_word4, out_word4}));
  delay_line #(.Width(16), .Stages(3)) u_gate7 (.clk_i, .d_i(gate4_q), .q_o(gate7));

  always_ff @(posedge clk_i) begin
    there_q <= {there_q[6:1], go};
    slot1_q <= slot;
    x_word1_q <= word_q + k_q;
    out_word1_q <= out_q;
    queue_ren_o <= go && pass_q.queued && rst_ni;
    queue_addr_o <= pass_q.queue_base + codesign_pkg::QueueAddrBits'(row_q);
    // 4
    x_row4_q <= slot3.token_in ? queue_rdata_i[15:0] : 16'(slot3.row);
    out_row4_q <= slot3.token_out ? queue_rdata_i[15:0] : 16'(slot3.row);
    gate4_q <= queue_rdata_i[31:16];
    // 5
    x5_q <= AddrBits'(x_row4_q) * AddrBits'(place4.x_stride);
    out5_q <= AddrBits'(out_row4_q) * AddrBits'(place4.out_stride);
    x_offset5_q <= AddrBits'(place4.x_base) + AddrBits'(x_word4);
    out_offset5_q <= AddrBits'(place4.out_base) + AddrBits'(out_word4);
    // 6
    x6_q <= x5_q;
    out6_q <= out5_q;
    x_offset6_q <= x_offset5_q;
    out_offset6_q <= out_offset5_q;
    // 7
    x7_q <= x6_q + x_offset6_q;
    out7_q <= out6_q + out_offset6_q;

    if (!rst_ni) there_q <= '0;
  end

  // ---- slots that stand by ----
  localparam logic [PtrBits:0] Limit = (PtrBits+1)'((1 << PtrBits) - 1);
  localparam int unsigned EntryBits = $bits(slot) + 2 * AddrBits + 16;
  logic [EntryBits-1:0] mem [1 << PtrBits];
  logic [EntryBits-1:0] head_q;
  logic [PtrBits-1:0]   wptr_q, rptr_q;
  logic                 head_valid_q, head_next, issue, tile_ok, rows_ok, gap_ok_q;
  logic [GapBits-1:0]   gap_q;
  logic [AddrBits-1:0]  head_x, head_out;
  logic [15:0]          head_gate;

  assign {head, head_x, head_out, head_gate} = head_q;
  assign head_next = rptr_q != wptr_q && (!head_valid_q || issue);

  always_comb begin
    tile_ok = !head.tile_start || (tile_avail_i && (gap_ok_q || head.score || head.mix || head.drop || !head.first_k));
    unique case (head.source)
      codesign_pkg::RowsPass: begin
        rows_ok = landing_tag_i == head.tag ||
                  (landing_tag_i == head.tag_before && (RowBits+1)'(head.row) < landed_rows_i);
      end
      codesign_pkg::RowsNorm: rows_ok = (RowBits+1)'(head.row) < norm_rows_i;
      default: rows_ok = 1'b1;
    endcase
    issue = head_valid_q && tile_ok && rows_ok;
  end

  assign tile_issue_o = issue && head.tile_start;
  assign wait_tile_o = head_valid_q && !tile_ok;
  assign wait_rows_o = head_valid_q && tile_ok && !rows_ok;

  always_ff @(posedge clk_i) begin
    if (there_q[7]) mem[wptr_q] <= {slot7, x7_q, out7_q, gate7};
    wptr_q <= wptr_q + PtrBits'(there_q[7]);
    if (head_next) begin
      head_q <= mem[rptr_q];
      rptr_q <= rptr_q + PtrBits'(1);
    end
    head_valid_q <= head_next || (head_valid_q && !issue);
    if (go != issue) held_q <= issue ? held_q - (PtrBits+1)'(1) : held_q + (PtrBits+1)'(1);
    // Room for two, after this cycle.
    credit_q <= held_q < Limit - 1 || (held_q == Limit - 1 && (issue || !go)) || (held_q == Limit && issue && !go);
    // Cycles since a tile began.
    if (issue && head.tile_start && !head.drop) begin
      gap_q <= '0;
      gap_ok_q <= 1'b0;
    end else if (!gap_ok_q) begin
      gap_q <= gap_q + GapBits'(1);
      gap_ok_q <= gap_q == GapBits'(RecordSlots - 2);
    end

    slot_valid_o <= issue && head.valid && rst_ni;
    slot_load_o <= issue && head.tile_start && !head.drop && rst_ni;
    slot_tile_end_o <= issue && head.tile_end && rst_ni;
    slot_pass_end_o <= issue && head.pass_end && rst_ni;
    norm_seen_o <= issue && head.norm_seen && rst_ni;
    slot_first_k_o <= head.first_k;
    slot_last_k_o <= head.last_k;
    slot_first_n_o <= head.first_n;
    slot_last_n_o <= head.last_n;
    slot_score_o <= head.score;
    slot_mix_o <= head.mix;
    slot_tag_o <= head.tag;
    slot_row_o <= head.row;
    slot_x_o <= head_x;
    slot_x_granule_o <= head.x_granule;
    slot_out_o <= head_out;
    slot_out_granule_o <= head.out_granule;
    slot_gate_o <= head_gate;

    if (!rst_ni) begin
      wptr_q <= '0;
      rptr_q <= '0;
      head_valid_q <= 1'b0;
      held_q <= '0;
      credit_q <= 1'b0;
      gap_q <= '0;
      gap_ok_q <= 1'b0;
    end
  end

  logic unused_bits;
  assign unused_bits = ^{plan_pass_i, head};

endmodule
