// SPDX-License-Identifier: Apache-2.0
//
// Chooses `top_k` experts a token and fills the expert queues in ascending token order (codesign/spec/ops.py, RouteParams). Rows of
// logits are buffered as they come. Several rows go round a ring at a time: once round it a row's largest logit is found and struck
// out, after `top_k` rounds the row leaves, so that the ring finds one pick a cycle. The picks of a row and, from the softmax over
// all experts, its factor (R, e) meet again where the rows leave in order, one entry a cycle; the counts follow the last entry.
//
// `state_o`: 0 idle; 1 rows are still to come or to enter the ring; 2 picks are still to leave; 3 the counts are written.
module router (
  input  logic                                      clk_i,
  input  logic                                      rst_ni,
  input  logic                                      start_i,        // only while idle
  // verilator lint_off UNUSEDSIGNAL
  input  codesign_pkg::instr_t                      instr_i,        // at start_i; only rows, num_experts and top_k are read
  // verilator lint_on UNUSEDSIGNAL
  output logic                                      done_o,
  output logic [3:0]                                state_o,
  input  logic                                      logits_valid_i, // rows in order
  input  logic [codesign_pkg::RowBits-1:0]          logits_row_i,
  // verilator lint_off UNUSEDSIGNAL
  input  logic [codesign_pkg::Pe-1:0][15:0]         logits_i,       // the first MaxExperts count
  // verilator lint_on UNUSEDSIGNAL
  output logic                                      queue_we_o,
  output logic [codesign_pkg::QueueAddrBits-1:0]    queue_waddr_o,
  output logic [31:0]                               queue_wdata_o,
  output logic [codesign_pkg::MaxExperts-1:0][15:0] counts_o        // of the last run, from done_o on
);

  localparam int unsigned Experts = codesign_pkg::MaxExperts;
  localparam int unsigned MaxRows = codesign_pkg::MaxRows;
  localparam int unsigned RowBits = codesign_pkg::RowBits;
  localparam int unsigned AddrBits = codesign_pkg::QueueAddrBits;
  localparam int unsigned MemLatency = codesign_pkg::MemLatency;
  localparam int unsigned IndexBits = Experts > 1 ? $clog2(Experts) : 1;
  localparam int unsigned TreeLatency = (IndexBits + 1) / 2;
  localparam int unsigned RootStage = TreeLatency > 2 ? TreeLatency : 2;  // of the ring; at least MemLatency, to look ahead
  localparam int unsigned SumLatency = Experts > 1 ? $clog2(Experts) : 1;
  localparam int unsigned SumBits = 17 + SumLatency;
  localparam int unsigned ExpLatency = 3;
  localparam int unsigned FactorDelay = ExpLatency + SumLatency + 5;      // from a row's first pick to its (R, e)
  localparam int unsigned SlotBits = 5;                                   // rows in flight: enough for one a cycle

  // ---- the instruction ----
  logic [RowBits:0]     rows_q, row_last_q;
  logic [IndexBits-1:0] top_k_last_q;
  logic [Experts-1:0]   exists_q;
  logic                 busy_q;

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      rows_q <= (RowBits + 1)'(instr_i.rows);
      row_last_q <= (RowBits + 1)'(instr_i.rows - 16'd1);
      top_k_last_q <= IndexBits'(instr_i.top_k - 8'd1);
      for (int unsigned i = 0; i < Experts; i++) exists_q[i] <= 8'(i) < instr_i.num_experts;
    end
    if (start_i) busy_q <= 1'b1;
    else if (done_o) busy_q <= 1'b0;
    if (!rst_ni) busy_q <= 1'b0;
  end

  // ---- rows as they come ----
  logic [RowBits:0]        arrived_q, entered_q, emitted_q;
  logic [SlotBits:0]       in_flight_q;
  logic                    enter, emit, emit_row_end;
  logic [Experts*16-1:0]   buffer_rdata;
  logic [MemLatency:1]     enter_q;

  sdp_ram #(.Width(Experts * 16), .Depth(MaxRows)) u_buffer (
    .clk_i,
    .we_i(logits_valid_i), .waddr_i(logits_row_i), .wdata_i(logits_i[Experts-1:0]),
    .ren_i(enter), .raddr_i(entered_q[RowBits-1:0]), .rdata_o(buffer_rdata)
  );

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      arrived_q <= '0;
      entered_q <= '0;
      in_flight_q <= '0;
    end else begin
      if (logits_valid_i) arrived_q <= arrived_q + (RowBits + 1)'(1);
      if (enter) entered_q <= entered_q + (RowBits + 1)'(1);
      if (enter && !emit_row_end) in_flight_q <= in_flight_q + (SlotBits + 1)'(1);
      if (!enter && emit_row_end) in_flight_q <= in_flight_q - (SlotBits + 1)'(1);
    end
    enter_q <= rst_ni ? {enter_q[MemLatency-1:1], enter} : '0;
  end

  // ---- the ring: stage 0 holds a row, its largest candidate is known at RootStage and is no candidate at the next stage 0 ----
  localparam int unsigned RingBits = SlotBits + IndexBits + 16;
  logic [RootStage:0]                valid_q, last_q;
  logic [RootStage:0][RingBits-1:0]  state_q;     // slot, pick, maximum
  logic [RootStage:0][Experts-1:0]   candidate_q;
  logic [Experts*16-1:0]             logits_q, root_logits;
  logic [SlotBits-1:0]               slot_q, root_slot, stage_slot;
  logic [IndexBits-1:0]              root_pick, stage_pick, index, pick_index;
  logic signed [15:0]                root_maximum, maximum, value, pick_value;
  logic                              root_valid, again;
  logic [Experts-1:0]                struck;

  // What is at stage 0 MemLatency + 1 cycles from now: nothing, if the row that would come round then is at its last pick.
  assign enter = busy_q && arrived_q != entered_q && !in_flight_q[SlotBits]
              && !(valid_q[RootStage-MemLatency] && !last_q[RootStage-MemLatency]);

  argmax_tree #(.Inputs(Experts)) u_argmax (
    .clk_i, .candidate_i(candidate_q[0]), .x_i(logits_q), .index_o(index), .maximum_o(value)
  );
  if (RootStage > TreeLatency) begin : gen_late
    delay_line #(.Width(IndexBits + 16), .Stages(RootStage - TreeLatency)) u_pick (
      .clk_i, .d_i({index, value}), .q_o({pick_index, pick_value})
    );
  end else begin : gen_root
    assign pick_index = index;
    assign pick_value = value;
  end
  delay_line #(.Width(Experts * 16), .Stages(RootStage)) u_logits (.clk_i, .d_i(logits_q), .q_o(root_logits));

  assign root_valid = valid_q[RootStage];
  assign again = root_valid && !last_q[RootStage];
  assign {root_slot, root_pick, root_maximum} = state_q[RootStage];
  assign maximum = root_pick == '0 ? pick_value : root_maximum;
  assign stage_slot = again ? root_slot : slot_q;
  assign stage_pick = again ? root_pick + IndexBits'(1) : '0;

  always_comb begin
    for (int unsigned i = 0; i < Experts; i++) struck[i] = pick_index == IndexBits'(i);
  end

  always_ff @(posedge clk_i) begin
    valid_q <= rst_ni ? {valid_q[RootStage-1:0], again || enter_q[MemLatency]} : '0;
    last_q <= {last_q[RootStage-1:0], stage_pick == top_k_last_q};
    state_q <= {state_q[RootStage-1:0], stage_slot, stage_pick, maximum};
    candidate_q <= {candidate_q[RootStage-1:0], again ? candidate_q[RootStage] & ~struck : exists_q};
    logits_q <= again ? root_logits : buffer_rdata;
    if (start_i) slot_q <= '0;
    else if (enter_q[MemLatency]) slot_q <= slot_q + SlotBits'(1);
  end

  // ---- softmax over all experts, at each row's first pick ----
  logic [Experts*17-1:0] exp2;
  logic [SumBits-1:0]    exp2_sum;
  logic [15:0]           inverse, factor;
  logic signed [5:0]     inverse_exponent;
  logic [5:0]            exponent;
  logic                  factor_push, factor_valid;

  for (genvar i = 0; i < Experts; i++) begin : gen_exp2
    exp2_lane u_exp2 (
      .clk_i, .mask_i(!exists_q[i]), .maximum_i(pick_value), .t_i(root_logits[i*16 +: 16]), .exp2_o(exp2[i*17 +: 16])
    );
    assign exp2[i*17+16] = 1'b0;
  end

  if (Experts > 1) begin : gen_sum
    adder_tree #(.Inputs(Experts), .InBits(17)) u_sum (.clk_i, .x_i(exp2), .sum_o(exp2_sum));
  end else begin : gen_one
    always_ff @(posedge clk_i) exp2_sum <= SumBits'(exp2);
  end

  reciprocal #(.InBits(SumBits)) u_inverse (.clk_i, .z_i(exp2_sum), .reciprocal_o(inverse), .exponent_o(inverse_exponent));

  logic [FactorDelay:1] first_q;
  always_ff @(posedge clk_i) first_q <= rst_ni ? {first_q[FactorDelay-1:1], root_valid && root_pick == '0} : '0;
  assign factor_push = first_q[FactorDelay];

  word_fifo #(.Width(16 + 6), .Depth(1 << SlotBits)) u_factors (
    .clk_i, .rst_ni, .push_i(factor_push), .data_i({inverse_exponent, inverse}),
    .valid_o(factor_valid), .data_o({exponent, factor}), .pop_i(emit_row_end)
  );

  // ---- the picks, until their row leaves ----
  localparam int unsigned PickAddrBits = SlotBits + IndexBits;
  logic [15:0]              pick_exp2, left_exp2;
  logic                     picked, picked_last;
  logic [PickAddrBits-1:0]  picked_addr;
  logic [IndexBits-1:0]     picked_index, left_index, emit_pick_q;
  logic [SlotBits:0]        complete_q;  // rows whose picks are all there
  logic [SlotBits-1:0]      emit_slot_q;

  exp2_lane u_pick_exp2 (.clk_i, .mask_i(1'b0), .maximum_i(maximum), .t_i(pick_value), .exp2_o(pick_exp2));
  delay_line #(.Width(2 + PickAddrBits + IndexBits), .Stages(ExpLatency)) u_picked (
    .clk_i, .d_i({root_valid && rst_ni, last_q[RootStage], root_slot, root_pick, pick_index}),
    .q_o({picked, picked_last, picked_addr, picked_index})
  );
  sdp_ram #(.Width(IndexBits + 16), .Depth(1 << PickAddrBits)) u_picks (
    .clk_i, .we_i(picked), .waddr_i(picked_addr), .wdata_i({picked_index, pick_exp2}),
    .ren_i(emit), .raddr_i({emit_slot_q, emit_pick_q}), .rdata_o({left_index, left_exp2})
  );

  // ---- entries leave, row by row, then the counts ----
  typedef enum logic [1:0] {
    EmIdle,
    EmPicks,
    EmCounts
  } emit_state_t;
  emit_state_t          emit_state_q;
  logic [IndexBits-1:0] head_q;
  logic                 row_complete, head_end;

  assign row_complete = complete_q != '0;
  assign emit = emit_state_q == EmPicks && row_complete && factor_valid;
  assign emit_row_end = emit && emit_pick_q == top_k_last_q;
  assign head_end = head_q == IndexBits'(Experts - 1);

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      complete_q <= '0;
      emit_slot_q <= '0;
      emit_pick_q <= '0;
      emitted_q <= '0;
      head_q <= '0;
      emit_state_q <= EmPicks;
    end else begin
      if (picked && picked_last && !emit_row_end) complete_q <= complete_q + (SlotBits + 1)'(1);
      if (!(picked && picked_last) && emit_row_end) complete_q <= complete_q - (SlotBits + 1)'(1);
      if (emit) emit_pick_q <= emit_row_end ? '0 : emit_pick_q + IndexBits'(1);
      if (emit_row_end) begin
        emit_slot_q <= emit_slot_q + SlotBits'(1);
        emitted_q <= emitted_q + (RowBits + 1)'(1);
        if (emitted_q == row_last_q) emit_state_q <= EmCounts;
      end
      if (emit_state_q == EmCounts) begin
        head_q <= head_q + IndexBits'(1);
        if (head_end) emit_state_q <= EmIdle;
      end
    end
    if (!rst_ni) emit_state_q <= EmIdle;
  end

  // At stage 2 the pick is read, at 3 its product with R and its count are there, at 4 gate and address, at 5 the entry is written.
  localparam int unsigned OutStage = MemLatency + 3;
  logic [OutStage:1]              entry_q, count_q;       // an entry, or the count of a queue
  logic [OutStage:1][RowBits-1:0] token_q;
  logic [MemLatency:1][15:0]      factor_q;
  logic [MemLatency+1:1][5:0]     exponent_q;
  logic [MemLatency:1][IndexBits-1:0] out_head_q;
  logic [IndexBits-1:0]           queue;
  logic [Experts-1:0]             of_queue;
  logic [Experts-1:0][RowBits:0]  counts_q;
  logic [RowBits:0]               count, count1_q, count2_q;
  logic [AddrBits-1:0]            head, head1_q, addr2_q;
  logic [31:0]                    product_q;
  logic [16:0]                    shifted_q;

  assign queue = entry_q[MemLatency] ? left_index : out_head_q[MemLatency];

  always_comb begin
    count = '0;
    head = '0;
    for (int unsigned i = 0; i < Experts; i++) begin
      of_queue[i] = queue == IndexBits'(i);
      if (of_queue[i]) count |= counts_q[i];
      if (of_queue[i]) head |= AddrBits'(i * (MaxRows + 1));
    end
  end

  always_ff @(posedge clk_i) begin
    entry_q <= rst_ni ? {entry_q[OutStage-1:1], emit} : '0;
    count_q <= rst_ni ? {count_q[OutStage-1:1], emit_state_q == EmCounts} : '0;
    token_q <= {token_q[OutStage-1:1], emitted_q[RowBits-1:0]};
    factor_q <= {factor_q[MemLatency-1:1], factor};
    exponent_q <= {exponent_q[MemLatency:1], exponent};
    out_head_q <= {out_head_q[MemLatency-1:1], head_q};

    product_q <= 32'(left_exp2) * 32'(factor_q[MemLatency]);
    count1_q <= count;
    head1_q <= head;

    // gate = (x * R + (1 << (14 + e))) >> (15 + e), as floor((floor(x * R >> (14 + e)) + 1) / 2)
    shifted_q <= 17'(product_q >> (6'(29 - codesign_pkg::GateFractionBits) + exponent_q[MemLatency+1]));
    count2_q <= count1_q;
    addr2_q <= count_q[MemLatency+1] ? head1_q : head1_q + AddrBits'(count1_q) + AddrBits'(1);

    queue_we_o <= (entry_q[MemLatency+2] || count_q[MemLatency+2]) && rst_ni;
    queue_waddr_o <= addr2_q;
    queue_wdata_o <= count_q[MemLatency+2] ? 32'(count2_q) : {16'((shifted_q + 17'd1) >> 1), 16'(token_q[MemLatency+2])};
    done_o <= count_q[OutStage] && !count_q[OutStage-1] && rst_ni;

    for (int unsigned i = 0; i < Experts; i++) begin
      if (entry_q[MemLatency] && of_queue[i]) counts_q[i] <= counts_q[i] + (RowBits + 1)'(1);
      if (start_i || !rst_ni) counts_q[i] <= '0;
    end
  end

  always_comb begin
    for (int unsigned i = 0; i < Experts; i++) counts_o[i] = 16'(counts_q[i]);
    state_o = 4'd0;
    if (busy_q) state_o = entered_q != rows_q ? 4'd1 : emit_state_q == EmPicks ? 4'd2 : 4'd3;
  end

endmodule
