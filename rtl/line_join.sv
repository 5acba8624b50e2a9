// SPDX-License-Identifier: Apache-2.0
//
// Joins one beat of every port into a line, port 0 in the lowest bits.
module line_join #(
  parameter int unsigned Ports = codesign_pkg::Ports
) (
  input  logic [Ports-1:0][127:0] beat_i,
  input  logic [Ports-1:0]        beat_valid_i,
  output logic [Ports-1:0]        beat_ready_o,

  output logic [Ports*128-1:0]    line_o,
  output logic                    line_valid_o,
  input  logic                    line_ready_i
);
  assign line_o       = beat_i;
  assign line_valid_o = &beat_valid_i;
  assign beat_ready_o = {Ports{line_valid_o && line_ready_i}};
endmodule
