// SPDX-License-Identifier: Apache-2.0
//
// Which rows a chained instruction may read. A NORM chained on a LINEAR may read the rows which that LINEAR has landed, and
// all of them once it is complete; instructions handed to the array before that LINEAR land before it and are counted off
// first. A pass chained on a NORM may read the rows which the norm unit has finished, and all once it is done.
//
// The array's row count belongs to the last completed instruction until the first result of the next one lands; only a count
// that fell since, or stood at 0, belongs to the next.
module chain_tracker (
  input  logic clk_i,
  input  logic rst_ni,

  input  logic array_dispatch_i,                        // pulse: an instruction goes to the array
  input  logic array_done_i,                            // pulse: the oldest one there is complete
  input  logic norm_dispatch_i,                         // pulse, a cycle before the norm unit starts
  input  logic norm_done_i,                             // pulse
  output logic norm_busy_o,

  input  logic [codesign_pkg::RowBits:0] array_rows_i,
  output logic [codesign_pkg::RowBits:0] norm_may_read_o,
  input  logic [codesign_pkg::RowBits:0] norm_rows_i,
  output logic [codesign_pkg::RowBits:0] array_may_read_o
);
  localparam int unsigned RowBits = codesign_pkg::RowBits;
  localparam logic [1:0]  Settle  = 2'd3;   // cycles until a 0 after array_done_i cannot be an old one

  logic [3:0]       in_array_q, ahead_q;    // instructions in the array; of these, up to the NORM's predecessor
  logic             stale_q, norm_busy_q, may_all_q, may_rows_q;
  logic [1:0]       settle_q;
  logic [RowBits:0] rows_q;
  logic [3:0]       in_array_d, ahead_d;
  logic             stale_d;

  assign norm_busy_o = norm_busy_q;
  assign in_array_d  = in_array_q + 4'(array_dispatch_i) - 4'(array_done_i);

  always_comb begin
    ahead_d = ahead_q;
    if (norm_dispatch_i)                      ahead_d = in_array_d;
    else if (array_done_i && ahead_q != 4'd0) ahead_d = ahead_q - 4'd1;
    stale_d = stale_q;
    if (array_done_i)                                                                        stale_d = 1'b1;
    else if (array_rows_i < rows_q || (array_rows_i == '0 && settle_q == 2'd0))              stale_d = 1'b0;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      in_array_q  <= 4'd0;
      ahead_q     <= 4'd0;
      stale_q     <= 1'b0;
      settle_q    <= 2'd0;
      norm_busy_q <= 1'b0;
      may_all_q   <= 1'b0;
      may_rows_q  <= 1'b0;
    end else begin
      in_array_q <= in_array_d;
      ahead_q    <= ahead_d;
      stale_q    <= stale_d;
      if (array_done_i)          settle_q <= Settle;
      else if (settle_q != 2'd0) settle_q <= settle_q - 2'd1;
      if (norm_dispatch_i)       norm_busy_q <= 1'b1;
      else if (norm_done_i)      norm_busy_q <= 1'b0;
      may_all_q  <= ahead_d == 4'd0;
      may_rows_q <= (ahead_d == 4'd1) && !stale_d;
    end
    rows_q <= array_rows_i;
  end

  assign norm_may_read_o  = may_all_q ? '1 : may_rows_q ? array_rows_i : '0;
  assign array_may_read_o = norm_busy_q ? norm_rows_i : '1;
endmodule
