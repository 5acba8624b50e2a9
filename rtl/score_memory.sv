// SPDX-License-Identifier: Apache-2.0
//
// Scores of one head: words of Simd int16, a bank a granule of 16 lanes. Pe lanes are written at any granule g of word w, past the
// end of the word into word w + 1 (docs/machine.md, "Memories"), a cycle after `w_valid_i`. Whole words are read.
module score_memory #(
  parameter int unsigned Depth = 2,
  parameter int unsigned AddrBits = Depth > 1 ? $clog2(Depth) : 1,
  parameter int unsigned Banks = codesign_pkg::ActGranules,
  parameter int unsigned Parts = codesign_pkg::PeGranules,
  parameter int unsigned GranuleBits = codesign_pkg::GranuleBits
) (
  input  logic                   clk_i,
  input  logic                   w_valid_i,
  input  logic [AddrBits-1:0]    w_word_i,
  input  logic [GranuleBits-1:0] w_granule_i,
  input  logic [Parts-1:0]       w_mask_i,    // granules to write
  input  logic [Parts*256-1:0]   w_data_i,
  input  logic                   ren_i,
  input  logic [AddrBits-1:0]    raddr_i,
  output logic [Banks*256-1:0]   rdata_o      // MemLatency after ren_i
);

  for (genvar b = 0; b < Banks; b++) begin : gen_bank
    logic                we_d, we_q;
    logic [AddrBits-1:0] waddr_d, waddr_q;
    logic [255:0]        data_d, data_q;
    logic [2:0]          part;

    // Bank b holds part (b - first) % Banks. Where Parts divides Banks, tiles begin at multiples of Parts, and that is b % Parts.
    always_comb begin
      part = 3'((b + Banks - 32'(w_granule_i)) % Banks);
      we_d = 1'b0;
      data_d = w_data_i[(b%Parts)*256 +: 256];
      for (int unsigned i = 0; i < Parts; i++) begin
        if (part == 3'(i)) begin
          we_d = w_valid_i && w_mask_i[i];
          if (Banks % Parts != 0) data_d = w_data_i[i*256 +: 256];
        end
      end
      waddr_d = b < 32'(w_granule_i) ? w_word_i + AddrBits'(1) : w_word_i;
    end

    always_ff @(posedge clk_i) begin
      we_q <= we_d;
      if (we_d) begin
        waddr_q <= waddr_d;
        data_q <= data_d;
      end
    end

    sdp_ram #(.Width(256), .Depth(Depth), .InUram(codesign_pkg::ScoreInUram != 0)) u_ram (
      .clk_i, .we_i(we_q), .waddr_i(waddr_q), .wdata_i(data_q), .ren_i, .raddr_i, .rdata_o(rdata_o[b*256 +: 256])
    );
  end

endmodule
