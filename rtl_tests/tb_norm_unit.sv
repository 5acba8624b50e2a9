// SPDX-License-Identifier: Apache-2.0
//
// norm_unit with flat ports, on a residual memory that Python writes.
module tb_norm_unit (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         start_i,
  input  logic [511:0] instr_i,
  input  logic         chained_i,
  input  logic [15:0]  rows_ready_i,
  output logic [15:0]  rows_o,
  output logic         done_o,
  output logic [3:0]   state_o,
  input  logic         block_avail_i,
  output logic         block_pop_o,
  input  logic [codesign_pkg::BlockBits-1:0] block_i,
  output logic         block_done_o,
  input  logic         res_we_i,
  input  logic [15:0]  res_waddr_i,
  input  logic [codesign_pkg::Pe*16-1:0] res_wdata_i,
  output logic         res_ren_o,
  output logic         w_valid_o,
  input  logic         w_ready_i,
  output logic [15:0]  w_word_o,
  output logic [3:0]   w_granule_o,
  output logic [codesign_pkg::Pe*8-1:0] w_data_o
);
  localparam int unsigned RowBits = codesign_pkg::RowBits;
  localparam int unsigned ResAddrBits = codesign_pkg::ResAddrBits;

  codesign_pkg::instr_t                   instr;
  logic [RowBits:0]                       rows;
  logic [ResAddrBits-1:0]                 res_raddr;
  logic [codesign_pkg::Pe*16-1:0]         res_rdata;
  logic [codesign_pkg::ActAddrBits-1:0]   w_word;
  logic [codesign_pkg::GranuleBits-1:0]   w_granule;

  assign instr = instr_i;
  assign rows_o = 16'(rows);
  assign w_word_o = 16'(w_word);
  assign w_granule_o = 4'(w_granule);

  norm_unit u_norm (
    .clk_i, .rst_ni, .start_i, .instr_i(instr), .chained_i, .rows_ready_i(rows_ready_i[RowBits:0]), .rows_o(rows), .done_o, .state_o,
    .block_avail_i, .block_pop_o, .block_i, .block_done_o,
    .res_ren_o, .res_raddr_o(res_raddr), .res_rdata_i(res_rdata),
    .w_valid_o, .w_ready_i, .w_word_o(w_word), .w_granule_o(w_granule), .w_data_o
  );

  sdp_ram #(.Width(codesign_pkg::Pe * 16), .Depth(codesign_pkg::ResWords)) u_res (
    .clk_i, .we_i(res_we_i), .waddr_i(ResAddrBits'(res_waddr_i)), .wdata_i(res_wdata_i),
    .ren_i(res_ren_o), .raddr_i(res_raddr), .rdata_o(res_rdata)
  );
endmodule
