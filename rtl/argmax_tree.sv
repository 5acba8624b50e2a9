// SPDX-License-Identifier: Apache-2.0
//
// The largest int16 of the candidate lanes and its lane, the lower lane on a tie. One register every two levels of the tree: latency
// ($clog2(Inputs) + 1) / 2 cycles, at least 1. A new set may enter every cycle.
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

  // A heap: node n is the better of nodes 2n and 2n + 1, the leaves are nodes Leaves... A node's key orders as an unsigned number:
  // candidates above the others, then the value. The root's level is registered, and every second level below it.
  localparam int unsigned Leaves = 1 << IndexBits;
  localparam int unsigned Bits = 17 + IndexBits;

  logic [2*Leaves-1:0][Bits-1:0] node;
  logic [Leaves-1:0][Bits-1:0]   best, best_q;

  always_comb begin
    node = '0;
    best = '0;
    for (int unsigned i = 0; i < Inputs; i++) begin
      node[Leaves+i] = {candidate_i[i], ~x_i[i*16+15], x_i[i*16 +: 15], IndexBits'(i)};
    end
    for (int unsigned n = Leaves - 1; n > 0; n--) begin
      best[n] = node[2*n][Bits-1 -: 17] >= node[2*n+1][Bits-1 -: 17] ? node[2*n] : node[2*n+1];
      node[n] = $clog2(n + 1) % 2 == 1 ? best_q[n] : best[n];
    end
  end

  always_ff @(posedge clk_i) best_q <= best;

  assign index_o = best_q[1][IndexBits-1:0];
  assign maximum_o = signed'({~best_q[1][IndexBits+15], best_q[1][IndexBits +: 15]});

  logic unused_bits;
  assign unused_bits = ^{node[0], node[1], best_q};

endmodule
