// SPDX-License-Identifier: Apache-2.0
//
// FIFO of blocks in block RAM or UltraRAM. A popped block stands on block_o BlockLatency cycles after the cycle of the pop
// (address register, memory register, output register) until the next popped block does. One push and one pop a cycle.
module block_fifo #(
  parameter int unsigned Width  = codesign_pkg::BlockBits,
  parameter int unsigned Depth  = codesign_pkg::FifoBlocks,     // a power of two, at least 4
  parameter bit          InUram = codesign_pkg::FifoInUram != 0
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             clear_i,     // forget everything

  input  logic             push_i,
  input  logic [Width-1:0] block_i,
  output logic             room_o,      // room for two blocks at least: one may be on its way to push_i

  output logic             avail_o,     // a block is stored
  input  logic             pop_i,       // only while avail_o
  output logic [Width-1:0] block_o
);
  localparam int unsigned AddrBits = $clog2(Depth);

  logic [AddrBits-1:0] wptr_q, rptr_q, raddr_q;
  logic [AddrBits:0]   count_q, count_d;
  logic                avail_q, more_q, room_q, ren_q;   // more_q: two blocks at least are stored

  sdp_ram #(
    .Width     (Width),
    .Depth     (Depth),
    .WriteLanes(1),
    .InUram    (InUram)
  ) u_ram (
    .clk_i,
    .we_i   (push_i),
    .waddr_i(wptr_q),
    .wdata_i(block_i),
    .ren_i  (ren_q),
    .raddr_i(raddr_q),
    .rdata_o(block_o)
  );

  assign avail_o = avail_q;
  assign room_o  = room_q;
  assign count_d = count_q + (AddrBits + 1)'(push_i) - (AddrBits + 1)'(pop_i);

  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      wptr_q  <= '0;
      rptr_q  <= '0;
      count_q <= '0;
      avail_q <= 1'b0;
      more_q  <= 1'b0;
      room_q  <= 1'b1;
      ren_q   <= 1'b0;
    end else begin
      wptr_q  <= wptr_q + AddrBits'(push_i);
      rptr_q  <= rptr_q + AddrBits'(pop_i);
      count_q <= count_d;
      // The pop comes late in the cycle: it selects between values that are ready.
      unique case ({push_i, pop_i})
        2'b10:   {avail_q, more_q} <= {1'b1, avail_q};
        2'b01:   {avail_q, more_q} <= {more_q, count_q > (AddrBits + 1)'(2)};
        default: ;
      endcase
      room_q <= count_q < (AddrBits + 1)'(Depth - 2);   // without this cycle's push, and no pop counted
      ren_q  <= pop_i;
    end
  end

  always_ff @(posedge clk_i) begin
    raddr_q <= rptr_q;
  end

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni && !clear_i) begin
      assert (!(push_i && count_q == (AddrBits + 1)'(Depth)));
      assert (!(pop_i && !avail_q));
      assert (avail_q == (count_q != '0));
      assert (more_q == (count_q > (AddrBits + 1)'(1)));
    end
  end
`endif
endmodule
