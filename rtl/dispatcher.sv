// SPDX-License-Identifier: Apache-2.0
//
// Takes the Program's instructions in order: fetches and checks the next one while the ones before run, starts its unit, and
// counts what is complete. An unchained instruction waits until every earlier one is complete; a chained one starts as soon as
// its unit takes it and reads rows as they become final (chain_tracker). Chains that the units do not follow (docs/machine.md
// names those that they do) count as unchained. An illegal instruction is reported when all before it are complete: instr_check
// judges it by itself, this module by its place in the Program.
//
// In reset between runs: a run starts when the reset ends.
module dispatcher #(
  parameter int unsigned Window = 8        // most instructions dispatched and not complete; a power of two
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic [15:0] num_instructions_i,  // > 0

  // the Program
  input  logic [15:0] available_i,         // instructions that stand in the store
  output logic        loaded_o,            // all of them
  output logic        req_o,
  output logic [15:0] index_o,
  input  logic        gnt_i,
  input  logic        valid_i,
  input  codesign_pkg::instr_t instr_i,

  // dispatch: pulses, with instr_o held until the unit has taken what it needs, for LOAD, STORE and ROUTE until complete
  output codesign_pkg::instr_t instr_o,
  output logic        load_start_o,
  output logic        store_start_o,
  output logic        norm_start_o,
  output logic        norm_chained_o,
  output logic        route_start_o,
  output logic        issue_start_o,
  output codesign_pkg::row_source_t issue_source_o,
  output logic        turn_push_o,         // the instruction reads the stream (EXPERTS: pass_issuer says so)
  output logic [2:0]  turn_consumer_o,     // one-hot: array, norm, load
  output logic        array_dispatch_o,    // a cycle before the start pulses
  output logic        norm_dispatch_o,

  input  logic        issuer_idle_i,
  input  logic        norm_busy_i,
  input  logic        norm_wait_i,         // a pass still needs rows of the norm unit's last instruction
  input  logic        load_done_i,
  input  logic        store_done_i,
  input  logic        norm_done_i,
  input  logic        route_done_i,
  input  logic        array_done_i,        // the oldest instruction in the array is complete

  output logic [15:0] completed_o,         // instructions complete: all below are
  output logic        progress_o,          // pulse: one more
  output logic        finished_o,          // all are
  output logic        illegal_o,           // instruction completed_o is illegal
  output logic [3:0]  state_o
);
  localparam int unsigned WindowBits = $clog2(Window);

  // What completes an instruction.
  localparam logic [1:0] ByArray  = 2'd0;
  localparam logic [1:0] ByRouter = 2'd1;   // and the array
  localparam logic [1:0] ByNorm   = 2'd2;
  localparam logic [1:0] ByMemory = 2'd3;   // load or store unit

  // ---- the next instruction: fetched, then checked ----
  typedef enum logic [2:0] {
    StRequest,
    StFetch,
    StStart,
    StCheck,
    StReady,
    StEnd        // there is none
  } state_t;

  state_t               state_q;
  codesign_pkg::instr_t next_q, instr_q;
  logic [15:0]          index_q;
  logic                 here_q, last_q, checked, legal, legal_q, move;

  assign req_o   = (state_q == StRequest) && here_q;
  assign index_o = index_q;

  instr_check u_check (
    .clk_i,
    .rst_ni,
    .start_i(state_q == StStart),
    .instr_i(next_q),
    .done_o (checked),
    .legal_o(legal)
  );

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q  <= StRequest;
      index_q  <= 16'd0;
      here_q   <= 1'b0;
      loaded_o <= 1'b0;
    end else begin
      unique case (state_q)
        StRequest: if (here_q && gnt_i) state_q <= StFetch;
        StFetch:   if (valid_i) state_q <= StStart;
        StStart:   state_q <= StCheck;
        StCheck:   if (checked) state_q <= StReady;
        StReady:   if (move) state_q <= last_q ? StEnd : StRequest;
        default: ;
      endcase
      if (move) index_q <= index_q + 16'd1;
      here_q   <= (available_i > index_q) && !move;
      loaded_o <= available_i >= num_instructions_i;
    end
    last_q <= index_q == num_instructions_i - 16'd1;
    if (state_q == StFetch) next_q <= instr_i;
    if (checked) legal_q <= legal && in_place_q;
  end

  // ---- the rules of its place (codesign/schedule/legal.py, `misplaced`), while instr_check takes its cycles ----
  logic        fence_ok_q, store_ok_q, route_ok_q, queues_ok_q, in_place_q;
  logic [15:0] first_store_end_q, route_end_q, route_rows_q;   // an end: instructions complete when that one is; 0: none
  logic [7:0]  route_experts_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      first_store_end_q <= 16'd0;
      route_end_q       <= 16'd0;
    end else if (move) begin
      if (next_q.opcode == codesign_pkg::OpStore && first_store_end_q == 16'd0) first_store_end_q <= index_q + 16'd1;
      if (next_q.opcode == codesign_pkg::OpRoute)                               route_end_q       <= index_q + 16'd1;
    end
    if (move && next_q.opcode == codesign_pkg::OpRoute) begin
      route_rows_q    <= next_q.rows;
      route_experts_q <= next_q.num_experts;
    end
    fence_ok_q  <= next_q.fence <= index_q;
    store_ok_q  <= (next_q.opcode != codesign_pkg::OpLoad) || (next_q.space != codesign_pkg::SpaceOutput) ||
                   ((first_store_end_q != 16'd0) && (next_q.fence >= first_store_end_q));
    route_ok_q  <= (next_q.opcode != codesign_pkg::OpExperts) || ((route_end_q != 16'd0) && (next_q.fence >= route_end_q));
    queues_ok_q <= (next_q.opcode != codesign_pkg::OpExperts) ||
                   ((next_q.rows == route_rows_q) && (next_q.num_experts == route_experts_q));
    in_place_q  <= fence_ok_q && store_ok_q && route_ok_q && queues_ok_q;
  end

  // ---- the one to dispatch ----
  logic       pending_q, hold_q, follows_q, after_norm_q, started, go, unit_ready, in_order, follows;
  logic       load_q, store_q, norm_q, route_q, array_q;
  logic [6:0] start_q;   // load, store, norm, route, issuer, norm chained, turn
  logic [2:0] consumer_q;
  codesign_pkg::row_source_t source_q;

  // Pairs that may overlap, the earlier one in instr_q.
  always_comb begin
    unique case (next_q.opcode)
      codesign_pkg::OpNorm:   follows = instr_q.opcode == codesign_pkg::OpLinear;
      codesign_pkg::OpLinear: follows = (instr_q.opcode == codesign_pkg::OpLinear) || (instr_q.opcode == codesign_pkg::OpNorm) ||
                                        (instr_q.opcode == codesign_pkg::OpAttention);
      codesign_pkg::OpRoute:  follows = (instr_q.opcode == codesign_pkg::OpLinear) || (instr_q.opcode == codesign_pkg::OpNorm);
      default:                follows = 1'b0;
    endcase
  end

  logic                        empty_q, retire, memory_done_q, route_done_q, head_done, have_array;
  logic [Window-1:0][1:0]      by_q;
  logic [WindowBits-1:0]       head_q, tail_q;
  logic [WindowBits:0]         count_q, count_d, array_done_q;
  logic [1:0]                  norm_done_q, by;

  assign started    = start_q[4:0] != '0;
  assign move       = (state_q == StReady) && legal_q && !pending_q && !hold_q && !started && issuer_idle_i;
  assign in_order   = empty_q || (follows_q && !count_q[WindowBits]);
  assign unit_ready = issuer_idle_i && !(norm_q && (norm_busy_i || norm_wait_i));
  assign go         = pending_q && in_order && unit_ready;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      pending_q <= 1'b0;
      hold_q    <= 1'b0;
      start_q   <= '0;
    end else begin
      if (move)    pending_q <= 1'b1;
      else if (go) pending_q <= 1'b0;
      if (go && (load_q || store_q || route_q)) hold_q <= 1'b1;
      else if (empty_q)                         hold_q <= 1'b0;
      start_q <= go ? {load_q || norm_q || (array_q && consumer_q[0]), follows_q && !empty_q, array_q, route_q, norm_q, store_q, load_q}
                    : '0;
    end
    if (move) begin
      instr_q      <= next_q;
      follows_q    <= (next_q.chain != '0) && follows && (index_q != 16'd0);
      after_norm_q <= instr_q.opcode == codesign_pkg::OpNorm;
      load_q       <= next_q.opcode == codesign_pkg::OpLoad;
      store_q      <= next_q.opcode == codesign_pkg::OpStore;
      norm_q       <= next_q.opcode == codesign_pkg::OpNorm;
      route_q      <= next_q.opcode == codesign_pkg::OpRoute;
      array_q      <= (next_q.opcode == codesign_pkg::OpLinear) || (next_q.opcode == codesign_pkg::OpAttention) ||
                      (next_q.opcode == codesign_pkg::OpRoute) || (next_q.opcode == codesign_pkg::OpExperts);
      consumer_q   <= {next_q.opcode == codesign_pkg::OpLoad, next_q.opcode == codesign_pkg::OpNorm,
                       (next_q.opcode == codesign_pkg::OpLinear) || (next_q.opcode == codesign_pkg::OpRoute)};
    end
    source_q <= (!follows_q || empty_q) ? codesign_pkg::RowsReady : after_norm_q ? codesign_pkg::RowsNorm : codesign_pkg::RowsPass;
  end

  assign instr_o          = instr_q;
  assign load_start_o     = start_q[0];
  assign store_start_o    = start_q[1];
  assign norm_start_o     = start_q[2];
  assign route_start_o    = start_q[3];
  assign issue_start_o    = start_q[4];
  assign norm_chained_o   = start_q[5];
  assign turn_push_o      = start_q[6];
  assign turn_consumer_o  = consumer_q;
  assign issue_source_o   = source_q;
  assign array_dispatch_o = go && array_q;
  assign norm_dispatch_o  = go && norm_q;

  // ---- dispatched and not complete, the oldest at head_q; what is done may have to wait for those before it ----
  logic [15:0] completed_q;

  assign by         = by_q[head_q];
  assign have_array = array_done_i || (array_done_q != '0);
  assign retire     = !empty_q && head_done;
  assign count_d    = count_q + (WindowBits + 1)'(go) - (WindowBits + 1)'(retire);

  always_comb begin
    unique case (by)
      ByArray:  head_done = have_array;
      ByRouter: head_done = have_array && (route_done_i || route_done_q);
      ByNorm:   head_done = norm_done_i || (norm_done_q != '0);
      default:  head_done = load_done_i || store_done_i || memory_done_q;
    endcase
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      head_q        <= '0;
      tail_q        <= '0;
      count_q       <= '0;
      empty_q       <= 1'b1;
      completed_q   <= 16'd0;
      finished_o    <= 1'b0;
      array_done_q  <= '0;
      norm_done_q   <= '0;
      memory_done_q <= 1'b0;
      route_done_q  <= 1'b0;
    end else begin
      tail_q  <= tail_q + WindowBits'(go);
      head_q  <= head_q + WindowBits'(retire);
      count_q <= count_d;
      empty_q <= count_d == '0;
      completed_q   <= completed_q + 16'(retire);
      finished_o    <= completed_q == num_instructions_i;
      array_done_q  <= array_done_q + (WindowBits + 1)'(array_done_i) - (WindowBits + 1)'(retire && (by == ByArray || by == ByRouter));
      norm_done_q   <= norm_done_q + 2'(norm_done_i) - 2'(retire && by == ByNorm);
      memory_done_q <= (memory_done_q || load_done_i || store_done_i) && !(retire && by == ByMemory);
      route_done_q  <= (route_done_q || route_done_i) && !(retire && by == ByRouter);
    end
    if (go) by_q[tail_q] <= route_q ? ByRouter : array_q ? ByArray : norm_q ? ByNorm : ByMemory;
  end

  assign completed_o = completed_q;
  assign progress_o  = retire;
  assign illegal_o   = (state_q == StReady) && !legal_q && !pending_q && !started && empty_q;

  // What holds up the next dispatch.
  always_comb begin
    if (pending_q)                        state_o = in_order ? 4'd5 : 4'd4;   // waits for its unit; for earlier instructions
    else if (state_q == StEnd)            state_o = 4'd7;                     // all are dispatched
    else if (state_q == StReady)          state_o = legal_q ? 4'd3 : 4'd6;    // waits for the issuer or a held unit; is illegal
    else if (state_q == StRequest)        state_o = 4'd1;                     // waits for the Program
    else                                  state_o = 4'd2;                     // is fetched or checked
  end

endmodule
