// SPDX-License-Identifier: Apache-2.0
//
// The Program of this run, with one read port for two readers: the sequencer goes first, the loader waits.
// A request is taken in the cycle its grant is high; its instruction comes with valid, codesign_pkg::MemLatency later.
module program_store (
  input  logic         clk_i,
  input  logic         rst_ni,

  input  logic         we_i,
  input  logic [$clog2(codesign_pkg::MaxInstructions*codesign_pkg::InstructionBeats)-1:0] waddr_i,  // in beats
  input  logic [127:0] beat_i,

  input  logic         sequencer_req_i,
  input  logic [15:0]  sequencer_index_i,
  output logic         sequencer_gnt_o,
  output logic         sequencer_valid_o,

  input  logic         loader_req_i,
  input  logic [15:0]  loader_index_i,
  output logic         loader_gnt_o,
  output logic         loader_valid_o,

  output codesign_pkg::instr_t instr_o
);
  localparam int unsigned Latency  = codesign_pkg::MemLatency;
  localparam int unsigned Beats    = codesign_pkg::InstructionBeats;
  localparam int unsigned AddrBits = $clog2(codesign_pkg::MaxInstructions);
  localparam int unsigned LaneBits = $clog2(Beats);

  logic [Beats-1:0]    we;
  logic [AddrBits-1:0] raddr;
  logic [Latency-1:0]  sequencer_q, loader_q;
  logic [codesign_pkg::InstructionBits-1:0] rdata;

  assign sequencer_gnt_o   = sequencer_req_i;
  assign loader_gnt_o      = loader_req_i && !sequencer_req_i;
  assign sequencer_valid_o = sequencer_q[Latency-1];
  assign loader_valid_o    = loader_q[Latency-1];
  assign instr_o           = rdata;
  assign raddr             = sequencer_req_i ? sequencer_index_i[AddrBits-1:0] : loader_index_i[AddrBits-1:0];

  always_comb begin
    for (int unsigned i = 0; i < Beats; i++) we[i] = we_i && (waddr_i[LaneBits-1:0] == LaneBits'(i));
  end

  sdp_ram #(
    .Width     (codesign_pkg::InstructionBits),
    .Depth     (codesign_pkg::MaxInstructions),
    .WriteLanes(Beats)
  ) u_ram (
    .clk_i,
    .we_i   (we),
    .waddr_i(waddr_i[LaneBits +: AddrBits]),
    .wdata_i({Beats{beat_i}}),
    .ren_i  (sequencer_req_i || loader_req_i),
    .raddr_i(raddr),
    .rdata_o(rdata)
  );

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      sequencer_q <= '0;
      loader_q    <= '0;
    end else begin
      sequencer_q <= {sequencer_q[Latency-2:0], sequencer_gnt_o};
      loader_q    <= {loader_q[Latency-2:0], loader_gnt_o};
    end
  end

  logic unused_index;
  assign unused_index = ^{sequencer_index_i, loader_index_i};
endmodule
