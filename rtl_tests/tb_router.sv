// SPDX-License-Identifier: Apache-2.0
//
// router with flat ports.
module tb_router (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         start_i,
  input  logic [511:0] instr_i,
  output logic         done_o,
  output logic [3:0]   state_o,
  input  logic         logits_valid_i,
  input  logic [15:0]  logits_row_i,
  input  logic [codesign_pkg::Pe*16-1:0] logits_i,
  output logic         queue_we_o,
  output logic [23:0]  queue_waddr_o,
  output logic [31:0]  queue_wdata_o,
  output logic [codesign_pkg::MaxExperts*16-1:0] counts_o
);
  codesign_pkg::instr_t                   instr;
  logic [codesign_pkg::QueueAddrBits-1:0] queue_waddr;

  assign instr = instr_i;
  assign queue_waddr_o = 24'(queue_waddr);

  router u_router (
    .clk_i, .rst_ni, .start_i, .instr_i(instr), .done_o, .state_o,
    .logits_valid_i, .logits_row_i(logits_row_i[codesign_pkg::RowBits-1:0]), .logits_i,
    .queue_we_o, .queue_waddr_o(queue_waddr), .queue_wdata_o, .counts_o
  );
endmodule
