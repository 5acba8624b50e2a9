// SPDX-License-Identifier: Apache-2.0
//
// Who writes ACT: the unified unit, which never waits, before the norm unit, before the load unit. Combinational: what a writer
// says it has written is there in the next cycle.
module act_write_arbiter (
  input  logic                                 unified_valid_i,
  input  logic [codesign_pkg::ActAddrBits-1:0] unified_word_i,
  input  logic [codesign_pkg::GranuleBits-1:0] unified_granule_i,
  input  logic [codesign_pkg::Simd-1:0][7:0]   unified_data_i,
  input  logic [codesign_pkg::Simd-1:0]        unified_mask_i,

  input  logic                                 norm_valid_i,      // Pe lanes from the granule on
  output logic                                 norm_ready_o,
  input  logic [codesign_pkg::ActAddrBits-1:0] norm_word_i,
  input  logic [codesign_pkg::GranuleBits-1:0] norm_granule_i,
  input  logic [codesign_pkg::Pe-1:0][7:0]     norm_data_i,

  input  logic                                 load_valid_i,      // whole words
  output logic                                 load_ready_o,
  input  logic [codesign_pkg::ActAddrBits-1:0] load_word_i,
  input  logic [codesign_pkg::Simd-1:0][7:0]   load_data_i,

  output logic                                 w_valid_o,
  output logic [codesign_pkg::ActAddrBits-1:0] w_word_o,
  output logic [codesign_pkg::GranuleBits-1:0] w_granule_o,
  output logic [codesign_pkg::Simd-1:0][7:0]   w_data_o,
  output logic [codesign_pkg::Simd-1:0]        w_mask_o
);
  localparam int unsigned Simd = codesign_pkg::Simd;
  localparam int unsigned Pe   = codesign_pkg::Pe;

  assign norm_ready_o = !unified_valid_i;
  assign load_ready_o = !unified_valid_i && !norm_valid_i;
  assign w_valid_o    = unified_valid_i || norm_valid_i || load_valid_i;

  always_comb begin
    if (unified_valid_i) begin
      w_word_o    = unified_word_i;
      w_granule_o = unified_granule_i;
      w_data_o    = unified_data_i;
      w_mask_o    = unified_mask_i;
    end else if (norm_valid_i) begin
      w_word_o    = norm_word_i;
      w_granule_o = norm_granule_i;
      w_data_o    = (8*Simd)'(norm_data_i);
      w_mask_o    = Simd'({Pe{1'b1}});
    end else begin
      w_word_o    = load_word_i;
      w_granule_o = '0;
      w_data_o    = load_data_i;
      w_mask_o    = '1;
    end
  end
endmodule
