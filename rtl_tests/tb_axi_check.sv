// SPDX-License-Identifier: Apache-2.0
//
// A port that obeys AXI, or breaks one rule: +rule=N. For test_axi_check.py.
module tb_axi_check;
  logic         clk = 1'b0, rst_n = 1'b0;
  logic [63:0]  araddr = 64'h1000, awaddr = 64'h2000;
  logic [7:0]   arlen = 8'd1, awlen = 8'd1;
  logic [2:0]   arsize = 3'd4, awsize = 3'd4;
  logic [1:0]   arburst = 2'b01, awburst = 2'b01, bresp = 2'd0, rresp = 2'd0;
  logic         arvalid = 1'b0, arready = 1'b0, awvalid = 1'b0, awready = 1'b0, wvalid = 1'b0, wready = 1'b0, wlast = 1'b0;
  logic         rvalid = 1'b0, rready = 1'b1, rlast = 1'b0, bvalid = 1'b0, bready = 1'b1;
  logic [127:0] wdata = 128'd5, rdata = 128'd7;
  logic [15:0]  wstrb = '1;
  logic         idle;
  int           rule = 0;

  axi_check #(
    .Port(2)
  ) u_axi_check (
    .clk_i  (clk),
    .rst_ni (rst_n),
    .arcache(4'b0011),
    .arprot (3'b000),
    .awcache(4'b0011),
    .awprot (3'b000),
    .idle_o (idle),
    .*
  );

  always #1 clk = !clk;

  task automatic tick();
    @(negedge clk);
  endtask

  initial begin
    void'($value$plusargs("rule=%d", rule));
    tick();
    tick();
    if (rule == 1) arvalid = 1'b1;
    tick();
    rst_n = 1'b1;
    tick();
    // a read of two beats: the address waits, then is taken
    arvalid = 1'b1;
    if (rule == 2) araddr[3:0] = 4'd8;
    if (rule == 3) arsize = 3'd3;
    if (rule == 4) araddr = 64'h1FF0;
    tick();
    if (rule == 5) araddr = 64'h1040;
    if (rule == 6) arvalid = 1'b0;
    tick();
    arready = 1'b1;
    tick();
    arvalid = 1'b0;
    rvalid  = 1'b1;
    if (rule == 7) rlast = 1'b1;
    tick();
    rlast = 1'b1;
    if (rule == 8) rlast = 1'b0;
    tick();
    rvalid = (rule == 9);
    tick();
    if (!idle) $fatal(1, "must be idle");
    // a write of two beats
    awvalid = 1'b1;
    wvalid  = 1'b1;
    if (rule == 10) awburst = 2'b00;
    tick();
    if (idle) $display("nothing taken yet");
    if (rule == 11) awlen = 8'd7;
    if (rule == 12) wdata = 128'd6;
    if (rule == 13) wstrb = 16'd1;
    if (rule == 14) wvalid = 1'b0;
    tick();
    awready = 1'b1;
    tick();
    awvalid = 1'b0;
    if (rule == 15) bvalid = 1'b1;
    wready = 1'b1;
    tick();
    wlast = 1'b1;
    tick();
    wvalid = 1'b0;
    if (idle) $fatal(1, "must not be idle");
    bvalid = 1'b1;
    bready = 1'b0;
    tick();
    if (rule == 16) bresp = 2'd2;
    tick();
    bready = 1'b1;
    tick();
    bvalid = (rule == 17);
    tick();
    if (!idle) $fatal(1, "must be idle");
    $display("obeyed");
    $finish;
  end
endmodule
