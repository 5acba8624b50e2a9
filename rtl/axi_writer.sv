// SPDX-License-Identifier: Apache-2.0
//
// Writes a stream of beats to consecutive addresses: INCR bursts of up to 256 beats that end at 4 KiB boundaries. Data does not
// wait for AWREADY (a slave may accept the address only with the data). idle_o rises after the last response; an error response
// is reported and the stream goes on. A flush completes the burst that has begun with beats that write nothing.
module axi_writer #(
  parameter int unsigned FifoBeats      = 16,  // a power of two
  parameter int unsigned MaxOutstanding = 8
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         flush_i,            // held until idle_o: forget what has not been sent

  input  logic [63:0]  desc_addr_i,        // a multiple of 16
  input  logic [31:0]  desc_beats_i,       // at least 1
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
  localparam int unsigned PageBits  = 8;                          // beats of 4 KiB, the longest burst
  localparam int unsigned CountBits = $clog2(MaxOutstanding + 1);

  typedef enum logic [1:0] {
    StIdle,    // wait for a descriptor
    StSize,    // how long is the next burst
    StBegin,   // wait for the AW channel and for a response to come
    StBurst    // its data
  } state_t;

  state_t               state_q;
  logic [63:0]          addr_q, awaddr_q;
  logic [31:0]          left_q;            // beats of the descriptor not yet in a burst
  logic [PageBits:0]    to_page, len_q, beats_q;   // beats_q: of this burst, not yet on the W channel
  logic [7:0]           awlen_q;
  logic                 awvalid_q, wvalid_q, wlast_q, write_q;
  logic [127:0]         wdata_q, beat;
  logic [CountBits-1:0] outstanding_q, outstanding_d;
  logic                 may_begin_q, begin_burst, put, last_beat, fifo_full, beat_valid;

  sync_fifo #(
    .Width(128),
    .Depth(FifoBeats)
  ) u_fifo (
    .clk_i,
    .rst_ni,
    .clear_i(flush_i),
    .push_i (beat_valid_i && beat_ready_o),
    .data_i (beat_i),
    .full_o (fifo_full),
    .valid_o(beat_valid),
    .data_o (beat),
    .pop_i  (put && !flush_i)
  );

  assign desc_ready_o  = (state_q == StIdle) && !flush_i;
  assign beat_ready_o  = !fifo_full && !flush_i;
  assign idle_o        = (state_q == StIdle) && (outstanding_q == 0);
  assign error_o       = m_axi_bvalid && m_axi_bresp[1];

  assign m_axi_awaddr  = awaddr_q;
  assign m_axi_awlen   = awlen_q;
  assign m_axi_awvalid = awvalid_q;
  assign m_axi_wdata   = wdata_q;
  assign m_axi_wstrb   = {16{write_q}};
  assign m_axi_wlast   = wlast_q;
  assign m_axi_wvalid  = wvalid_q;
  assign m_axi_bready  = 1'b1;

  assign to_page       = (PageBits + 1)'(1 << PageBits) - {1'b0, addr_q[4 +: PageBits]};
  assign begin_burst   = (state_q == StBegin) && !flush_i && may_begin_q && (!awvalid_q || m_axi_awready);
  assign last_beat     = beats_q == (PageBits + 1)'(1);
  assign put           = (state_q == StBurst) && (beat_valid || flush_i) && (!wvalid_q || m_axi_wready);
  assign outstanding_d = outstanding_q + CountBits'(begin_burst) - CountBits'(m_axi_bvalid);

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q       <= StIdle;
      awvalid_q     <= 1'b0;
      wvalid_q      <= 1'b0;
      outstanding_q <= '0;
      may_begin_q   <= 1'b1;
    end else begin
      unique case (state_q)
        StIdle:  if (desc_valid_i && !flush_i) state_q <= StSize;
        StSize:  state_q <= flush_i ? StIdle : StBegin;
        StBegin: if (flush_i) state_q <= StIdle; else if (begin_burst) state_q <= StBurst;
        StBurst: if (put && last_beat) state_q <= (left_q == 0 || flush_i) ? StIdle : StSize;
        default: state_q <= StIdle;
      endcase
      if (begin_burst)        awvalid_q <= 1'b1;
      else if (m_axi_awready) awvalid_q <= 1'b0;
      if (put)               wvalid_q <= 1'b1;
      else if (m_axi_wready) wvalid_q <= 1'b0;
      outstanding_q <= outstanding_d;
      may_begin_q   <= outstanding_d < CountBits'(MaxOutstanding);
    end
  end

  always_ff @(posedge clk_i) begin
    if (desc_ready_o) begin
      addr_q <= desc_addr_i;
      left_q <= desc_beats_i;
    end else if (begin_burst) begin
      addr_q <= addr_q + {{(59 - PageBits){1'b0}}, len_q, 4'd0};
      left_q <= left_q - 32'(len_q);
    end
    if (state_q == StSize) len_q <= (left_q <= 32'(to_page)) ? left_q[PageBits:0] : to_page;
    if (begin_burst) begin
      awaddr_q <= addr_q;
      awlen_q  <= 8'(len_q - (PageBits + 1)'(1));
      beats_q  <= len_q;
    end else if (put) begin
      beats_q  <= beats_q - (PageBits + 1)'(1);
    end
    if (put) begin
      wdata_q <= beat;
      wlast_q <= last_beat;
      write_q <= !flush_i;
    end
  end

  logic unused_bresp;
  assign unused_bresp = m_axi_bresp[0];
endmodule
