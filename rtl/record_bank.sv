// SPDX-License-Identifier: Apache-2.0
//
// Parameter records of the tile in the post-processor, and of the next one (shadow), which the stream fills two records a beat.
module record_bank #(
  parameter int unsigned Pe = 8,
  parameter int unsigned BiasBits = codesign_pkg::BiasBits,
  parameter int unsigned MultiplierBits = codesign_pkg::MultiplierBits,
  parameter int unsigned ShiftBits = codesign_pkg::ShiftBits
) (
  input  logic                         clk_i,
  input  logic [Pe/2-1:0]              we_i,
  input  logic [127:0]                 beat_i,
  input  logic                         take_i,
  output logic [Pe*BiasBits-1:0]       bias_o,
  output logic [Pe*MultiplierBits-1:0] multiplier_o,
  output logic [Pe*ShiftBits-1:0]      shift_o
);

  localparam int unsigned Bits = BiasBits + MultiplierBits + ShiftBits;  // of a record, without what is reserved
  localparam int unsigned RecordBits = codesign_pkg::RecordBits;

  logic [Pe*Bits-1:0] shadow_q, active_q;

  always_ff @(posedge clk_i) begin
    for (int unsigned i = 0; i < Pe / 2; i++) begin
      if (we_i[i]) shadow_q[2*i*Bits +: 2*Bits] <= {beat_i[RecordBits +: Bits], beat_i[0 +: Bits]};
    end
    if (take_i) active_q <= shadow_q;
  end

  always_comb begin
    for (int unsigned i = 0; i < Pe; i++) begin
      bias_o[i*BiasBits +: BiasBits] = active_q[i*Bits +: BiasBits];
      multiplier_o[i*MultiplierBits +: MultiplierBits] = active_q[i*Bits+BiasBits +: MultiplierBits];
      shift_o[i*ShiftBits +: ShiftBits] = active_q[i*Bits+BiasBits+MultiplierBits +: ShiftBits];
    end
  end

  logic unused_reserved;
  assign unused_reserved = ^beat_i;

endmodule
