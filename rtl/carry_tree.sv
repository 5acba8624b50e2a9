// SPDX-License-Identifier: Apache-2.0
//
// Sum of `Inputs` (2, 4 or 8) signed numbers and of one bit each, except the last bit, which leaves with the sum: every adder
// takes one bit as its carry in. One register a level: latency $clog2(Inputs). A new set may enter every cycle.
module carry_tree #(
  parameter int unsigned Inputs = 4,
  parameter int unsigned InBits = 18,
  parameter int unsigned OutBits = InBits + $clog2(Inputs)
) (
  input  logic                     clk_i,
  input  logic [Inputs*InBits-1:0] x_i,
  input  logic [Inputs-1:0]        carry_i,
  output logic [OutBits-1:0]       sum_o,
  output logic                     carry_o
);

  localparam int unsigned Half = Inputs / 2;

  logic [Half*(InBits+1)-1:0] sum;
  logic [Half-1:0]            carry_q;  // of the bits, those that no adder of this level takes

  for (genvar i = 0; i < Half; i++) begin : gen_add
    logic [InBits:0]   sum_q;
    logic [InBits+1:0] total;  // the lowest bit makes the carry

    assign total = {x_i[(2*i+1)*InBits-1], x_i[2*i*InBits +: InBits], 1'b1} +
                   {x_i[(2*i+2)*InBits-1], x_i[(2*i+1)*InBits +: InBits], carry_i[i]};
    always_ff @(posedge clk_i) sum_q <= total[InBits+1:1];
    assign sum[i*(InBits+1) +: InBits+1] = sum_q;

    logic unused_carry;
    assign unused_carry = total[0];
  end

  always_ff @(posedge clk_i) carry_q <= carry_i[Inputs-1:Half];

  if (Half > 1) begin : gen_levels
    carry_tree #(.Inputs(Half), .InBits(InBits + 1), .OutBits(OutBits)) u_tree (
      .clk_i, .x_i(sum), .carry_i(carry_q), .sum_o, .carry_o
    );
  end else begin : gen_root
    assign sum_o = sum;
    assign carry_o = carry_q[0];
  end

endmodule
