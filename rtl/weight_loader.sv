// SPDX-License-Identifier: Apache-2.0
//
// Fills the shadow weight tile and the record sets, tile after tile of pass after pass: from the block stream (DENSE), from windows
// of K rows (SCORE: row p of the tile is key j*Pe + p) or of V rows (MIX: lane s of the tile is Pe lanes of key k*Simd + s).
//
// Blocks are popped ahead into a small buffer, so that the next tile's planes stand by when the array takes a tile: the shadow is
// free in that same cycle, and 8 cycles later it holds the next tile. `tile_avail_o` counts a tile from the pop of its last block
// or the grant of its last key on: an issue in a later cycle finds it complete TakeStage cycles on, if a tile's blocks are no more
// than the cycles between its issue and the issue before (slot_issuer sees to that).
module weight_loader #(
  parameter int unsigned Simd = codesign_pkg::Simd,
  parameter int unsigned Pe = codesign_pkg::Pe,
  parameter int unsigned BlockBits = codesign_pkg::BlockBits,
  parameter int unsigned ActAddrBits = codesign_pkg::ActAddrBits,
  parameter int unsigned GranuleBits = codesign_pkg::GranuleBits,
  parameter int unsigned LaneBits = $clog2(Simd) + 1,
  parameter int unsigned SetBits = 3   // 2**SetBits record sets
) (
  input  logic                   clk_i,
  input  logic                   rst_ni,
  // the pass to load next
  input  logic                   next_valid_i,
  input  codesign_pkg::pass_t    next_pass_i,
  input  logic [15:0]            next_k_last_i,
  input  logic [15:0]            next_n_last_i,
  input  logic [15:0]            next_word_i,
  input  logic [GranuleBits-1:0] next_granule_i,
  input  logic [3:0]             next_low_i,
  input  logic [LaneBits-1:0]    next_high_i,
  output logic                   next_take_o,
  // block stream
  input  logic                   block_avail_i,
  output logic                   block_pop_o,
  input  logic [BlockBits-1:0]   block_i,
  output logic                   block_done_o,
  // activation memory, port B
  output logic                   b_req_o,         // taken with b_gnt_i
  output logic [ActAddrBits-1:0] b_word_o,
  output logic [GranuleBits-1:0] b_granule_o,
  input  logic                   b_gnt_i,
  input  logic [Simd*8-1:0]      b_data_i,
  // shadow tile
  output logic                   plane_we_o,
  output logic [2:0]             plane_index_o,
  output logic [BlockBits-1:0]   block_o,         // the plane, or a part of a record set
  output logic                   row_we_o,
  output logic                   lane_we_o,
  output logic [Simd*8-1:0]      kv_o,            // a row of K, or in the lowest Pe lanes a column of V
  // record sets
  output logic                   record_we_o,
  output logic [1:0]             record_part_o,
  output logic [SetBits-1:0]     record_set_o,
  input  logic                   record_retire_i, // the oldest set is done with
  // tiles
  output logic                   tile_avail_o,    // a tile (or a DROP's end) may be issued
  input  logic                   tile_issue_i,    // it is
  input  logic                   tile_take_i      // the array takes the shadow
);

  localparam int unsigned PtrBits = 4;
  localparam int unsigned Blocks = 1 << PtrBits;
  localparam int unsigned RecordBlocks = codesign_pkg::RecordBlocks;
  localparam int unsigned SimdGranules = Simd / 16;
  localparam int unsigned PeGranules = Pe / 16;
  localparam int unsigned CountBits = $clog2(Simd);
  localparam int unsigned Latency = codesign_pkg::BlockLatency;
  localparam int unsigned KvLatency = codesign_pkg::ActLatency;

  typedef enum logic [2:0] {
    StIdle,
    StRecords,
    StPlanes,
    StWait,   // K, V: for the shadow
    StKeys,
    StDrop
  } state_t;

  // What travels with a popped block, and with a window of K or V.
  typedef struct packed {
    logic       record;
    logic       last;    // of its records
    logic [2:0] index;   // which plane, which part of the records
  } block_tag_t;

  typedef struct packed {
    logic first;       // of its tile
    logic key;         // the key exists
    logic first_word;
    logic last_word;
  } kv_tag_t;

  // ---- the pass ----
  state_t                 state_q;
  // verilator lint_off UNUSEDSIGNAL
  codesign_pkg::pass_t    pass_q;  // of which a loader needs only some fields
  // verilator lint_on UNUSEDSIGNAL
  logic [15:0]            k_last_q, n_last_q, k_q, n_q, word_q, first_word_q;
  logic [GranuleBits-1:0] granule_q;
  logic [3:0]             low_q;
  logic [LaneBits-1:0]    high_q;
  logic [CountBits-1:0]   count_q, count_last, planes_last_q;
  logic [15:0]            key_q, row_q, tile_key_q, tile_row_q, addr_q;
  logic [31:0]            drop_q;
  logic                   drop_any_q, drop_last_q;   // drop_q is not 0, is 1
  logic                   score, k_end, n_end, want, pop, key_exists_q, kv_step, kv_idle, tile_end, pass_end, blocks_end, credit_q;
  logic [3:0]             next_granule;
  logic [4:0]             ready_q;
  logic [PtrBits:0]       held_q, held_d;
  logic [SetBits:0]       sets_q, sets_d;
  logic                   set_credit_q;
  kv_tag_t                kv_tag, kv_there;
  logic [KvLatency-1:0]   kv_arrive_q;

  assign score = pass_q.kind == codesign_pkg::KindScore;
  assign k_end = k_q == k_last_q;
  assign n_end = n_q == n_last_q;
  assign next_granule = 4'(granule_q) + 4'(PeGranules);

  always_comb begin
    want = 1'b0;
    count_last = '0;
    unique case (state_q)
      StRecords: begin
        want = credit_q && (count_q != '0 || set_credit_q);
        count_last = CountBits'(RecordBlocks - 1);
      end
      StPlanes: begin
        want = credit_q;
        count_last = planes_last_q;
      end
      StDrop: want = drop_any_q;
      StKeys: count_last = score ? CountBits'(Pe - 1) : CountBits'(Simd - 1);
      default: ;
    endcase
    pop = want && block_avail_i;
    kv_step = state_q == StKeys && (!key_exists_q || b_gnt_i);
    tile_end = ((pop && state_q == StPlanes) || kv_step) && count_q == count_last;
    pass_end = tile_end && k_end && n_end;
    // Of passes that read the stream; by itself, so that no path leads from the grant of a key to the stream.
    blocks_end = pop && state_q == StPlanes && count_q == count_last && k_end && n_end;
    if (state_q == StDrop && (!drop_any_q || (pop && drop_last_q))) begin
      tile_end = 1'b1;
      pass_end = 1'b1;
      blocks_end = 1'b1;
    end
    kv_tag.first = count_q == '0;
    kv_tag.key = key_exists_q;
    kv_tag.first_word = k_q == '0;
    kv_tag.last_word = k_end;
    // The masks of K windows stay until the last window is there.
    kv_idle = kv_arrive_q == '0;
  end

  assign block_pop_o = pop;
  assign block_done_o = blocks_end && pass_q.last;
  assign next_take_o = next_valid_i && (state_q == StIdle || blocks_end) && kv_idle;
  assign tile_avail_o = ready_q != '0;
  assign b_req_o = state_q == StKeys && key_exists_q;
  assign b_word_o = ActAddrBits'(addr_q);
  assign b_granule_o = granule_q;

  always_ff @(posedge clk_i) begin
    if (tile_end != tile_issue_i) ready_q <= tile_issue_i ? ready_q - 5'd1 : ready_q + 5'd1;
    unique case (state_q)
      StRecords: if (pop) begin
        count_q <= count_q + CountBits'(1);
        if (count_q == count_last) begin
          count_q <= '0;
          state_q <= StPlanes;
        end
      end
      StPlanes: if (pop) begin
        count_q <= count_q + CountBits'(1);
        if (tile_end) begin
          count_q <= '0;
          k_q <= k_q + 16'd1;
          if (k_end) begin
            k_q <= '0;
            n_q <= n_q + 16'd1;
            state_q <= StRecords;
          end
        end
      end
      StWait: if (ready_q == '0) begin
        key_q <= tile_key_q;
        key_exists_q <= tile_key_q < pass_q.keys;
        row_q <= tile_row_q;
        addr_q <= tile_row_q + word_q;
        state_q <= StKeys;
      end
      StKeys: if (kv_step) begin
        count_q <= count_q + CountBits'(1);
        key_q <= key_q + 16'd1;
        key_exists_q <= key_q + 16'd1 < pass_q.keys;
        row_q <= row_q + pass_q.src_stride;
        addr_q <= addr_q + pass_q.src_stride;
        if (tile_end) begin
          count_q <= '0;
          state_q <= StWait;
          k_q <= k_end ? '0 : k_q + 16'd1;
          if (k_end) n_q <= n_q + 16'd1;
          // K: every window of the head from the same keys, then the next keys. V: all keys, then the next lanes from the first key.
          if (score) begin
            word_q <= k_end ? first_word_q : word_q + 16'd1;
            if (k_end) begin
              tile_key_q <= key_q + 16'd1;
              tile_row_q <= row_q + pass_q.src_stride;
            end
          end else begin
            tile_key_q <= k_end ? '0 : key_q + 16'd1;
            tile_row_q <= k_end ? pass_q.kv_base : row_q + pass_q.src_stride;
            if (k_end) begin
              granule_q <= GranuleBits'(next_granule);
              if (next_granule >= 4'(SimdGranules)) begin
                granule_q <= GranuleBits'(next_granule - 4'(SimdGranules));
                word_q <= word_q + 16'd1;
              end
            end
          end
        end
      end
      StDrop: if (pop) begin
        drop_q <= drop_q - 32'd1;
        drop_any_q <= !drop_last_q;
        drop_last_q <= drop_q == 32'd2;
      end
      default: ;
    endcase
    if (pass_end) state_q <= StIdle;

    if (next_take_o) begin
      pass_q <= next_pass_i;
      k_last_q <= next_k_last_i;
      n_last_q <= next_n_last_i;
      first_word_q <= next_word_i;
      word_q <= next_word_i;
      granule_q <= next_granule_i;
      low_q <= next_low_i;
      high_q <= next_high_i;
      planes_last_q <= CountBits'(next_pass_i.planes - 4'd1);
      drop_q <= next_pass_i.blocks;
      drop_any_q <= next_pass_i.blocks != '0;
      drop_last_q <= next_pass_i.blocks == 32'd1;
      k_q <= '0;
      n_q <= '0;
      count_q <= '0;
      tile_key_q <= '0;
      tile_row_q <= next_pass_i.kv_base;
      unique case (next_pass_i.kind)
        codesign_pkg::KindDense: state_q <= StRecords;
        codesign_pkg::KindDrop: state_q <= StDrop;
        default: state_q <= StWait;
      endcase
    end

    if (!rst_ni) begin
      state_q <= StIdle;
      ready_q <= '0;
    end
  end

  // ---- blocks, in the order of the stream ----
  block_tag_t               block_tag, block_there, head_tag;
  logic [Latency-1:0]       arrive_q;
  logic [BlockBits-1:0]     mem [Blocks];
  logic [4:0]               tag_mem [Blocks];
  logic [PtrBits-1:0]       wptr_q, rptr_q;
  logic                     push, consume, head_valid, shadow_free, shadow_free_q, set_pop, kv_first;
  logic [SetBits-1:0]       set_q;

  always_comb begin
    block_tag.record = state_q == StRecords;
    block_tag.last = count_q == count_last;
    block_tag.index = 3'(count_q);
    head_tag = tag_mem[rptr_q];
    head_valid = wptr_q != rptr_q;
    shadow_free = shadow_free_q || tile_take_i;
    consume = head_valid && (head_tag.record || head_tag.index != '0 || shadow_free);
    push = arrive_q[Latency-1];
    held_d = held_q + (PtrBits+1)'(pop && state_q != StDrop) - (PtrBits+1)'(consume);
    set_pop = state_q == StRecords && count_q == '0 && credit_q && set_credit_q && block_avail_i;  // pop, at the first of a set
    sets_d = sets_q + (SetBits+1)'(set_pop) - (SetBits+1)'(record_retire_i);
  end

  delay_line #(.Width($bits(block_tag)), .Stages(Latency)) u_block_tag (.clk_i, .d_i(block_tag), .q_o(block_there));

  assign block_o = mem[rptr_q];
  assign plane_we_o = consume && !head_tag.record;
  assign plane_index_o = head_tag.index;
  assign record_we_o = consume && head_tag.record;
  assign record_part_o = head_tag.index[1:0];
  assign record_set_o = set_q;

  always_ff @(posedge clk_i) begin
    arrive_q <= {arrive_q[Latency-2:0], pop && state_q != StDrop};
    if (push) begin
      mem[wptr_q] <= block_i;
      tag_mem[wptr_q] <= block_there;
    end
    wptr_q <= wptr_q + PtrBits'(push);
    rptr_q <= rptr_q + PtrBits'(consume);
    held_q <= held_d;
    credit_q <= held_d < (PtrBits+1)'(Blocks - 1);
    sets_q <= sets_d;
    set_credit_q <= sets_d < (SetBits+1)'(1 << SetBits);
    set_q <= set_q + SetBits'(record_we_o && head_tag.last);
    shadow_free_q <= shadow_free && !(plane_we_o && head_tag.index == '0) && !kv_first;
    if (!rst_ni) begin
      arrive_q <= '0;
      wptr_q <= '0;
      rptr_q <= '0;
      held_q <= '0;
      credit_q <= 1'b0;
      sets_q <= '0;
      set_credit_q <= 1'b0;
      set_q <= '0;
      shadow_free_q <= 1'b1;
    end
  end

  // ---- K and V: the window, then masked and registered ----
  logic [Simd-1:0] lanes;
  logic            row_we_q, lane_we_q, first_q;
  logic [Simd*8-1:0] kv_q;

  delay_line #(.Width($bits(kv_tag)), .Stages(KvLatency)) u_kv_tag (.clk_i, .d_i(kv_tag), .q_o(kv_there));

  assign kv_first = (row_we_q || lane_we_q) && first_q;
  assign row_we_o = row_we_q;
  assign lane_we_o = lane_we_q;
  assign kv_o = kv_q;

  always_comb begin
    for (int unsigned i = 0; i < Simd; i++) begin
      lanes[i] = kv_there.key;
      if (score && kv_there.first_word && i < 32'(low_q)) lanes[i] = 1'b0;
      if (score && kv_there.last_word && i >= 32'(high_q)) lanes[i] = 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    kv_arrive_q <= {kv_arrive_q[KvLatency-2:0], kv_step};
    row_we_q <= kv_arrive_q[KvLatency-1] && score;
    lane_we_q <= kv_arrive_q[KvLatency-1] && !score;
    first_q <= kv_there.first;
    if (kv_arrive_q[KvLatency-1]) begin
      for (int unsigned i = 0; i < Simd; i++) kv_q[i*8 +: 8] <= lanes[i] ? b_data_i[i*8 +: 8] : 8'd0;
    end
    if (!rst_ni) begin
      kv_arrive_q <= '0;
      row_we_q <= 1'b0;
      lane_we_q <= 1'b0;
    end
  end

endmodule
