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
  localparam int unsigned MaxRows = codesign_pkg::MaxRows;
  localparam int unsigned RowBits = codesign_pkg::RowBits;
  localparam int unsigned GranuleBits = codesign_pkg::GranuleBits;
  localparam int unsigned PeGranules = codesign_pkg::PeGranules;
  localparam int unsigned Chains = Simd / 8;
  localparam int unsigned TreeBits = 18 + $clog2(Chains);
  localparam int unsigned LaneBits = $clog2(Simd) + 1;
  localparam int unsigned TagBits = 3;
  localparam int unsigned SetBits = 3;
  localparam int unsigned ScoreWords = MaxRows * codesign_pkg::KeyWords;
  localparam int unsigned ScoreAddrBits = ScoreWords > 1 ? $clog2(ScoreWords) : 1;
  localparam int unsigned AddrBits = ScoreAddrBits > 16 ? ScoreAddrBits : 16;
  localparam int unsigned RowSumBits = 7 + $clog2(codesign_pkg::KeyWords * Simd);

  // Stages.
  localparam int unsigned Latency = codesign_pkg::MemLatency;
  localparam int unsigned ProbStage = 1 + Latency;                  // scores are there
  localparam int unsigned XStage = ProbStage + 4;
  localparam int unsigned TakeStage = XStage - 1;
  localparam int unsigned ActStage = XStage - 1 - codesign_pkg::ActLatency;
  localparam int unsigned TreeStage = XStage + 10 + $clog2(Chains);
  localparam int unsigned AccStage = TreeStage + 1;
  localparam int unsigned RowSumStage = XStage + $clog2(Simd);
  localparam int unsigned InverseDelay = AccStage + 1 - (RowSumStage + 6);
  localparam int unsigned MiddleStage = AccStage + 7;
  localparam int unsigned BetweenStage = MiddleStage + 7;
  localparam int unsigned ValueStage = BetweenStage + 6;
  localparam int unsigned OutStage = ValueStage + 1;
  localparam int unsigned MaximumStage = MiddleStage + $clog2(Pe);  // ends before OutStage
  localparam int unsigned Stages = OutStage + 1;
  // Between the write and the next read of a row's partial sums, row sum, maximum or residual: Latency + 2 or less.
  localparam int unsigned MinSlots = 8;

  // ---- passes ----
  codesign_pkg::pass_t    plan_pass;
  logic                   plan_we, landed, passes_busy;
  logic [TagBits-1:0]     oldest, plan_tag;
  logic [15:0]            plan_k_last, plan_n_last, plan_word;
  logic [GranuleBits-1:0] plan_granule;
  logic [3:0]             plan_low;
  logic [LaneBits-1:0]    plan_high, plan_tail;

  pass_control #(.TagBits(TagBits)) u_control (
    .clk_i, .rst_ni, .pass_i, .pass_valid_i, .pass_ready_o, .landed_i(landed), .busy_o(passes_busy),
    .oldest_o(oldest), .next_o(plan_tag), .plan_we_o(plan_we), .plan_pass_o(plan_pass), .plan_k_last_o(plan_k_last),
    .plan_n_last_o(plan_n_last), .plan_word_o(plan_word), .plan_granule_o(plan_granule), .plan_low_o(plan_low),
    .plan_high_o(plan_high), .plan_tail_o(plan_tail)
  );

  // The loader and the issuer each walk through the passes: the next one stands by in the table's output register.
  typedef struct packed {
    codesign_pkg::pass_t    pass;
    logic [15:0]            k_last;
    logic [15:0]            n_last;
    logic [15:0]            word;
    logic [GranuleBits-1:0] granule;
    logic [3:0]             low;
    logic [LaneBits-1:0]    high;
  } plan_t;

  plan_t              plan, load_next, issue_next;
  logic               load_valid_q, issue_valid_q, load_take, issue_take;
  logic [TagBits-1:0] load_tag_q, issue_tag_q;

  always_comb begin
    plan.pass = plan_pass;
    plan.k_last = plan_k_last;
    plan.n_last = plan_n_last;
    plan.word = plan_word;
    plan.granule = plan_granule;
    plan.low = plan_low;
    plan.high = plan_high;
  end

  pass_table #(.Width($bits(plan)), .TagBits(TagBits)) u_load_passes (
    .clk_i, .we_i(plan_we), .wtag_i(plan_tag), .wdata_i(plan), .rtag_i(load_tag_q), .rdata_o(load_next)
  );
  pass_table #(.Width($bits(plan)), .TagBits(TagBits)) u_issue_passes (
    .clk_i, .we_i(plan_we), .wtag_i(plan_tag), .wdata_i(plan), .rtag_i(issue_tag_q), .rdata_o(issue_next)
  );

  always_ff @(posedge clk_i) begin
    load_valid_q <= load_tag_q != plan_tag && !load_take;
    issue_valid_q <= issue_tag_q != plan_tag && !issue_take;
    load_tag_q <= load_tag_q + TagBits'(load_take);
    issue_tag_q <= issue_tag_q + TagBits'(issue_take);
    if (!rst_ni) begin
      load_valid_q <= 1'b0;
      issue_valid_q <= 1'b0;
      load_tag_q <= '0;
      issue_tag_q <= '0;
    end
  end

  // ---- weights ----
  logic                 plane_we, row_we, lane_we, record_we, record_retire, tile_avail, tile_issue, tile_take;
  logic [2:0]           plane_index;
  logic [1:0]           record_part;
  logic [SetBits-1:0]   record_wset, record_rset_q;
  logic [Pe*Simd-1:0]   block;
  logic [Simd*8-1:0]    kv;
  logic [Pe*Simd*8-1:0] weights;

  weight_loader #(.SetBits(SetBits)) u_loader (
    .clk_i, .rst_ni, .next_valid_i(load_valid_q), .next_pass_i(load_next.pass), .next_k_last_i(load_next.k_last),
    .next_n_last_i(load_next.n_last), .next_word_i(load_next.word), .next_granule_i(load_next.granule),
    .next_low_i(load_next.low), .next_high_i(load_next.high), .next_take_o(load_take),
    .block_avail_i, .block_pop_o, .block_i, .block_done_o,
    .b_req_o, .b_word_o, .b_granule_o, .b_gnt_i, .b_data_i,
    .plane_we_o(plane_we), .plane_index_o(plane_index), .block_o(block), .row_we_o(row_we), .lane_we_o(lane_we), .kv_o(kv),
    .record_we_o(record_we), .record_part_o(record_part), .record_set_o(record_wset), .record_retire_i(record_retire),
    .tile_avail_o(tile_avail), .tile_issue_i(tile_issue), .tile_take_i(tile_take)
  );

  weight_tile #(.Simd(Simd), .Pe(Pe)) u_tile (
    .clk_i, .plane_we_i(plane_we), .plane_index_i(plane_index), .plane_i(block), .row_we_i(row_we), .row_i(kv),
    .lane_we_i(lane_we), .lane_i(kv[Pe*8-1:0]), .take_i(tile_take), .weights_o(weights)
  );

  // ---- slots ----
  logic                   slot_valid, slot_load, slot_first_k, slot_last_k, slot_first_n, slot_last_n, slot_tile_end;
  logic                   slot_pass_end, slot_score, slot_mix, wait_tile, wait_rows, norm_seen;
  logic [TagBits-1:0]     slot_tag;
  logic [RowBits-1:0]     slot_row;
  logic [RowBits:0]       landed_rows_q;
  logic [AddrBits-1:0]    slot_x, slot_out;
  logic [GranuleBits-1:0] slot_x_granule, slot_out_granule;
  logic [15:0]            slot_gate;

  slot_issuer #(
    .MinSlots(MinSlots), .RecordSlots(8 + codesign_pkg::RecordBlocks), .TagBits(TagBits), .AddrBits(AddrBits)
  ) u_issuer (
    .clk_i, .rst_ni, .plan_we_i(plan_we), .plan_tag_i(plan_tag), .plan_pass_i(plan_pass),
    .next_valid_i(issue_valid_q), .next_tag_i(issue_tag_q), .next_pass_i(issue_next.pass),
    .next_k_last_i(issue_next.k_last), .next_n_last_i(issue_next.n_last), .next_word_i(issue_next.word),
    .next_granule_i(issue_next.granule), .next_take_o(issue_take),
    .queue_ren_o, .queue_addr_o, .queue_rdata_i,
    .tile_avail_i(tile_avail), .tile_issue_o(tile_issue), .landing_tag_i(oldest), .landed_rows_i(landed_rows_q),
    .norm_rows_i, .norm_seen_o(norm_seen), .wait_tile_o(wait_tile), .wait_rows_o(wait_rows),
    .slot_valid_o(slot_valid), .slot_load_o(slot_load), .slot_first_k_o(slot_first_k), .slot_last_k_o(slot_last_k),
    .slot_first_n_o(slot_first_n), .slot_last_n_o(slot_last_n), .slot_tile_end_o(slot_tile_end),
    .slot_pass_end_o(slot_pass_end), .slot_score_o(slot_score), .slot_mix_o(slot_mix), .slot_tag_o(slot_tag),
    .slot_row_o(slot_row), .slot_x_o(slot_x), .slot_x_granule_o(slot_x_granule), .slot_out_o(slot_out),
    .slot_out_granule_o(slot_out_granule), .slot_gate_o(slot_gate)
  );

  // What is known of the slot in every stage. What starts something is reset.
  logic [Stages-1:1]              valid, load, last_k, tile_end, pass_end, first_k, first_n, last_n, score, mix;
  logic [Stages-1:2]              valid_q, load_q, last_k_q, tile_end_q, pass_end_q, first_k_q, first_n_q, last_n_q, score_q, mix_q;
  logic [Stages-1:1][RowBits-1:0] row;
  logic [Stages-1:2][RowBits-1:0] row_q;
  logic [Stages-1:1][TagBits-1:0] tag;
  logic [Stages-1:2][TagBits-1:0] tag_q;

  assign valid = {valid_q, slot_valid};
  assign load = {load_q, slot_load};
  assign first_k = {first_k_q, slot_first_k};
  assign last_k = {last_k_q, slot_last_k};
  assign first_n = {first_n_q, slot_first_n};
  assign last_n = {last_n_q, slot_last_n};
  assign tile_end = {tile_end_q, slot_tile_end};
  assign pass_end = {pass_end_q, slot_pass_end};
  assign score = {score_q, slot_score};
  assign mix = {mix_q, slot_mix};
  assign row = {row_q, slot_row};
  assign tag = {tag_q, slot_tag};

  always_ff @(posedge clk_i) begin
    valid_q <= valid[Stages-2:1];
    load_q <= load[Stages-2:1];
    first_k_q <= first_k[Stages-2:1];
    last_k_q <= last_k[Stages-2:1];
    first_n_q <= first_n[Stages-2:1];
    last_n_q <= last_n[Stages-2:1];
    tile_end_q <= tile_end[Stages-2:1];
    pass_end_q <= pass_end[Stages-2:1];
    score_q <= score[Stages-2:1];
    mix_q <= mix[Stages-2:1];
    row_q <= row[Stages-2:1];
    tag_q <= tag[Stages-2:1];
    if (!rst_ni) begin
      valid_q <= '0;
      load_q <= '0;
      tile_end_q <= '0;
      pass_end_q <= '0;
    end
  end

  assign tile_take = load[TakeStage];

  // ---- x: activations or probabilities ----
  logic [AddrBits-1:0]      act_word;
  logic [GranuleBits-1:0]   act_granule;
  logic [Simd*16-1:0]       score_rdata;
  logic [15:0]              maximum_rdata;
  logic [LaneBits-1:0]      prob_tail;
  logic [Simd-1:0]          prob_mask_q;
  logic [Simd*8-1:0]        probability, x_q;

  delay_line #(.Width(AddrBits + GranuleBits), .Stages(ActStage - 1)) u_act_word (
    .clk_i, .d_i({slot_x, slot_x_granule}), .q_o({act_word, act_granule})
  );

  assign a_ren_o = valid[ActStage] && !mix[ActStage];
  assign a_word_o = codesign_pkg::ActAddrBits'(act_word);
  assign a_granule_o = act_granule;

  pass_table #(.Width(LaneBits), .TagBits(TagBits)) u_prob_pass (
    .clk_i, .we_i(plan_we), .wtag_i(plan_tag), .wdata_i(plan_tail), .rtag_i(tag[ProbStage-2]), .rdata_o(prob_tail)
  );

  always_ff @(posedge clk_i) begin
    for (int unsigned i = 0; i < Simd; i++) prob_mask_q[i] <= last_k[ProbStage-1] && i >= 32'(prob_tail);
  end

  for (genvar i = 0; i < Simd; i++) begin : gen_prob
    prob_lane u_prob (
      .clk_i,
      .mask_i(prob_mask_q[i]),
      .maximum_i(maximum_rdata),
      .score_i(score_rdata[i*16 +: 16]),
      .probability_o(probability[i*8 +: 8])
    );
  end

  always_ff @(posedge clk_i) x_q <= mix[XStage-1] ? probability : a_data_i;

  // ---- array and accumulator ----
  logic [Pe*TreeBits-1:0] tree;
  logic [Pe-1:0]          carries;
  logic [Pe*AccBits-1:0]  acc_rdata, acc_q;
  logic [AccBits-1:0]     plan_missing, missing;  // what the cascades' sums are short of, over all k words

  mac_array #(.Simd(Simd), .Pe(Pe)) u_array (
    .clk_i, .load_i(load[XStage]), .weights_i(weights), .x_i(x_q), .sums_o(tree), .carries_o(carries)
  );

  assign plan_missing = (AccBits'(plan_k_last) + AccBits'(1)) << $clog2(Chains);

  pass_table #(.Width(AccBits), .TagBits(TagBits)) u_acc_pass (
    .clk_i, .we_i(plan_we), .wtag_i(plan_tag), .wdata_i(plan_missing), .rtag_i(tag[TreeStage-1]), .rdata_o(missing)
  );

  sdp_ram #(.Width(Pe * AccBits), .Depth(MaxRows)) u_acc (
    .clk_i,
    .we_i(valid[AccStage] && !last_k[AccStage]), .waddr_i(row[AccStage]), .wdata_i(acc_q),
    .ren_i(valid[TreeStage-Latency] && !first_k[TreeStage-Latency]), .raddr_i(row[TreeStage-Latency]), .rdata_o(acc_rdata)
  );

  for (genvar i = 0; i < Pe; i++) begin : gen_acc
    logic signed [AccBits-1:0] base, sum_q;
    logic [AccBits:0]          total;  // the lowest bit makes the carry

    assign base = first_k[TreeStage] ? missing : acc_rdata[i*AccBits +: AccBits];
    assign total = {base, 1'b1} + {AccBits'(signed'(tree[i*TreeBits +: TreeBits])), carries[i]};
    always_ff @(posedge clk_i) sum_q <= total[AccBits:1];
    assign acc_q[i*AccBits +: AccBits] = sum_q;

    logic unused_carry;
    assign unused_carry = total[0];
  end

  // ---- softmax' row sum and its reciprocal ----
  localparam int unsigned LaneSumBits = 8 + $clog2(Simd);
  logic [LaneSumBits-1:0] lane_sum;
  logic [RowSumBits-1:0]  row_sum_rdata, row_sum_q;
  logic [15:0]            inverse_early, inverse;
  logic signed [5:0]      exponent_early;
  logic [5:0]             inverse_exponent;

  adder_tree #(.Inputs(Simd), .InBits(8)) u_row_sum_tree (.clk_i, .x_i(x_q), .sum_o(lane_sum));

  sdp_ram #(.Width(RowSumBits), .Depth(MaxRows)) u_row_sum (
    .clk_i,
    .we_i(valid[RowSumStage+1] && mix[RowSumStage+1]), .waddr_i(row[RowSumStage+1]), .wdata_i(row_sum_q),
    .ren_i(valid[RowSumStage-Latency] && mix[RowSumStage-Latency]), .raddr_i(row[RowSumStage-Latency]),
    .rdata_o(row_sum_rdata)
  );

  always_ff @(posedge clk_i) row_sum_q <= (first_k[RowSumStage] ? '0 : row_sum_rdata) + RowSumBits'(lane_sum);

  reciprocal #(.InBits(RowSumBits)) u_inverse (
    .clk_i, .z_i(row_sum_q), .reciprocal_o(inverse_early), .exponent_o(exponent_early)
  );
  delay_line #(.Width(22), .Stages(InverseDelay)) u_inverse_delay (
    .clk_i, .d_i({inverse_early, exponent_early}), .q_o({inverse, inverse_exponent})
  );

  // ---- post-processor ----
  typedef struct packed {
    logic [2:0]  align;
    logic [15:0] multiplier;
    logic [5:0]  shift;
  } first_t;

  typedef struct packed {
    codesign_pkg::pass_post_t post;
    logic [15:0]              multiplier;
    logic [5:0]               shift;
  } second_t;

  first_t             plan_first, first;
  second_t            plan_second, second;
  logic               dense, dense_q, mix_row_q, gelu, gelu_q;
  logic [15:0]        multiplier_q, row_multiplier, multiplier2_q, gate;
  logic [5:0]         shift_q, row_shift, shift2_q;
  logic [Pe*32-1:0]   record_bias;
  logic [Pe*16-1:0]   record_multiplier, record_multiplier_q, value, middle;
  logic [Pe*6-1:0]    record_shift, record_shift_q;

  always_comb begin
    plan_first.align = plan_pass.kind == codesign_pkg::KindDense ? plan_pass.align : 3'd0;
    plan_first.multiplier = plan_pass.multiplier;
    plan_first.shift = plan_pass.shift;
    plan_second.post = plan_pass.post;
    plan_second.multiplier = plan_pass.multiplier;
    plan_second.shift = plan_pass.shift;
    gelu = plan_pass.post == codesign_pkg::PostGelu;
  end

  pass_table #(.Width(25), .TagBits(TagBits)) u_first_pass (
    .clk_i, .we_i(plan_we), .wtag_i(plan_tag), .wdata_i(plan_first), .rtag_i(tag[AccStage-1]), .rdata_o(first)
  );
  pass_table #(.Width(1), .TagBits(TagBits)) u_gelu_pass (
    .clk_i, .we_i(plan_we), .wtag_i(plan_tag), .wdata_i(gelu), .rtag_i(tag[MiddleStage-1]), .rdata_o(gelu_q)
  );
  pass_table #(.Width($bits(plan_second)), .TagBits(TagBits)) u_second_pass (
    .clk_i, .we_i(plan_we), .wtag_i(plan_tag), .wdata_i(plan_second), .rtag_i(tag[BetweenStage-2]), .rdata_o(second)
  );
  delay_line #(.Width(16), .Stages(BetweenStage - 2)) u_gate (.clk_i, .d_i(slot_gate), .q_o(gate));

  record_bank #(.SetBits(SetBits)) u_records (
    .clk_i, .we_i(record_we), .part_i(record_part), .wset_i(record_wset), .block_i(block),
    .ren_i(valid[AccStage-1] && last_k[AccStage-1]), .rset_i(record_rset_q),
    .bias_o(record_bias), .multiplier_o(record_multiplier), .shift_o(record_shift)
  );

  assign record_retire = tile_end[AccStage-1] && last_k[AccStage-1] && !score[AccStage-1] && !mix[AccStage-1];
  assign dense = !score[AccStage] && !mix[AccStage];
  assign row_multiplier = mix_row_q ? inverse : multiplier_q;
  assign row_shift = mix_row_q ? 6'(30 - codesign_pkg::ProbabilityFractionBits) + inverse_exponent : shift_q;

  always_ff @(posedge clk_i) begin
    record_rset_q <= record_rset_q + SetBits'(record_retire);
    if (!rst_ni) record_rset_q <= '0;
    // to AccStage + 1
    dense_q <= dense;
    mix_row_q <= mix[AccStage];
    multiplier_q <= first.multiplier;
    shift_q <= first.shift;
    record_multiplier_q <= record_multiplier;
    record_shift_q <= record_shift;
    // to BetweenStage: GELU and MIX requantize a second time, GATED scales by the gate; multiplier 2, shift 1 changes nothing
    multiplier2_q <= 16'd2;
    shift2_q <= 6'd1;
    if (second.post == codesign_pkg::PostGelu || second.post == codesign_pkg::PostMix) begin
      multiplier2_q <= second.multiplier;
      shift2_q <= second.shift;
    end
    if (second.post == codesign_pkg::PostGated) begin
      multiplier2_q <= gate;
      shift2_q <= 6'(codesign_pkg::GateFractionBits);
    end
  end

  for (genvar i = 0; i < Pe; i++) begin : gen_post
    post_lane #(.AccBits(AccBits)) u_post (
      .clk_i,
      .acc_i(acc_q[i*AccBits +: AccBits]),
      .align_i(first.align),
      .bias_i(dense ? record_bias[i*32 +: 32] : 32'd0),
      .multiplier_i(dense_q ? record_multiplier_q[i*16 +: 16] : row_multiplier),
      .shift_i(dense_q ? record_shift_q[i*6 +: 6] : row_shift),
      .gelu_i(gelu_q),
      .multiplier2_i(multiplier2_q),
      .shift2_i(shift2_q),
      .middle_o(middle[i*16 +: 16]),
      .value_o(value[i*16 +: 16])
    );
  end

  // ---- where the result goes ----
  logic [AddrBits-1:0]    out_middle, out_value, out_word;
  logic [GranuleBits-1:0] granule_middle, granule_value, granule_out;

  delay_line #(.Width(AddrBits + GranuleBits), .Stages(MiddleStage - 1)) u_out_middle (
    .clk_i, .d_i({slot_out, slot_out_granule}), .q_o({out_middle, granule_middle})
  );
  delay_line #(.Width(AddrBits + GranuleBits), .Stages(ValueStage - Latency - MiddleStage)) u_out_value (
    .clk_i, .d_i({out_middle, granule_middle}), .q_o({out_value, granule_value})
  );
  delay_line #(.Width(AddrBits + GranuleBits), .Stages(Latency + 1)) u_out_word (
    .clk_i, .d_i({out_value, granule_value}), .q_o({out_word, granule_out})
  );

  // ---- scores and the running maximum of a row ----
  logic [LaneBits-1:0]   score_tail;
  logic [Pe-1:0]         key_mask_q;  // lanes that hold a key
  logic [PeGranules-1:0] score_parts;
  logic [Pe*16-1:0]      candidates;
  logic signed [15:0]    tile_maximum, maximum_q, running;
  logic                  maximum_we;

  pass_table #(.Width(LaneBits), .TagBits(TagBits)) u_score_pass (
    .clk_i, .we_i(plan_we), .wtag_i(plan_tag), .wdata_i(plan_tail), .rtag_i(tag[MiddleStage-2]), .rdata_o(score_tail)
  );

  always_ff @(posedge clk_i) begin
    for (int unsigned i = 0; i < Pe; i++) key_mask_q[i] <= !last_n[MiddleStage-1] || i < 32'(score_tail);
  end

  always_comb begin
    for (int unsigned i = 0; i < Pe; i++) candidates[i*16 +: 16] = key_mask_q[i] ? middle[i*16 +: 16] : 16'h8000;
    // A granule without a key may lie past the row's last word.
    for (int unsigned i = 0; i < PeGranules; i++) score_parts[i] = key_mask_q[i*16];
  end

  score_memory #(.Depth(ScoreWords)) u_score (
    .clk_i,
    .w_valid_i(valid[MiddleStage] && last_k[MiddleStage] && score[MiddleStage]),
    .w_word_i(ScoreAddrBits'(out_middle)), .w_granule_i(granule_middle), .w_mask_i(score_parts), .w_data_i(middle),
    .ren_i(valid[1] && mix[1]), .raddr_i(ScoreAddrBits'(slot_x)), .rdata_o(score_rdata)
  );

  max_tree #(.Inputs(Pe)) u_max (.clk_i, .x_i(candidates), .maximum_o(tile_maximum));

  assign maximum_we = valid[MaximumStage+1] && last_k[MaximumStage+1] && score[MaximumStage+1];

  sdp_ram #(.Width(16), .Depth(MaxRows)) u_maximum (
    .clk_i,
    .we_i(maximum_we), .waddr_i(row[MaximumStage+1]), .wdata_i(maximum_q),
    .ren_i(valid[1] && mix[1]), .raddr_i(row[1]), .rdata_o(maximum_rdata)
  );
  sdp_ram #(.Width(16), .Depth(MaxRows)) u_running (
    .clk_i,
    .we_i(maximum_we), .waddr_i(row[MaximumStage+1]), .wdata_i(maximum_q),
    .ren_i(valid[MaximumStage-Latency]), .raddr_i(row[MaximumStage-Latency]), .rdata_o(running)
  );

  always_ff @(posedge clk_i) maximum_q <= !first_n[MaximumStage] && running > tile_maximum ? running : tile_maximum;

  // ---- results ----
  typedef struct packed {
    codesign_pkg::pass_post_t post;
    logic                     last;
    logic [3:0]               low;
    logic [LaneBits-1:0]      high;
  } out_t;

  out_t             plan_out, out;
  logic             to_act_q, to_res_q, to_router_q, last_q, adds, adds_q, add_read, landed_row;
  logic [Pe-1:0]    lanes_q;
  logic [Pe*16-1:0] out_q;
  logic [Pe*8-1:0]  act_q;

  always_comb begin
    plan_out.post = plan_pass.post;
    plan_out.last = plan_pass.last;
    plan_out.low = plan_low;
    plan_out.high = plan_high;
    adds = plan_pass.post == codesign_pkg::PostAdd || plan_pass.post == codesign_pkg::PostGated;
  end

  pass_table #(.Width($bits(plan_out)), .TagBits(TagBits)) u_out_pass (
    .clk_i, .we_i(plan_we), .wtag_i(plan_tag), .wdata_i(plan_out), .rtag_i(tag[OutStage-2]), .rdata_o(out)
  );
  pass_table #(.Width(1), .TagBits(TagBits)) u_add_pass (
    .clk_i, .we_i(plan_we), .wtag_i(plan_tag), .wdata_i(adds), .rtag_i(tag[ValueStage-Latency-1]), .rdata_o(add_read)
  );

  assign res_ren_o = valid[ValueStage-Latency] && last_k[ValueStage-Latency] && add_read;
  assign res_raddr_o = codesign_pkg::ResAddrBits'(out_value);
  assign adds_q = out.post == codesign_pkg::PostAdd || out.post == codesign_pkg::PostGated;

  always_ff @(posedge clk_i) begin
    to_act_q <= 1'b0;
    to_res_q <= 1'b0;
    to_router_q <= 1'b0;
    if (valid[ValueStage] && last_k[ValueStage] && rst_ni) begin
      unique case (out.post)
        codesign_pkg::PostInt8, codesign_pkg::PostGelu, codesign_pkg::PostMix: to_act_q <= 1'b1;
        codesign_pkg::PostInt16, codesign_pkg::PostAdd, codesign_pkg::PostGated: to_res_q <= 1'b1;
        codesign_pkg::PostLogits: to_router_q <= 1'b1;
        default: ;
      endcase
    end
    last_q <= out.last;
    for (int unsigned i = 0; i < Pe; i++) begin
      lanes_q[i] <= !mix[ValueStage] || ((!first_n[ValueStage] || i >= 32'(out.low)) &&
                                         (!last_n[ValueStage] || i < 32'(out.high)));
    end
  end

  for (genvar i = 0; i < Pe; i++) begin : gen_out
    logic signed [16:0] total;
    logic signed [15:0] lane, sum_q;
    logic [7:0]         lane_q;

    assign lane = signed'(value[i*16 +: 16]);
    assign total = 17'(lane) + (adds_q ? 17'(signed'(res_rdata_i[i])) : 17'sd0);
    always_ff @(posedge clk_i) begin
      sum_q <= total[16] == total[15] ? total[15:0] : {total[16], {15{~total[16]}}};
      lane_q <= lane[15:7] == {9{lane[15]}} ? lane[7:0] : {lane[15], {7{~lane[15]}}};
    end
    assign out_q[i*16 +: 16] = sum_q;
    assign act_q[i*8 +: 8] = lane_q;
  end

  assign w_valid_o = to_act_q;
  assign w_word_o = codesign_pkg::ActAddrBits'(out_word);
  assign w_granule_o = granule_out;
  assign w_data_o = (Simd*8)'(act_q);
  assign w_mask_o = Simd'(lanes_q);
  assign res_we_o = to_res_q;
  assign res_waddr_o = codesign_pkg::ResAddrBits'(out_word);
  assign res_wdata_o = out_q;
  assign logits_valid_o = to_router_q;
  assign logits_row_o = row[OutStage];
  assign logits_o = out_q;

  // ---- progress ----
  logic [RowBits:0]   rows_q;
  logic [TagBits:0]   norm_waits_q;
  logic               done_q;

  assign landed = pass_end[OutStage];
  assign landed_row = valid[OutStage] && last_k[OutStage] && last_n[OutStage];
  assign rows_o = rows_q;
  assign done_o = done_q;
  assign norm_wait_o = norm_waits_q != '0;

  always_ff @(posedge clk_i) begin
    done_q <= landed && last_q;
    if (landed) landed_rows_q <= '0;
    else if (landed_row) landed_rows_q <= (RowBits+1)'(row[OutStage]) + (RowBits+1)'(1);
    if (landed_row && last_q) rows_q <= (RowBits+1)'(row[OutStage]) + (RowBits+1)'(1);
    else if (done_q) rows_q <= '0;
    norm_waits_q <= norm_waits_q - (TagBits+1)'(norm_seen) +
                    (TagBits+1)'(pass_valid_i && pass_ready_o && pass_i.source == codesign_pkg::RowsNorm);
    if (!rst_ni) begin
      done_q <= 1'b0;
      landed_rows_q <= '0;
      rows_q <= '0;
      norm_waits_q <= '0;
    end
  end

  // 0 idle, 1 passes arrive, 2 waits for weights, 3 waits for rows, 4 works
  always_comb begin
    state_o = 4'd0;
    if (passes_busy) state_o = 4'd4;
    if (passes_busy && !issue_valid_q && !slot_valid) state_o = 4'd1;
    if (wait_tile) state_o = 4'd2;
    if (wait_rows) state_o = 4'd3;
  end

  logic unused_bits;
  assign unused_bits = ^{act_word, out_middle, out_value, out_word, lane_sum, load_next, issue_next};

endmodule
