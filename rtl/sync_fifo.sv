// SPDX-License-Identifier: Apache-2.0
//
// Small FIFO in distributed memory: the oldest entry stands on data_o while valid_o. Pushing into a full FIFO is not allowed.
module sync_fifo #(
  parameter int unsigned Width = 8,
  parameter int unsigned Depth = 4     // a power of two, at least 2
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             clear_i,    // forget everything

  input  logic             push_i,
  input  logic [Width-1:0] data_i,
  output logic             full_o,

  output logic             valid_o,
  output logic [Width-1:0] data_o,
  input  logic             pop_i       // only while valid_o
);
  localparam int unsigned AddrBits = $clog2(Depth);

  (* ram_style = "distributed" *) logic [Width-1:0] mem [Depth];
  logic [AddrBits-1:0] wptr_q, rptr_q;
  logic [AddrBits:0]   count_q, count_d;
  logic                full_q, valid_q;

  assign full_o  = full_q;
  assign valid_o = valid_q;
  assign data_o  = mem[rptr_q];
  assign count_d = count_q + (AddrBits + 1)'(push_i) - (AddrBits + 1)'(pop_i);

  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      wptr_q  <= '0;
      rptr_q  <= '0;
      count_q <= '0;
      full_q  <= 1'b0;
      valid_q <= 1'b0;
    end else begin
      wptr_q  <= wptr_q + AddrBits'(push_i);
      rptr_q  <= rptr_q + AddrBits'(pop_i);
      count_q <= count_d;
      full_q  <= count_d == (AddrBits + 1)'(Depth);
      valid_q <= count_d != '0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (push_i) mem[wptr_q] <= data_i;
  end

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni && !clear_i) begin
      assert (!(push_i && full_q));
      assert (!(pop_i && !valid_q));
    end
  end
`endif
endmodule
