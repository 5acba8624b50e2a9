// SPDX-License-Identifier: Apache-2.0
//
// Reads what descriptors (byte address, beats) ask for, in order, into a FIFO. INCR bursts end at multiples of MaxBurst
// beats, so they never cross 4 KiB; a burst is requested only when the FIFO has room for all of it, so RREADY never falls
// and several bursts are outstanding. An error response is reported and its data passed on: the consumer never starves.
module axi_reader #(
  parameter int unsigned FifoBeats = 512,
  parameter int unsigned MaxBurst  = 32    // a power of two, at most 256 and FifoBeats
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         flush_i,            // drop the descriptor; once idle, drop the FIFO's contents

  input  logic [63:0]  desc_addr_i,        // a multiple of 16
  input  logic [31:0]  desc_beats_i,
  input  logic         desc_valid_i,
  output logic         desc_ready_o,

  output logic [127:0] beat_o,
  output logic         beat_valid_o,
  input  logic         beat_ready_i,

  output logic         idle_o,             // no descriptor, no outstanding burst
  output logic         error_o,            // an error response arrives in this cycle

  output logic [63:0]  m_axi_araddr,
  output logic [7:0]   m_axi_arlen,
  output logic         m_axi_arvalid,
  input  logic         m_axi_arready,
  input  logic [127:0] m_axi_rdata,
  input  logic [1:0]   m_axi_rresp,
  input  logic         m_axi_rlast,
  input  logic         m_axi_rvalid,
  output logic         m_axi_rready
);
  localparam int unsigned BurstBits = $clog2(MaxBurst);
  localparam int unsigned SpaceBits = $clog2(FifoBeats) + 1;

  typedef enum logic [1:0] {
    StIdle,    // wait for a descriptor
    StSize,    // how long is the next burst
    StSpace,   // wait for room in the FIFO
    StIssue    // the burst stands on the AR channel
  } state_t;

  state_t               state_q;
  logic [63:0]          addr_q;            // of the next burst
  logic [31:0]          left_q;            // beats the descriptor still asks for
  logic [BurstBits:0]   len_q, len;        // beats of this burst
  logic [63:0]          araddr_q;
  logic [7:0]           arlen_q;
  logic [SpaceBits-1:0] space_q;           // places of the FIFO neither filled nor reserved
  logic [SpaceBits-1:0] outstanding_q;     // bursts on their way (each has at least one beat)
  logic                 reserve, pop, clear;

  assign desc_ready_o  = (state_q == StIdle) && !flush_i;
  assign m_axi_arvalid = state_q == StIssue;
  assign m_axi_araddr  = araddr_q;
  assign m_axi_arlen   = arlen_q;
  assign m_axi_rready  = 1'b1;
  assign idle_o        = (state_q == StIdle) && (outstanding_q == 0);
  assign error_o       = m_axi_rvalid && m_axi_rresp[1];
  assign clear         = flush_i && idle_o;

  // To the next multiple of MaxBurst beats, or as far as the descriptor goes.
  always_comb begin
    len = (BurstBits + 1)'(MaxBurst) - {1'b0, addr_q[4 +: BurstBits]};
    if (left_q < 32'(len)) len = left_q[BurstBits:0];
  end

  assign reserve = (state_q == StSpace) && !flush_i && (space_q >= SpaceBits'(len_q));
  assign pop     = beat_valid_o && beat_ready_i;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q       <= StIdle;
      space_q       <= SpaceBits'(FifoBeats);
      outstanding_q <= '0;
    end else begin
      unique case (state_q)
        StIdle:  if (desc_valid_i && !flush_i && desc_beats_i != 0) state_q <= StSize;
        StSize:  state_q <= flush_i ? StIdle : StSpace;
        StSpace: if (flush_i) state_q <= StIdle; else if (reserve) state_q <= StIssue;
        StIssue: if (m_axi_arready) state_q <= (left_q == 0) ? StIdle : StSize;
        default: state_q <= StIdle;
      endcase
      if (clear) space_q <= SpaceBits'(FifoBeats);
      else       space_q <= space_q + SpaceBits'(pop) - (reserve ? SpaceBits'(len_q) : '0);
      outstanding_q <= outstanding_q + SpaceBits'(reserve) - SpaceBits'(m_axi_rvalid && m_axi_rlast);
    end
  end

  always_ff @(posedge clk_i) begin
    if (desc_ready_o) begin
      addr_q <= desc_addr_i;
      left_q <= desc_beats_i;
    end else if (reserve) begin
      addr_q <= addr_q + {{(59 - BurstBits){1'b0}}, len_q, 4'd0};
      left_q <= left_q - 32'(len_q);
    end
    if (state_q == StSize) len_q <= len;
    if (reserve) begin
      araddr_q <= addr_q;
      arlen_q  <= 8'(len_q - (BurstBits + 1)'(1));
    end
  end

  beat_fifo #(
    .Depth(FifoBeats)
  ) u_fifo (
    .clk_i,
    .rst_ni,
    .clear_i     (clear),
    .push_i      (m_axi_rvalid),
    .beat_i      (m_axi_rdata),
    .beat_o,
    .beat_valid_o,
    .beat_ready_i
  );

  logic unused_rresp;
  assign unused_rresp = m_axi_rresp[0];
endmodule
