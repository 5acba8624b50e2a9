// SPDX-License-Identifier: Apache-2.0
//
// The unified compute unit: every dense layer, and both halves of an attention head, as passes of one MAC array and one
// post-processor (docs/machine.md). A slot (tile, row) is issued every cycle and never stalls afterwards: stage s of the pipeline
// below is the s-th cycle after the cycle of its issue. Slots of several passes are in the pipeline at once; what a stage needs to
// know about a pass it reads by the slot's tag, one stage before.
//
//     1           scores and row maximum read      MiddleStage   result of stage 1; scores go to their memory and the maximum
//     ActStage    activation read                  ValueStage    result of stage 2; the residual has been read
//     TakeStage   the array takes the next tile    OutStage      result written to ACT, RES or the router: the row has landed
//     XStage      x enters the array; row sum
//     AccStage    sums of the row, written back or on to the post-processor
module unified_unit (
  input  logic                                   clk_i,
  input  logic                                   rst_ni,
  // passes
  input  codesign_pkg::pass_t                    pass_i,
  input  logic                                   pass_valid_i,
  output logic                                   pass_ready_o,
  output logic [codesign_pkg::RowBits:0]         rows_o,       // rows of the `last` pass that lands now
  output logic                                   done_o,       // it has landed
  output logic [3:0]                             state_o,
  // norm unit
  input  logic [codesign_pkg::RowBits:0]         norm_rows_i,
  output logic                                   norm_wait_o,  // an accepted pass has not seen all its rows
  // block stream
  input  logic                                   block_avail_i,
  output logic                                   block_pop_o,
  input  logic [codesign_pkg::BlockBits-1:0]     block_i,
  output logic                                   block_done_o,
  // activation memory: port A rows of x, port B rows of K and V, results
  output logic                                   a_ren_o,
  output logic [codesign_pkg::ActAddrBits-1:0]   a_word_o,
  output logic [codesign_pkg::GranuleBits-1:0]   a_granule_o,
  input  logic [codesign_pkg::Simd-1:0][7:0]     a_data_i,
  output logic                                   b_req_o,
  output logic [codesign_pkg::ActAddrBits-1:0]   b_word_o,
  output logic [codesign_pkg::GranuleBits-1:0]   b_granule_o,
  input  logic                                   b_gnt_i,
  input  logic [codesign_pkg::Simd-1:0][7:0]     b_data_i,
  output logic                                   w_valid_o,
  output logic [codesign_pkg::ActAddrBits-1:0]   w_word_o,
  output logic [codesign_pkg::GranuleBits-1:0]   w_granule_o,
  output logic [codesign_pkg::Simd-1:0][7:0]     w_data_o,
  output logic [codesign_pkg::Simd-1:0]          w_mask_o,
  // residual memory
  output logic                                   res_ren_o,
  output logic [codesign_pkg::ResAddrBits-1:0]   res_raddr_o,
  input  logic [codesign_pkg::Pe-1:0][15:0]      res_rdata_i,
  output logic                                   res_we_o,
  output logic [codesign_pkg::ResAddrBits-1:0]   res_waddr_o,
  output logic [codesign_pkg::Pe-1:0][15:0]      res_wdata_o,
  // expert queues
  output logic                                   queue_ren_o,
  output logic [codesign_pkg::QueueAddrBits-1:0] queue_addr_o,
  input  logic [31:0]                            queue_rdata_i,
  // router
  output logic                                   logits_valid_o,
  output logic [codesign_pkg::RowBits-1:0]       logits_row_o,
  output logic [codesign_pkg::Pe-1:0][15:0]      logits_o
);

  localparam int unsigned Simd = codesign_pkg::Simd;
  localparam int unsigned Pe = codesign_pkg::Pe;
  localparam int unsigned AccBits = codesign_pkg::AccBits;
  localparam int unsigned RowBits = codesign_pkg::RowBits;
  localparam int unsigned GranuleBits = codesign_pkg::GranuleBits;
  localparam int unsigned TreeLevels = $clog2(Simd / 8);
  localparam int unsigned SumBits = 18 + TreeLevels;
  localparam int unsigned LaneBits = $clog2(Simd) + 1;
  localparam int unsigned TagBits = 3;
  localparam int unsigned SetBits = 3;
  localparam int unsigned ScoreWords = codesign_pkg::MaxRows * codesign_pkg::KeyWords;
  localparam int unsigned AddrBits = $clog2(ScoreWords) > 16 ? $clog2(ScoreWords) : 16;

  // Stages.
  localparam int unsigned Latency = codesign_pkg::MemLatency;
  localparam int unsigned XStage = 1 + Latency + 4;
  localparam int unsigned TakeStage = XStage - 1;
  localparam int unsigned ActStage = XStage - 1 - codesign_pkg::ActLatency;
  localparam int unsigned TreeStage = XStage + 10 + TreeLevels;
  localparam int unsigned AccStage = TreeStage + 1;
  localparam int unsigned RowSumStage = XStage + $clog2(Simd);
  localparam int unsigned MiddleStage = AccStage + 7;
  localparam int unsigned BetweenStage = MiddleStage + 7;
  localparam int unsigned ValueStage = BetweenStage + 6;
  localparam int unsigned OutStage = ValueStage + 1;
  localparam int unsigned MaximumStage = MiddleStage + $clog2(Pe);  // ends before OutStage
  localparam int unsigned Stages = OutStage + 1;

  // ---- passes: the loader and the issuer each walk through them ----
  typedef struct packed {
    codesign_pkg::pass_t    pass;
    logic [15:0]            k_last;
    logic [15:0]            n_last;
    logic [15:0]            word;
    logic [GranuleBits-1:0] granule;
    logic [3:0]             low;
    logic [LaneBits-1:0]    high;
  } plan_t;

  plan_t               plan, load_next, issue_next;
  codesign_pkg::pass_t plan_pass;
  logic                plan_we, landed, passes_busy, load_valid, load_take, issue_valid, issue_take;
  logic [TagBits-1:0]  oldest, plan_tag, issue_tag, unused_load_tag;
  logic [15:0]         plan_k_last, plan_n_last, plan_word;
  logic [GranuleBits-1:0] plan_granule;
  logic [3:0]          plan_low;
  logic [LaneBits-1:0] plan_high, plan_tail;

  pass_control #(.TagBits(TagBits)) u_control (
    .clk_i, .rst_ni, .pass_i, .pass_valid_i, .pass_ready_o, .landed_i(landed), .busy_o(passes_busy),
    .oldest_o(oldest), .next_o(plan_tag), .plan_we_o(plan_we), .plan_pass_o(plan_pass), .plan_k_last_o(plan_k_last),
    .plan_n_last_o(plan_n_last), .plan_word_o(plan_word), .plan_granule_o(plan_granule), .plan_low_o(plan_low),
    .plan_high_o(plan_high), .plan_tail_o(plan_tail)
  );

  assign plan = {plan_pass, plan_k_last, plan_n_last, plan_word, plan_granule, plan_low, plan_high};

  pass_walk #(.Width($bits(plan)), .TagBits(TagBits)) u_load_walk (
    .clk_i, .rst_ni, .plan_we_i(plan_we), .plan_tag_i(plan_tag), .plan_i(plan),
    .valid_o(load_valid), .tag_o(unused_load_tag), .data_o(load_next), .take_i(load_take)
  );
  pass_walk #(.Width($bits(plan)), .TagBits(TagBits)) u_issue_walk (
    .clk_i, .rst_ni, .plan_we_i(plan_we), .plan_tag_i(plan_tag), .plan_i(plan),
    .valid_o(issue_valid), .tag_o(issue_tag), .data_o(issue_next), .take_i(issue_take)
  );

  // ---- weights ----
  logic                 plane_we, row_we, lane_we, record_we, record_retire, tile_avail, tile_issue;
  logic [2:0]           plane_index;
  logic [1:0]           record_part;
  logic [SetBits-1:0]   record_set;
  logic [Pe*Simd-1:0]   block;
  logic [Simd*8-1:0]    kv;
  logic [Pe*Simd*8-1:0] weights;
  logic [Stages-1:1]    valid, load, tile_end, pass_end, first_k, last_k, first_n, last_n, score, mix;

  weight_loader #(.SetBits(SetBits)) u_loader (
    .clk_i, .rst_ni, .next_valid_i(load_valid), .next_pass_i(load_next.pass), .next_k_last_i(load_next.k_last),
    .next_n_last_i(load_next.n_last), .next_word_i(load_next.word), .next_granule_i(load_next.granule),
    .next_low_i(load_next.low), .next_high_i(load_next.high), .next_take_o(load_take),
    .block_avail_i, .block_pop_o, .block_i, .block_done_o,
    .b_req_o, .b_word_o, .b_granule_o, .b_gnt_i, .b_data_i,
    .plane_we_o(plane_we), .plane_index_o(plane_index), .block_o(block), .row_we_o(row_we), .lane_we_o(lane_we), .kv_o(kv),
    .record_we_o(record_we), .record_part_o(record_part), .record_set_o(record_set), .record_retire_i(record_retire),
    .tile_avail_o(tile_avail), .tile_issue_i(tile_issue), .tile_take_i(load[TakeStage])
  );

  weight_tile #(.Simd(Simd), .Pe(Pe)) u_tile (
    .clk_i, .plane_we_i(plane_we), .plane_index_i(plane_index), .plane_i(block), .row_we_i(row_we), .row_i(kv),
    .lane_we_i(lane_we), .lane_i(kv[Pe*8-1:0]), .take_i(load[TakeStage]), .weights_o(weights)
  );

  // ---- slots ----
  logic                   slot_valid, slot_load, slot_first_k, slot_last_k, slot_first_n, slot_last_n, slot_tile_end;
  logic                   slot_pass_end, slot_score, slot_mix, wait_tile, wait_rows, norm_seen;
  logic [TagBits-1:0]     slot_tag;
  logic [RowBits-1:0]     slot_row;
  logic [RowBits:0]       landed_rows;
  logic [AddrBits-1:0]    slot_x, slot_out;
  logic [GranuleBits-1:0] slot_x_granule, slot_out_granule;
  logic [15:0]            slot_gate, gate;
  logic [Stages-1:1][RowBits-1:0] row;
  logic [Stages-1:1][TagBits-1:0] tag;

  slot_issuer #(
    .RecordSlots(8 + codesign_pkg::RecordBlocks), .TagBits(TagBits), .AddrBits(AddrBits)
  ) u_issuer (
    .clk_i, .rst_ni, .plan_we_i(plan_we), .plan_tag_i(plan_tag), .plan_pass_i(plan_pass),
    .next_valid_i(issue_valid), .next_tag_i(issue_tag), .next_pass_i(issue_next.pass),
    .next_k_last_i(issue_next.k_last), .next_n_last_i(issue_next.n_last), .next_word_i(issue_next.word),
    .next_granule_i(issue_next.granule), .next_take_o(issue_take),
    .queue_ren_o, .queue_addr_o, .queue_rdata_i,
    .tile_avail_i(tile_avail), .tile_issue_o(tile_issue), .landing_tag_i(oldest), .landed_rows_i(landed_rows),
    .norm_rows_i, .norm_seen_o(norm_seen), .wait_tile_o(wait_tile), .wait_rows_o(wait_rows),
    .slot_valid_o(slot_valid), .slot_load_o(slot_load), .slot_first_k_o(slot_first_k), .slot_last_k_o(slot_last_k),
    .slot_first_n_o(slot_first_n), .slot_last_n_o(slot_last_n), .slot_tile_end_o(slot_tile_end),
    .slot_pass_end_o(slot_pass_end), .slot_score_o(slot_score), .slot_mix_o(slot_mix), .slot_tag_o(slot_tag),
    .slot_row_o(slot_row), .slot_x_o(slot_x), .slot_x_granule_o(slot_x_granule), .slot_out_o(slot_out),
    .slot_out_granule_o(slot_out_granule), .slot_gate_o(slot_gate)
  );

  slot_stages #(.Stages(Stages), .TagBits(TagBits), .RowBits(RowBits)) u_stages (
    .clk_i, .rst_ni, .valid_i(slot_valid), .load_i(slot_load), .tile_end_i(slot_tile_end), .pass_end_i(slot_pass_end),
    .first_k_i(slot_first_k), .last_k_i(slot_last_k), .first_n_i(slot_first_n), .last_n_i(slot_last_n),
    .score_i(slot_score), .mix_i(slot_mix), .row_i(slot_row), .tag_i(slot_tag),
    .valid_o(valid), .load_o(load), .tile_end_o(tile_end), .pass_end_o(pass_end), .first_k_o(first_k), .last_k_o(last_k),
    .first_n_o(first_n), .last_n_o(last_n), .score_o(score), .mix_o(mix), .row_o(row), .tag_o(tag)
  );

  // Where the result goes, as far as its scores and as far as the read of the residual; and the gate.
  logic [AddrBits-1:0]    act_word, out_middle, out_value;
  logic [GranuleBits-1:0] granule_middle, granule_value;

  delay_line #(.Width(AddrBits + GranuleBits), .Stages(MiddleStage - 1)) u_out_middle (
    .clk_i, .d_i({slot_out, slot_out_granule}), .q_o({out_middle, granule_middle})
  );
  delay_line #(.Width(AddrBits + GranuleBits), .Stages(ValueStage - Latency - MiddleStage)) u_out_value (
    .clk_i, .d_i({out_middle, granule_middle}), .q_o({out_value, granule_value})
  );
  delay_line #(.Width(16), .Stages(BetweenStage - 2)) u_gate (.clk_i, .d_i(slot_gate), .q_o(gate));

  // ---- x: activations or probabilities ----
  logic [Simd*8-1:0] probability, x_q;
  logic [Pe*16-1:0]  middle, value;

  delay_line #(.Width(AddrBits + GranuleBits), .Stages(ActStage - 1)) u_act_word (
    .clk_i, .d_i({slot_x, slot_x_granule}), .q_o({act_word, a_granule_o})
  );

  assign a_ren_o = valid[ActStage] && !mix[ActStage];
  assign a_word_o = codesign_pkg::ActAddrBits'(act_word);

  head_scores #(.AddrBits(AddrBits), .TagBits(TagBits)) u_scores (
    .clk_i, .plan_we_i(plan_we), .plan_tag_i(plan_tag), .plan_tail_i(plan_tail),
    .in_tag_i(tag[MiddleStage-2]), .in_last_n_i(last_n[MiddleStage-1]),
    .in_valid_i(valid[MiddleStage] && last_k[MiddleStage] && score[MiddleStage]),
    .in_word_i(out_middle), .in_granule_i(granule_middle), .in_scores_i(middle),
    .max_read_i(valid[MaximumStage-Latency]), .max_read_row_i(row[MaximumStage-Latency]),
    .max_first_n_i(first_n[MaximumStage]),
    .max_write_i(valid[MaximumStage+1] && last_k[MaximumStage+1] && score[MaximumStage+1]),
    .max_write_row_i(row[MaximumStage+1]),
    .read_i(valid[1] && mix[1]), .read_word_i(slot_x), .read_row_i(row[1]), .read_tag_i(tag[Latency-1]),
    .read_last_k_i(last_k[Latency]), .probability_o(probability)
  );

  always_ff @(posedge clk_i) x_q <= mix[XStage-1] ? probability : a_data_i;

  // ---- sums ----
  logic [Pe*SumBits-1:0] sums;
  logic [Pe-1:0]         carries;
  logic [Pe*AccBits-1:0] acc;
  logic [15:0]           inverse;
  logic [5:0]            inverse_exponent;

  mac_array #(.Simd(Simd), .Pe(Pe)) u_array (
    .clk_i, .load_i(load[XStage]), .weights_i(weights), .x_i(x_q), .sums_o(sums), .carries_o(carries)
  );

  accumulator #(.SumBits(SumBits), .TagBits(TagBits)) u_acc (
    .clk_i, .plan_we_i(plan_we), .plan_tag_i(plan_tag), .plan_k_last_i(plan_k_last),
    .read_i(valid[TreeStage-Latency] && !first_k[TreeStage-Latency]), .read_row_i(row[TreeStage-Latency]),
    .tag_i(tag[TreeStage-1]), .first_k_i(first_k[TreeStage]), .sums_i(sums), .carries_i(carries),
    .write_i(valid[AccStage] && !last_k[AccStage]), .write_row_i(row[AccStage]), .acc_o(acc)
  );

  row_sum #(.Latency(AccStage + 1 - XStage)) u_row_sum (
    .clk_i, .x_i(x_q), .read_i(valid[RowSumStage-Latency] && mix[RowSumStage-Latency]),
    .read_row_i(row[RowSumStage-Latency]), .first_k_i(first_k[RowSumStage]),
    .write_i(valid[RowSumStage+1] && mix[RowSumStage+1]), .write_row_i(row[RowSumStage+1]),
    .reciprocal_o(inverse), .exponent_o(inverse_exponent)
  );

  // ---- results ----
  logic last;

  post_processor #(.TagBits(TagBits), .SetBits(SetBits)) u_post (
    .clk_i, .rst_ni, .plan_we_i(plan_we), .plan_tag_i(plan_tag), .plan_pass_i(plan_pass),
    .record_we_i(record_we), .record_part_i(record_part), .record_set_i(record_set), .record_block_i(block),
    .record_retire_o(record_retire),
    .valid_i(valid[AccStage-1]), .last_k_i(last_k[AccStage-1]), .tile_end_i(tile_end[AccStage-1]),
    .dense_i(!score[AccStage-1] && !mix[AccStage-1]), .mix_i(mix[AccStage-1]), .tag_i(tag[AccStage-1]), .acc_i(acc),
    .inverse_i(inverse), .inverse_exponent_i(inverse_exponent), .gelu_tag_i(tag[MiddleStage-1]), .middle_o(middle),
    .second_tag_i(tag[BetweenStage-2]), .gate_i(gate), .value_o(value)
  );

  result_writer #(.AddrBits(AddrBits), .TagBits(TagBits)) u_results (
    .clk_i, .rst_ni, .plan_we_i(plan_we), .plan_tag_i(plan_tag), .plan_pass_i(plan_pass), .plan_low_i(plan_low),
    .plan_high_i(plan_high), .add_tag_i(tag[ValueStage-Latency-1]),
    .read_i(valid[ValueStage-Latency] && last_k[ValueStage-Latency]), .word_i(out_value), .granule_i(granule_value),
    .tag_i(tag[ValueStage-1]), .write_i(valid[ValueStage] && last_k[ValueStage]), .mix_i(mix[ValueStage]),
    .first_n_i(first_n[ValueStage]), .last_n_i(last_n[ValueStage]), .value_i(value), .last_o(last),
    .w_valid_o, .w_word_o, .w_granule_o, .w_data_o, .w_mask_o,
    .res_ren_o, .res_raddr_o, .res_rdata_i, .res_we_o, .res_waddr_o, .res_wdata_o, .logits_valid_o, .logits_o
  );

  assign logits_row_o = row[OutStage];
  assign landed = pass_end[OutStage];

  row_tracker #(.TagBits(TagBits)) u_tracker (
    .clk_i, .rst_ni,
    .norm_pass_i(pass_valid_i && pass_ready_o && pass_i.source == codesign_pkg::RowsNorm), .norm_seen_i(norm_seen),
    .norm_wait_o, .landed_row_i(valid[OutStage] && last_k[OutStage] && last_n[OutStage]), .row_i(row[OutStage]),
    .landed_i(landed), .last_i(last), .landed_rows_o(landed_rows), .rows_o, .done_o
  );

  // 0 idle, 1 passes arrive, 2 waits for weights, 3 waits for rows, 4 works
  always_comb begin
    state_o = 4'd0;
    if (passes_busy) state_o = 4'd4;
    if (passes_busy && !issue_valid && !slot_valid) state_o = 4'd1;
    if (wait_tile) state_o = 4'd2;
    if (wait_rows) state_o = 4'd3;
  end

  logic unused_bits;
  assign unused_bits = ^{act_word, load_next, issue_next};

endmodule
