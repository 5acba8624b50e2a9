// SPDX-License-Identifier: Apache-2.0
//
// Counts the rows that have landed, for the pass behind and for the norm unit, and the passes that wait for the norm unit.
module row_tracker #(
  parameter int unsigned RowBits = codesign_pkg::RowBits,
  parameter int unsigned TagBits = 3
) (
  input  logic               clk_i,
  input  logic               rst_ni,
  input  logic               norm_pass_i,    // a pass whose rows come from the norm unit is accepted
  input  logic               norm_seen_i,    // one has seen all of them
  output logic               norm_wait_o,    // some have not
  // the row that lands, if it is a row's last result of its pass
  input  logic               landed_row_i,
  input  logic [RowBits-1:0] row_i,
  input  logic               landed_i,       // with or after the last one: its pass is complete
  input  logic               last_i,         // the pass is the last one of its instruction
  output logic [RowBits:0]   landed_rows_o,  // rows of the oldest pass
  output logic [RowBits:0]   rows_o,         // rows of the last pass of an instruction
  output logic               done_o          // pulse: it is complete
);

  logic [RowBits:0] landed_rows_q, rows_q, rows;
  logic [TagBits:0] norm_waits_q;
  logic             done_q;

  assign rows = (RowBits+1)'(row_i) + (RowBits+1)'(1);
  assign landed_rows_o = landed_rows_q;
  assign rows_o = rows_q;
  assign done_o = done_q;
  assign norm_wait_o = norm_waits_q != '0;

  always_ff @(posedge clk_i) begin
    done_q <= landed_i && last_i;
    if (landed_i) landed_rows_q <= '0;
    else if (landed_row_i) landed_rows_q <= rows;
    if (landed_row_i && last_i) rows_q <= rows;
    else if (done_q) rows_q <= '0;
    norm_waits_q <= norm_waits_q - (TagBits+1)'(norm_seen_i) + (TagBits+1)'(norm_pass_i);
    if (!rst_ni) begin
      done_q <= 1'b0;
      landed_rows_q <= '0;
      rows_q <= '0;
      norm_waits_q <= '0;
    end
  end

endmodule
