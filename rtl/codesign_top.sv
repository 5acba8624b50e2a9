// SPDX-License-Identifier: Apache-2.0
//
// Pins of the machine (docs/machine.md): AXI4-Lite control and four 128-bit AXI4 masters. The masters from
// codesign_pkg::Ports on are idle. Everything happens in machine_core.
module codesign_top (
  (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 ap_clk CLK" *)
  (* X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF s_axil:m_axi_gmem0:m_axi_gmem1:m_axi_gmem2:m_axi_gmem3, ASSOCIATED_RESET ap_rst_n" *)
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
  output logic [63:0]  m_axi_gmem0_awaddr,
  output logic [7:0]   m_axi_gmem0_awlen,
  output logic [2:0]   m_axi_gmem0_awsize,
  output logic [1:0]   m_axi_gmem0_awburst,
  output logic [3:0]   m_axi_gmem0_awcache,
  output logic [2:0]   m_axi_gmem0_awprot,
  output logic         m_axi_gmem0_awvalid,
  input  logic         m_axi_gmem0_awready,
  output logic [127:0] m_axi_gmem0_wdata,
  output logic [15:0]  m_axi_gmem0_wstrb,
  output logic         m_axi_gmem0_wlast,
  output logic         m_axi_gmem0_wvalid,
  input  logic         m_axi_gmem0_wready,
  input  logic [1:0]   m_axi_gmem0_bresp,
  input  logic         m_axi_gmem0_bvalid,
  output logic         m_axi_gmem0_bready,

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
  output logic         m_axi_gmem1_bready,

  output logic [63:0]  m_axi_gmem2_araddr,
  output logic [7:0]   m_axi_gmem2_arlen,
  output logic [2:0]   m_axi_gmem2_arsize,
  output logic [1:0]   m_axi_gmem2_arburst,
  output logic [3:0]   m_axi_gmem2_arcache,
  output logic [2:0]   m_axi_gmem2_arprot,
  output logic         m_axi_gmem2_arvalid,
  input  logic         m_axi_gmem2_arready,
  input  logic [127:0] m_axi_gmem2_rdata,
  input  logic [1:0]   m_axi_gmem2_rresp,
  input  logic         m_axi_gmem2_rlast,
  input  logic         m_axi_gmem2_rvalid,
  output logic         m_axi_gmem2_rready,
  output logic [63:0]  m_axi_gmem2_awaddr,
  output logic [7:0]   m_axi_gmem2_awlen,
  output logic [2:0]   m_axi_gmem2_awsize,
  output logic [1:0]   m_axi_gmem2_awburst,
  output logic [3:0]   m_axi_gmem2_awcache,
  output logic [2:0]   m_axi_gmem2_awprot,
  output logic         m_axi_gmem2_awvalid,
  input  logic         m_axi_gmem2_awready,
  output logic [127:0] m_axi_gmem2_wdata,
  output logic [15:0]  m_axi_gmem2_wstrb,
  output logic         m_axi_gmem2_wlast,
  output logic         m_axi_gmem2_wvalid,
  input  logic         m_axi_gmem2_wready,
  input  logic [1:0]   m_axi_gmem2_bresp,
  input  logic         m_axi_gmem2_bvalid,
  output logic         m_axi_gmem2_bready,

  output logic [63:0]  m_axi_gmem3_araddr,
  output logic [7:0]   m_axi_gmem3_arlen,
  output logic [2:0]   m_axi_gmem3_arsize,
  output logic [1:0]   m_axi_gmem3_arburst,
  output logic [3:0]   m_axi_gmem3_arcache,
  output logic [2:0]   m_axi_gmem3_arprot,
  output logic         m_axi_gmem3_arvalid,
  input  logic         m_axi_gmem3_arready,
  input  logic [127:0] m_axi_gmem3_rdata,
  input  logic [1:0]   m_axi_gmem3_rresp,
  input  logic         m_axi_gmem3_rlast,
  input  logic         m_axi_gmem3_rvalid,
  output logic         m_axi_gmem3_rready,
  output logic [63:0]  m_axi_gmem3_awaddr,
  output logic [7:0]   m_axi_gmem3_awlen,
  output logic [2:0]   m_axi_gmem3_awsize,
  output logic [1:0]   m_axi_gmem3_awburst,
  output logic [3:0]   m_axi_gmem3_awcache,
  output logic [2:0]   m_axi_gmem3_awprot,
  output logic         m_axi_gmem3_awvalid,
  input  logic         m_axi_gmem3_awready,
  output logic [127:0] m_axi_gmem3_wdata,
  output logic [15:0]  m_axi_gmem3_wstrb,
  output logic         m_axi_gmem3_wlast,
  output logic         m_axi_gmem3_wvalid,
  input  logic         m_axi_gmem3_wready,
  input  logic [1:0]   m_axi_gmem3_bresp,
  input  logic         m_axi_gmem3_bvalid,
  output logic         m_axi_gmem3_bready
);
  localparam int unsigned Ports   = codesign_pkg::Ports;
  localparam int unsigned Masters = 4;

  // 16 bytes a beat, INCR, normal non-cacheable bufferable memory, unprivileged secure data.
  localparam logic [2:0] AxSize  = 3'd4;
  localparam logic [1:0] AxBurst = 2'b01;
  localparam logic [3:0] AxCache = 4'b0011;
  localparam logic [2:0] AxProt  = 3'b000;

  // ---- control ----
  logic        start, done, interrupt_d;
  logic [63:0] memory_base, input_base, output_base;
  logic [31:0] memory_stripe, input_stripe, output_stripe, program_addr, num_instructions, watchdog, cycles, fault, unit_state;
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
    .memory_stripe_o   (memory_stripe),
    .input_stripe_o    (input_stripe),
    .output_stripe_o   (output_stripe),
    .program_addr_o    (program_addr),
    .num_instructions_o(num_instructions),
    .watchdog_o        (watchdog),
    .done_i            (done),
    .status_i          (status),
    .cycles_i          (cycles),
    .fault_i           (fault),
    .unit_state_i      (unit_state)
  );

  // ---- masters: those of the core, widened to all ----
  logic [Ports-1:0][63:0]   araddr;
  logic [Ports-1:0][7:0]    arlen;
  logic [Ports-1:0]         arvalid;
  logic [Masters-1:0]       arready;
  logic [Masters-1:0][127:0] rdata;
  logic [Masters-1:0][1:0]  rresp;
  logic [Masters-1:0]       rlast;
  logic [Masters-1:0]       rvalid;
  logic [Ports-1:0]         rready;
  logic [Ports-1:0][63:0]   awaddr;
  logic [Ports-1:0][7:0]    awlen;
  logic [Ports-1:0]         awvalid;
  logic [Masters-1:0]       awready;
  logic [Ports-1:0][127:0]  wdata;
  logic [Ports-1:0][15:0]   wstrb;
  logic [Ports-1:0]         wlast;
  logic [Ports-1:0]         wvalid;
  logic [Masters-1:0]       wready;
  logic [Masters-1:0][1:0]  bresp;
  logic [Masters-1:0]       bvalid;
  logic [Ports-1:0]         bready;
  logic [Masters-1:0][63:0] all_araddr;
  logic [Masters-1:0][7:0]  all_arlen;
  logic [Masters-1:0]       all_arvalid;
  logic [Masters-1:0]       all_rready;
  logic [Masters-1:0][63:0] all_awaddr;
  logic [Masters-1:0][7:0]  all_awlen;
  logic [Masters-1:0]       all_awvalid;
  logic [Masters-1:0][127:0] all_wdata;
  logic [Masters-1:0][15:0] all_wstrb;
  logic [Masters-1:0]       all_wlast;
  logic [Masters-1:0]       all_wvalid;
  logic [Masters-1:0]       all_bready;

  assign all_araddr   = (64*Masters)'(araddr);
  assign all_arlen    = (8*Masters)'(arlen);
  assign all_arvalid  = Masters'(arvalid);
  assign all_rready   = Masters'(rready);
  assign all_awaddr   = (64*Masters)'(awaddr);
  assign all_awlen    = (8*Masters)'(awlen);
  assign all_awvalid  = Masters'(awvalid);
  assign all_wdata    = (128*Masters)'(wdata);
  assign all_wstrb    = (16*Masters)'(wstrb);
  assign all_wlast    = Masters'(wlast);
  assign all_wvalid   = Masters'(wvalid);
  assign all_bready   = Masters'(bready);

  assign arready  = {m_axi_gmem3_arready, m_axi_gmem2_arready, m_axi_gmem1_arready, m_axi_gmem0_arready};
  assign rdata    = {m_axi_gmem3_rdata, m_axi_gmem2_rdata, m_axi_gmem1_rdata, m_axi_gmem0_rdata};
  assign rresp    = {m_axi_gmem3_rresp, m_axi_gmem2_rresp, m_axi_gmem1_rresp, m_axi_gmem0_rresp};
  assign rlast    = {m_axi_gmem3_rlast, m_axi_gmem2_rlast, m_axi_gmem1_rlast, m_axi_gmem0_rlast};
  assign rvalid   = {m_axi_gmem3_rvalid, m_axi_gmem2_rvalid, m_axi_gmem1_rvalid, m_axi_gmem0_rvalid};
  assign awready  = {m_axi_gmem3_awready, m_axi_gmem2_awready, m_axi_gmem1_awready, m_axi_gmem0_awready};
  assign wready   = {m_axi_gmem3_wready, m_axi_gmem2_wready, m_axi_gmem1_wready, m_axi_gmem0_wready};
  assign bresp    = {m_axi_gmem3_bresp, m_axi_gmem2_bresp, m_axi_gmem1_bresp, m_axi_gmem0_bresp};
  assign bvalid   = {m_axi_gmem3_bvalid, m_axi_gmem2_bvalid, m_axi_gmem1_bvalid, m_axi_gmem0_bvalid};

  assign m_axi_gmem0_araddr   = all_araddr[0];
  assign m_axi_gmem0_arlen    = all_arlen[0];
  assign m_axi_gmem0_arsize   = AxSize;
  assign m_axi_gmem0_arburst  = AxBurst;
  assign m_axi_gmem0_arcache  = AxCache;
  assign m_axi_gmem0_arprot   = AxProt;
  assign m_axi_gmem0_arvalid  = all_arvalid[0];
  assign m_axi_gmem0_rready   = all_rready[0];
  assign m_axi_gmem0_awaddr   = all_awaddr[0];
  assign m_axi_gmem0_awlen    = all_awlen[0];
  assign m_axi_gmem0_awsize   = AxSize;
  assign m_axi_gmem0_awburst  = AxBurst;
  assign m_axi_gmem0_awcache  = AxCache;
  assign m_axi_gmem0_awprot   = AxProt;
  assign m_axi_gmem0_awvalid  = all_awvalid[0];
  assign m_axi_gmem0_wdata    = all_wdata[0];
  assign m_axi_gmem0_wstrb    = all_wstrb[0];
  assign m_axi_gmem0_wlast    = all_wlast[0];
  assign m_axi_gmem0_wvalid   = all_wvalid[0];
  assign m_axi_gmem0_bready   = all_bready[0];
  assign m_axi_gmem1_araddr   = all_araddr[1];
  assign m_axi_gmem1_arlen    = all_arlen[1];
  assign m_axi_gmem1_arsize   = AxSize;
  assign m_axi_gmem1_arburst  = AxBurst;
  assign m_axi_gmem1_arcache  = AxCache;
  assign m_axi_gmem1_arprot   = AxProt;
  assign m_axi_gmem1_arvalid  = all_arvalid[1];
  assign m_axi_gmem1_rready   = all_rready[1];
  assign m_axi_gmem1_awaddr   = all_awaddr[1];
  assign m_axi_gmem1_awlen    = all_awlen[1];
  assign m_axi_gmem1_awsize   = AxSize;
  assign m_axi_gmem1_awburst  = AxBurst;
  assign m_axi_gmem1_awcache  = AxCache;
  assign m_axi_gmem1_awprot   = AxProt;
  assign m_axi_gmem1_awvalid  = all_awvalid[1];
  assign m_axi_gmem1_wdata    = all_wdata[1];
  assign m_axi_gmem1_wstrb    = all_wstrb[1];
  assign m_axi_gmem1_wlast    = all_wlast[1];
  assign m_axi_gmem1_wvalid   = all_wvalid[1];
  assign m_axi_gmem1_bready   = all_bready[1];
  assign m_axi_gmem2_araddr   = all_araddr[2];
  assign m_axi_gmem2_arlen    = all_arlen[2];
  assign m_axi_gmem2_arsize   = AxSize;
  assign m_axi_gmem2_arburst  = AxBurst;
  assign m_axi_gmem2_arcache  = AxCache;
  assign m_axi_gmem2_arprot   = AxProt;
  assign m_axi_gmem2_arvalid  = all_arvalid[2];
  assign m_axi_gmem2_rready   = all_rready[2];
  assign m_axi_gmem2_awaddr   = all_awaddr[2];
  assign m_axi_gmem2_awlen    = all_awlen[2];
  assign m_axi_gmem2_awsize   = AxSize;
  assign m_axi_gmem2_awburst  = AxBurst;
  assign m_axi_gmem2_awcache  = AxCache;
  assign m_axi_gmem2_awprot   = AxProt;
  assign m_axi_gmem2_awvalid  = all_awvalid[2];
  assign m_axi_gmem2_wdata    = all_wdata[2];
  assign m_axi_gmem2_wstrb    = all_wstrb[2];
  assign m_axi_gmem2_wlast    = all_wlast[2];
  assign m_axi_gmem2_wvalid   = all_wvalid[2];
  assign m_axi_gmem2_bready   = all_bready[2];
  assign m_axi_gmem3_araddr   = all_araddr[3];
  assign m_axi_gmem3_arlen    = all_arlen[3];
  assign m_axi_gmem3_arsize   = AxSize;
  assign m_axi_gmem3_arburst  = AxBurst;
  assign m_axi_gmem3_arcache  = AxCache;
  assign m_axi_gmem3_arprot   = AxProt;
  assign m_axi_gmem3_arvalid  = all_arvalid[3];
  assign m_axi_gmem3_rready   = all_rready[3];
  assign m_axi_gmem3_awaddr   = all_awaddr[3];
  assign m_axi_gmem3_awlen    = all_awlen[3];
  assign m_axi_gmem3_awsize   = AxSize;
  assign m_axi_gmem3_awburst  = AxBurst;
  assign m_axi_gmem3_awcache  = AxCache;
  assign m_axi_gmem3_awprot   = AxProt;
  assign m_axi_gmem3_awvalid  = all_awvalid[3];
  assign m_axi_gmem3_wdata    = all_wdata[3];
  assign m_axi_gmem3_wstrb    = all_wstrb[3];
  assign m_axi_gmem3_wlast    = all_wlast[3];
  assign m_axi_gmem3_wvalid   = all_wvalid[3];
  assign m_axi_gmem3_bready   = all_bready[3];

  machine_core u_core (
    .clk_i             (ap_clk),
    .rst_ni            (ap_rst_n),
    .start_i           (start),
    .memory_base_i     (memory_base),
    .input_base_i      (input_base),
    .output_base_i     (output_base),
    .memory_stripe_i   (memory_stripe),
    .input_stripe_i    (input_stripe),
    .output_stripe_i   (output_stripe),
    .program_addr_i    (program_addr),
    .num_instructions_i(num_instructions),
    .watchdog_i        (watchdog),
    .done_o            (done),
    .status_o          (status),
    .cycles_o          (cycles),
    .fault_o           (fault),
    .unit_state_o      (unit_state),
    .m_axi_araddr       (araddr),
    .m_axi_arlen        (arlen),
    .m_axi_arvalid      (arvalid),
    .m_axi_arready      (arready[Ports-1:0]),
    .m_axi_rdata        (rdata[Ports-1:0]),
    .m_axi_rresp        (rresp[Ports-1:0]),
    .m_axi_rlast        (rlast[Ports-1:0]),
    .m_axi_rvalid       (rvalid[Ports-1:0]),
    .m_axi_rready       (rready),
    .m_axi_awaddr       (awaddr),
    .m_axi_awlen        (awlen),
    .m_axi_awvalid      (awvalid),
    .m_axi_awready      (awready[Ports-1:0]),
    .m_axi_wdata        (wdata),
    .m_axi_wstrb        (wstrb),
    .m_axi_wlast        (wlast),
    .m_axi_wvalid       (wvalid),
    .m_axi_wready       (wready[Ports-1:0]),
    .m_axi_bresp        (bresp[Ports-1:0]),
    .m_axi_bvalid       (bvalid[Ports-1:0]),
    .m_axi_bready       (bready)
  );

  logic unused_pins;
  assign unused_pins = ^{s_axil_awprot, s_axil_arprot, arready, rdata, rresp, rlast, rvalid, awready, wready, bresp, bvalid};
endmodule
