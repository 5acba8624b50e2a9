// SPDX-License-Identifier: Apache-2.0
//
// RES: words of Pe int16, in two copies with a read port each. Read data is valid MemLatency after ren and holds until the
// next read's data; a read in the cycle of a write to the same word gives the old word.
module res_memory (
  input  logic                                 clk_i,

  input  logic                                 a_ren_i,    // the unified unit
  input  logic [codesign_pkg::ResAddrBits-1:0] a_addr_i,
  output logic [codesign_pkg::Pe-1:0][15:0]    a_data_o,

  input  logic                                 b_ren_i,    // the norm unit, or a STORE
  input  logic [codesign_pkg::ResAddrBits-1:0] b_addr_i,
  output logic [codesign_pkg::Pe-1:0][15:0]    b_data_o,

  input  logic                                 we_i,
  input  logic [codesign_pkg::ResAddrBits-1:0] waddr_i,
  input  logic [codesign_pkg::Pe-1:0][15:0]    wdata_i
);
  sdp_ram #(
    .Width     (16 * codesign_pkg::Pe),
    .Depth     (codesign_pkg::ResWords),
    .WriteLanes(1)
  ) u_a (
    .clk_i,
    .we_i,
    .waddr_i,
    .wdata_i,
    .ren_i  (a_ren_i),
    .raddr_i(a_addr_i),
    .rdata_o(a_data_o)
  );

  sdp_ram #(
    .Width     (16 * codesign_pkg::Pe),
    .Depth     (codesign_pkg::ResWords),
    .WriteLanes(1)
  ) u_b (
    .clk_i,
    .we_i,
    .waddr_i,
    .wdata_i,
    .ren_i  (b_ren_i),
    .raddr_i(b_addr_i),
    .rdata_o(b_data_o)
  );
endmodule
