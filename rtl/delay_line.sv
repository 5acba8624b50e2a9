// SPDX-License-Identifier: Apache-2.0
//
// `Stages` registers in a row, without reset.
module delay_line #(
  parameter int unsigned Width = 1,
  parameter int unsigned Stages = 1
) (
  input  logic             clk_i,
  input  logic [Width-1:0] d_i,
  output logic [Width-1:0] q_o
);

  logic [Stages-1:0][Width-1:0] stage_q;

  always_ff @(posedge clk_i) begin
    stage_q[0] <= d_i;
    for (int unsigned i = 1; i < Stages; i++) stage_q[i] <= stage_q[i-1];
  end

  assign q_o = stage_q[Stages-1];

endmodule
