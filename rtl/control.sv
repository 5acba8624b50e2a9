// SPDX-License-Identifier: Apache-2.0
//
// The control side: a run from start to done, the Program, its instructions in order, and what ties the units together while
// several instructions are in flight.
module control #(
  parameter int unsigned LineAddrBits = $clog2(codesign_pkg::MaxInstructions * codesign_pkg::InstructionBeats / codesign_pkg::Ports)
) (
  input  logic        clk_i,
  input  logic        rst_ni,

  // registers
  input  logic        start_i,
  input  logic [31:0] num_instructions_i,
  input  logic [31:0] watchdog_i,
  output logic        done_o,
  output codesign_pkg::status_t status_o,
  output logic [31:0] cycles_o,
  output logic [31:0] fault_o,
  output logic [31:0] unit_state_o,

  output logic        unit_rst_no,
  output codesign_pkg::instr_t instr_o,    // of the unit that starts

  // block stream and its Program lines
  output logic        fetch_start_o,
  output logic        flush_o,
  input  logic        quiet_i,
  input  logic        program_we_i,
  input  logic [LineAddrBits-1:0] program_waddr_i,
  input  logic [codesign_pkg::Ports*codesign_pkg::BeatBits-1:0] program_line_i,
  output logic        program_loaded_o,
  input  logic        fetcher_req_i,
  input  logic [15:0] fetcher_index_i,
  output logic        fetcher_gnt_o,
  output logic        fetcher_valid_o,
  output codesign_pkg::instr_t fetcher_instr_o,
  output logic [15:0] completed_o,
  input  logic        block_avail_i,
  output logic [2:0]  block_avail_o,       // array, norm, load from bit 0
  input  logic [2:0]  block_done_i,
  input  logic        read_error_i,
  input  logic        write_error_i,

  // units
  output logic        load_start_o,
  input  logic        load_done_i,
  output logic        store_start_o,
  input  logic        store_done_i,
  output logic        norm_start_o,
  output logic        norm_chained_o,
  input  logic        norm_done_i,
  input  logic        norm_wait_i,
  output logic        route_start_o,
  input  logic        route_done_i,
  input  logic [codesign_pkg::MaxExperts-1:0][15:0] counts_i,
  output codesign_pkg::pass_t pass_o,
  output logic        pass_valid_o,
  input  logic        pass_ready_i,
  input  logic        array_done_i,
  input  logic [codesign_pkg::RowBits:0] array_rows_i,
  output logic [codesign_pkg::RowBits:0] norm_may_read_o,
  input  logic [codesign_pkg::RowBits:0] norm_rows_i,
  output logic [codesign_pkg::RowBits:0] array_may_read_o,
  input  logic [23:0] unit_states_i        // array, norm, router, load, store, fetch from bit 0
);
  localparam int unsigned Window = 8;      // most instructions in flight

  logic        running, progress, finished, illegal, store_start, load_start;
  logic        req, gnt, valid, issue_start, issuer_idle, issuer_reads, issuer_nothing;
  logic        turn_push, array_dispatch, norm_dispatch, norm_busy, array_done;
  logic [2:0]  turn_consumer;
  logic [3:0]  dispatcher_state, issuer_state;
  logic [15:0] index, completed, available;
  codesign_pkg::instr_t instr, stored;
  codesign_pkg::row_source_t issue_source;

  assign instr_o         = instr;
  assign fetcher_instr_o = stored;
  assign completed_o     = completed;
  assign store_start_o   = store_start && running;   // the store unit is not in unit_rst_no: it may have bursts to complete
  assign load_start_o    = load_start;
  assign array_done      = array_done_i || issuer_nothing;

  run_control u_run_control (
    .clk_i,
    .rst_ni,
    .start_i,
    .num_instructions_i,
    .watchdog_i,
    .done_o,
    .status_o,
    .cycles_o,
    .fault_o,
    .unit_state_o,
    .running_o    (running),
    .unit_rst_no,
    .fetch_start_o,
    .flush_o,
    .quiet_i,
    .completed_i  (completed),
    .progress_i   (progress),
    .finished_i   (finished),
    .illegal_i    (illegal),
    .read_error_i,
    .write_error_i,
    .unit_states_i({unit_states_i, issuer_state, dispatcher_state})
  );

  program_store u_program_store (
    .clk_i,
    .rst_ni            (unit_rst_no),
    .we_i              (program_we_i),
    .waddr_i           (program_waddr_i),
    .line_i            (program_line_i),
    .available_o       (available),
    .dispatcher_req_i  (req),
    .dispatcher_index_i(index),
    .dispatcher_gnt_o  (gnt),
    .dispatcher_valid_o(valid),
    .fetcher_req_i,
    .fetcher_index_i,
    .fetcher_gnt_o,
    .fetcher_valid_o,
    .instr_o           (stored)
  );

  dispatcher #(
    .Window(Window)
  ) u_dispatcher (
    .clk_i,
    .rst_ni            (unit_rst_no),
    .num_instructions_i(num_instructions_i[15:0]),
    .available_i       (available),
    .loaded_o          (program_loaded_o),
    .req_o             (req),
    .index_o           (index),
    .gnt_i             (gnt),
    .valid_i           (valid),
    .instr_i           (stored),
    .instr_o           (instr),
    .load_start_o      (load_start),
    .store_start_o     (store_start),
    .norm_start_o,
    .norm_chained_o,
    .route_start_o,
    .issue_start_o     (issue_start),
    .issue_source_o    (issue_source),
    .turn_push_o       (turn_push),
    .turn_consumer_o   (turn_consumer),
    .array_dispatch_o  (array_dispatch),
    .norm_dispatch_o   (norm_dispatch),
    .issuer_idle_i     (issuer_idle),
    .norm_busy_i       (norm_busy),
    .norm_wait_i,
    .load_done_i,
    .store_done_i,
    .norm_done_i,
    .route_done_i,
    .array_done_i      (array_done),
    .completed_o       (completed),
    .progress_o        (progress),
    .finished_o        (finished),
    .illegal_o         (illegal),
    .state_o           (dispatcher_state)
  );

  pass_issuer u_pass_issuer (
    .clk_i,
    .rst_ni      (unit_rst_no),
    .start_i     (issue_start),
    .instr_i     (instr),
    .source_i    (issue_source),
    .counts_i,
    .idle_o      (issuer_idle),
    .reads_o     (issuer_reads),
    .nothing_o   (issuer_nothing),
    .state_o     (issuer_state),
    .pass_o,
    .pass_valid_o,
    .pass_ready_i
  );

  stream_turn #(
    .Depth(Window)
  ) u_stream_turn (
    .clk_i,
    .rst_ni    (unit_rst_no),
    .push_i    (turn_push || issuer_reads),
    .consumer_i(turn_push ? turn_consumer : 3'b001),
    .avail_i   (block_avail_i),
    .avail_o   (block_avail_o),
    .done_i    (block_done_i)
  );

  chain_tracker u_chain_tracker (
    .clk_i,
    .rst_ni          (unit_rst_no),
    .array_dispatch_i(array_dispatch),
    .array_done_i    (array_done),
    .norm_dispatch_i (norm_dispatch),
    .norm_done_i,
    .norm_busy_o     (norm_busy),
    .array_rows_i,
    .norm_may_read_o,
    .norm_rows_i,
    .array_may_read_o
  );
endmodule
