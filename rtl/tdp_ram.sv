// SPDX-License-Identifier: Apache-2.0
//
// True dual-port memory: port A reads, port B writes lanes or reads. Read data is valid codesign_pkg::MemLatency (2) cycles
// after `a_ren_i` / `b_ren_i` (memory register, then output register) and holds until the next read's data. Port B reads only
// in a cycle without any write (a block RAM's and an UltraRAM's "no change"). What port A reads of lanes that are written in
// the same cycle is undefined on the device (a simulation gives the old lanes); from the next cycle on it is the new data.
module tdp_ram #(
  parameter int unsigned Width    = 128,
  parameter int unsigned Depth    = 2,
  parameter int unsigned Lanes    = 16,
  parameter bit          InUram   = 1'b0,
  parameter int unsigned AddrBits = Depth > 1 ? $clog2(Depth) : 1
) (
  input  logic                clk_i,

  input  logic                a_ren_i,
  input  logic [AddrBits-1:0] a_addr_i,
  output logic [Width-1:0]    a_data_o,

  input  logic [Lanes-1:0]    b_we_i,
  input  logic                b_ren_i,
  input  logic [AddrBits-1:0] b_addr_i,
  input  logic [Width-1:0]    b_wdata_i,
  output logic [Width-1:0]    b_data_o
);
  localparam int unsigned LaneBits = Width / Lanes;

  logic [Width-1:0] a_read_q, b_read_q, a_out_q, b_out_q;
  logic             a_ren_q, b_ren_q;

  assign a_data_o = a_out_q;
  assign b_data_o = b_out_q;

  always_ff @(posedge clk_i) begin
    a_ren_q <= a_ren_i;
    b_ren_q <= b_ren_i && (b_we_i == '0);
    if (a_ren_q) a_out_q <= a_read_q;
    if (b_ren_q) b_out_q <= b_read_q;
  end

  // An attribute must be a constant, so the memory is declared once a kind.
  if (InUram) begin : g_uram
    (* ram_style = "ultra" *) logic [Width-1:0] mem [Depth];

    always_ff @(posedge clk_i) begin
      if (a_ren_i) a_read_q <= mem[a_addr_i];
    end
    always_ff @(posedge clk_i) begin
      if (b_we_i == '0) begin
        if (b_ren_i) b_read_q <= mem[b_addr_i];
      end
      for (int unsigned i = 0; i < Lanes; i++) begin
        if (b_we_i[i]) mem[b_addr_i][i*LaneBits +: LaneBits] <= b_wdata_i[i*LaneBits +: LaneBits];
      end
    end
  end else begin : g_bram
    (* ram_style = "block" *) logic [Width-1:0] mem [Depth];

    always_ff @(posedge clk_i) begin
      if (a_ren_i) a_read_q <= mem[a_addr_i];
    end
    always_ff @(posedge clk_i) begin
      if (b_we_i == '0) begin
        if (b_ren_i) b_read_q <= mem[b_addr_i];
      end
      for (int unsigned i = 0; i < Lanes; i++) begin
        if (b_we_i[i]) mem[b_addr_i][i*LaneBits +: LaneBits] <= b_wdata_i[i*LaneBits +: LaneBits];
      end
    end
  end
endmodule
