// SPDX-License-Identifier: Apache-2.0
//
// Parameter records of a few n tiles: sets of Pe records, filled a block at a time, read a set at a time into registers.
module record_bank #(
  parameter int unsigned Pe = codesign_pkg::Pe,
  parameter int unsigned BlockBits = codesign_pkg::BlockBits,
  parameter int unsigned BiasBits = codesign_pkg::BiasBits,
  parameter int unsigned MultiplierBits = codesign_pkg::MultiplierBits,
  parameter int unsigned ShiftBits = codesign_pkg::ShiftBits,
  parameter int unsigned SetBits = 3
) (
  input  logic                         clk_i,
  input  logic                         we_i,
  input  logic [1:0]                   part_i,
  input  logic [SetBits-1:0]           wset_i,
  input  logic [BlockBits-1:0]         block_i,
  input  logic                         ren_i,
  input  logic [SetBits-1:0]           rset_i,
  output logic [Pe*BiasBits-1:0]       bias_o,       // the cycle after ren_i, until the next
  output logic [Pe*MultiplierBits-1:0] multiplier_o,
  output logic [Pe*ShiftBits-1:0]      shift_o
);

  localparam int unsigned Bits = BiasBits + MultiplierBits + ShiftBits;  // of a record, without what is reserved
  localparam int unsigned RecordBits = codesign_pkg::RecordBits;
  localparam int unsigned Parts = codesign_pkg::RecordBlocks;
  localparam int unsigned PartRecords = Pe / Parts;

  logic [PartRecords*Bits-1:0] packed_block;
  logic [Pe*Bits-1:0]          set;

  always_comb begin
    for (int unsigned i = 0; i < PartRecords; i++) packed_block[i*Bits +: Bits] = block_i[i*RecordBits +: Bits];
  end

  for (genvar i = 0; i < Parts; i++) begin : gen_part
    logic [PartRecords*Bits-1:0] mem [1 << SetBits];
    logic [PartRecords*Bits-1:0] set_q;

    always_ff @(posedge clk_i) begin
      if (we_i && part_i == 2'(i)) mem[wset_i] <= packed_block;
      if (ren_i) set_q <= mem[rset_i];
    end
    assign set[i*PartRecords*Bits +: PartRecords*Bits] = set_q;
  end

  always_comb begin
    for (int unsigned i = 0; i < Pe; i++) begin
      bias_o[i*BiasBits +: BiasBits] = set[i*Bits +: BiasBits];
      multiplier_o[i*MultiplierBits +: MultiplierBits] = set[i*Bits+BiasBits +: MultiplierBits];
      shift_o[i*ShiftBits +: ShiftBits] = set[i*Bits+BiasBits+MultiplierBits +: ShiftBits];
    end
  end

  logic unused_reserved;
  assign unused_reserved = ^block_i;

endmodule
