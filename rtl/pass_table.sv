// SPDX-License-Identifier: Apache-2.0
//
// One field set of every pass under way, by tag: one write port, one read port, in distributed memory. The entry is there a cycle
// after its tag.
module pass_table #(
  parameter int unsigned Width = 8,
  parameter int unsigned TagBits = 3
) (
  input  logic               clk_i,
  input  logic               we_i,
  input  logic [TagBits-1:0] wtag_i,
  input  logic [Width-1:0]   wdata_i,
  input  logic [TagBits-1:0] rtag_i,
  output logic [Width-1:0]   rdata_o
);

  logic [Width-1:0] mem [1 << TagBits];

  always_ff @(posedge clk_i) begin
    if (we_i) mem[wtag_i] <= wdata_i;
    rdata_o <= mem[rtag_i];
  end

endmodule
