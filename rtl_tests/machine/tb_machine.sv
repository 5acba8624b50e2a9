// SPDX-License-Identifier: Apache-2.0
//
// The machine with two simulated DRAM ports (dram.cpp through DPI) and checks of the AXI protocol. Python drives s_axil and
// waits for `interrupt`; it does nothing while the machine computes. A protocol violation ends the simulation.
module tb_machine (
  input  logic        ap_clk                   /* verilator public_flat_rw */,
  input  logic        ap_rst_n                 /* verilator public_flat_rw */,
  /* verilator lint_off SYMRSVDWORD */
  output logic        interrupt                /* verilator public_flat_rd */,
  /* verilator lint_on SYMRSVDWORD */
  input  logic [7:0]  s_axil_awaddr            /* verilator public_flat_rw */,
  input  logic        s_axil_awvalid           /* verilator public_flat_rw */,
  output logic        s_axil_awready           /* verilator public_flat_rd */,
  input  logic [31:0] s_axil_wdata             /* verilator public_flat_rw */,
  input  logic [3:0]  s_axil_wstrb             /* verilator public_flat_rw */,
  input  logic        s_axil_wvalid            /* verilator public_flat_rw */,
  output logic        s_axil_wready            /* verilator public_flat_rd */,
  output logic [1:0]  s_axil_bresp             /* verilator public_flat_rd */,
  output logic        s_axil_bvalid            /* verilator public_flat_rd */,
  input  logic        s_axil_bready            /* verilator public_flat_rw */,
  input  logic [7:0]  s_axil_araddr            /* verilator public_flat_rw */,
  input  logic        s_axil_arvalid           /* verilator public_flat_rw */,
  output logic        s_axil_arready           /* verilator public_flat_rd */,
  output logic [31:0] s_axil_rdata             /* verilator public_flat_rd */,
  output logic [1:0]  s_axil_rresp             /* verilator public_flat_rd */,
  output logic        s_axil_rvalid            /* verilator public_flat_rd */,
  input  logic        s_axil_rready            /* verilator public_flat_rw */
);
  localparam int unsigned MaxInstructions = codesign_pkg::MaxInstructions;

  // Cycle counter at the end of each instruction of the run; beats moved by each port since reset.
  logic [31:0] num_done                       /* verilator public_flat_rd */;
  logic [31:0] done_cycle [MaxInstructions]   /* verilator public_flat_rd */;
  logic [31:0] beats_read0                    /* verilator public_flat_rd */;
  logic [31:0] beats_read1                    /* verilator public_flat_rd */;
  logic [31:0] beats_written1                 /* verilator public_flat_rd */;

  import "DPI-C" function void dram_reset();
  import "DPI-C" function void dram_read_cycle(
    input int port, input bit ar_taken, input longint unsigned araddr, input byte unsigned arlen, input bit r_taken,
    output bit arready, output bit rvalid, output bit [127:0] rdata, output bit [1:0] rresp, output bit rlast);
  import "DPI-C" function void dram_write_cycle(
    input bit aw_taken, input longint unsigned awaddr, input byte unsigned awlen,
    input bit w_taken, input bit [127:0] wdata, input bit [15:0] wstrb, input bit wlast, input bit b_taken,
    output bit awready, output bit wready, output bit bvalid, output bit [1:0] bresp);

  logic [63:0]  araddr0, araddr1, awaddr;
  logic [7:0]   arlen0, arlen1, awlen;
  logic [2:0]   arsize0, arsize1, awsize, arprot0, arprot1, awprot;
  logic [1:0]   arburst0, arburst1, awburst;
  logic [3:0]   arcache0, arcache1, awcache;
  logic         arvalid0, arvalid1, awvalid, rready0, rready1, wvalid, wlast, bready;
  logic [127:0] wdata;
  logic [15:0]  wstrb;

  // What the memories drive: changes only at clock edges.
  bit           arready0, arready1, rvalid0, rvalid1, rlast0, rlast1, awready, wready, bvalid;
  bit [127:0]   rdata0, rdata1;
  bit [1:0]     rresp0, rresp1, bresp;

  codesign_top u_dut (
    .ap_clk,
    .ap_rst_n,
    .interrupt,
    .s_axil_awaddr,
    .s_axil_awprot      (3'b000),
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
    .s_axil_arprot      (3'b000),
    .s_axil_arvalid,
    .s_axil_arready,
    .s_axil_rdata,
    .s_axil_rresp,
    .s_axil_rvalid,
    .s_axil_rready,
    .m_axi_gmem0_araddr (araddr0),
    .m_axi_gmem0_arlen  (arlen0),
    .m_axi_gmem0_arsize (arsize0),
    .m_axi_gmem0_arburst(arburst0),
    .m_axi_gmem0_arcache(arcache0),
    .m_axi_gmem0_arprot (arprot0),
    .m_axi_gmem0_arvalid(arvalid0),
    .m_axi_gmem0_arready(arready0),
    .m_axi_gmem0_rdata  (rdata0),
    .m_axi_gmem0_rresp  (rresp0),
    .m_axi_gmem0_rlast  (rlast0),
    .m_axi_gmem0_rvalid (rvalid0),
    .m_axi_gmem0_rready (rready0),
    .m_axi_gmem1_araddr (araddr1),
    .m_axi_gmem1_arlen  (arlen1),
    .m_axi_gmem1_arsize (arsize1),
    .m_axi_gmem1_arburst(arburst1),
    .m_axi_gmem1_arcache(arcache1),
    .m_axi_gmem1_arprot (arprot1),
    .m_axi_gmem1_arvalid(arvalid1),
    .m_axi_gmem1_arready(arready1),
    .m_axi_gmem1_rdata  (rdata1),
    .m_axi_gmem1_rresp  (rresp1),
    .m_axi_gmem1_rlast  (rlast1),
    .m_axi_gmem1_rvalid (rvalid1),
    .m_axi_gmem1_rready (rready1),
    .m_axi_gmem1_awaddr (awaddr),
    .m_axi_gmem1_awlen  (awlen),
    .m_axi_gmem1_awsize (awsize),
    .m_axi_gmem1_awburst(awburst),
    .m_axi_gmem1_awcache(awcache),
    .m_axi_gmem1_awprot (awprot),
    .m_axi_gmem1_awvalid(awvalid),
    .m_axi_gmem1_awready(awready),
    .m_axi_gmem1_wdata  (wdata),
    .m_axi_gmem1_wstrb  (wstrb),
    .m_axi_gmem1_wlast  (wlast),
    .m_axi_gmem1_wvalid (wvalid),
    .m_axi_gmem1_wready (wready),
    .m_axi_gmem1_bresp  (bresp),
    .m_axi_gmem1_bvalid (bvalid),
    .m_axi_gmem1_bready (bready)
  );

  // ---- memory ----
  bit           n_arready0, n_arready1, n_rvalid0, n_rvalid1, n_rlast0, n_rlast1, n_awready, n_wready, n_bvalid;
  bit [127:0]   n_rdata0, n_rdata1;
  bit [1:0]     n_rresp0, n_rresp1, n_bresp;

  always @(posedge ap_clk) begin
    if (!ap_rst_n) begin
      dram_reset();
      arready0 <= 1'b0;
      arready1 <= 1'b0;
      rvalid0  <= 1'b0;
      rvalid1  <= 1'b0;
      awready  <= 1'b0;
      wready   <= 1'b0;
      bvalid   <= 1'b0;
    end else begin
      dram_read_cycle(0, arvalid0 && arready0, araddr0, arlen0, rvalid0 && rready0,
                      n_arready0, n_rvalid0, n_rdata0, n_rresp0, n_rlast0);
      dram_read_cycle(1, arvalid1 && arready1, araddr1, arlen1, rvalid1 && rready1,
                      n_arready1, n_rvalid1, n_rdata1, n_rresp1, n_rlast1);
      dram_write_cycle(awvalid && awready, awaddr, awlen, wvalid && wready, wdata, wstrb, wlast, bvalid && bready,
                       n_awready, n_wready, n_bvalid, n_bresp);
      arready0 <= n_arready0;
      rvalid0  <= n_rvalid0;
      rdata0   <= n_rdata0;
      rresp0   <= n_rresp0;
      rlast0   <= n_rlast0;
      arready1 <= n_arready1;
      rvalid1  <= n_rvalid1;
      rdata1   <= n_rdata1;
      rresp1   <= n_rresp1;
      rlast1   <= n_rlast1;
      awready  <= n_awready;
      wready   <= n_wready;
      bvalid   <= n_bvalid;
      bresp    <= n_bresp;
    end
  end

  // ---- measurements ----
  logic [31:0] run_cycle;
  logic        start_q;
  always_ff @(posedge ap_clk) begin
    if (!ap_rst_n) begin
      start_q        <= 1'b0;
      num_done       <= 0;
      run_cycle      <= 0;
      beats_read0    <= 0;
      beats_read1    <= 0;
      beats_written1 <= 0;
    end else begin
      beats_read0    <= beats_read0 + 32'(rvalid0 && rready0);
      beats_read1    <= beats_read1 + 32'(rvalid1 && rready1);
      beats_written1 <= beats_written1 + 32'(wvalid && wready);
      run_cycle      <= run_cycle + 1;
      start_q        <= u_dut.u_sequencer.start_i;
      if (u_dut.u_sequencer.start_i && !start_q) begin
        run_cycle <= 1;
        num_done  <= 0;
      end else if (u_dut.u_sequencer.instr_done_o) begin
        done_cycle[u_dut.u_sequencer.index_o[$clog2(MaxInstructions)-1:0]] <= run_cycle;
        num_done <= num_done + 1;
      end
    end
  end

  // ---- AXI protocol ----
  axi_address_check u_check_ar0 (.ap_clk, .ap_rst_n, .valid(arvalid0), .ready(arready0), .addr(araddr0), .len(arlen0),
                                 .kind({arsize0, arburst0, arcache0, arprot0}));
  axi_address_check u_check_ar1 (.ap_clk, .ap_rst_n, .valid(arvalid1), .ready(arready1), .addr(araddr1), .len(arlen1),
                                 .kind({arsize1, arburst1, arcache1, arprot1}));
  axi_address_check u_check_aw (.ap_clk, .ap_rst_n, .valid(awvalid), .ready(awready), .addr(awaddr), .len(awlen),
                                .kind({awsize, awburst, awcache, awprot}));
  axi_data_check u_check_w (.ap_clk, .ap_rst_n, .valid(wvalid), .ready(wready), .data(wdata), .strb(wstrb), .last(wlast));
endmodule

// Payload of an address channel: stable until accepted, whole beats, INCR, within one 4 KiB page.
module axi_address_check (
  input logic        ap_clk,
  input logic        ap_rst_n,
  input logic        valid,
  input logic        ready,
  input logic [63:0] addr,
  input logic [7:0]  len,
  input logic [11:0] kind
);
  logic        waiting_q;
  logic [63:0] addr_q;
  logic [7:0]  len_q;
  logic [11:0] kind_q;

  always_ff @(posedge ap_clk) begin
    waiting_q <= ap_rst_n && valid && !ready;
    addr_q    <= addr;
    len_q     <= len;
    kind_q    <= kind;
    if (ap_rst_n) begin
      if (waiting_q && !(valid && addr == addr_q && len == len_q && kind == kind_q))
        $fatal(1, "%m: valid or payload changed before ready");
      if (valid && addr[3:0] != 4'd0) $fatal(1, "%m: address %h is not a whole beat", addr);
      if (valid && kind[11:7] != {3'd4, 2'b01}) $fatal(1, "%m: bursts must be INCR of 16-byte beats");
      if (valid && 32'(addr[11:4]) + 32'(len) > 32'd255) $fatal(1, "%m: burst of %0d beats at %h crosses 4 KiB", 32'(len) + 1, addr);
    end
  end
endmodule

// Payload of the write data channel: stable until accepted. WLAST is checked against AWLEN by dram.cpp.
module axi_data_check (
  input logic         ap_clk,
  input logic         ap_rst_n,
  input logic         valid,
  input logic         ready,
  input logic [127:0] data,
  input logic [15:0]  strb,
  input logic         last
);
  logic         waiting_q;
  logic [144:0] payload_q;

  always_ff @(posedge ap_clk) begin
    waiting_q <= ap_rst_n && valid && !ready;
    payload_q <= {data, strb, last};
    if (ap_rst_n && waiting_q && !(valid && {data, strb, last} == payload_q))
      $fatal(1, "%m: valid or payload changed before ready");
  end
endmodule
