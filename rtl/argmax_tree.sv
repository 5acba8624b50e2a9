// SPDX-License-Identifier: Apache-2.0
//
// The largest int16 of the candidate lanes and its lane, the lower lane on a tie. One register a level: latency $clog2(Inputs)
// (1 for a single lane).
module argmax_tree #(
  parameter int unsigned Inputs = 8,
  parameter int unsigned IndexBits = Inputs > 1 ? $clog2(Inputs) : 1
) (
  input  logic                 clk_i,
  input  logic [Inputs-1:0]    candidate_i,
  input  logic [Inputs*16-1:0] x_i,
  output logic [IndexBits-1:0] index_o,
  output logic signed [15:0]   maximum_o
);

  // A heap as in adder_tree. A node's key orders as an unsigned number: candidates above the others, then the value.
  localparam int unsigned Leaves = 1 << IndexBits;
  localparam int unsigned Bits = 17 + IndexBits;

  logic [2*Leaves-1:0][Bits-1:0] node;
  logic [Leaves-1:0][Bits-1:0]   node_q;

  always_comb begin
    node = '0;
    for (int unsigned i = 1; i < Leaves; i++) node[i] = node_q[i];
    for (int unsigned i = 0; i < Inputs; i++) begin
      node[Leaves+i] = {candidate_i[i], ~x_i[i*16+15], x_i[i*16 +: 15], IndexBits'(i)};
    end
  end

  always_ff @(posedge clk_i) begin
    node_q[0] <= '0;
    for (int unsigned i = 1; i < Leaves; i++) begin
      node_q[i] <= node[2*i][Bits-1 -: 17] >= node[2*i+1][Bits-1 -: 17] ? node[2*i] : node[2*i+1];
    end
  end

  assign index_o = node_q[1][IndexBits-1:0];
  assign maximum_o = signed'({~node_q[1][IndexBits+15], node_q[1][IndexBits +: 15]});

  logic unused_root;
  assign unused_root = ^{node[0], node[1], node_q[0]};

endmodule
