// SPDX-License-Identifier: Apache-2.0
//
// FIFO of beats in a block RAM; a few places behind it hide the RAM's latency, so that one beat a cycle passes.
// The writer must keep count of the free places (axi_reader reserves them before it asks for data): there is no full flag.
module beat_fifo #(
  parameter int unsigned Depth = 512     // a power of two
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         clear_i,          // forget everything
  input  logic         push_i,
  input  logic [127:0] beat_i,
  output logic [127:0] beat_o,
  output logic         beat_valid_o,
  input  logic         beat_ready_i
);
  localparam int unsigned AddrBits   = $clog2(Depth);
  localparam int unsigned Latency    = codesign_pkg::MemLatency;
  localparam int unsigned OutDepth   = 4;   // Latency + 2: enough credits for one beat a cycle
  localparam int unsigned CreditBits = $clog2(OutDepth) + 1;

  logic [AddrBits-1:0]   wptr_q, rptr_q;
  logic [AddrBits:0]     stored_q;          // in the RAM, not yet read
  logic [CreditBits-1:0] credit_q;          // output places neither filled nor promised
  logic [Latency-1:0]    arriving_q;
  logic                  ren, pop, out_full;
  logic [127:0]          ram_rdata;

  sdp_ram #(
    .Width     (128),
    .Depth     (Depth),
    .WriteLanes(1)
  ) u_ram (
    .clk_i,
    .we_i   (push_i),
    .waddr_i(wptr_q),
    .wdata_i(beat_i),
    .ren_i  (ren),
    .raddr_i(rptr_q),
    .rdata_o(ram_rdata)
  );

  sync_fifo #(
    .Width(128),
    .Depth(OutDepth)
  ) u_out (
    .clk_i,
    .rst_ni,
    .clear_i,
    .push_i (arriving_q[Latency-1]),
    .data_i (ram_rdata),
    .full_o (out_full),
    .valid_o(beat_valid_o),
    .data_o (beat_o),
    .pop_i  (pop)
  );

  assign ren = (stored_q != 0) && (credit_q != 0);
  assign pop = beat_valid_o && beat_ready_i;

  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      wptr_q     <= '0;
      rptr_q     <= '0;
      stored_q   <= '0;
      credit_q   <= CreditBits'(OutDepth);
      arriving_q <= '0;
    end else begin
      wptr_q     <= wptr_q + AddrBits'(push_i);
      rptr_q     <= rptr_q + AddrBits'(ren);
      stored_q   <= stored_q + (AddrBits + 1)'(push_i) - (AddrBits + 1)'(ren);
      credit_q   <= credit_q + CreditBits'(pop) - CreditBits'(ren);
      arriving_q <= {arriving_q[Latency-2:0], ren};
    end
  end

  logic unused_full;
  assign unused_full = out_full;   // the credits keep it from overflowing

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni && !clear_i) assert (!(push_i && stored_q == (AddrBits + 1)'(Depth)));
  end
`endif
endmodule
