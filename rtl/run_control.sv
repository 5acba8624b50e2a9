// SPDX-License-Identifier: Apache-2.0
//
// A run from the host's start to done: lets go of the units, watches for errors, and brings everything back to rest. The units
// are in reset except during a run, so nothing of one run reaches the next. Transfers on AXI are never cut off: a run ends, and
// the next begins, when none is outstanding. Only after a HANG, when they may never return, done does not wait for them.
module run_control (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        start_i,             // level, until done_o
  input  logic [31:0] num_instructions_i,
  input  logic [31:0] watchdog_i,
  output logic        done_o,              // pulse
  output codesign_pkg::status_t status_o,
  output logic [31:0] cycles_o,
  output logic [31:0] fault_o,
  output logic [31:0] unit_state_o,

  output logic        running_o,
  output logic        unit_rst_no,         // the units' reset: low unless running
  output logic        fetch_start_o,       // pulse
  output logic        flush_o,             // pulse: forget what was read ahead
  input  logic        quiet_i,             // no transfer is outstanding, nothing more will be asked for

  input  logic [15:0] completed_i,
  input  logic        progress_i,
  input  logic        finished_i,
  input  logic        illegal_i,
  input  logic        read_error_i,
  input  logic        write_error_i,
  input  logic [31:0] unit_states_i
);
  typedef enum logic [2:0] {
    StIdle,
    StClear,     // transfers of a run that hung may still be outstanding
    StRun,
    StStop,
    StDrain,
    StDone
  } state_t;

  localparam int unsigned GraceBits = 10;  // cycles given to outstanding transfers after a HANG: 2**GraceBits

  state_t                state_q, state_d;
  codesign_pkg::status_t run_status_q, status_q, error;
  logic [31:0]           run_cycles_q, cycles_q, run_unit_state_q, unit_state_q, fault_q;
  logic [15:0]           run_fault_q;
  logic [GraceBits:0]    grace_q;
  logic                  unit_rst_q, quiet_q, expired, too_long_q, none_q, settled, give_up;

  watchdog u_watchdog (
    .clk_i,
    .rst_ni,
    .kick_i   (progress_i || state_q == StIdle || state_q == StStop),
    .limit_i  (watchdog_i),
    .expired_o(expired)
  );

  assign settled = grace_q[GraceBits:2] != '0;
  assign give_up = (run_status_q == codesign_pkg::StatusHang) ? grace_q[GraceBits] : expired;

  // The first error decides the status of the run.
  always_comb begin
    error = codesign_pkg::StatusOk;
    if (state_q == StRun) begin
      if (read_error_i)       error = codesign_pkg::StatusReadError;
      else if (write_error_i) error = codesign_pkg::StatusWriteError;
      else if (illegal_i)     error = codesign_pkg::StatusIllegalInstruction;
      else if (expired)       error = codesign_pkg::StatusHang;
    end else if (state_q == StClear) begin
      if (too_long_q)         error = codesign_pkg::StatusIllegalInstruction;
      else if (expired)       error = codesign_pkg::StatusHang;
    end
  end

  always_comb begin
    state_d = state_q;
    unique case (state_q)
      StIdle:  if (start_i) state_d = StClear;
      StClear:
        if (error != codesign_pkg::StatusOk) state_d = StStop;
        else if (none_q)                     state_d = StDone;
        else if (quiet_q)                    state_d = StRun;
      StRun:   if (error != codesign_pkg::StatusOk || finished_i) state_d = StStop;
      StStop:  state_d = StDrain;
      StDrain: if ((settled && quiet_q) || give_up) state_d = StDone;
      default: state_d = StIdle;
    endcase
  end

  assign running_o     = state_q == StRun;
  assign unit_rst_no   = unit_rst_q;
  assign flush_o       = state_q == StStop;
  assign done_o        = state_q == StDone;
  assign status_o      = status_q;
  assign cycles_o      = cycles_q;
  assign fault_o       = fault_q;
  assign unit_state_o  = unit_state_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q       <= StIdle;
      unit_rst_q    <= 1'b0;
      quiet_q       <= 1'b0;
      fetch_start_o <= 1'b0;
      status_q      <= codesign_pkg::StatusOk;
      cycles_q      <= 32'd0;
      fault_q       <= 32'd0;
      unit_state_q  <= 32'd0;
    end else begin
      state_q       <= state_d;
      unit_rst_q    <= state_d == StRun;
      quiet_q       <= quiet_i;
      fetch_start_o <= (state_q == StClear) && (state_d == StRun);
      if (state_d == StDone) begin
        status_q     <= run_status_q;
        cycles_q     <= run_cycles_q + 32'd1;
        fault_q      <= 32'(run_fault_q);
        unit_state_q <= run_unit_state_q;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    too_long_q   <= num_instructions_i > codesign_pkg::MaxInstructions;
    none_q       <= num_instructions_i == 32'd0;
    run_cycles_q <= (state_q == StIdle) ? 32'd1 : run_cycles_q + 32'd1;
    grace_q      <= (state_q == StDrain) ? grace_q + (GraceBits + 1)'(!grace_q[GraceBits]) : '0;
    if (state_q == StIdle) begin
      run_status_q     <= codesign_pkg::StatusOk;
      run_fault_q      <= 16'd0;
      run_unit_state_q <= 32'd0;
    end else if (error != codesign_pkg::StatusOk) begin
      run_status_q     <= error;
      run_fault_q      <= (state_q == StRun) ? completed_i : 16'd0;
      run_unit_state_q <= unit_states_i;
    end
  end
endmodule
