// SPDX-License-Identifier: Apache-2.0
//
// Writes a stream of beats to consecutive addresses. INCR bursts end at multiples of MaxBurst beats, so they never cross
// 4 KiB. Data does not wait for AWREADY (a slave may accept the address only with the data). idle_o rises after the last
// response; an error response is reported and the stream goes on.
module axi_writer #(
  parameter int unsigned MaxBurst = 32     // a power of two, at most 256
) (
  input  logic         clk_i,
  input  logic         rst_ni,

  input  logic [63:0]  desc_addr_i,        // a multiple of 16
  input  logic [31:0]  desc_beats_i,
  input  logic         desc_valid_i,
  output logic         desc_ready_o,

  input  logic [127:0] beat_i,
  input  logic         beat_valid_i,
  output logic         beat_ready_o,

  output logic         idle_o,             // no descriptor, no burst without its response
  output logic         error_o,            // an error response arrives in this cycle

  output logic [63:0]  m_axi_awaddr,
  output logic [7:0]   m_axi_awlen,
  output logic         m_axi_awvalid,
  input  logic         m_axi_awready,
  output logic [127:0] m_axi_wdata,
  output logic [15:0]  m_axi_wstrb,
  output logic         m_axi_wlast,
  output logic         m_axi_wvalid,
  input  logic         m_axi_wready,
  input  logic [1:0]   m_axi_bresp,
  input  logic         m_axi_bvalid,
  output logic         m_axi_bready
);
  localparam int unsigned BurstBits      = $clog2(MaxBurst);
  localparam int unsigned MaxOutstanding = 8;

  typedef enum logic [1:0] {
    StIdle,    // wait for a descriptor
    StSize,    // how long is the next burst
    StBurst    // address and data of the burst
  } state_t;

  state_t             state_q;
  logic [63:0]        addr_q, awaddr_q;
  logic [31:0]        left_q;
  logic [BurstBits:0] len, beats_q;        // beats_q: of this burst, still to be sent
  logic [7:0]         awlen_q;
  logic               aw_pending_q;
  logic [3:0]         outstanding_q;
  logic               begin_burst, send, aw_done, w_done;

  always_comb begin
    len = (BurstBits + 1)'(MaxBurst) - {1'b0, addr_q[4 +: BurstBits]};
    if (left_q < 32'(len)) len = left_q[BurstBits:0];
  end

  assign desc_ready_o  = state_q == StIdle;
  assign idle_o        = (state_q == StIdle) && (outstanding_q == 0);
  assign error_o       = m_axi_bvalid && m_axi_bresp[1];
  assign begin_burst   = (state_q == StSize) && (outstanding_q != 4'(MaxOutstanding));

  assign m_axi_awaddr  = awaddr_q;
  assign m_axi_awlen   = awlen_q;
  assign m_axi_awvalid = aw_pending_q;
  assign m_axi_wdata   = beat_i;
  assign m_axi_wstrb   = '1;
  assign m_axi_wlast   = beats_q == (BurstBits + 1)'(1);
  assign m_axi_wvalid  = (state_q == StBurst) && (beats_q != 0) && beat_valid_i;
  assign m_axi_bready  = 1'b1;
  assign send          = m_axi_wvalid && m_axi_wready;
  assign beat_ready_o  = (state_q == StBurst) && (beats_q != 0) && m_axi_wready;
  assign aw_done       = !aw_pending_q || m_axi_awready;
  assign w_done        = (beats_q == 0) || (send && m_axi_wlast);

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q       <= StIdle;
      aw_pending_q  <= 1'b0;
      beats_q       <= '0;
      outstanding_q <= '0;
    end else begin
      unique case (state_q)
        StIdle:  if (desc_valid_i && desc_beats_i != 0) state_q <= StSize;
        StSize:  if (begin_burst) state_q <= StBurst;
        StBurst: if (aw_done && w_done) state_q <= (left_q == 0) ? StIdle : StSize;
        default: state_q <= StIdle;
      endcase
      if (begin_burst)        aw_pending_q <= 1'b1;
      else if (m_axi_awready) aw_pending_q <= 1'b0;
      if (begin_burst)        beats_q <= len;
      else if (send)          beats_q <= beats_q - (BurstBits + 1)'(1);
      outstanding_q <= outstanding_q + 4'(begin_burst) - 4'(m_axi_bvalid);
    end
  end

  always_ff @(posedge clk_i) begin
    if (desc_ready_o) begin
      addr_q <= desc_addr_i;
      left_q <= desc_beats_i;
    end else if (begin_burst) begin
      addr_q   <= addr_q + {{(59 - BurstBits){1'b0}}, len, 4'd0};
      left_q   <= left_q - 32'(len);
      awaddr_q <= addr_q;
      awlen_q  <= 8'(len - (BurstBits + 1)'(1));
    end
  end

  logic unused_bresp;
  assign unused_bresp = m_axi_bresp[0];
endmodule
