// SPDX-License-Identifier: Apache-2.0
//
// The machine between its registers and its AXI masters (docs/machine.md): control side, block stream, units and memories.
// Only chained instructions run side by side, and those are made for it: the array and the norm unit have ports of their own
// on ACT and RES. What a LOAD, a STORE or the router uses, nothing else uses meanwhile.
module machine_core (
  input  logic        clk_i,
  input  logic        rst_ni,

  // registers: these hold during a run
  input  logic        start_i,             // until done_o
  input  logic [63:0] memory_base_i,
  input  logic [63:0] input_base_i,
  input  logic [63:0] output_base_i,
  input  logic [31:0] memory_stripe_i,
  input  logic [31:0] input_stripe_i,
  input  logic [31:0] output_stripe_i,
  input  logic [31:0] program_addr_i,
  input  logic [31:0] num_instructions_i,
  input  logic [31:0] watchdog_i,
  output logic        done_o,              // pulse
  output codesign_pkg::status_t status_o,
  output logic [31:0] cycles_o,
  output logic [31:0] fault_o,
  output logic [31:0] unit_state_o,

  // port m touches stripe m
  output logic [codesign_pkg::Ports-1:0][63:0]  m_axi_araddr,
  output logic [codesign_pkg::Ports-1:0][7:0]   m_axi_arlen,
  output logic [codesign_pkg::Ports-1:0]        m_axi_arvalid,
  input  logic [codesign_pkg::Ports-1:0]        m_axi_arready,
  input  logic [codesign_pkg::Ports-1:0][127:0] m_axi_rdata,
  input  logic [codesign_pkg::Ports-1:0][1:0]   m_axi_rresp,
  input  logic [codesign_pkg::Ports-1:0]        m_axi_rlast,
  input  logic [codesign_pkg::Ports-1:0]        m_axi_rvalid,
  output logic [codesign_pkg::Ports-1:0]        m_axi_rready,
  output logic [codesign_pkg::Ports-1:0][63:0]  m_axi_awaddr,
  output logic [codesign_pkg::Ports-1:0][7:0]   m_axi_awlen,
  output logic [codesign_pkg::Ports-1:0]        m_axi_awvalid,
  input  logic [codesign_pkg::Ports-1:0]        m_axi_awready,
  output logic [codesign_pkg::Ports-1:0][127:0] m_axi_wdata,
  output logic [codesign_pkg::Ports-1:0][15:0]  m_axi_wstrb,
  output logic [codesign_pkg::Ports-1:0]        m_axi_wlast,
  output logic [codesign_pkg::Ports-1:0]        m_axi_wvalid,
  input  logic [codesign_pkg::Ports-1:0]        m_axi_wready,
  input  logic [codesign_pkg::Ports-1:0][1:0]   m_axi_bresp,
  input  logic [codesign_pkg::Ports-1:0]        m_axi_bvalid,
  output logic [codesign_pkg::Ports-1:0]        m_axi_bready
);
  localparam int unsigned Simd          = codesign_pkg::Simd;
  localparam int unsigned Pe            = codesign_pkg::Pe;
  localparam int unsigned RowBits       = codesign_pkg::RowBits;
  localparam int unsigned ActAddrBits   = codesign_pkg::ActAddrBits;
  localparam int unsigned ResAddrBits   = codesign_pkg::ResAddrBits;
  localparam int unsigned GranuleBits   = codesign_pkg::GranuleBits;
  localparam int unsigned QueueAddrBits = codesign_pkg::QueueAddrBits;
  localparam int unsigned LineAddrBits  =
      $clog2(codesign_pkg::MaxInstructions * codesign_pkg::InstructionBeats / codesign_pkg::Ports);

  // ---- control ----
  codesign_pkg::instr_t instr, fetched;
  codesign_pkg::pass_t  pass;
  logic        unit_rst_n, fetch_start, flush, program_we, program_loaded, fetch_req, fetch_gnt, fetch_valid;
  logic        stream_idle, store_idle, read_error, write_error, block_avail;
  logic        load_start, load_done, store_start, store_done, norm_start, norm_chained, norm_done, norm_wait;
  logic        route_start, route_done, pass_valid, pass_ready, array_done;
  logic [2:0]  unit_avail, unit_pop, unit_last;   // array, norm unit, load unit
  logic [15:0] fetch_index, completed;
  logic [LineAddrBits-1:0]                   program_waddr;
  logic [codesign_pkg::Ports*128-1:0]        program_line;
  logic [codesign_pkg::BlockBits-1:0]        block;
  logic [codesign_pkg::MaxExperts-1:0][15:0] counts;
  logic [RowBits:0]                          array_rows, norm_rows, norm_may_read, array_may_read;
  logic [3:0]  array_state, norm_state, router_state, load_state, store_state, fetch_state;

  control u_control (
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
    .unit_rst_no     (unit_rst_n),
    .instr_o         (instr),
    .fetch_start_o   (fetch_start),
    .flush_o         (flush),
    .quiet_i         (stream_idle && store_idle),
    .program_we_i    (program_we),
    .program_waddr_i (program_waddr),
    .program_line_i  (program_line),
    .program_loaded_o(program_loaded),
    .fetcher_req_i   (fetch_req),
    .fetcher_index_i (fetch_index),
    .fetcher_gnt_o   (fetch_gnt),
    .fetcher_valid_o (fetch_valid),
    .fetcher_instr_o (fetched),
    .completed_o     (completed),
    .block_avail_i   (block_avail),
    .block_avail_o   (unit_avail),
    .block_done_i    (unit_last),
    .read_error_i    (read_error),
    .write_error_i   (write_error),
    .load_start_o    (load_start),
    .load_done_i     (load_done),
    .store_start_o   (store_start),
    .store_done_i    (store_done),
    .norm_start_o    (norm_start),
    .norm_chained_o  (norm_chained),
    .norm_done_i     (norm_done),
    .norm_wait_i     (norm_wait),
    .route_start_o   (route_start),
    .route_done_i    (route_done),
    .counts_i        (counts),
    .pass_o          (pass),
    .pass_valid_o    (pass_valid),
    .pass_ready_i    (pass_ready),
    .array_done_i    (array_done),
    .array_rows_i    (array_rows),
    .norm_may_read_o (norm_may_read),
    .norm_rows_i     (norm_rows),
    .array_may_read_o(array_may_read),
    .unit_states_i   ({fetch_state, store_state, load_state, router_state, norm_state, array_state})
  );

  // ---- DRAM ----
  block_stream u_block_stream (
    .clk_i,
    .rst_ni,
    .start_i           (fetch_start),
    .flush_i           (flush),
    .memory_base_i,
    .input_base_i,
    .output_base_i,
    .memory_stripe_i,
    .input_stripe_i,
    .output_stripe_i,
    .program_addr_i,
    .num_instructions_i(num_instructions_i[15:0]),
    .program_we_o      (program_we),
    .program_waddr_o   (program_waddr),
    .program_line_o    (program_line),
    .program_loaded_i  (program_loaded),
    .req_o             (fetch_req),
    .index_o           (fetch_index),
    .gnt_i             (fetch_gnt),
    .valid_i           (fetch_valid),
    .instr_i           (fetched),
    .completed_i       (completed),
    .counts_i          (counts),
    .block_avail_o     (block_avail),
    .block_pop_i       (|unit_pop),
    .block_o           (block),
    .state_o           (fetch_state),
    .idle_o            (stream_idle),
    .error_o           (read_error),
    .m_axi_araddr,
    .m_axi_arlen,
    .m_axi_arvalid,
    .m_axi_arready,
    .m_axi_rdata,
    .m_axi_rresp,
    .m_axi_rlast,
    .m_axi_rvalid,
    .m_axi_rready
  );

  logic [Simd-1:0][7:0]     act_a_data, act_b_data, act_w_data, unified_w_data, load_w_data;
  logic [Simd-1:0]          act_w_mask, unified_w_mask;
  logic [Pe-1:0][7:0]       norm_w_data;
  logic                     act_a_ren, act_b_ready, unified_b_req, store_b_req, act_w_valid, storing, loading;
  logic                     unified_w_valid, norm_w_valid, norm_w_ready, load_w_valid, load_w_ready;
  logic [ActAddrBits-1:0]   act_a_word, unified_b_word, store_b_word, act_w_word, unified_w_word, norm_w_word, load_w_word;
  logic [GranuleBits-1:0]   act_a_granule, unified_b_granule, act_w_granule, unified_w_granule, norm_w_granule;
  logic                     res_a_ren, norm_res_ren, store_res_ren, unified_res_we, load_res_we;
  logic [ResAddrBits-1:0]   res_a_addr, norm_res_addr, store_res_addr, unified_res_waddr, load_res_waddr;
  logic [Pe-1:0][15:0]      res_a_data, res_b_data, unified_res_wdata, load_res_wdata;
  logic                     unified_queue_ren, store_queue_ren, queue_we;
  logic [QueueAddrBits-1:0] unified_queue_addr, store_queue_addr, queue_waddr;
  logic [31:0]              queue_rdata, queue_wdata;

  // Who has the shared ports follows from registers, so that no path leads through two units.
  assign storing = store_state != 4'd0;
  assign loading = load_state != 4'd0;

  // Not in unit_rst_n: bursts that have begun must be completed. flush_i gives its instruction up.
  store_unit u_store_unit (
    .clk_i,
    .rst_ni,
    .start_i        (store_start),
    .flush_i        (flush),
    .instr_i        (instr),
    .done_o         (store_done),
    .state_o        (store_state),
    .idle_o         (store_idle),
    .error_o        (write_error),
    .output_base_i,
    .output_stripe_i,
    .act_req_o      (store_b_req),
    .act_word_o     (store_b_word),
    .act_gnt_i      (act_b_ready && storing),
    .act_data_i     (act_b_data),
    .res_ren_o      (store_res_ren),
    .res_addr_o     (store_res_addr),
    .res_data_i     (res_b_data),
    .queue_ren_o    (store_queue_ren),
    .queue_addr_o   (store_queue_addr),
    .queue_data_i   (queue_rdata),
    .m_axi_awaddr,
    .m_axi_awlen,
    .m_axi_awvalid,
    .m_axi_awready,
    .m_axi_wdata,
    .m_axi_wstrb,
    .m_axi_wlast,
    .m_axi_wvalid,
    .m_axi_wready,
    .m_axi_bresp,
    .m_axi_bvalid,
    .m_axi_bready
  );

  load_unit u_load_unit (
    .clk_i,
    .rst_ni       (unit_rst_n),
    .start_i      (load_start),
    .instr_i      (instr),
    .done_o       (load_done),
    .state_o      (load_state),
    .block_avail_i(unit_avail[2]),
    .block_pop_o  (unit_pop[2]),
    .block_i      (block),
    .block_done_o (unit_last[2]),
    .w_valid_o    (load_w_valid),
    .w_ready_i    (load_w_ready),
    .w_word_o     (load_w_word),
    .w_data_o     (load_w_data),
    .res_we_o     (load_res_we),
    .res_waddr_o  (load_res_waddr),
    .res_wdata_o  (load_res_wdata)
  );

  // ---- computing units ----
  logic                logits_valid;
  logic [RowBits-1:0]  logits_row;
  logic [Pe-1:0][15:0] logits;

  unified_unit u_unified_unit (
    .clk_i,
    .rst_ni        (unit_rst_n),
    .pass_i        (pass),
    .pass_valid_i  (pass_valid),
    .pass_ready_o  (pass_ready),
    .rows_o        (array_rows),
    .done_o        (array_done),
    .state_o       (array_state),
    .norm_rows_i   (array_may_read),
    .norm_wait_o   (norm_wait),
    .block_avail_i (unit_avail[0]),
    .block_pop_o   (unit_pop[0]),
    .block_i       (block),
    .block_done_o  (unit_last[0]),
    .a_ren_o       (act_a_ren),
    .a_word_o      (act_a_word),
    .a_granule_o   (act_a_granule),
    .a_data_i      (act_a_data),
    .b_req_o       (unified_b_req),
    .b_word_o      (unified_b_word),
    .b_granule_o   (unified_b_granule),
    .b_gnt_i       (act_b_ready && !storing),
    .b_data_i      (act_b_data),
    .w_valid_o     (unified_w_valid),
    .w_word_o      (unified_w_word),
    .w_granule_o   (unified_w_granule),
    .w_data_o      (unified_w_data),
    .w_mask_o      (unified_w_mask),
    .res_ren_o     (res_a_ren),
    .res_raddr_o   (res_a_addr),
    .res_rdata_i   (res_a_data),
    .res_we_o      (unified_res_we),
    .res_waddr_o   (unified_res_waddr),
    .res_wdata_o   (unified_res_wdata),
    .queue_ren_o   (unified_queue_ren),
    .queue_addr_o  (unified_queue_addr),
    .queue_rdata_i (queue_rdata),
    .logits_valid_o(logits_valid),
    .logits_row_o  (logits_row),
    .logits_o      (logits)
  );

  norm_unit u_norm_unit (
    .clk_i,
    .rst_ni       (unit_rst_n),
    .start_i      (norm_start),
    .instr_i      (instr),
    .chained_i    (norm_chained),
    .rows_ready_i (norm_may_read),
    .rows_o       (norm_rows),
    .done_o       (norm_done),
    .state_o      (norm_state),
    .block_avail_i(unit_avail[1]),
    .block_pop_o  (unit_pop[1]),
    .block_i      (block),
    .block_done_o (unit_last[1]),
    .res_ren_o    (norm_res_ren),
    .res_raddr_o  (norm_res_addr),
    .res_rdata_i  (res_b_data),
    .w_valid_o    (norm_w_valid),
    .w_ready_i    (norm_w_ready),
    .w_word_o     (norm_w_word),
    .w_granule_o  (norm_w_granule),
    .w_data_o     (norm_w_data)
  );

  router u_router (
    .clk_i,
    .rst_ni        (unit_rst_n),
    .start_i       (route_start),
    .instr_i       (instr),
    .done_o        (route_done),
    .state_o       (router_state),
    .logits_valid_i(logits_valid),
    .logits_row_i  (logits_row),
    .logits_i      (logits),
    .queue_we_o    (queue_we),
    .queue_waddr_o (queue_waddr),
    .queue_wdata_o (queue_wdata),
    .counts_o      (counts)
  );

  // ---- memories ----
  act_write_arbiter u_act_write_arbiter (
    .unified_valid_i  (unified_w_valid),
    .unified_word_i   (unified_w_word),
    .unified_granule_i(unified_w_granule),
    .unified_data_i   (unified_w_data),
    .unified_mask_i   (unified_w_mask),
    .norm_valid_i     (norm_w_valid),
    .norm_ready_o     (norm_w_ready),
    .norm_word_i      (norm_w_word),
    .norm_granule_i   (norm_w_granule),
    .norm_data_i      (norm_w_data),
    .load_valid_i     (load_w_valid),
    .load_ready_o     (load_w_ready),
    .load_word_i      (load_w_word),
    .load_data_i      (load_w_data),
    .w_valid_o        (act_w_valid),
    .w_word_o         (act_w_word),
    .w_granule_o      (act_w_granule),
    .w_data_o         (act_w_data),
    .w_mask_o         (act_w_mask)
  );

  act_memory u_act_memory (
    .clk_i,
    .a_ren_i    (act_a_ren),
    .a_word_i   (act_a_word),
    .a_granule_i(act_a_granule),
    .a_data_o   (act_a_data),
    .b_req_i    (storing ? store_b_req : unified_b_req),
    .b_word_i   (storing ? store_b_word : unified_b_word),
    .b_granule_i(storing ? '0 : unified_b_granule),
    .b_ready_o  (act_b_ready),
    .b_data_o   (act_b_data),
    .w_valid_i  (act_w_valid),
    .w_word_i   (act_w_word),
    .w_granule_i(act_w_granule),
    .w_data_i   (act_w_data),
    .w_mask_i   (act_w_mask)
  );

  res_memory u_res_memory (
    .clk_i,
    .a_ren_i (res_a_ren),
    .a_addr_i(res_a_addr),
    .a_data_o(res_a_data),
    .b_ren_i (storing ? store_res_ren : norm_res_ren),
    .b_addr_i(storing ? store_res_addr : norm_res_addr),
    .b_data_o(res_b_data),
    .we_i    (loading ? load_res_we : unified_res_we),
    .waddr_i (loading ? load_res_waddr : unified_res_waddr),
    .wdata_i (loading ? load_res_wdata : unified_res_wdata)
  );

  sdp_ram #(
    .Width(32),
    .Depth(codesign_pkg::QueueWords)
  ) u_queue (
    .clk_i,
    .we_i   (queue_we),
    .waddr_i(queue_waddr),
    .wdata_i(queue_wdata),
    .ren_i  (storing ? store_queue_ren : unified_queue_ren),
    .raddr_i(storing ? store_queue_addr : unified_queue_addr),
    .rdata_o(queue_rdata)
  );
endmodule
