// SPDX-License-Identifier: Apache-2.0
//
// Runs a Program: stores it as it arrives, then decodes one instruction after the other and starts the unit that executes
// it. Stops at the first illegal opcode or, at the end of an instruction, at an error response of a memory; either way the
// readers are drained before done_o.
module sequencer (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        start_i,             // level, until done_o
  input  logic [31:0] num_instructions_i,
  output logic        done_o,              // pulse
  output codesign_pkg::status_t status_o,
  output logic [31:0] cycles_o,

  // the Program arrives
  output logic        loader_start_o,
  output logic        program_loaded_o,
  input  logic        beat_valid_i,
  output logic        beat_ready_o,
  output logic        store_we_o,
  output logic [$clog2(codesign_pkg::MaxInstructions*codesign_pkg::InstructionBeats)-1:0] store_waddr_o,

  // the Program is read
  output logic        req_o,
  output logic [15:0] index_o,             // instruction under execution
  input  logic        gnt_i,
  input  logic        valid_i,
  input  codesign_pkg::instr_t instr_i,

  // execution
  output codesign_pkg::instr_t instr_o,    // held while its unit works
  output logic        load_start_o,
  output logic        store_start_o,
  output logic        norm_start_o,
  output logic        route_start_o,
  output logic        compute_start_o,
  output logic        experts_o,           // an EXPERTS instruction is under execution: the queues are final
  input  logic        load_done_i,
  input  logic        store_done_i,
  input  logic        norm_done_i,
  input  logic        route_done_i,
  input  logic        compute_done_i,

  // errors and the way back to idle
  input  logic        read_error_i,
  input  logic        write_error_i,
  output logic        flush_o,             // readers and loader: drop what is left
  input  logic        readers_idle_i,

  // for a profile in simulation: instruction index_o is complete
  output logic        instr_done_o
);
  localparam int unsigned StoreBits = $clog2(codesign_pkg::MaxInstructions * codesign_pkg::InstructionBeats);

  typedef enum logic [3:0] {
    StIdle,
    StProgram,   // the Program's beats go to the store
    StRequest,
    StFetch,
    StDecode,
    StRun,
    StNext,
    StFlush,
    StDone
  } state_t;

  state_t               state_q;
  codesign_pkg::instr_t instr_q;
  codesign_pkg::status_t status_q, run_status_q;
  logic [31:0]          cycles_q, run_cycles_q;
  logic [15:0]          index_q;
  logic [StoreBits-1:0] beat_q;
  logic                 legal, last_beat, last_instr, finished, route_pending_q, unit_pending_q, too_long;
  logic                 op_load, op_store, op_norm, op_route, op_experts, op_compute;

  assign op_load    = instr_q.opcode == codesign_pkg::OpLoad;
  assign op_store   = instr_q.opcode == codesign_pkg::OpStore;
  assign op_norm    = instr_q.opcode == codesign_pkg::OpNorm;
  assign op_route   = instr_q.opcode == codesign_pkg::OpRoute;
  assign op_experts = instr_q.opcode == codesign_pkg::OpExperts;
  assign op_compute = op_route || op_experts || (instr_q.opcode == codesign_pkg::OpLinear) ||
                      (instr_q.opcode == codesign_pkg::OpAttention);
  assign legal      = op_load || op_store || op_norm || op_compute;

  assign too_long   = num_instructions_i > codesign_pkg::MaxInstructions;
  assign last_beat  = 32'(beat_q) == (num_instructions_i << $clog2(codesign_pkg::InstructionBeats)) - 32'd1;
  assign last_instr = 32'(index_q) == num_instructions_i - 32'd1;
  assign finished   = (!route_pending_q || route_done_i) &&
                      (!unit_pending_q || load_done_i || store_done_i || norm_done_i || compute_done_i);

  assign beat_ready_o     = state_q == StProgram;
  assign store_we_o       = beat_ready_o && beat_valid_i;
  assign store_waddr_o    = beat_q;
  assign program_loaded_o = (state_q == StRequest) && (index_q == 16'd0);
  assign loader_start_o   = (state_q == StIdle) && start_i && (num_instructions_i != 0) && !too_long;
  assign req_o            = state_q == StRequest;
  assign index_o          = index_q;
  assign instr_o          = instr_q;
  assign load_start_o     = (state_q == StDecode) && op_load;
  assign store_start_o    = (state_q == StDecode) && op_store;
  assign norm_start_o     = (state_q == StDecode) && op_norm;
  assign route_start_o    = (state_q == StDecode) && op_route;
  assign compute_start_o  = (state_q == StDecode) && op_compute;
  assign experts_o        = (state_q == StRun) && op_experts;
  assign flush_o          = state_q == StFlush;
  assign done_o           = state_q == StDone;
  assign status_o         = status_q;
  assign cycles_o         = cycles_q;
  assign instr_done_o     = state_q == StNext;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= StIdle;
    end else begin
      unique case (state_q)
        StIdle:    if (start_i) state_q <= loader_start_o ? StProgram : StFlush;
        StProgram: if (beat_valid_i && last_beat) state_q <= (run_status_q != codesign_pkg::StatusOk) ? StFlush : StRequest;
        StRequest: if (gnt_i) state_q <= StFetch;
        StFetch:   if (valid_i) state_q <= StDecode;
        StDecode:  state_q <= legal ? StRun : StFlush;
        StRun:     if (finished) state_q <= StNext;
        StNext:    state_q <= (last_instr || run_status_q != codesign_pkg::StatusOk) ? StFlush : StRequest;
        StFlush:   if (readers_idle_i) state_q <= StDone;
        StDone:    state_q <= StIdle;
        default:   state_q <= StIdle;
      endcase
    end
  end

  // The first error decides the status of the run.
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      run_status_q <= codesign_pkg::StatusOk;
      status_q     <= codesign_pkg::StatusOk;
      run_cycles_q <= 32'd0;
      cycles_q     <= 32'd0;
    end else begin
      if (state_q == StIdle) begin
        run_status_q <= (start_i && too_long) ? codesign_pkg::StatusIllegalInstruction : codesign_pkg::StatusOk;
      end else if (run_status_q == codesign_pkg::StatusOk) begin
        if (read_error_i)                           run_status_q <= codesign_pkg::StatusReadError;
        else if (write_error_i)                     run_status_q <= codesign_pkg::StatusWriteError;
        else if ((state_q == StDecode) && !legal)   run_status_q <= codesign_pkg::StatusIllegalInstruction;
      end
      run_cycles_q <= (state_q == StIdle) ? 32'd1 : run_cycles_q + 32'd1;
      if ((state_q == StFlush) && readers_idle_i) begin
        status_q <= run_status_q;
        cycles_q <= run_cycles_q + 32'd1;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (state_q == StIdle) begin
      index_q <= 16'd0;
      beat_q  <= '0;
    end else begin
      if (store_we_o) beat_q <= beat_q + StoreBits'(1);
      if (state_q == StNext) index_q <= index_q + 16'd1;
    end
    if (state_q == StFetch) instr_q <= instr_i;
    if (state_q == StDecode) begin
      route_pending_q <= op_route;
      unit_pending_q  <= 1'b1;
    end else begin
      if (route_done_i) route_pending_q <= 1'b0;
      if (load_done_i || store_done_i || norm_done_i || compute_done_i) unit_pending_q <= 1'b0;
    end
  end
endmodule
