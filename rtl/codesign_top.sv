// SPDX-License-Identifier: Apache-2.0
//
// The machine (docs/machine.md): AXI4-Lite control, one read-only and one read-write AXI4 master, the units and memories.
// One instruction executes at a time, so the units share the ports of the memories without arbitration.
module codesign_top (
  (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 ap_clk CLK" *)
  (* X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF s_axil:m_axi_gmem0:m_axi_gmem1, ASSOCIATED_RESET ap_rst_n" *)
  input  logic         ap_clk,
  (* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 ap_rst_n RST" *)
  (* X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)
  input  logic         ap_rst_n,
  (* X_INTERFACE_INFO = "xilinx.com:signal:interrupt:1.0 interrupt INTERRUPT" *)
  (* X_INTERFACE_PARAMETER = "SENSITIVITY LEVEL_HIGH" *)
  // Vivado and the HLS version call it that; it is no keyword of C++.
  /* verilator lint_off SYMRSVDWORD */
  output logic         interrupt,
  /* verilator lint_on SYMRSVDWORD */

  input  logic [7:0]   s_axil_awaddr,
  input  logic [2:0]   s_axil_awprot,
  input  logic         s_axil_awvalid,
  output logic         s_axil_awready,
  input  logic [31:0]  s_axil_wdata,
  input  logic [3:0]   s_axil_wstrb,
  input  logic         s_axil_wvalid,
  output logic         s_axil_wready,
  output logic [1:0]   s_axil_bresp,
  output logic         s_axil_bvalid,
  input  logic         s_axil_bready,
  input  logic [7:0]   s_axil_araddr,
  input  logic [2:0]   s_axil_arprot,
  input  logic         s_axil_arvalid,
  output logic         s_axil_arready,
  output logic [31:0]  s_axil_rdata,
  output logic [1:0]   s_axil_rresp,
  output logic         s_axil_rvalid,
  input  logic         s_axil_rready,

  output logic [63:0]  m_axi_gmem0_araddr,
  output logic [7:0]   m_axi_gmem0_arlen,
  output logic [2:0]   m_axi_gmem0_arsize,
  output logic [1:0]   m_axi_gmem0_arburst,
  output logic [3:0]   m_axi_gmem0_arcache,
  output logic [2:0]   m_axi_gmem0_arprot,
  output logic         m_axi_gmem0_arvalid,
  input  logic         m_axi_gmem0_arready,
  input  logic [127:0] m_axi_gmem0_rdata,
  input  logic [1:0]   m_axi_gmem0_rresp,
  input  logic         m_axi_gmem0_rlast,
  input  logic         m_axi_gmem0_rvalid,
  output logic         m_axi_gmem0_rready,

  output logic [63:0]  m_axi_gmem1_araddr,
  output logic [7:0]   m_axi_gmem1_arlen,
  output logic [2:0]   m_axi_gmem1_arsize,
  output logic [1:0]   m_axi_gmem1_arburst,
  output logic [3:0]   m_axi_gmem1_arcache,
  output logic [2:0]   m_axi_gmem1_arprot,
  output logic         m_axi_gmem1_arvalid,
  input  logic         m_axi_gmem1_arready,
  input  logic [127:0] m_axi_gmem1_rdata,
  input  logic [1:0]   m_axi_gmem1_rresp,
  input  logic         m_axi_gmem1_rlast,
  input  logic         m_axi_gmem1_rvalid,
  output logic         m_axi_gmem1_rready,
  output logic [63:0]  m_axi_gmem1_awaddr,
  output logic [7:0]   m_axi_gmem1_awlen,
  output logic [2:0]   m_axi_gmem1_awsize,
  output logic [1:0]   m_axi_gmem1_awburst,
  output logic [3:0]   m_axi_gmem1_awcache,
  output logic [2:0]   m_axi_gmem1_awprot,
  output logic         m_axi_gmem1_awvalid,
  input  logic         m_axi_gmem1_awready,
  output logic [127:0] m_axi_gmem1_wdata,
  output logic [15:0]  m_axi_gmem1_wstrb,
  output logic         m_axi_gmem1_wlast,
  output logic         m_axi_gmem1_wvalid,
  input  logic         m_axi_gmem1_wready,
  input  logic [1:0]   m_axi_gmem1_bresp,
  input  logic         m_axi_gmem1_bvalid,
  output logic         m_axi_gmem1_bready
);
  localparam int unsigned Simd          = codesign_pkg::Simd;
  localparam int unsigned Pe            = codesign_pkg::Pe;
  localparam int unsigned ActAddrBits   = codesign_pkg::ActAddrBits;
  localparam int unsigned ResAddrBits   = codesign_pkg::ResAddrBits;
  localparam int unsigned QueueAddrBits = codesign_pkg::QueueAddrBits;
  localparam int unsigned StoreBits     = $clog2(codesign_pkg::MaxInstructions * codesign_pkg::InstructionBeats);

  // 16 bytes a beat, INCR, normal non-cacheable bufferable memory, unprivileged secure data.
  localparam logic [2:0] AxSize = 3'd4;
  localparam logic [1:0] AxBurst = 2'b01;
  localparam logic [3:0] AxCache = 4'b0011;
  localparam logic [2:0] AxProt = 3'b000;

  assign m_axi_gmem0_arsize  = AxSize;
  assign m_axi_gmem0_arburst = AxBurst;
  assign m_axi_gmem0_arcache = AxCache;
  assign m_axi_gmem0_arprot  = AxProt;
  assign m_axi_gmem1_arsize  = AxSize;
  assign m_axi_gmem1_arburst = AxBurst;
  assign m_axi_gmem1_arcache = AxCache;
  assign m_axi_gmem1_arprot  = AxProt;
  assign m_axi_gmem1_awsize  = AxSize;
  assign m_axi_gmem1_awburst = AxBurst;
  assign m_axi_gmem1_awcache = AxCache;
  assign m_axi_gmem1_awprot  = AxProt;

  // ---- control ----
  logic        start, done, interrupt_d;
  logic [63:0] memory_base, input_base, output_base;
  logic [31:0] program_addr, num_instructions, cycles;
  codesign_pkg::status_t status;

  assign interrupt = interrupt_d;

  axil_regs u_axil_regs (
    .clk_i             (ap_clk),
    .rst_ni            (ap_rst_n),
    .s_axil_awaddr,
    .s_axil_awvalid,
    .s_axil_awready,
    .s_axil_wdata,
    .s_axil_wstrb,
    .s_axil_wvalid,
    .s_axil_wready,
    .s_axil_bresp,
    .s_axil_bvalid,
    .s_axil_bready,
    .s_axil_araddr,
    .s_axil_arvalid,
    .s_axil_arready,
    .s_axil_rdata,
    .s_axil_rresp,
    .s_axil_rvalid,
    .s_axil_rready,
    .interrupt_o       (interrupt_d),
    .start_o           (start),
    .memory_base_o     (memory_base),
    .input_base_o      (input_base),
    .output_base_o     (output_base),
    .program_addr_o    (program_addr),
    .num_instructions_o(num_instructions),
    .done_i            (done),
    .status_i          (status),
    .cycles_i          (cycles)
  );

  logic                 loader_start, program_loaded, store_we, seq_req, seq_gnt, seq_valid, flush, experts;
  logic [StoreBits-1:0] store_waddr;
  logic [15:0]          exec_index;
  codesign_pkg::instr_t fetched, instr;
  logic                 load_start, save_start, norm_start, route_start, compute_start, instr_done;
  logic                 load_done, save_done, norm_done, route_done, compute_done;
  logic                 memory_error, input_error, write_error, memory_idle, input_idle, writer_idle;
  logic                 program_beat_valid, program_beat_ready;

  sequencer u_sequencer (
    .clk_i             (ap_clk),
    .rst_ni            (ap_rst_n),
    .start_i           (start),
    .num_instructions_i(num_instructions),
    .done_o            (done),
    .status_o          (status),
    .cycles_o          (cycles),
    .loader_start_o    (loader_start),
    .program_loaded_o  (program_loaded),
    .beat_valid_i      (program_beat_valid),
    .beat_ready_o      (program_beat_ready),
    .store_we_o        (store_we),
    .store_waddr_o     (store_waddr),
    .req_o             (seq_req),
    .index_o           (exec_index),
    .gnt_i             (seq_gnt),
    .valid_i           (seq_valid),
    .instr_i           (fetched),
    .instr_o           (instr),
    .load_start_o      (load_start),
    .store_start_o     (save_start),
    .norm_start_o      (norm_start),
    .route_start_o     (route_start),
    .compute_start_o   (compute_start),
    .experts_o         (experts),
    .load_done_i       (load_done),
    .store_done_i      (save_done),
    .norm_done_i       (norm_done),
    .route_done_i      (route_done),
    .compute_done_i    (compute_done),
    .read_error_i      (memory_error || input_error),
    .write_error_i     (write_error),
    .flush_o           (flush),
    .readers_idle_i    (memory_idle && input_idle),
    .instr_done_o      (instr_done)
  );

  logic         load_req, load_gnt, load_valid;
  logic [15:0]  load_index;
  logic [127:0] beat, input_beat;
  logic         beat_valid, beat_ready, input_beat_valid, input_beat_ready;

  program_store u_program_store (
    .clk_i            (ap_clk),
    .rst_ni           (ap_rst_n),
    .we_i             (store_we),
    .waddr_i          (store_waddr),
    .beat_i           (beat),
    .sequencer_req_i  (seq_req),
    .sequencer_index_i(exec_index),
    .sequencer_gnt_o  (seq_gnt),
    .sequencer_valid_o(seq_valid),
    .loader_req_i     (load_req),
    .loader_index_i   (load_index),
    .loader_gnt_o     (load_gnt),
    .loader_valid_o   (load_valid),
    .instr_o          (fetched)
  );

  // ---- DRAM ----
  logic [63:0] read_addr, save_addr;
  logic [31:0] read_beats, save_beats;
  logic        memory_desc_valid, memory_desc_ready, input_desc_valid, input_desc_ready, save_desc_valid, save_desc_ready;
  logic [127:0] save_beat;
  logic        save_beat_valid, save_beat_ready;
  logic [codesign_pkg::MaxExperts-1:0][15:0] counts;

  loader u_loader (
    .clk_i             (ap_clk),
    .rst_ni            (ap_rst_n),
    .flush_i           (flush),
    .start_i           (loader_start),
    .memory_base_i     (memory_base),
    .input_base_i      (input_base),
    .program_addr_i    (program_addr),
    .num_instructions_i(num_instructions[15:0]),
    .program_loaded_i  (program_loaded),
    .req_o             (load_req),
    .index_o           (load_index),
    .gnt_i             (load_gnt),
    .valid_i           (load_valid),
    .instr_i           (fetched),
    .experts_i         (experts),
    .exec_index_i      (exec_index),
    .counts_i          (counts),
    .desc_addr_o       (read_addr),
    .desc_beats_o      (read_beats),
    .memory_valid_o    (memory_desc_valid),
    .memory_ready_i    (memory_desc_ready),
    .input_valid_o     (input_desc_valid),
    .input_ready_i     (input_desc_ready)
  );

  axi_reader #(
    .FifoBeats(codesign_pkg::FifoBeats)
  ) u_memory_reader (
    .clk_i        (ap_clk),
    .rst_ni       (ap_rst_n),
    .flush_i      (flush),
    .desc_addr_i  (read_addr),
    .desc_beats_i (read_beats),
    .desc_valid_i (memory_desc_valid),
    .desc_ready_o (memory_desc_ready),
    .beat_o       (beat),
    .beat_valid_o (beat_valid),
    .beat_ready_i (beat_ready),
    .idle_o       (memory_idle),
    .error_o      (memory_error),
    .m_axi_araddr (m_axi_gmem0_araddr),
    .m_axi_arlen  (m_axi_gmem0_arlen),
    .m_axi_arvalid(m_axi_gmem0_arvalid),
    .m_axi_arready(m_axi_gmem0_arready),
    .m_axi_rdata  (m_axi_gmem0_rdata),
    .m_axi_rresp  (m_axi_gmem0_rresp),
    .m_axi_rlast  (m_axi_gmem0_rlast),
    .m_axi_rvalid (m_axi_gmem0_rvalid),
    .m_axi_rready (m_axi_gmem0_rready)
  );

  axi_reader #(
    .FifoBeats(codesign_pkg::FifoBeats)
  ) u_input_reader (
    .clk_i        (ap_clk),
    .rst_ni       (ap_rst_n),
    .flush_i      (flush),
    .desc_addr_i  (read_addr),
    .desc_beats_i (read_beats),
    .desc_valid_i (input_desc_valid),
    .desc_ready_o (input_desc_ready),
    .beat_o       (input_beat),
    .beat_valid_o (input_beat_valid),
    .beat_ready_i (input_beat_ready),
    .idle_o       (input_idle),
    .error_o      (input_error),
    .m_axi_araddr (m_axi_gmem1_araddr),
    .m_axi_arlen  (m_axi_gmem1_arlen),
    .m_axi_arvalid(m_axi_gmem1_arvalid),
    .m_axi_arready(m_axi_gmem1_arready),
    .m_axi_rdata  (m_axi_gmem1_rdata),
    .m_axi_rresp  (m_axi_gmem1_rresp),
    .m_axi_rlast  (m_axi_gmem1_rlast),
    .m_axi_rvalid (m_axi_gmem1_rvalid),
    .m_axi_rready (m_axi_gmem1_rready)
  );

  axi_writer u_writer (
    .clk_i        (ap_clk),
    .rst_ni       (ap_rst_n),
    .desc_addr_i  (save_addr),
    .desc_beats_i (save_beats),
    .desc_valid_i (save_desc_valid),
    .desc_ready_o (save_desc_ready),
    .beat_i       (save_beat),
    .beat_valid_i (save_beat_valid),
    .beat_ready_o (save_beat_ready),
    .idle_o       (writer_idle),
    .error_o      (write_error),
    .m_axi_awaddr (m_axi_gmem1_awaddr),
    .m_axi_awlen  (m_axi_gmem1_awlen),
    .m_axi_awvalid(m_axi_gmem1_awvalid),
    .m_axi_awready(m_axi_gmem1_awready),
    .m_axi_wdata  (m_axi_gmem1_wdata),
    .m_axi_wstrb  (m_axi_gmem1_wstrb),
    .m_axi_wlast  (m_axi_gmem1_wlast),
    .m_axi_wvalid (m_axi_gmem1_wvalid),
    .m_axi_wready (m_axi_gmem1_wready),
    .m_axi_bresp  (m_axi_gmem1_bresp),
    .m_axi_bvalid (m_axi_gmem1_bvalid),
    .m_axi_bready (m_axi_gmem1_bready)
  );

  // The stream goes to one consumer at a time; the others are not ready.
  logic load_from_input, load_beat_valid, load_beat_ready, norm_beat_ready, compute_beat_ready;
  logic to_norm, to_compute;

  assign to_norm            = instr.opcode == codesign_pkg::OpNorm;
  assign to_compute         = (instr.opcode == codesign_pkg::OpLinear) || (instr.opcode == codesign_pkg::OpRoute) ||
                              (instr.opcode == codesign_pkg::OpExperts);
  assign load_from_input    = instr.space != codesign_pkg::SpaceMemory;
  assign load_beat_valid    = load_from_input ? input_beat_valid : beat_valid;
  assign input_beat_ready   = load_beat_ready && load_from_input;
  assign program_beat_valid = beat_valid;
  assign beat_ready         = program_beat_ready || (load_beat_ready && !load_from_input) || (norm_beat_ready && to_norm) ||
                              (compute_beat_ready && to_compute);

  // ---- units ----
  logic [Simd-1:0]             load_act_we, norm_act_we, unified_act_we, act_we;
  logic [ActAddrBits-1:0]      load_act_waddr, norm_act_waddr, unified_act_waddr, act_waddr;
  logic [Simd-1:0][7:0]        load_act_wdata, norm_act_wdata, unified_act_wdata, act_wdata;
  logic                        load_res_we, unified_res_we, res_we;
  logic [ResAddrBits-1:0]      load_res_waddr, unified_res_waddr, res_waddr;
  logic [Pe-1:0][15:0]         load_res_wdata, unified_res_wdata, res_wdata;
  logic                        save_act_ren, act_a_ren, unified_act_a_ren, act_b_ren;
  logic [ActAddrBits-1:0]      save_act_addr, act_a_addr, unified_act_a_addr, act_b_addr;
  logic [Simd-1:0][7:0]        act_a_data, act_b_data;
  logic                        save_res_ren, norm_res_ren, unified_res_ren, res_ren;
  logic [ResAddrBits-1:0]      save_res_addr, norm_res_raddr, unified_res_raddr, res_raddr;
  logic [Pe-1:0][15:0]         res_rdata;
  logic                        save_queue_ren, unified_queue_ren, queue_ren, queue_we;
  logic [QueueAddrBits-1:0]    save_queue_addr, unified_queue_addr, queue_addr, queue_waddr;
  logic [31:0]                 queue_wdata, queue_rdata;

  load_unit u_load_unit (
    .clk_i       (ap_clk),
    .rst_ni      (ap_rst_n),
    .start_i     (load_start),
    .instr_i     (instr),
    .done_o      (load_done),
    .beat_i      (load_from_input ? input_beat : beat),
    .beat_valid_i(load_beat_valid),
    .beat_ready_o(load_beat_ready),
    .act_we_o    (load_act_we),
    .act_waddr_o (load_act_waddr),
    .act_wdata_o (load_act_wdata),
    .res_we_o    (load_res_we),
    .res_waddr_o (load_res_waddr),
    .res_wdata_o (load_res_wdata)
  );

  store_unit u_store_unit (
    .clk_i        (ap_clk),
    .rst_ni       (ap_rst_n),
    .start_i      (save_start),
    .instr_i      (instr),
    .done_o       (save_done),
    .output_base_i(output_base),
    .act_ren_o    (save_act_ren),
    .act_addr_o   (save_act_addr),
    .act_data_i   (act_a_data),
    .res_ren_o    (save_res_ren),
    .res_addr_o   (save_res_addr),
    .res_data_i   (res_rdata),
    .queue_ren_o  (save_queue_ren),
    .queue_addr_o (save_queue_addr),
    .queue_data_i (queue_rdata),
    .desc_addr_o  (save_addr),
    .desc_beats_o (save_beats),
    .desc_valid_o (save_desc_valid),
    .desc_ready_i (save_desc_ready),
    .beat_o       (save_beat),
    .beat_valid_o (save_beat_valid),
    .beat_ready_i (save_beat_ready),
    .writer_idle_i(writer_idle)
  );

  norm_unit u_norm_unit (
    .clk_i       (ap_clk),
    .rst_ni      (ap_rst_n),
    .start_i     (norm_start),
    .instr_i     (instr),
    .done_o      (norm_done),
    .beat_i      (beat),
    .beat_valid_i(beat_valid && to_norm),
    .beat_ready_o(norm_beat_ready),
    .res_ren_o   (norm_res_ren),
    .res_raddr_o (norm_res_raddr),
    .res_rdata_i (res_rdata),
    .act_we_o    (norm_act_we),
    .act_waddr_o (norm_act_waddr),
    .act_wdata_o (norm_act_wdata)
  );

  codesign_pkg::pass_t pass;
  logic                pass_valid, pass_ready, pass_done;

  pass_issuer u_pass_issuer (
    .clk_i       (ap_clk),
    .rst_ni      (ap_rst_n),
    .start_i     (compute_start),
    .instr_i     (instr),
    .counts_i    (counts),
    .done_o      (compute_done),
    .pass_o      (pass),
    .pass_valid_o(pass_valid),
    .pass_ready_i(pass_ready),
    .pass_done_i (pass_done)
  );

  logic                             logits_valid;
  logic [codesign_pkg::RowBits-1:0] logits_row;
  logic [Pe-1:0][15:0]              logits;

  unified_unit u_unified_unit (
    .clk_i         (ap_clk),
    .rst_ni        (ap_rst_n),
    .pass_i        (pass),
    .pass_valid_i  (pass_valid),
    .pass_ready_o  (pass_ready),
    .done_o        (pass_done),
    .beat_i        (beat),
    .beat_valid_i  (beat_valid && to_compute),
    .beat_ready_o  (compute_beat_ready),
    .act_a_ren_o   (unified_act_a_ren),
    .act_a_addr_o  (unified_act_a_addr),
    .act_a_data_i  (act_a_data),
    .act_b_ren_o   (act_b_ren),
    .act_b_addr_o  (act_b_addr),
    .act_b_data_i  (act_b_data),
    .act_we_o      (unified_act_we),
    .act_waddr_o   (unified_act_waddr),
    .act_wdata_o   (unified_act_wdata),
    .res_ren_o     (unified_res_ren),
    .res_raddr_o   (unified_res_raddr),
    .res_rdata_i   (res_rdata),
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

  router u_router (
    .clk_i         (ap_clk),
    .rst_ni        (ap_rst_n),
    .start_i       (route_start),
    .rows_i        (instr.rows),
    .num_experts_i (instr.num_experts),
    .top_k_i       (instr.top_k),
    .done_o        (route_done),
    .logits_valid_i(logits_valid),
    .logits_row_i  (logits_row),
    .logits_i      (logits),
    .queue_we_o    (queue_we),
    .queue_waddr_o (queue_waddr),
    .queue_wdata_o (queue_wdata),
    .counts_o      (counts)
  );

  // ---- memories ----
  logic load_act_any, norm_act_any;
  assign load_act_any = load_act_we != '0;
  assign norm_act_any = norm_act_we != '0;
  assign act_we       = load_act_we | norm_act_we | unified_act_we;
  assign act_waddr    = load_act_any ? load_act_waddr : norm_act_any ? norm_act_waddr : unified_act_waddr;
  assign act_wdata    = load_act_any ? load_act_wdata : norm_act_any ? norm_act_wdata : unified_act_wdata;
  assign act_a_ren    = save_act_ren || unified_act_a_ren;
  assign act_a_addr   = save_act_ren ? save_act_addr : unified_act_a_addr;

  sdp_ram #(
    .Width     (8 * Simd),
    .Depth     (codesign_pkg::ActWords),
    .WriteLanes(Simd)
  ) u_act_a (
    .clk_i  (ap_clk),
    .we_i   (act_we),
    .waddr_i(act_waddr),
    .wdata_i(act_wdata),
    .ren_i  (act_a_ren),
    .raddr_i(act_a_addr),
    .rdata_o(act_a_data)
  );

  sdp_ram #(
    .Width     (8 * Simd),
    .Depth     (codesign_pkg::ActWords),
    .WriteLanes(Simd)
  ) u_act_b (
    .clk_i  (ap_clk),
    .we_i   (act_we),
    .waddr_i(act_waddr),
    .wdata_i(act_wdata),
    .ren_i  (act_b_ren),
    .raddr_i(act_b_addr),
    .rdata_o(act_b_data)
  );

  assign res_we    = load_res_we || unified_res_we;
  assign res_waddr = load_res_we ? load_res_waddr : unified_res_waddr;
  assign res_wdata = load_res_we ? load_res_wdata : unified_res_wdata;
  assign res_ren   = save_res_ren || norm_res_ren || unified_res_ren;
  assign res_raddr = save_res_ren ? save_res_addr : norm_res_ren ? norm_res_raddr : unified_res_raddr;

  sdp_ram #(
    .Width     (16 * Pe),
    .Depth     (codesign_pkg::ResWords),
    .WriteLanes(1)
  ) u_res (
    .clk_i  (ap_clk),
    .we_i   (res_we),
    .waddr_i(res_waddr),
    .wdata_i(res_wdata),
    .ren_i  (res_ren),
    .raddr_i(res_raddr),
    .rdata_o(res_rdata)
  );

  assign queue_ren  = save_queue_ren || unified_queue_ren;
  assign queue_addr = save_queue_ren ? save_queue_addr : unified_queue_addr;

  sdp_ram #(
    .Width     (32),
    .Depth     (codesign_pkg::QueueWords),
    .WriteLanes(1)
  ) u_queue (
    .clk_i  (ap_clk),
    .we_i   (queue_we),
    .waddr_i(queue_waddr),
    .wdata_i(queue_wdata),
    .ren_i  (queue_ren),
    .raddr_i(queue_addr),
    .rdata_o(queue_rdata)
  );

  logic unused_top;
  assign unused_top = ^{s_axil_awprot, s_axil_arprot, instr_done, num_instructions[31:16]};
endmodule
