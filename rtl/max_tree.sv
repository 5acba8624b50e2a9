// SPDX-License-Identifier: Apache-2.0
//
// Largest of `Inputs` int16, one register a level: latency $clog2(Inputs).
module max_tree #(
  parameter int unsigned Inputs = 8
) (
  input  logic                 clk_i,
  input  logic [Inputs*16-1:0] x_i,
  output logic signed [15:0]   maximum_o
);

  // A heap as in adder_tree; leaves beyond the inputs hold the smallest number.
  localparam int unsigned Leaves = 1 << $clog2(Inputs);

  logic [2*Leaves-1:0][15:0] node;
  logic [Leaves-1:0][15:0]   node_q;

  always_comb begin
    node = {(2*Leaves){16'h8000}};
    for (int unsigned i = 1; i < Leaves; i++) node[i] = node_q[i];
    for (int unsigned i = 0; i < Inputs; i++) node[Leaves+i] = x_i[i*16 +: 16];
  end

  always_ff @(posedge clk_i) begin
    node_q[0] <= 16'h8000;
    for (int unsigned i = 1; i < Leaves; i++) begin
      node_q[i] <= signed'(node[2*i]) > signed'(node[2*i+1]) ? node[2*i] : node[2*i+1];
    end
  end

  assign maximum_o = signed'(node_q[1]);

  logic unused_root;
  assign unused_root = ^{node[0], node[1], node_q[0]};

endmodule
