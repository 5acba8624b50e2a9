// SPDX-License-Identifier: Apache-2.0
//
// Small FIFO in LUT memory with a registered head. It holds `Depth` words and the head; who pushes keeps count of the room. A word
// pushed into an empty FIFO is at the head two cycles later.
module word_fifo #(
  parameter int unsigned Width = 8,
  parameter int unsigned Depth = 32  // a power of two
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             push_i,
  input  logic [Width-1:0] data_i,
  output logic             valid_o,
  output logic [Width-1:0] data_o,
  input  logic             pop_i     // only with valid_o
);

  localparam int unsigned AddrBits = $clog2(Depth);

  (* ram_style = "distributed" *) logic [Width-1:0] mem [Depth];

  logic [AddrBits:0] write_q, read_q;  // one bit more than an address: equal means empty
  logic              fetch;

  assign fetch = write_q != read_q && (!valid_o || pop_i);

  always_ff @(posedge clk_i) begin
    if (push_i) mem[write_q[AddrBits-1:0]] <= data_i;
  end

  always_ff @(posedge clk_i) begin
    if (fetch) data_o <= mem[read_q[AddrBits-1:0]];
  end

  always_ff @(posedge clk_i) begin
    if (push_i) write_q <= write_q + (AddrBits + 1)'(1);
    if (fetch) read_q <= read_q + (AddrBits + 1)'(1);
    if (fetch) valid_o <= 1'b1;
    else if (pop_i) valid_o <= 1'b0;
    if (!rst_ni) begin
      write_q <= '0;
      read_q <= '0;
      valid_o <= 1'b0;
    end
  end

endmodule
