// SPDX-License-Identifier: Apache-2.0
//
// Whose turn it is to pop the block stream: a small FIFO of consumers, one entry for each instruction that reads the stream,
// in the order of dispatch. The first entry's consumer sees the blocks until it says that it popped its last one.
module stream_turn #(
  parameter int unsigned Depth = 8     // a power of two
) (
  input  logic       clk_i,
  input  logic       rst_ni,
  input  logic       push_i,           // never when Depth - 1 entries wait beside the first
  input  logic [2:0] consumer_i,       // one-hot: array, norm, load from bit 0
  input  logic       avail_i,          // the FIFO has a block
  output logic [2:0] avail_o,          // ... for this consumer
  input  logic [2:0] done_i            // pulse: popped the last block of its instruction
);
  localparam int unsigned PtrBits = $clog2(Depth);

  logic [2:0]            turn_q;       // 0: nobody's
  logic [Depth-1:0][2:0] queue_q;
  logic [PtrBits-1:0]    head_q, tail_q;
  logic                  next;

  assign avail_o = turn_q & {3{avail_i}};
  assign next    = (turn_q & ~done_i) == 3'd0;   // nobody's turn, or it ends here

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      turn_q <= 3'd0;
      head_q <= '0;
      tail_q <= '0;
    end else begin
      if (next) begin
        turn_q <= (head_q != tail_q) ? queue_q[head_q] : 3'd0;
        head_q <= head_q + PtrBits'(head_q != tail_q);
      end
      tail_q <= tail_q + PtrBits'(push_i);
    end
    if (push_i) queue_q[tail_q] <= consumer_i;
  end
endmodule
