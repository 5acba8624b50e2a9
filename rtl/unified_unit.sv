// SPDX-License-Identifier: Apache-2.0
//
// The unified compute unit: every dense layer, and both halves of an attention head, as passes of one MAC array and one
// post-processor (docs/machine.md). A slot (tile, row) enters every cycle and never stalls: stage s of the pipeline below is the
// s-th cycle after the slot was issued.
//
//     1     queue read              9        x word enters the array, probabilities enter the row sum
//     2     score and maximum read  AccStage sums of the row, written back or on to the post-processor
//     6     activation read         OutStage result written to ACT, RES, scores or router
//
// A pass may be handed over while the one before runs (its weights load early); it computes after `done_o` of that one.
module unified_unit (
  input  logic                                   clk_i,
  input  logic                                   rst_ni,
  // pass
  input  codesign_pkg::pass_t                    pass_i,
  input  logic                                   pass_valid_i,
  output logic                                   pass_ready_o,
  output logic                                   done_o,
  // stream
  input  logic [127:0]                           beat_i,
  input  logic                                   beat_valid_i,
  output logic                                   beat_ready_o,
  // activation memory: port A rows of x, port B rows of K and V
  output logic                                   act_a_ren_o,
  output logic [codesign_pkg::ActAddrBits-1:0]   act_a_addr_o,
  input  logic [codesign_pkg::Simd-1:0][7:0]     act_a_data_i,
  output logic                                   act_b_ren_o,
  output logic [codesign_pkg::ActAddrBits-1:0]   act_b_addr_o,
  input  logic [codesign_pkg::Simd-1:0][7:0]     act_b_data_i,
  output logic [codesign_pkg::Simd-1:0]          act_we_o,
  output logic [codesign_pkg::ActAddrBits-1:0]   act_waddr_o,
  output logic [codesign_pkg::Simd-1:0][7:0]     act_wdata_o,
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
  localparam int unsigned Chunks = Simd / 16;
  localparam int unsigned Classes = Chunks % 4 == 0 ? Chunks : Chunks % 2 == 0 ? 2 * Chunks : 4 * Chunks;
  localparam int unsigned Groups = Simd / Pe;
  localparam int unsigned SubBits = Groups > 1 ? $clog2(Groups) : 1;
  localparam int unsigned TreeBits = 18 + $clog2(Simd / 4);
  localparam int unsigned ScoreWords = MaxRows * codesign_pkg::KeyWords;
  localparam int unsigned ScoreAddrBits = ScoreWords > 1 ? $clog2(ScoreWords) : 1;
  localparam int unsigned AddrBits = ScoreAddrBits > 16 ? ScoreAddrBits : 16;
  localparam int unsigned RowSumBits = RowBits + 7;

  // Stages.
  localparam int unsigned Latency = codesign_pkg::MemLatency;
  localparam int unsigned QueueStage = 1;
  localparam int unsigned ProbReadStage = 2;
  localparam int unsigned ActReadStage = 6;
  localparam int unsigned XStage = ActReadStage + Latency + 1;
  localparam int unsigned TreeStage = XStage + 6 + $clog2(Simd / 4);
  localparam int unsigned AccStage = TreeStage + 1;
  localparam int unsigned RowSumStage = XStage + $clog2(Simd);  // the reciprocal leaves 6 later, at AccStage + 1, for every Simd
  localparam int unsigned BetweenStage = AccStage + 13;
  localparam int unsigned ValueStage = AccStage + 19;
  localparam int unsigned OutStage = ValueStage + 1;
  localparam int unsigned MaximumStage = OutStage + $clog2(Pe);
  localparam int unsigned EndStage = MaximumStage + 2;
  localparam int unsigned Stages = EndStage + 1;
  // Between the write and the next read of a row's accumulator, row sum or maximum.
  localparam int unsigned MinSlots = Latency + 2;

  // ---- passes and slots ----
  codesign_pkg::pass_t load_pass, pass;
  logic                load_start, load_idle, tile_done;
  logic [15:0]         first_word, units, slot_word, slot_out;
  logic [SubBits-1:0]  first_sub, slot_sub;
  logic [Simd-1:0]     first_lanes, last_lanes, key_lanes;
  logic                slot_valid, slot_first_k, slot_last_k, slot_first_n, slot_last_n, slot_tile_end, slot_pass_end;
  logic [RowBits-1:0]  slot_row;
  logic [ScoreAddrBits-1:0] slot_score;
  logic                score, mix;

  pass_control #(.MinSlots(MinSlots), .ScoreAddrBits(ScoreAddrBits)) u_control (
    .clk_i, .rst_ni, .pass_i, .pass_valid_i, .pass_ready_o, .pass_done_i(done_o),
    .load_pass_o(load_pass), .load_start_o(load_start), .load_idle_i(load_idle), .tile_done_i(tile_done),
    .pass_o(pass), .first_word_o(first_word), .first_sub_o(first_sub), .units_o(units),
    .first_lanes_o(first_lanes), .last_lanes_o(last_lanes), .key_lanes_o(key_lanes),
    .slot_valid_o(slot_valid), .slot_row_o(slot_row), .slot_first_k_o(slot_first_k), .slot_last_k_o(slot_last_k),
    .slot_first_n_o(slot_first_n), .slot_last_n_o(slot_last_n), .slot_tile_end_o(slot_tile_end),
    .slot_pass_end_o(slot_pass_end), .slot_word_o(slot_word), .slot_score_o(slot_score), .slot_out_o(slot_out),
    .slot_sub_o(slot_sub)
  );

  assign score = pass.kind == codesign_pkg::KindScore;
  assign mix = pass.kind == codesign_pkg::KindMix;

  // Flags of the slot in every stage. Those that write are reset.
  logic [Stages-1:0]              valid, first_k, last_k, first_n, last_n, tile_end, pass_end;
  logic [Stages-1:1]              valid_q, first_k_q, last_k_q, first_n_q, last_n_q, tile_end_q, pass_end_q;
  logic [Stages-1:0][RowBits-1:0] row;
  logic [Stages-1:1][RowBits-1:0] row_q;
  logic [Stages-1:0][SubBits-1:0] sub;
  logic [Stages-1:1][SubBits-1:0] sub_q;

  assign valid = {valid_q, slot_valid};
  assign first_k = {first_k_q, slot_first_k};
  assign last_k = {last_k_q, slot_last_k};
  assign first_n = {first_n_q, slot_first_n};
  assign last_n = {last_n_q, slot_last_n};
  assign tile_end = {tile_end_q, slot_tile_end};
  assign pass_end = {pass_end_q, slot_pass_end};
  assign row = {row_q, slot_row};
  assign sub = {sub_q, slot_sub};

  always_ff @(posedge clk_i) begin
    valid_q <= valid[Stages-2:0];
    first_k_q <= first_k[Stages-2:0];
    last_k_q <= last_k[Stages-2:0];
    first_n_q <= first_n[Stages-2:0];
    last_n_q <= last_n[Stages-2:0];
    tile_end_q <= tile_end[Stages-2:0];
    pass_end_q <= pass_end[Stages-2:0];
    row_q <= row[Stages-2:0];
    sub_q <= sub[Stages-2:0];
    if (!rst_ni) begin
      valid_q <= '0;
      tile_end_q <= '0;
      pass_end_q <= '0;
    end
  end

  assign done_o = pass_end[EndStage];

  // ---- weights ----
  logic [Pe*Chunks-1:0]   chunk_we;
  logic [Classes*128-1:0] chunk_data;
  logic [Simd-1:0]        lane_we;
  logic [Pe*8-1:0]        lane_data;
  logic                   by_lane, tile_full, tile_take_q, tile_busy_q, record_full, record_take, record_leave, record_busy_q;
  logic                   tile_take;
  logic [Pe/2-1:0]        record_we;
  logic [Pe*Simd*8-1:0]   weights;
  logic [Pe*32-1:0]       record_bias;
  logic [Pe*16-1:0]       record_multiplier;
  logic [Pe*6-1:0]        record_shift;

  weight_loader u_loader (
    .clk_i, .rst_ni, .start_i(load_start), .idle_o(load_idle), .pass_i(load_pass),
    .first_word_i(first_word), .first_sub_i(first_sub), .units_i(units), .first_lanes_i(first_lanes),
    .last_lanes_i(last_lanes), .beat_i, .beat_valid_i, .beat_ready_o,
    .act_ren_o(act_b_ren_o), .act_addr_o(act_b_addr_o), .act_data_i(act_b_data_i),
    .chunk_we_o(chunk_we), .chunk_data_o(chunk_data), .by_lane_o(by_lane), .lane_we_o(lane_we),
    .lane_data_o(lane_data),
    .tile_done_o(tile_done), .tile_full_o(tile_full), .tile_take_i(tile_take_q),
    .record_we_o(record_we), .record_full_o(record_full), .record_take_i(record_take)
  );

  weight_tile #(.Simd(Simd), .Pe(Pe), .Classes(Classes)) u_tile (
    .clk_i, .chunk_we_i(chunk_we), .chunk_data_i(chunk_data), .by_lane_i(by_lane), .lane_we_i(lane_we),
    .lane_data_i(lane_data), .weights_o(weights)
  );

  record_bank #(.Pe(Pe)) u_records (
    .clk_i, .we_i(record_we), .beat_i, .take_i(record_take),
    .bias_o(record_bias), .multiplier_o(record_multiplier), .shift_o(record_shift)
  );

  // The array takes a full shadow tile as soon as the last slot of the tile before is in it (or long gone): the first slot of the
  // new tile cannot be earlier, for it was issued after that slot and after the tile was full. The same holds for the records.
  assign tile_take = tile_full && !tile_take_q && (!tile_busy_q || tile_end[XStage-1]);
  assign record_take = record_full && (!record_busy_q || record_leave);
  assign record_leave = tile_end[AccStage] && last_k[AccStage] && !score && !mix;

  always_ff @(posedge clk_i) begin
    tile_take_q <= tile_take;
    if (tile_take) tile_busy_q <= 1'b1;
    else if (tile_end[XStage-1]) tile_busy_q <= 1'b0;
    if (record_take) record_busy_q <= 1'b1;
    else if (record_leave) record_busy_q <= 1'b0;
    if (!rst_ni) begin
      tile_take_q <= 1'b0;
      tile_busy_q <= 1'b0;
      record_busy_q <= 1'b0;
    end
  end

  // ---- rows: through the queue to addresses (stages 1 to 6) ----
  logic                     gated;
  logic [15:0]              x_row_q, out_row_q;
  logic [AddrBits-1:0]      x_product_q, x_addr_q, out_product_q, out_offset, out_addr_q, out_base, out_stride;
  logic [15:0]              x_word, gate4_q, gate;
  logic [15:0]              out_word;

  assign gated = pass.post == codesign_pkg::PostGated;

  delay_line #(.Width(16), .Stages(5)) u_x_word (.clk_i, .d_i(slot_word), .q_o(x_word));
  delay_line #(.Width(16), .Stages(5)) u_out_word (.clk_i, .d_i(slot_out), .q_o(out_word));

  assign out_base = score ? '0 : AddrBits'(pass.dst_base);
  assign out_stride = score ? AddrBits'(codesign_pkg::KeyWords) : AddrBits'(pass.dst_stride);
  assign out_offset = out_base + AddrBits'(out_word);

  always_ff @(posedge clk_i) begin
    queue_ren_o <= slot_valid && pass.queued && rst_ni;
    queue_addr_o <= pass.queue_base + codesign_pkg::QueueAddrBits'(slot_row);
    // stage QueueStage + Latency = 3: the queue's entry is there
    x_row_q <= pass.queued && !gated ? queue_rdata_i[15:0] : 16'(row[QueueStage+Latency]);
    out_row_q <= pass.queued && gated ? queue_rdata_i[15:0] : 16'(row[QueueStage+Latency]);
    gate4_q <= queue_rdata_i[31:16];
    // 4
    x_product_q <= AddrBits'(x_row_q) * AddrBits'(pass.src_stride);
    out_product_q <= AddrBits'(out_row_q) * out_stride;
    // 5
    x_addr_q <= x_product_q + AddrBits'(pass.src_base) + AddrBits'(x_word);
    out_addr_q <= out_product_q + out_offset;
  end

  assign act_a_ren_o = valid[ActReadStage] && !mix;
  assign act_a_addr_o = codesign_pkg::ActAddrBits'(x_addr_q);

  delay_line #(.Width(16), .Stages(BetweenStage - 5)) u_gate (.clk_i, .d_i(gate4_q), .q_o(gate));

  logic [AddrBits-1:0] out_addr_read, out_addr;
  delay_line #(.Width(AddrBits), .Stages(ValueStage - Latency - 6)) u_out_addr (.clk_i, .d_i(out_addr_q), .q_o(out_addr_read));
  delay_line #(.Width(AddrBits), .Stages(Latency + 1)) u_out_addr2 (.clk_i, .d_i(out_addr_read), .q_o(out_addr));

  // ---- x: activations or probabilities ----
  logic [Simd*16-1:0]       score_rdata;
  logic [ScoreAddrBits-1:0] score_raddr;
  logic [15:0]              maximum_rdata;
  logic [Simd*8-1:0]        probability, x_q;

  delay_line #(.Width(ScoreAddrBits), .Stages(ProbReadStage)) u_score_addr (.clk_i, .d_i(slot_score), .q_o(score_raddr));

  for (genvar i = 0; i < Simd; i++) begin : gen_prob
    prob_lane u_prob (
      .clk_i,
      .mask_i(last_k[ProbReadStage+Latency] && !key_lanes[i]),
      .maximum_i(maximum_rdata),
      .score_i(score_rdata[i*16 +: 16]),
      .probability_o(probability[i*8 +: 8])
    );
  end

  always_ff @(posedge clk_i) x_q <= mix ? probability : act_a_data_i;

  // ---- array and accumulator ----
  logic [Pe*TreeBits-1:0] tree;
  logic [Pe*AccBits-1:0]  acc_rdata, acc_q;

  mac_array #(.Simd(Simd), .Pe(Pe)) u_array (
    .clk_i, .load_i(tile_take_q), .weights_i(weights), .x_i(x_q), .sums_o(tree)
  );

  sdp_ram #(.Width(Pe * AccBits), .Depth(MaxRows)) u_acc (
    .clk_i,
    .we_i(valid[AccStage] && !last_k[AccStage]), .waddr_i(row[AccStage]), .wdata_i(acc_q),
    .ren_i(valid[TreeStage-Latency] && !first_k[TreeStage-Latency]), .raddr_i(row[TreeStage-Latency]), .rdata_o(acc_rdata)
  );

  always_ff @(posedge clk_i) begin
    for (int unsigned i = 0; i < Pe; i++) begin
      acc_q[i*AccBits +: AccBits] <= (first_k[TreeStage] ? '0 : acc_rdata[i*AccBits +: AccBits]) +
                                     AccBits'(signed'(tree[i*TreeBits +: TreeBits]));
    end
  end

  // ---- softmax' row sum and its reciprocal ----
  localparam int unsigned LaneSumBits = 8 + $clog2(Simd);
  logic [LaneSumBits-1:0] lane_sum;
  logic [RowSumBits-1:0]  row_sum_rdata, row_sum_q;
  logic [15:0]            inverse;
  logic signed [5:0]      inverse_exponent;

  adder_tree #(.Inputs(Simd), .InBits(8)) u_row_sum_tree (.clk_i, .x_i(x_q), .sum_o(lane_sum));

  sdp_ram #(.Width(RowSumBits), .Depth(MaxRows)) u_row_sum (
    .clk_i,
    .we_i(valid[RowSumStage+1] && mix), .waddr_i(row[RowSumStage+1]), .wdata_i(row_sum_q),
    .ren_i(valid[RowSumStage-Latency] && mix), .raddr_i(row[RowSumStage-Latency]), .rdata_o(row_sum_rdata)
  );

  always_ff @(posedge clk_i) row_sum_q <= (first_k[RowSumStage] ? '0 : row_sum_rdata) + RowSumBits'(lane_sum);

  reciprocal #(.InBits(RowSumBits)) u_inverse (
    .clk_i, .z_i(row_sum_q), .reciprocal_o(inverse), .exponent_o(inverse_exponent)
  );

  // ---- post-processor ----
  logic                dense;
  logic [15:0]         row_multiplier, multiplier2_q;
  logic [5:0]          row_shift, shift2_q;
  logic [Pe*16-1:0]    record_multiplier_q, value;
  logic [Pe*6-1:0]     record_shift_q;

  assign dense = pass.kind == codesign_pkg::KindDense;
  assign row_multiplier = mix ? inverse : pass.multiplier;
  assign row_shift = mix ? 6'(30 - codesign_pkg::ProbabilityFractionBits) + unsigned'(inverse_exponent) : pass.shift;

  always_ff @(posedge clk_i) begin
    record_multiplier_q <= record_multiplier;
    record_shift_q <= record_shift;
    // GELU and MIX requantize a second time, GATED scales by the gate; multiplier 2, shift 1 changes nothing
    multiplier2_q <= 16'd2;
    shift2_q <= 6'd1;
    if (pass.post == codesign_pkg::PostGelu || pass.post == codesign_pkg::PostMix) begin
      multiplier2_q <= pass.multiplier;
      shift2_q <= pass.shift;
    end
    if (gated) begin
      multiplier2_q <= gate;
      shift2_q <= 6'(codesign_pkg::GateFractionBits);
    end
  end

  for (genvar i = 0; i < Pe; i++) begin : gen_post
    post_lane #(.AccBits(AccBits)) u_post (
      .clk_i,
      .acc_i(acc_q[i*AccBits +: AccBits]),
      .bias_i(dense ? record_bias[i*32 +: 32] : 32'd0),
      .multiplier_i(dense ? record_multiplier_q[i*16 +: 16] : row_multiplier),
      .shift_i(dense ? record_shift_q[i*6 +: 6] : row_shift),
      .gelu_i(pass.post == codesign_pkg::PostGelu),
      .multiplier2_i(multiplier2_q),
      .shift2_i(shift2_q),
      .value_o(value[i*16 +: 16])
    );
  end

  // ---- results ----
  logic                to_act, to_res, adds, emit_q;
  logic [Pe*16-1:0]    out_q;
  logic [Pe*8-1:0]     out8;
  logic [Pe-1:0]       out_lanes_q;
  logic [Groups-1:0]   group;
  logic [Pe*17-1:0]    total;
  logic                last_keys_q;

  assign to_act = pass.post == codesign_pkg::PostInt8 || pass.post == codesign_pkg::PostGelu || pass.post == codesign_pkg::PostMix;
  assign adds = pass.post == codesign_pkg::PostAdd || gated;
  assign to_res = adds || pass.post == codesign_pkg::PostInt16;

  assign res_ren_o = valid[ValueStage-Latency] && last_k[ValueStage-Latency] && adds;
  assign res_raddr_o = codesign_pkg::ResAddrBits'(out_addr_read);

  always_ff @(posedge clk_i) begin
    emit_q <= valid[ValueStage] && last_k[ValueStage] && rst_ni;
    last_keys_q <= last_n[ValueStage];
    for (int unsigned i = 0; i < Pe; i++) begin
      out_lanes_q[i] <= !mix || ((!first_n[ValueStage] || first_lanes[i]) && (!last_n[ValueStage] || last_lanes[i]));
      if (total[i*17+16] == total[i*17+15]) out_q[i*16 +: 16] <= total[i*17 +: 16];
      else out_q[i*16 +: 16] <= {total[i*17+16], {15{~total[i*17+16]}}};
    end
  end

  always_comb begin
    for (int unsigned i = 0; i < Pe; i++) begin
      total[i*17 +: 17] = 17'(signed'(value[i*16 +: 16])) + (adds ? 17'(signed'(res_rdata_i[i])) : 17'sd0);
    end
    for (int unsigned i = 0; i < Groups; i++) group[i] = Groups == 1 || sub[OutStage] == SubBits'(i);
    for (int unsigned i = 0; i < Pe; i++) begin
      out8[i*8 +: 8] = out_q[i*16+7 +: 9] == {9{out_q[i*16+15]}} ? out_q[i*16 +: 8] : {out_q[i*16+15], {7{~out_q[i*16+15]}}};
    end
    for (int unsigned i = 0; i < Simd; i++) act_we_o[i] = emit_q && to_act && group[i/Pe] && out_lanes_q[i%Pe];
  end

  assign act_waddr_o = codesign_pkg::ActAddrBits'(out_addr);
  assign act_wdata_o = {Groups{out8}};
  assign res_we_o = emit_q && to_res;
  assign res_waddr_o = codesign_pkg::ResAddrBits'(out_addr);
  assign res_wdata_o = out_q;
  assign logits_valid_o = emit_q && pass.post == codesign_pkg::PostLogits;
  assign logits_row_o = row[OutStage];
  assign logits_o = out_q;

  // ---- scores and the running maximum of a row ----
  logic [Groups-1:0]  score_we;
  logic [Pe*16-1:0]   candidates;
  logic signed [15:0] tile_maximum, maximum_q;
  logic               maximum_ren;
  logic [RowBits-1:0] maximum_raddr;

  assign score_we = emit_q && score ? group : '0;

  sdp_ram #(.Width(Simd * 16), .Depth(ScoreWords), .WriteLanes(Groups)) u_score (
    .clk_i,
    .we_i(score_we), .waddr_i(ScoreAddrBits'(out_addr)), .wdata_i({Groups{out_q}}),
    .ren_i(valid[ProbReadStage] && mix), .raddr_i(score_raddr), .rdata_o(score_rdata)
  );

  always_comb begin
    for (int unsigned i = 0; i < Pe; i++) begin
      candidates[i*16 +: 16] = last_keys_q && !key_lanes[i] ? 16'h8000 : out_q[i*16 +: 16];
    end
    if (mix) begin
      maximum_ren = valid[ProbReadStage];
      maximum_raddr = row[ProbReadStage];
    end else begin
      maximum_ren = valid[MaximumStage-Latency];
      maximum_raddr = row[MaximumStage-Latency];
    end
  end

  max_tree #(.Inputs(Pe)) u_max (.clk_i, .x_i(candidates), .maximum_o(tile_maximum));

  sdp_ram #(.Width(16), .Depth(MaxRows)) u_maximum (
    .clk_i,
    .we_i(valid[MaximumStage+1] && last_k[MaximumStage+1] && score), .waddr_i(row[MaximumStage+1]), .wdata_i(maximum_q),
    .ren_i(maximum_ren), .raddr_i(maximum_raddr), .rdata_o(maximum_rdata)
  );

  always_ff @(posedge clk_i) begin
    maximum_q <= !first_n[MaximumStage] && signed'(maximum_rdata) > tile_maximum ? signed'(maximum_rdata) : tile_maximum;
  end

  logic unused_bits;
  assign unused_bits = ^{pass, out_addr, x_addr_q, lane_sum};

endmodule
