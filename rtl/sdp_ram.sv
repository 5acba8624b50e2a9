// SPDX-License-Identifier: Apache-2.0
//
// Simple dual-port memory: one write port with lane enables, one read port. Read data is valid codesign_pkg::MemLatency (2) cycles
// after `ren_i` (memory register, then output register) and holds until the next read's data. A read in the cycle of a write
// to the same address returns the old word.
module sdp_ram #(
  parameter int unsigned Width = 8,
  parameter int unsigned Depth = 2,
  parameter int unsigned WriteLanes = 1,
  parameter bit          InUram = 1'b0,   // UltraRAM; otherwise the tool chooses by size
  parameter int unsigned AddrBits = Depth > 1 ? $clog2(Depth) : 1
) (
  input  logic                  clk_i,
  input  logic [WriteLanes-1:0] we_i,
  input  logic [AddrBits-1:0]   waddr_i,
  input  logic [Width-1:0]      wdata_i,
  input  logic                  ren_i,
  input  logic [AddrBits-1:0]   raddr_i,
  output logic [Width-1:0]      rdata_o
);

  localparam int unsigned LaneBits = Width / WriteLanes;

  logic [Width-1:0] read_q, out_q;
  logic             ren_q;

  // An attribute must be a constant, so the memory is declared once a kind.
  if (InUram) begin : g_uram
    (* ram_style = "ultra" *) logic [Width-1:0] mem [Depth];

    always_ff @(posedge clk_i) begin
      for (int unsigned i = 0; i < WriteLanes; i++) begin
        if (we_i[i]) mem[waddr_i][i*LaneBits +: LaneBits] <= wdata_i[i*LaneBits +: LaneBits];
      end
    end
    always_ff @(posedge clk_i) begin
      if (ren_i) read_q <= mem[raddr_i];
    end
  end else begin : g_auto
    logic [Width-1:0] mem [Depth];

    always_ff @(posedge clk_i) begin
      for (int unsigned i = 0; i < WriteLanes; i++) begin
        if (we_i[i]) mem[waddr_i][i*LaneBits +: LaneBits] <= wdata_i[i*LaneBits +: LaneBits];
      end
    end
    always_ff @(posedge clk_i) begin
      if (ren_i) read_q <= mem[raddr_i];
    end
  end

  always_ff @(posedge clk_i) begin
    ren_q <= ren_i;
    if (ren_q) out_q <= read_q;
  end

  assign rdata_o = out_q;

endmodule
