// SPDX-License-Identifier: Apache-2.0
//
// load_unit and store_unit on act_memory and res_memory, with flat ports. Python plays the block FIFO, the queue memory, the
// other writers of ACT (hold_i) and DRAM.
module tb_load_store (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         load_start_i,
  input  logic         store_start_i,
  input  logic         flush_i,
  input  logic [codesign_pkg::InstructionBits-1:0] instr_i,
  output logic         load_done_o,
  output logic [3:0]   load_state_o,
  output logic         store_done_o,
  output logic [3:0]   store_state_o,
  output logic         store_idle_o,
  output logic         error_o,
  input  logic         block_avail_i,
  output logic         block_pop_o,
  input  logic [codesign_pkg::BlockBits-1:0] block_i,
  output logic         block_done_o,
  input  logic         hold_i,             // another unit writes ACT in this cycle: its last word, no lane
  input  logic [63:0]  output_base_i,
  input  logic [31:0]  output_stripe_i,
  output logic         queue_ren_o,
  output logic [15:0]  queue_addr_o,
  input  logic [31:0]  queue_data_i,
  output logic [codesign_pkg::Ports*64-1:0]  awaddr_o,
  output logic [codesign_pkg::Ports*8-1:0]   awlen_o,
  output logic [codesign_pkg::Ports-1:0]     awvalid_o,
  input  logic [codesign_pkg::Ports-1:0]     awready_i,
  output logic [codesign_pkg::Ports*128-1:0] wdata_o,
  output logic [codesign_pkg::Ports*16-1:0]  wstrb_o,
  output logic [codesign_pkg::Ports-1:0]     wlast_o,
  output logic [codesign_pkg::Ports-1:0]     wvalid_o,
  input  logic [codesign_pkg::Ports-1:0]     wready_i,
  input  logic [codesign_pkg::Ports*2-1:0]   bresp_i,
  input  logic [codesign_pkg::Ports-1:0]     bvalid_i,
  output logic [codesign_pkg::Ports-1:0]     bready_o
);
  localparam int unsigned Simd = codesign_pkg::Simd;
  localparam int unsigned Pe   = codesign_pkg::Pe;

  logic                                   w_valid, w_ready, act_req, act_gnt, res_ren, res_we;
  logic [codesign_pkg::ActAddrBits-1:0]   w_word, act_word;
  logic [codesign_pkg::ResAddrBits-1:0]   res_addr, res_waddr;
  logic [codesign_pkg::QueueAddrBits-1:0] queue_addr;
  logic [Simd-1:0][7:0]                   w_data, act_data, unused_a;
  logic [Pe-1:0][15:0]                    res_data, res_wdata, unused_res_a;

  assign queue_addr_o = 16'(queue_addr);
  assign w_ready      = !hold_i;

  load_unit u_load (
    .clk_i,
    .rst_ni,
    .start_i      (load_start_i),
    .instr_i,
    .done_o       (load_done_o),
    .state_o      (load_state_o),
    .block_avail_i,
    .block_pop_o,
    .block_i,
    .block_done_o,
    .w_valid_o    (w_valid),
    .w_ready_i    (w_ready),
    .w_word_o     (w_word),
    .w_data_o     (w_data),
    .res_we_o     (res_we),
    .res_waddr_o  (res_waddr),
    .res_wdata_o  (res_wdata)
  );

  act_memory u_act (
    .clk_i,
    .a_ren_i    (1'b0),
    .a_word_i   ('0),
    .a_granule_i('0),
    .a_data_o   (unused_a),
    .b_req_i    (act_req),
    .b_word_i   (act_word),
    .b_granule_i('0),
    .b_ready_o  (act_gnt),
    .b_data_o   (act_data),
    .w_valid_i  (w_valid || hold_i),
    .w_word_i   (hold_i ? codesign_pkg::ActAddrBits'(codesign_pkg::ActWords - 1) : w_word),
    .w_granule_i('0),
    .w_data_i   (w_data),
    .w_mask_i   (hold_i ? '0 : '1)
  );

  res_memory u_res (
    .clk_i,
    .a_ren_i (1'b0),
    .a_addr_i('0),
    .a_data_o(unused_res_a),
    .b_ren_i (res_ren),
    .b_addr_i(res_addr),
    .b_data_o(res_data),
    .we_i    (res_we),
    .waddr_i (res_waddr),
    .wdata_i (res_wdata)
  );

  store_unit u_store (
    .clk_i,
    .rst_ni,
    .start_i      (store_start_i),
    .flush_i,
    .instr_i,
    .done_o       (store_done_o),
    .state_o      (store_state_o),
    .idle_o       (store_idle_o),
    .error_o,
    .output_base_i,
    .output_stripe_i,
    .act_req_o    (act_req),
    .act_word_o   (act_word),
    .act_gnt_i    (act_gnt),
    .act_data_i   (act_data),
    .res_ren_o    (res_ren),
    .res_addr_o   (res_addr),
    .res_data_i   (res_data),
    .queue_ren_o,
    .queue_addr_o (queue_addr),
    .queue_data_i,
    .m_axi_awaddr (awaddr_o),
    .m_axi_awlen  (awlen_o),
    .m_axi_awvalid(awvalid_o),
    .m_axi_awready(awready_i),
    .m_axi_wdata  (wdata_o),
    .m_axi_wstrb  (wstrb_o),
    .m_axi_wlast  (wlast_o),
    .m_axi_wvalid (wvalid_o),
    .m_axi_wready (wready_i),
    .m_axi_bresp  (bresp_i),
    .m_axi_bvalid (bvalid_i),
    .m_axi_bready (bready_o)
  );
endmodule
