// SPDX-License-Identifier: Apache-2.0
//
// The machine with the board's memory (dram.cpp through DPI), checks of the AXI protocol, counters and a tracer. Python drives
// s_axil and waits for `interrupt`; it does nothing while the machine computes. A protocol violation ends the simulation.
`define GMEM(n) \
    .m_axi_gmem``n``_araddr (araddr[n]),  \
    .m_axi_gmem``n``_arlen  (arlen[n]),   \
    .m_axi_gmem``n``_arsize (arsize[n]),  \
    .m_axi_gmem``n``_arburst(arburst[n]), \
    .m_axi_gmem``n``_arcache(arcache[n]), \
    .m_axi_gmem``n``_arprot (arprot[n]),  \
    .m_axi_gmem``n``_arvalid(arvalid[n]), \
    .m_axi_gmem``n``_arready(arready[n]), \
    .m_axi_gmem``n``_rdata  (rdata[n]),   \
    .m_axi_gmem``n``_rresp  (rresp[n]),   \
    .m_axi_gmem``n``_rlast  (rlast[n]),   \
    .m_axi_gmem``n``_rvalid (rvalid[n]),  \
    .m_axi_gmem``n``_rready (rready[n]),  \
    .m_axi_gmem``n``_awaddr (awaddr[n]),  \
    .m_axi_gmem``n``_awlen  (awlen[n]),   \
    .m_axi_gmem``n``_awsize (awsize[n]),  \
    .m_axi_gmem``n``_awburst(awburst[n]), \
    .m_axi_gmem``n``_awcache(awcache[n]), \
    .m_axi_gmem``n``_awprot (awprot[n]),  \
    .m_axi_gmem``n``_awvalid(awvalid[n]), \
    .m_axi_gmem``n``_awready(awready[n]), \
    .m_axi_gmem``n``_wdata  (wdata[n]),   \
    .m_axi_gmem``n``_wstrb  (wstrb[n]),   \
    .m_axi_gmem``n``_wlast  (wlast[n]),   \
    .m_axi_gmem``n``_wvalid (wvalid[n]),  \
    .m_axi_gmem``n``_wready (wready[n]),  \
    .m_axi_gmem``n``_bresp  (bresp[n]),   \
    .m_axi_gmem``n``_bvalid (bvalid[n]),  \
    .m_axi_gmem``n``_bready (bready[n])

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
  localparam int unsigned NumPorts = 4;  // pins; those from codesign_pkg::Ports on are idle

  import "DPI-C" function void dram_reset();
  import "DPI-C" function void dram_configure();
  import "DPI-C" function void dram_ar(input int port, input longint unsigned addr, input byte unsigned len);
  import "DPI-C" function void dram_aw(input int port, input longint unsigned addr, input byte unsigned len);
  import "DPI-C" function void dram_w(input int port, input bit [127:0] data, input bit [15:0] strobe, input bit last);
  import "DPI-C" function void dram_cycle(
    input bit [3:0] r_taken, input bit [3:0] b_taken, output bit [3:0] arready, output bit [3:0] rvalid,
    output bit [3:0] rlast, output bit [7:0] rresp, output bit [511:0] rdata, output bit [3:0] awready,
    output bit [3:0] wready, output bit [3:0] bvalid, output bit [7:0] bresp);
  import "DPI-C" function void trace_cycle(
    input bit start, input bit done, input int status, input int completed, input bit [8:0] flags, input int kind,
    input int fifo_level, input bit [3:0] reads, input bit [3:0] writes);

  logic [NumPorts-1:0][63:0]  araddr, awaddr;
  logic [NumPorts-1:0][7:0]   arlen, awlen;
  logic [NumPorts-1:0][2:0]   arsize, awsize, arprot, awprot;
  logic [NumPorts-1:0][1:0]   arburst, awburst;
  logic [NumPorts-1:0][3:0]   arcache, awcache;
  logic [NumPorts-1:0]        arvalid, awvalid, rready, wvalid, wlast, bready;
  logic [NumPorts-1:0][127:0] wdata;
  logic [NumPorts-1:0][15:0]  wstrb;

  // What the memory drives: changes only at clock edges.
  bit [NumPorts-1:0]          arready, rvalid, rlast, awready, wready, bvalid;
  bit [NumPorts-1:0][127:0]   rdata;
  bit [NumPorts-1:0][1:0]     rresp, bresp;

  codesign_top u_dut (
    .ap_clk,
    .ap_rst_n,
    .interrupt,
    .s_axil_awaddr,
    .s_axil_awprot (3'b000),
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
    .s_axil_arprot (3'b000),
    .s_axil_arvalid,
    .s_axil_arready,
    .s_axil_rdata,
    .s_axil_rresp,
    .s_axil_rvalid,
    .s_axil_rready,
    `GMEM(0),
    `GMEM(1),
    `GMEM(2),
    `GMEM(3)
  );

  // ---- memory ----
  bit [NumPorts-1:0]          n_arready, n_rvalid, n_rlast, n_awready, n_wready, n_bvalid;
  bit [NumPorts-1:0][127:0]   n_rdata;
  bit [NumPorts-1:0][1:0]     n_rresp, n_bresp;

  always @(posedge ap_clk) begin
    if (!ap_rst_n) begin
      dram_reset();
      arready <= '0;
      rvalid  <= '0;
      awready <= '0;
      wready  <= '0;
      bvalid  <= '0;
    end else begin
      for (int p = 0; p < NumPorts; p++) begin
        if (arvalid[p] && arready[p]) dram_ar(p, araddr[p], arlen[p]);
        if (awvalid[p] && awready[p]) dram_aw(p, awaddr[p], awlen[p]);
        if (wvalid[p] && wready[p]) dram_w(p, wdata[p], wstrb[p], wlast[p]);
      end
      dram_cycle(rvalid & rready, bvalid & bready, n_arready, n_rvalid, n_rlast, n_rresp, n_rdata, n_awready, n_wready,
                 n_bvalid, n_bresp);
      arready <= n_arready;
      rvalid  <= n_rvalid;
      rlast   <= n_rlast;
      rresp   <= n_rresp;
      rdata   <= n_rdata;
      awready <= n_awready;
      wready  <= n_wready;
      bvalid  <= n_bvalid;
      bresp   <= n_bresp;
    end
  end

  // ---- AXI protocol ----
  logic [NumPorts-1:0] axi_idle;
  for (genvar p = 0; p < NumPorts; p++) begin : gen_check
    axi_check #(
      .Port(p)
    ) u_axi_check (
      .clk_i  (ap_clk),
      .rst_ni (ap_rst_n),
      .araddr (araddr[p]),
      .arlen  (arlen[p]),
      .arsize (arsize[p]),
      .arburst(arburst[p]),
      .arcache(arcache[p]),
      .arprot (arprot[p]),
      .arvalid(arvalid[p]),
      .arready(arready[p]),
      .rdata  (rdata[p]),
      .rresp  (rresp[p]),
      .rlast  (rlast[p]),
      .rvalid (rvalid[p]),
      .rready (rready[p]),
      .awaddr (awaddr[p]),
      .awlen  (awlen[p]),
      .awsize (awsize[p]),
      .awburst(awburst[p]),
      .awcache(awcache[p]),
      .awprot (awprot[p]),
      .awvalid(awvalid[p]),
      .awready(awready[p]),
      .wdata  (wdata[p]),
      .wstrb  (wstrb[p]),
      .wlast  (wlast[p]),
      .wvalid (wvalid[p]),
      .wready (wready[p]),
      .bresp  (bresp[p]),
      .bvalid (bvalid[p]),
      .bready (bready[p]),
      .idle_o (axi_idle[p])
    );
    if (p >= codesign_pkg::Ports) begin : gen_idle
      always_ff @(posedge ap_clk)
        if (ap_rst_n && (arvalid[p] || awvalid[p] || wvalid[p])) $fatal(1, "AXI port %0d must be idle", p);
    end
  end

  // ---- counters and tracer (trace.cpp) ----
  // The only place that knows names inside the machine.
  logic        run_start, run_done, dispatch, slot, wait_blocks, wait_rows, kv_read, norm_busy, router_busy, load_busy, store_busy;
  logic [15:0] completed;
  logic [1:0]  slot_kind;
  logic [2:0]  status;
  logic [31:0] fifo_level;

  logic        start_q;
  always_ff @(posedge ap_clk) start_q <= ap_rst_n && u_dut.start;

  assign run_start   = u_dut.start && !start_q;
  assign run_done    = u_dut.done;
  assign status      = u_dut.status;
  assign dispatch    = u_dut.u_core.u_control.u_dispatcher.started;
  assign completed   = u_dut.u_core.completed;
  assign slot        = u_dut.u_core.u_unified_unit.u_issuer.slot_valid_o;
  assign slot_kind   = {u_dut.u_core.u_unified_unit.u_issuer.slot_mix_o, u_dut.u_core.u_unified_unit.u_issuer.slot_score_o};
  assign wait_blocks = u_dut.u_core.u_unified_unit.u_issuer.wait_tile_o;
  assign wait_rows   = u_dut.u_core.u_unified_unit.u_issuer.wait_rows_o;
  assign kv_read     = u_dut.u_core.u_unified_unit.b_req_o && u_dut.u_core.u_unified_unit.b_gnt_i;
  assign norm_busy   = u_dut.u_core.norm_state != 0;
  assign router_busy = u_dut.u_core.router_state != 0;
  assign load_busy   = u_dut.u_core.load_state != 0;
  assign store_busy  = u_dut.u_core.store_state != 0;
  assign fifo_level  = 32'(u_dut.u_core.u_block_stream.u_block_fifo.count_q);

  always @(posedge ap_clk) begin
    if (ap_rst_n) begin
      if (run_start) dram_configure();
      trace_cycle(run_start, run_done, 32'(status), 32'(completed),
                  {store_busy, load_busy, router_busy, norm_busy, dispatch, kv_read, wait_rows, wait_blocks, slot},
                  32'(slot_kind), fifo_level, rvalid & rready, wvalid & wready);
      if (run_done && status == 0 && !(&axi_idle)) $fatal(1, "the run must be over only when no AXI burst is under way");
    end
  end
endmodule
