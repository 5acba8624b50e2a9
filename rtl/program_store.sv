// SPDX-License-Identifier: Apache-2.0
//
// The Program, written line by line as it arrives, read one instruction at a time by the dispatcher and by the fetcher, which
// runs ahead of it. The dispatcher is served first. An instruction comes with valid, codesign_pkg::MemLatency later, if it
// stands in the store: the reader asks only for what available_o counts.
module program_store #(
  parameter int unsigned Lines    = codesign_pkg::InstructionBeats / codesign_pkg::Ports,   // of an instruction
  parameter int unsigned AddrBits = $clog2(codesign_pkg::MaxInstructions * Lines)
) (
  input  logic                clk_i,
  input  logic                rst_ni,                // also between runs: forgets the Program

  input  logic                we_i,
  input  logic [AddrBits-1:0] waddr_i,               // in lines, ascending from 0
  input  logic [codesign_pkg::Ports*codesign_pkg::BeatBits-1:0] line_i,
  output logic [15:0]         available_o,           // instructions that stand in the store

  input  logic                dispatcher_req_i,
  input  logic [15:0]         dispatcher_index_i,
  output logic                dispatcher_gnt_o,
  output logic                dispatcher_valid_o,

  input  logic                fetcher_req_i,
  input  logic [15:0]         fetcher_index_i,
  output logic                fetcher_gnt_o,
  output logic                fetcher_valid_o,

  output codesign_pkg::instr_t instr_o
);
  localparam int unsigned Latency   = codesign_pkg::MemLatency;
  localparam int unsigned IndexBits = $clog2(codesign_pkg::MaxInstructions);
  localparam int unsigned LineBits  = $clog2(Lines);

  logic [Lines-1:0]     we;
  logic [IndexBits-1:0] raddr, waddr;
  logic                 last_line;
  logic [15:0]          available_q;
  logic [Latency-1:0]   dispatcher_q, fetcher_q;
  logic [codesign_pkg::InstructionBits-1:0] rdata;

  assign dispatcher_gnt_o   = dispatcher_req_i;
  assign fetcher_gnt_o      = fetcher_req_i && !dispatcher_req_i;
  assign dispatcher_valid_o = dispatcher_q[Latency-1];
  assign fetcher_valid_o    = fetcher_q[Latency-1];
  assign instr_o            = rdata;
  assign raddr              = dispatcher_req_i ? dispatcher_index_i[IndexBits-1:0] : fetcher_index_i[IndexBits-1:0];
  assign available_o        = available_q;

  if (Lines == 1) begin : gen_whole
    assign we        = we_i;
    assign waddr     = waddr_i;
    assign last_line = 1'b1;
  end else begin : gen_parts
    assign waddr     = waddr_i[LineBits +: IndexBits];
    assign last_line = waddr_i[LineBits-1:0] == '1;
    always_comb begin
      for (int unsigned i = 0; i < Lines; i++) we[i] = we_i && (32'(waddr_i[LineBits-1:0]) == i);
    end
  end

  sdp_ram #(
    .Width     (codesign_pkg::InstructionBits),
    .Depth     (codesign_pkg::MaxInstructions),
    .WriteLanes(Lines)
  ) u_ram (
    .clk_i,
    .we_i   (we),
    .waddr_i(waddr),
    .wdata_i({Lines{line_i}}),
    .ren_i  (dispatcher_req_i || fetcher_req_i),
    .raddr_i(raddr),
    .rdata_o(rdata)
  );

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      dispatcher_q <= '0;
      fetcher_q    <= '0;
      available_q  <= 16'd0;
    end else begin
      dispatcher_q <= {dispatcher_q[Latency-2:0], dispatcher_gnt_o};
      fetcher_q    <= {fetcher_q[Latency-2:0], fetcher_gnt_o};
      if (we_i && last_line) available_q <= 16'(waddr) + 16'd1;
    end
  end

  logic unused_index;
  assign unused_index = ^{dispatcher_index_i, fetcher_index_i};
endmodule
