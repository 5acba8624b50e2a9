// SPDX-License-Identifier: Apache-2.0
//
// act_memory and res_memory with flat ports.
module tb_act_memory (
  input  logic        clk_i,
  input  logic        a_ren_i,
  input  logic [15:0] a_word_i,
  input  logic [3:0]  a_granule_i,
  output logic [codesign_pkg::Simd*8-1:0] a_data_o,
  input  logic        b_req_i,
  input  logic [15:0] b_word_i,
  input  logic [3:0]  b_granule_i,
  output logic        b_ready_o,
  output logic [codesign_pkg::Simd*8-1:0] b_data_o,
  input  logic        w_valid_i,
  input  logic [15:0] w_word_i,
  input  logic [3:0]  w_granule_i,
  input  logic [codesign_pkg::Simd*8-1:0] w_data_i,
  input  logic [codesign_pkg::Simd-1:0] w_mask_i,
  input  logic        res_a_ren_i,
  input  logic [15:0] res_a_addr_i,
  output logic [codesign_pkg::Pe*16-1:0] res_a_data_o,
  input  logic        res_b_ren_i,
  input  logic [15:0] res_b_addr_i,
  output logic [codesign_pkg::Pe*16-1:0] res_b_data_o,
  input  logic        res_we_i,
  input  logic [15:0] res_waddr_i,
  input  logic [codesign_pkg::Pe*16-1:0] res_wdata_i
);
  localparam int unsigned ActAddrBits = codesign_pkg::ActAddrBits;
  localparam int unsigned ResAddrBits = codesign_pkg::ResAddrBits;
  localparam int unsigned GranuleBits = codesign_pkg::GranuleBits;

  act_memory u_act (
    .clk_i,
    .a_ren_i,
    .a_word_i   (ActAddrBits'(a_word_i)),
    .a_granule_i(GranuleBits'(a_granule_i)),
    .a_data_o,
    .b_req_i,
    .b_word_i   (ActAddrBits'(b_word_i)),
    .b_granule_i(GranuleBits'(b_granule_i)),
    .b_ready_o,
    .b_data_o,
    .w_valid_i,
    .w_word_i   (ActAddrBits'(w_word_i)),
    .w_granule_i(GranuleBits'(w_granule_i)),
    .w_data_i,
    .w_mask_i
  );

  res_memory u_res (
    .clk_i,
    .a_ren_i (res_a_ren_i),
    .a_addr_i(ResAddrBits'(res_a_addr_i)),
    .a_data_o(res_a_data_o),
    .b_ren_i (res_b_ren_i),
    .b_addr_i(ResAddrBits'(res_b_addr_i)),
    .b_data_o(res_b_data_o),
    .we_i    (res_we_i),
    .waddr_i (ResAddrBits'(res_waddr_i)),
    .wdata_i (res_wdata_i)
  );
endmodule
