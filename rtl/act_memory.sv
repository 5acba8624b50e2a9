// SPDX-License-Identifier: Apache-2.0
//
// ACT: words of Simd int8, one true dual-port memory ("bank") a granule of 16 lanes. A window starts at any granule g of word
// w: its lanes lie in banks g.. of word w and, past the end of the word, in banks 0.. of word w + 1 (docs/machine.md,
// "Memories"). Port A only reads. Port B writes, or reads in a cycle without a write; its read takes port A when that is idle
// while port B writes: the values of a head are fetched while the results of the head before are written.
// A write is visible to reads whose address is presented from the next cycle on.
module act_memory (
  input  logic                                   clk_i,

  input  logic                                   a_ren_i,
  input  logic [codesign_pkg::ActAddrBits-1:0]   a_word_i,
  input  logic [codesign_pkg::GranuleBits-1:0]   a_granule_i,
  output logic [codesign_pkg::Simd-1:0][7:0]     a_data_o,    // ActLatency after a_ren_i, until the next read's data

  input  logic                                   b_req_i,
  input  logic [codesign_pkg::ActAddrBits-1:0]   b_word_i,
  input  logic [codesign_pkg::GranuleBits-1:0]   b_granule_i,
  output logic                                   b_ready_o,   // combinational, whether or not there is a request
  output logic [codesign_pkg::Simd-1:0][7:0]     b_data_o,    // ActLatency after the request is taken, in that cycle only

  input  logic                                   w_valid_i,   // always accepted
  input  logic [codesign_pkg::ActAddrBits-1:0]   w_word_i,
  input  logic [codesign_pkg::GranuleBits-1:0]   w_granule_i,
  input  logic [codesign_pkg::Simd-1:0][7:0]     w_data_i,    // lane i goes to lane i of the window
  input  logic [codesign_pkg::Simd-1:0]          w_mask_i     // lanes to write
);
  localparam int unsigned Banks       = codesign_pkg::ActGranules;
  localparam int unsigned Lanes       = codesign_pkg::Granule;
  localparam int unsigned AddrBits    = codesign_pkg::ActAddrBits;
  localparam int unsigned GranuleBits = codesign_pkg::GranuleBits;
  localparam int unsigned Latency     = codesign_pkg::MemLatency;

  // Which granules of the window lie in which bank: bank b holds granule (b - first) % Banks of it.
  logic [Banks-1:0][8*Lanes-1:0]        a_bank, b_bank, w_bank, a_rotated_q, b_rotated_q, w_window;
  logic [Banks-1:0][Lanes-1:0]          mask_bank, mask_window;
  logic [Latency-1:0][GranuleBits-1:0]  a_first_q, b_first_q;
  logic [Latency-1:0]                   a_ren_q, b_ren_q;
  logic [AddrBits-1:0]                  b_word, a_next_word, b_next_word;
  logic [GranuleBits-1:0]               a_granule, b_granule;
  logic [AddrBits-1:0]                  a_word;
  logic                                 a_ren, b_on_a, b_ren;
  logic [Latency:0]                     b_on_a_q;
  logic [Banks-1:0][AddrBits-1:0]       a_addr, b_addr;

  assign b_on_a      = b_req_i && w_valid_i && !a_ren_i;
  assign b_ren       = b_req_i && !w_valid_i;
  assign b_ready_o   = !w_valid_i || !a_ren_i;
  assign a_ren       = a_ren_i || b_on_a;
  assign a_word      = a_ren_i ? a_word_i : b_word_i;
  assign a_granule   = a_ren_i ? a_granule_i : b_granule_i;
  assign b_word      = w_valid_i ? w_word_i : b_word_i;
  assign b_granule   = w_valid_i ? w_granule_i : b_granule_i;
  assign a_next_word = a_word + AddrBits'(1);
  assign b_next_word = b_word + AddrBits'(1);
  assign w_window    = w_data_i;
  assign mask_window = w_mask_i;
  assign a_data_o    = a_rotated_q;
  assign b_data_o    = b_on_a_q[Latency] ? a_rotated_q : b_rotated_q;

  always_comb begin
    for (int unsigned b = 0; b < Banks; b++) begin
      w_bank[b]    = w_window[(b + Banks - 32'(w_granule_i)) % Banks];
      a_addr[b]    = 32'(a_granule) > b ? a_next_word : a_word;
      b_addr[b]    = 32'(b_granule) > b ? b_next_word : b_word;
      mask_bank[b] = w_valid_i ? mask_window[(b + Banks - 32'(w_granule_i)) % Banks] : '0;
    end
  end

  for (genvar b = 0; b < Banks; b++) begin : g_bank
    tdp_ram #(
      .Width (8 * Lanes),
      .Depth (codesign_pkg::ActWords),
      .Lanes (Lanes),
      .InUram(codesign_pkg::ActInUram != 0)
    ) u_ram (
      .clk_i,
      .a_ren_i  (a_ren),
      .a_addr_i (a_addr[b]),
      .a_data_o (a_bank[b]),
      .b_we_i   (mask_bank[b]),
      .b_ren_i  (b_ren),
      .b_addr_i (b_addr[b]),
      .b_wdata_i(w_bank[b]),
      .b_data_o (b_bank[b])
    );
  end

  always_ff @(posedge clk_i) begin
    b_on_a_q <= {b_on_a_q[Latency-1:0], b_on_a};
    a_ren_q <= {a_ren_q[Latency-2:0], a_ren};
    b_ren_q <= {b_ren_q[Latency-2:0], b_ren};
    if (a_ren) a_first_q[0] <= a_granule;
    if (b_ren) b_first_q[0] <= b_granule;
    for (int unsigned i = 1; i < Latency; i++) begin
      if (a_ren_q[i-1]) a_first_q[i] <= a_first_q[i-1];
      if (b_ren_q[i-1]) b_first_q[i] <= b_first_q[i-1];
    end
    for (int unsigned j = 0; j < Banks; j++) begin
      if (a_ren_q[Latency-1]) a_rotated_q[j] <= a_bank[(j + 32'(a_first_q[Latency-1])) % Banks];
      if (b_ren_q[Latency-1]) b_rotated_q[j] <= b_bank[(j + 32'(b_first_q[Latency-1])) % Banks];
    end
  end
endmodule
