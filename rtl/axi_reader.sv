// SPDX-License-Identifier: Apache-2.0
//
// Reads what descriptors (byte address, beats) ask for, in order, into a FIFO: INCR bursts of up to 256 beats that end at 4 KiB
// boundaries. A burst is requested only when the FIFO has room for all of it, so RREADY never falls; up to MaxOutstanding
// bursts are on their way. An error response is reported and its data passed on: the consumer never starves.
module axi_reader #(
  parameter int unsigned FifoBeats      = codesign_pkg::ReaderBeats,  // a power of two, at least 256
  parameter int unsigned MaxOutstanding = codesign_pkg::ReaderBursts,
  parameter int unsigned Descriptors    = 8  // queued; a power of two
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         flush_i,            // held until idle_o: forget everything, swallow what is on its way

  input  logic [63:0]  desc_addr_i,        // a multiple of 16
  input  logic [31:0]  desc_beats_i,       // at least 1
  input  logic         desc_valid_i,
  output logic         desc_ready_o,

  output logic [127:0] beat_o,
  output logic         beat_valid_o,
  input  logic         beat_ready_i,

  output logic         idle_o,             // nothing asked for and nothing on its way
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
  localparam int unsigned PageBits  = 8;                          // beats of 4 KiB, the longest burst
  localparam int unsigned SpaceBits = $clog2(FifoBeats) + 1;
  localparam int unsigned CountBits = $clog2(MaxOutstanding + 1);

  typedef enum logic [1:0] {
    StIdle,    // wait for a descriptor
    StSize,    // how long is the next burst
    StIssue    // wait for room in the FIFO and for the AR channel
  } state_t;

  state_t               state_q;
  logic                 queue_full, queue_valid, load, issue, pop, ar_free, last;
  logic [63:0]          queue_addr, addr_q;       // addr_q: of the next burst
  logic [31:0]          queue_beats, left_q;      // beats the descriptor still asks for
  logic [PageBits:0]    to_page, len_q;           // beats of this burst
  logic                 last_q;                   // it is the descriptor's last
  logic [63:0]          araddr_q;
  logic [7:0]           arlen_q;
  logic                 arvalid_q;
  logic [SpaceBits-1:0] space_q;                  // places of the FIFO neither filled nor reserved
  logic [CountBits-1:0] outstanding_q;            // bursts asked for (also on the AR channel) and not complete
  logic                 may_issue_q;              // outstanding_q < MaxOutstanding
  logic [CountBits-1:0] outstanding_d;

  sync_fifo #(
    .Width(96),
    .Depth(Descriptors)
  ) u_descriptors (
    .clk_i,
    .rst_ni,
    .clear_i(flush_i),
    .push_i (desc_valid_i && desc_ready_o),
    .data_i ({desc_beats_i, desc_addr_i}),
    .full_o (queue_full),
    .valid_o(queue_valid),
    .data_o ({queue_beats, queue_addr}),
    .pop_i  (load)
  );

  assign desc_ready_o  = !queue_full && !flush_i;
  assign m_axi_arvalid = arvalid_q;
  assign m_axi_araddr  = araddr_q;
  assign m_axi_arlen   = arlen_q;
  assign m_axi_rready  = 1'b1;
  assign idle_o        = (state_q == StIdle) && !queue_valid && (outstanding_q == 0);
  assign error_o       = m_axi_rvalid && m_axi_rresp[1];

  assign to_page = (PageBits + 1)'(1 << PageBits) - {1'b0, addr_q[4 +: PageBits]};
  assign last    = left_q <= 32'(to_page);
  assign ar_free = !arvalid_q || m_axi_arready;
  assign issue   = (state_q == StIssue) && ar_free && may_issue_q && (space_q >= SpaceBits'(len_q)) && !flush_i;
  assign load    = queue_valid && !flush_i && ((state_q == StIdle) || (issue && last_q));
  assign pop     = beat_valid_o && beat_ready_i;
  assign outstanding_d = outstanding_q + CountBits'(issue) - CountBits'(m_axi_rvalid && m_axi_rlast);

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q       <= StIdle;
      arvalid_q     <= 1'b0;
      space_q       <= SpaceBits'(FifoBeats);
      outstanding_q <= '0;
      may_issue_q   <= 1'b1;
    end else begin
      if (flush_i) state_q <= StIdle;
      else begin
        unique case (state_q)
          StIdle:  if (queue_valid) state_q <= StSize;
          StSize:  state_q <= StIssue;
          StIssue: if (issue) state_q <= (last_q && !queue_valid) ? StIdle : StSize;
          default: state_q <= StIdle;
        endcase
      end
      if (issue)              arvalid_q <= 1'b1;
      else if (m_axi_arready) arvalid_q <= 1'b0;
      if (flush_i) space_q <= SpaceBits'(FifoBeats);
      else         space_q <= space_q + SpaceBits'(pop) - (issue ? SpaceBits'(len_q) : '0);
      outstanding_q <= outstanding_d;
      may_issue_q   <= outstanding_d < CountBits'(MaxOutstanding);
    end
  end

  always_ff @(posedge clk_i) begin
    if (load) begin
      addr_q <= queue_addr;
      left_q <= queue_beats;
    end else if (issue) begin
      addr_q <= addr_q + {{(59 - PageBits){1'b0}}, len_q, 4'd0};
      left_q <= left_q - 32'(len_q);
    end
    if (state_q == StSize) begin
      len_q  <= last ? left_q[PageBits:0] : to_page;
      last_q <= last;
    end
    if (issue) begin
      araddr_q <= addr_q;
      arlen_q  <= 8'(len_q - (PageBits + 1)'(1));
    end
  end

  beat_fifo #(
    .Depth(FifoBeats)
  ) u_fifo (
    .clk_i,
    .rst_ni,
    .clear_i     (flush_i),
    .push_i      (m_axi_rvalid),
    .beat_i      (m_axi_rdata),
    .beat_o,
    .beat_valid_o,
    .beat_ready_i
  );

  logic unused_rresp;
  assign unused_rresp = m_axi_rresp[0];
endmodule
