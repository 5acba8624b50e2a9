// SPDX-License-Identifier: Apache-2.0
//
// AXI4-Lite registers: Vitis' `ap_ctrl_hs` block at 0x00..0x0C, then the arguments of `isa.REGISTERS`.
// CTRL.done and CTRL.ready clear on read, ISR bits toggle when written with 1, as in the HLS version.
module axil_regs (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic [7:0]  s_axil_awaddr,
  input  logic        s_axil_awvalid,
  output logic        s_axil_awready,
  input  logic [31:0] s_axil_wdata,
  input  logic [3:0]  s_axil_wstrb,
  input  logic        s_axil_wvalid,
  output logic        s_axil_wready,
  output logic [1:0]  s_axil_bresp,
  output logic        s_axil_bvalid,
  input  logic        s_axil_bready,
  input  logic [7:0]  s_axil_araddr,
  input  logic        s_axil_arvalid,
  output logic        s_axil_arready,
  output logic [31:0] s_axil_rdata,
  output logic [1:0]  s_axil_rresp,
  output logic        s_axil_rvalid,
  input  logic        s_axil_rready,

  output logic        interrupt_o,
  output logic        start_o,            // high from the host's start until done_i
  output logic [63:0] memory_base_o,
  output logic [63:0] input_base_o,
  output logic [63:0] output_base_o,
  output logic [31:0] memory_stripe_o,
  output logic [31:0] input_stripe_o,
  output logic [31:0] output_stripe_o,
  output logic [31:0] program_addr_o,
  output logic [31:0] num_instructions_o,
  output logic [31:0] watchdog_o,
  input  logic        done_i,             // one-cycle pulse
  input  codesign_pkg::status_t status_i,
  input  logic [31:0] cycles_i,
  input  logic [31:0] fault_i,
  input  logic [31:0] unit_state_i
);
  logic        aw_full_q, w_full_q, bvalid_q, rvalid_q;
  logic [7:0]  awaddr_q, araddr;           // of the 32-bit word: strobes choose bytes
  logic [31:0] wdata_q, rdata_q, rdata_d;
  logic [3:0]  wstrb_q;
  logic        write, read;

  logic        start_q, done_q, ready_q, gie_q;
  logic [1:0]  ier_q, isr_q;
  logic [63:0] memory_base_q, input_base_q, output_base_q;
  logic [31:0] memory_stripe_q, input_stripe_q, output_stripe_q, program_addr_q, num_instructions_q, watchdog_q;

  assign s_axil_awready = !aw_full_q;
  assign s_axil_wready  = !w_full_q;
  assign s_axil_bvalid  = bvalid_q;
  assign s_axil_bresp   = 2'b00;
  assign s_axil_arready = !rvalid_q;
  assign s_axil_rvalid  = rvalid_q;
  assign s_axil_rdata   = rdata_q;
  assign s_axil_rresp   = 2'b00;

  assign write  = aw_full_q && w_full_q && !bvalid_q;
  assign read   = s_axil_arvalid && !rvalid_q;
  assign araddr = {s_axil_araddr[7:2], 2'b00};

  assign interrupt_o        = gie_q && (isr_q != 2'b00);
  assign start_o            = start_q;
  assign memory_base_o      = memory_base_q;
  assign input_base_o       = input_base_q;
  assign output_base_o      = output_base_q;
  assign memory_stripe_o    = memory_stripe_q;
  assign input_stripe_o     = input_stripe_q;
  assign output_stripe_o    = output_stripe_q;
  assign program_addr_o     = program_addr_q;
  assign num_instructions_o = num_instructions_q;
  assign watchdog_o         = watchdog_q;

  always_comb begin
    unique case (araddr)
      codesign_pkg::AddrCtrl:            rdata_d = {28'd0, ready_q, !start_q, done_q, start_q};
      codesign_pkg::AddrGier:            rdata_d = {31'd0, gie_q};
      codesign_pkg::AddrIer:             rdata_d = {30'd0, ier_q};
      codesign_pkg::AddrIsr:             rdata_d = {30'd0, isr_q};
      codesign_pkg::AddrMemoryBase:      rdata_d = memory_base_q[31:0];
      codesign_pkg::AddrMemoryBaseHi:    rdata_d = memory_base_q[63:32];
      codesign_pkg::AddrInputBase:       rdata_d = input_base_q[31:0];
      codesign_pkg::AddrInputBaseHi:     rdata_d = input_base_q[63:32];
      codesign_pkg::AddrOutputBase:      rdata_d = output_base_q[31:0];
      codesign_pkg::AddrOutputBaseHi:    rdata_d = output_base_q[63:32];
      codesign_pkg::AddrMemoryStripe:    rdata_d = memory_stripe_q;
      codesign_pkg::AddrInputStripe:     rdata_d = input_stripe_q;
      codesign_pkg::AddrOutputStripe:    rdata_d = output_stripe_q;
      codesign_pkg::AddrProgramAddr:     rdata_d = program_addr_q;
      codesign_pkg::AddrNumInstructions: rdata_d = num_instructions_q;
      codesign_pkg::AddrWatchdog:        rdata_d = watchdog_q;
      codesign_pkg::AddrMagic:           rdata_d = codesign_pkg::Magic;
      codesign_pkg::AddrIsaVersion:      rdata_d = codesign_pkg::IsaVersion;
      codesign_pkg::AddrDesignHash:      rdata_d = codesign_pkg::DesignHash;
      codesign_pkg::AddrStatus:          rdata_d = {29'd0, status_i};
      codesign_pkg::AddrCycles:          rdata_d = cycles_i;
      codesign_pkg::AddrFault:           rdata_d = fault_i;
      codesign_pkg::AddrUnitState:       rdata_d = unit_state_i;
      default:                           rdata_d = 32'd0;
    endcase
  end

  logic [3:0] unused_addr;
  assign unused_addr = {s_axil_awaddr[1:0], s_axil_araddr[1:0]};

  // Channels: one write and one read in flight.
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      aw_full_q <= 1'b0;
      w_full_q  <= 1'b0;
      bvalid_q  <= 1'b0;
      rvalid_q  <= 1'b0;
    end else begin
      if (s_axil_awvalid && !aw_full_q) aw_full_q <= 1'b1;
      else if (write)                   aw_full_q <= 1'b0;
      if (s_axil_wvalid && !w_full_q)   w_full_q <= 1'b1;
      else if (write)                   w_full_q <= 1'b0;
      if (write)                        bvalid_q <= 1'b1;
      else if (s_axil_bready)           bvalid_q <= 1'b0;
      if (read)                         rvalid_q <= 1'b1;
      else if (s_axil_rready)           rvalid_q <= 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (!aw_full_q) awaddr_q <= {s_axil_awaddr[7:2], 2'b00};
    if (!w_full_q) begin
      wdata_q <= s_axil_wdata;
      wstrb_q <= s_axil_wstrb;
    end
    if (read) rdata_q <= rdata_d;
  end

  // Control block. A machine event wins over a host access in the same cycle.
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      start_q <= 1'b0;
      done_q  <= 1'b0;
      ready_q <= 1'b0;
      gie_q   <= 1'b0;
      ier_q   <= 2'b00;
      isr_q   <= 2'b00;
    end else begin
      if (done_i) begin
        start_q <= 1'b0;
        done_q  <= 1'b1;
        ready_q <= 1'b1;
      end else begin
        if (write && awaddr_q == codesign_pkg::AddrCtrl && wstrb_q[0] && wdata_q[0]) start_q <= 1'b1;
        if (read && araddr == codesign_pkg::AddrCtrl) begin
          done_q  <= 1'b0;
          ready_q <= 1'b0;
        end
      end
      if (write && awaddr_q == codesign_pkg::AddrGier && wstrb_q[0]) gie_q <= wdata_q[0];
      if (write && awaddr_q == codesign_pkg::AddrIer && wstrb_q[0]) ier_q <= wdata_q[1:0];
      for (int unsigned i = 0; i < 2; i++) begin
        if (done_i && ier_q[i]) isr_q[i] <= 1'b1;
        else if (write && awaddr_q == codesign_pkg::AddrIsr && wstrb_q[0] && wdata_q[i]) isr_q[i] <= !isr_q[i];
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      memory_base_q      <= 64'd0;
      input_base_q       <= 64'd0;
      output_base_q      <= 64'd0;
      memory_stripe_q    <= 32'd0;
      input_stripe_q     <= 32'd0;
      output_stripe_q    <= 32'd0;
      program_addr_q     <= 32'd0;
      num_instructions_q <= 32'd0;
      watchdog_q         <= 32'd0;
    end else if (write) begin
      for (int unsigned i = 0; i < 4; i++) begin
        if (wstrb_q[i]) begin
          unique case (awaddr_q)
            codesign_pkg::AddrMemoryBase:      memory_base_q[8*i +: 8] <= wdata_q[8*i +: 8];
            codesign_pkg::AddrMemoryBaseHi:    memory_base_q[32+8*i +: 8] <= wdata_q[8*i +: 8];
            codesign_pkg::AddrInputBase:       input_base_q[8*i +: 8] <= wdata_q[8*i +: 8];
            codesign_pkg::AddrInputBaseHi:     input_base_q[32+8*i +: 8] <= wdata_q[8*i +: 8];
            codesign_pkg::AddrOutputBase:      output_base_q[8*i +: 8] <= wdata_q[8*i +: 8];
            codesign_pkg::AddrOutputBaseHi:    output_base_q[32+8*i +: 8] <= wdata_q[8*i +: 8];
            codesign_pkg::AddrMemoryStripe:    memory_stripe_q[8*i +: 8] <= wdata_q[8*i +: 8];
            codesign_pkg::AddrInputStripe:     input_stripe_q[8*i +: 8] <= wdata_q[8*i +: 8];
            codesign_pkg::AddrOutputStripe:    output_stripe_q[8*i +: 8] <= wdata_q[8*i +: 8];
            codesign_pkg::AddrProgramAddr:     program_addr_q[8*i +: 8] <= wdata_q[8*i +: 8];
            codesign_pkg::AddrNumInstructions: num_instructions_q[8*i +: 8] <= wdata_q[8*i +: 8];
            codesign_pkg::AddrWatchdog:        watchdog_q[8*i +: 8] <= wdata_q[8*i +: 8];
            default: ;
          endcase
        end
      end
    end
  end
endmodule
