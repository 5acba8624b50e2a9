// SPDX-License-Identifier: Apache-2.0
//
// FIFO of beats in a block RAM; a few output registers hide the RAM's latency, so that one beat a cycle passes.
// The writer must keep count of the free places (axi_reader reserves them before it asks for data): there is no full flag.
module beat_fifo #(
  parameter int unsigned Depth = 512
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         clear_i,      // forget everything; nothing may be pushed in this cycle
  input  logic         push_i,
  input  logic [127:0] beat_i,
  output logic [127:0] beat_o,
  output logic         beat_valid_o,
  input  logic         beat_ready_i
);
  localparam int unsigned AddrBits = $clog2(Depth);
  localparam int unsigned Latency  = codesign_pkg::MemLatency;
  localparam int unsigned OutDepth = 4;   // Latency + 2: enough credits for one beat a cycle

  logic [AddrBits-1:0] wptr_q, rptr_q;
  logic [AddrBits:0]   stored_q;          // in the RAM, not yet read
  logic [2:0]          credit_q;          // output registers neither filled nor promised
  logic [Latency-1:0]  arriving_q;
  logic                ren, pop, arrive;
  logic [127:0]        ram_rdata;

  logic [OutDepth-1:0][127:0] out_q;
  logic [1:0]          out_wptr_q, out_rptr_q;
  logic [2:0]          out_count_q;

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

  assign ren    = (stored_q != 0) && (credit_q != 0);
  assign arrive = arriving_q[Latency-1];
  assign pop    = beat_valid_o && beat_ready_i;

  assign beat_valid_o = out_count_q != 0;
  assign beat_o       = out_q[out_rptr_q];

  function automatic logic [AddrBits-1:0] next(logic [AddrBits-1:0] ptr);
    next = (ptr == AddrBits'(Depth - 1)) ? '0 : ptr + AddrBits'(1);
  endfunction

  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      wptr_q      <= '0;
      rptr_q      <= '0;
      stored_q    <= '0;
      credit_q    <= 3'(OutDepth);
      arriving_q  <= '0;
      out_wptr_q  <= '0;
      out_rptr_q  <= '0;
      out_count_q <= '0;
    end else begin
      if (push_i) wptr_q <= next(wptr_q);
      if (ren)    rptr_q <= next(rptr_q);
      stored_q    <= stored_q + (AddrBits + 1)'(push_i) - (AddrBits + 1)'(ren);
      credit_q    <= credit_q + 3'(pop) - 3'(ren);
      arriving_q  <= {arriving_q[Latency-2:0], ren};
      out_wptr_q  <= out_wptr_q + 2'(arrive);
      out_rptr_q  <= out_rptr_q + 2'(pop);
      out_count_q <= out_count_q + 3'(arrive) - 3'(pop);
    end
  end

  always_ff @(posedge clk_i) begin
    if (arrive) out_q[out_wptr_q] <= ram_rdata;
  end
endmodule
