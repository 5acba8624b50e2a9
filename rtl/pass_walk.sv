// SPDX-License-Identifier: Apache-2.0
//
// Goes through the passes in order: the next one's fields stand by in the output register of a table of its own.
module pass_walk #(
  parameter int unsigned Width = 8,
  parameter int unsigned TagBits = 3
) (
  input  logic               clk_i,
  input  logic               rst_ni,
  // the pass that is written
  input  logic               plan_we_i,
  input  logic [TagBits-1:0] plan_tag_i,   // also while nothing is written: the tag of the next one
  input  logic [Width-1:0]   plan_i,
  // the next pass, if there is one
  output logic               valid_o,
  output logic [TagBits-1:0] tag_o,
  output logic [Width-1:0]   data_o,
  input  logic               take_i
);

  logic               valid_q;
  logic [TagBits-1:0] tag_q;

  pass_table #(.Width(Width), .TagBits(TagBits)) u_passes (
    .clk_i, .we_i(plan_we_i), .wtag_i(plan_tag_i), .wdata_i(plan_i), .rtag_i(tag_q), .rdata_o(data_o)
  );

  always_ff @(posedge clk_i) begin
    valid_q <= tag_q != plan_tag_i && !take_i;
    tag_q <= tag_q + TagBits'(take_i);
    if (!rst_ni) begin
      valid_q <= 1'b0;
      tag_q <= '0;
    end
  end

  assign valid_o = valid_q;
  assign tag_o = tag_q;

endmodule
