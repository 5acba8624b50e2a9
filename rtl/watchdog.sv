// SPDX-License-Identifier: Apache-2.0
//
// Counts cycles since the last sign of progress; `expired_o` from `limit_i` of them on. A limit of 0 never expires.
module watchdog (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        kick_i,
  input  logic [31:0] limit_i,
  output logic        expired_o
);
  logic [31:0] count_q;
  logic        expired_q, armed_q;

  assign expired_o = expired_q;

  always_ff @(posedge clk_i) begin
    armed_q <= limit_i != 32'd0;
    if (!rst_ni || kick_i) begin
      count_q   <= 32'd1;
      expired_q <= 1'b0;
    end else if (!expired_q) begin
      count_q   <= count_q + 32'd1;
      expired_q <= armed_q && (count_q >= limit_i);
    end
  end
endmodule
