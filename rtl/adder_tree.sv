// SPDX-License-Identifier: Apache-2.0
//
// Sum of `Inputs` signed numbers, one register a level: latency $clog2(Inputs). A new set may enter every cycle.
module adder_tree #(
  parameter int unsigned Inputs = 4,
  parameter int unsigned InBits = 8,
  parameter int unsigned OutBits = InBits + $clog2(Inputs)
) (
  input  logic                     clk_i,
  input  logic [Inputs*InBits-1:0] x_i,
  output logic [OutBits-1:0]       sum_o
);

  // A heap: node n is the sum of nodes 2n and 2n + 1; the leaves are nodes Leaves..2*Leaves-1, those beyond the inputs are 0.
  localparam int unsigned Leaves = 1 << $clog2(Inputs);

  logic [2*Leaves-1:0][OutBits-1:0] node;
  logic [Leaves-1:0][OutBits-1:0]   node_q;

  always_comb begin
    node = '0;
    for (int unsigned i = 1; i < Leaves; i++) node[i] = node_q[i];
    for (int unsigned i = 0; i < Inputs; i++) begin
      node[Leaves+i] = {{(OutBits-InBits){x_i[i*InBits+InBits-1]}}, x_i[i*InBits +: InBits]};
    end
  end

  always_ff @(posedge clk_i) begin
    node_q[0] <= '0;
    for (int unsigned i = 1; i < Leaves; i++) node_q[i] <= node[2*i] + node[2*i+1];
  end

  assign sum_o = node_q[1];

  logic unused_root;
  assign unused_root = ^{node[0], node[1], node_q[0]};

endmodule
