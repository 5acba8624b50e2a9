// SPDX-License-Identifier: Apache-2.0
//
// The AXI4 rules for one port of the machine (IHI 0022): no valid during reset; valid and payload hold until accepted; whole
// 16-byte beats, INCR bursts, within one 4 KiB page; WLAST at the end of each burst; answers only to what was asked, RLAST at
// the end of each read burst. A violation ends the simulation. Ports have no IDs: everything is answered in order.
module axi_check #(
  parameter int unsigned Port = 0
) (
  input logic         clk_i,
  input logic         rst_ni,

  input logic [63:0]  araddr,
  input logic [7:0]   arlen,
  input logic [2:0]   arsize,
  input logic [1:0]   arburst,
  input logic [3:0]   arcache,
  input logic [2:0]   arprot,
  input logic         arvalid,
  input logic         arready,
  input logic [127:0] rdata,
  input logic [1:0]   rresp,
  input logic         rlast,
  input logic         rvalid,
  input logic         rready,
  input logic [63:0]  awaddr,
  input logic [7:0]   awlen,
  input logic [2:0]   awsize,
  input logic [1:0]   awburst,
  input logic [3:0]   awcache,
  input logic [2:0]   awprot,
  input logic         awvalid,
  input logic         awready,
  input logic [127:0] wdata,
  input logic [15:0]  wstrb,
  input logic         wlast,
  input logic         wvalid,
  input logic         wready,
  input logic [1:0]   bresp,
  input logic         bvalid,
  input logic         bready,

  output logic        idle_o  // nothing asked for is unanswered
);
  localparam int unsigned MaxBursts = 64;

  // ---- valid and payload hold ----
  logic [83:0]  ar, ar_q, aw, aw_q;
  logic [144:0] w, w_q;
  logic [130:0] r, r_q;
  logic [1:0]   b_q;
  logic         ar_wait_q, aw_wait_q, w_wait_q, r_wait_q, b_wait_q;

  assign ar = {araddr, arlen, arsize, arburst, arcache, arprot};
  assign aw = {awaddr, awlen, awsize, awburst, awcache, awprot};
  assign w  = {wdata, wstrb, wlast};
  assign r  = {rdata, rresp, rlast};

  initial {ar_wait_q, aw_wait_q, w_wait_q, r_wait_q, b_wait_q} = '0;
  always_ff @(posedge clk_i) begin
    ar_q      <= ar;
    aw_q      <= aw;
    w_q       <= w;
    r_q       <= r;
    b_q       <= bresp;
    ar_wait_q <= rst_ni && arvalid && !arready;
    aw_wait_q <= rst_ni && awvalid && !awready;
    w_wait_q  <= rst_ni && wvalid && !wready;
    r_wait_q  <= rst_ni && rvalid && !rready;
    b_wait_q  <= rst_ni && bvalid && !bready;
    if (rst_ni) begin
      if (ar_wait_q && !(arvalid && ar == ar_q)) $fatal(1, "AXI port %0d: ARVALID or its payload changed before ARREADY", Port);
      if (aw_wait_q && !(awvalid && aw == aw_q)) $fatal(1, "AXI port %0d: AWVALID or its payload changed before AWREADY", Port);
      if (w_wait_q && !(wvalid && w == w_q)) $fatal(1, "AXI port %0d: WVALID or its payload changed before WREADY", Port);
      if (r_wait_q && !(rvalid && r == r_q)) $fatal(1, "AXI port %0d: RVALID or its payload changed before RREADY", Port);
      if (b_wait_q && !(bvalid && bresp == b_q)) $fatal(1, "AXI port %0d: BVALID or its payload changed before BREADY", Port);
    end
  end

  // During reset (from its second cycle on: the first edge is what resets the machine) no valid.
  logic in_reset_q;
  initial in_reset_q = 1'b0;
  always_ff @(posedge clk_i) begin
    in_reset_q <= !rst_ni;
    if (!rst_ni && in_reset_q && (arvalid || awvalid || wvalid)) $fatal(1, "AXI port %0d: valid during reset", Port);
  end

  // ---- addresses ----
  always_ff @(posedge clk_i) begin
    if (rst_ni && arvalid) check_address("AR", araddr, arlen, arsize, arburst);
    if (rst_ni && awvalid) check_address("AW", awaddr, awlen, awsize, awburst);
    if (rst_ni && wvalid && wready && $isunknown(wstrb)) $fatal(1, "AXI port %0d: WSTRB is unknown", Port);
  end

  task automatic check_address(input string channel, input logic [63:0] addr, input logic [7:0] len,
                               input logic [2:0] size, input logic [1:0] burst);
    if (addr[3:0] != 4'd0) $fatal(1, "AXI port %0d: %s address %h is not a whole beat", Port, channel, addr);
    if (size != 3'd4 || burst != 2'b01) $fatal(1, "AXI port %0d: %s must be INCR of 16-byte beats", Port, channel);
    if (32'(addr[11:4]) + 32'(len) > 32'd255)
      $fatal(1, "AXI port %0d: %s burst of %0d beats at %h crosses 4 KiB", Port, channel, 32'(len) + 1, addr);
  endtask

  // ---- answers ----
  // Lengths of the read bursts that are under way; counts of write bursts whose data, and whose answer, are missing.
  logic [7:0]                   ar_len_q [MaxBursts];
  logic [$clog2(MaxBursts)-1:0] ar_head_q, ar_tail_q;
  logic [31:0]                  ar_count_q, aw_count_q, w_bursts_q;
  logic [7:0]                   r_beat_q;
  logic                         ar_taken, r_taken, aw_taken, w_done, b_taken;

  assign ar_taken = arvalid && arready;
  assign r_taken  = rvalid && rready;
  assign aw_taken = awvalid && awready;
  assign w_done   = wvalid && wready && wlast;
  assign b_taken  = bvalid && bready;
  assign idle_o   = ar_count_q == 0 && aw_count_q == 0 && w_bursts_q == 0;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      ar_head_q  <= '0;
      ar_tail_q  <= '0;
      ar_count_q <= 0;
      aw_count_q <= 0;
      w_bursts_q <= 0;
      r_beat_q   <= '0;
    end else begin
      if (ar_taken) begin
        ar_len_q[ar_tail_q] <= arlen;
        ar_tail_q           <= ar_tail_q + 1'b1;
      end
      if (r_taken) begin
        r_beat_q <= rlast ? '0 : r_beat_q + 1'b1;
        if (rlast) ar_head_q <= ar_head_q + 1'b1;
      end
      ar_count_q <= ar_count_q + 32'(ar_taken) - 32'(r_taken && rlast);
      aw_count_q <= aw_count_q + 32'(aw_taken) - 32'(b_taken);
      w_bursts_q <= w_bursts_q + 32'(w_done) - 32'(b_taken);
      if (rvalid && ar_count_q == 0) $fatal(1, "AXI port %0d: RVALID without a read under way", Port);
      if (rvalid && rlast != (r_beat_q == ar_len_q[ar_head_q])) $fatal(1, "AXI port %0d: RLAST at the wrong beat", Port);
      if (bvalid && (aw_count_q == 0 || w_bursts_q == 0)) $fatal(1, "AXI port %0d: BVALID without a write under way", Port);
      if (ar_count_q >= MaxBursts) $fatal(1, "AXI port %0d: more than %0d reads under way", Port, MaxBursts);
    end
  end
endmodule
