// SPDX-License-Identifier: Apache-2.0
//
// The bits of `x_i` from its first byte that is not 0 on, 0 past the end, and how many bytes before that are 0. The first half of
// a normalisation, in few LUT levels; combinational. If all bytes are 0, the last one counts as the first.
module leading_byte #(
  parameter int unsigned Bytes = 4,        // at most 8
  parameter int unsigned WindowBits = 23
) (
  input  logic [Bytes*8-1:0]    x_i,
  output logic [WindowBits-1:0] window_o,
  output logic [2:0]            zeros_o
);

  localparam int unsigned PadBits = Bytes * 8 + WindowBits;

  logic [PadBits-1:0] padded;
  logic [Bytes-1:0]   used;   // in order from the most significant byte

  assign padded = {x_i, WindowBits'(0)};

  always_comb begin
    for (int unsigned i = 0; i < Bytes; i++) used[i] = x_i[(Bytes-1-i)*8 +: 8] != 8'd0;
    zeros_o = 3'(Bytes - 1);
    for (int unsigned i = 2; i <= Bytes; i++) if (used[Bytes-i]) zeros_o = 3'(Bytes - i);
    window_o = '0;
    for (int unsigned i = 0; i < Bytes; i++) begin
      if (zeros_o == 3'(i)) window_o = window_o | padded[PadBits-1-8*i -: WindowBits];
    end
  end

endmodule
