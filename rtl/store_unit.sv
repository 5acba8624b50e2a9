// SPDX-License-Identifier: Apache-2.0
//
// STORE: consecutive words of ACT, RES or QUEUE to the output buffer, one beat a cycle, beat i to port i % Ports; zeros fill the
// last line. Words are read ahead into a little FIFO; queue entries are packed four to a beat first.
//
// flush_i (a pulse, or held) gives the instruction up; bursts that have begun are completed without writing. idle_o rises when
// all responses are in. Only then may start_i come.
module store_unit (
  input  logic         clk_i,
  input  logic         rst_ni,

  input  logic         start_i,
  input  logic         flush_i,
  input  codesign_pkg::instr_t instr_i,    // in the cycle of start_i
  output logic         done_o,             // pulse: all responses of the memory are in
  output logic [3:0]   state_o,
  output logic         idle_o,             // no outstanding write
  output logic         error_o,            // an error response arrives in this cycle

  input  logic [63:0]  output_base_i,      // these hold during a run
  input  logic [31:0]  output_stripe_i,

  output logic                                   act_req_o,    // ActLatency after the grant
  output logic [codesign_pkg::ActAddrBits-1:0]   act_word_o,   // granule 0
  input  logic                                   act_gnt_i,
  input  logic [codesign_pkg::Simd-1:0][7:0]     act_data_i,
  output logic                                   res_ren_o,    // MemLatency
  output logic [codesign_pkg::ResAddrBits-1:0]   res_addr_o,
  input  logic [codesign_pkg::Pe-1:0][15:0]      res_data_i,
  output logic                                   queue_ren_o,  // MemLatency
  output logic [codesign_pkg::QueueAddrBits-1:0] queue_addr_o,
  input  logic [31:0]                            queue_data_i,

  output logic [codesign_pkg::Ports-1:0][63:0]  m_axi_awaddr,
  output logic [codesign_pkg::Ports-1:0][7:0]   m_axi_awlen,
  output logic [codesign_pkg::Ports-1:0]        m_axi_awvalid,
  input  logic [codesign_pkg::Ports-1:0]        m_axi_awready,
  output logic [codesign_pkg::Ports-1:0][127:0] m_axi_wdata,
  output logic [codesign_pkg::Ports-1:0][15:0]  m_axi_wstrb,
  output logic [codesign_pkg::Ports-1:0]        m_axi_wlast,
  output logic [codesign_pkg::Ports-1:0]        m_axi_wvalid,
  input  logic [codesign_pkg::Ports-1:0]        m_axi_wready,
  input  logic [codesign_pkg::Ports-1:0][1:0]   m_axi_bresp,
  input  logic [codesign_pkg::Ports-1:0]        m_axi_bvalid,
  output logic [codesign_pkg::Ports-1:0]        m_axi_bready
);
  localparam int unsigned Ports      = codesign_pkg::Ports;
  localparam int unsigned PortBits   = (Ports > 1) ? $clog2(Ports) : 1;
  localparam int unsigned PortShift  = $clog2(Ports);
  localparam int unsigned ActBeats   = codesign_pkg::ActBeats;
  localparam int unsigned ResBeats   = codesign_pkg::ResBeats;
  localparam int unsigned MaxBeats   = (ActBeats > ResBeats) ? ActBeats : ResBeats;
  localparam int unsigned PartBits   = 3;                          // at most 8 beats a word
  localparam int unsigned MaxLatency = codesign_pkg::ActLatency;
  localparam int unsigned OutDepth   = 8;                          // words: enough for one a cycle (a word may be one beat)
  localparam int unsigned CreditBits = $clog2(OutDepth) + 1;

  typedef enum logic [2:0] {
    StIdle,
    StBeats,     // how many beats
    StLines,     // how many lines
    StDescribe,  // hand each writer its descriptor
    StRun,
    StFlush
  } state_t;

  state_t                state_q;
  logic                  done_q, flush, to_queue_q, to_res_q, writers_idle;
  logic [31:0]           words_q, beats_left_q, lines_q;    // beats_left_q: of data, not yet with a writer
  logic [31:0]           left_q;                            // words (queue: entries) still to be read
  logic                  any_left_q, any_beats_q;           // left_q, beats_left_q (from StDescribe on) are not 0
  logic [15:0]           word_q;
  logic [31:0]           line_q;
  logic [63:0]           desc_addr_q;
  logic [PortBits-1:0]   port_q;                            // of the next descriptor or beat
  logic                  last_port;
  logic [CreditBits-1:0] credit_q;                          // places of the FIFO neither filled nor promised
  logic                  want, read, needs_credit, arrive, push, pop, out_full, out_valid, last_part;
  logic [MaxLatency-1:0] arriving_q;
  logic [codesign_pkg::MemLatency-1:0] outside_q;
  logic [1:0]            pack_q;                            // queue entries in pack_data_q
  logic [3:0][31:0]      pack_data_q;
  logic                  pack_full_q;
  logic [MaxBeats-1:0][127:0] push_data, head;
  logic [PartBits-1:0]   part_q;
  logic                  beat_valid, send;
  logic [127:0]          beat;
  logic [Ports-1:0]      desc_valid, desc_ready, writer_valid, writer_ready, writer_idle, writer_error;

  function automatic logic [31:0] times(logic [31:0] words, int unsigned beats);   // shifts and sums: no multiplier
    times = '0;
    for (int unsigned i = 0; i < 4; i++) begin
      if (((beats >> i) & 1) != 0) times = times + (words << i);
    end
  endfunction

  assign flush        = flush_i || (state_q == StFlush);
  assign writers_idle = &writer_idle;
  assign idle_o       = writers_idle && (state_q != StFlush);
  assign error_o      = (|writer_error) && !flush;
  assign done_o       = done_q;
  assign state_o      = {1'b0, state_q};
  assign last_port    = port_q == PortBits'(Ports - 1);

  // ---- reading ----
  // Four queue entries share one place: a new group starts only with a credit of its own.
  assign needs_credit = !to_queue_q || left_q[1:0] == 2'd0;
  assign want         = (state_q == StRun) && any_left_q;
  assign act_req_o    = want && credit_q != 0 && !to_queue_q && !to_res_q;
  assign res_ren_o    = want && credit_q != 0 && to_res_q;
  assign queue_ren_o  = want && to_queue_q && (credit_q != 0 || !needs_credit);
  assign read         = (act_req_o && act_gnt_i) || res_ren_o || queue_ren_o;
  assign act_word_o   = word_q[codesign_pkg::ActAddrBits-1:0];
  assign res_addr_o   = word_q[codesign_pkg::ResAddrBits-1:0];
  assign queue_addr_o = word_q[codesign_pkg::QueueAddrBits-1:0];
  assign arrive       = (to_queue_q || to_res_q) ? arriving_q[codesign_pkg::MemLatency-1] : arriving_q[codesign_pkg::ActLatency-1];
  assign push         = to_queue_q ? pack_full_q : arrive;

  always_comb begin
    push_data = '0;
    if (to_queue_q)    push_data[0] = pack_data_q;
    else if (to_res_q) push_data[ResBeats-1:0] = res_data_i;
    else               push_data[ActBeats-1:0] = act_data_i;
  end

  sync_fifo #(
    .Width(MaxBeats * 128),
    .Depth(OutDepth)
  ) u_out (
    .clk_i,
    .rst_ni,
    .clear_i(flush),
    .push_i (push),
    .data_i (push_data),
    .full_o (out_full),
    .valid_o(out_valid),
    .data_o (head),
    .pop_i  (pop)
  );

  // ---- sending ----
  assign last_part  = to_queue_q || (part_q == (to_res_q ? PartBits'(ResBeats - 1) : PartBits'(ActBeats - 1)));
  assign beat_valid = (state_q == StRun) && (any_beats_q ? out_valid : (port_q != '0));
  assign beat       = any_beats_q ? head[32'(part_q) % MaxBeats] : '0;
  assign send       = beat_valid && writer_ready[port_q];
  assign pop        = send && any_beats_q && last_part;

  always_comb begin
    desc_valid           = '0;
    writer_valid         = '0;
    desc_valid[port_q]   = (state_q == StDescribe) && !flush;
    writer_valid[port_q] = beat_valid && !flush;
  end

  for (genvar m = 0; m < Ports; m++) begin : g_port
    axi_writer u_writer (
      .clk_i,
      .rst_ni,
      .flush_i      (flush),
      .desc_addr_i  (desc_addr_q),
      .desc_beats_i (lines_q),
      .desc_valid_i (desc_valid[m]),
      .desc_ready_o (desc_ready[m]),
      .beat_i       (beat),
      .beat_valid_i (writer_valid[m]),
      .beat_ready_o (writer_ready[m]),
      .idle_o       (writer_idle[m]),
      .error_o      (writer_error[m]),
      .m_axi_awaddr (m_axi_awaddr[m]),
      .m_axi_awlen  (m_axi_awlen[m]),
      .m_axi_awvalid(m_axi_awvalid[m]),
      .m_axi_awready(m_axi_awready[m]),
      .m_axi_wdata  (m_axi_wdata[m]),
      .m_axi_wstrb  (m_axi_wstrb[m]),
      .m_axi_wlast  (m_axi_wlast[m]),
      .m_axi_wvalid (m_axi_wvalid[m]),
      .m_axi_wready (m_axi_wready[m]),
      .m_axi_bresp  (m_axi_bresp[m]),
      .m_axi_bvalid (m_axi_bvalid[m]),
      .m_axi_bready (m_axi_bready[m])
    );
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q     <= StIdle;
      done_q      <= 1'b0;
      arriving_q  <= '0;
      pack_q      <= '0;
      pack_full_q <= 1'b0;
      part_q      <= '0;
      port_q      <= '0;
      credit_q    <= CreditBits'(OutDepth);
    end else if (flush) begin
      state_q     <= (writers_idle && !flush_i) ? StIdle : StFlush;
      done_q      <= 1'b0;
      arriving_q  <= '0;
      pack_q      <= '0;
      pack_full_q <= 1'b0;
      part_q      <= '0;
      port_q      <= '0;
      credit_q    <= CreditBits'(OutDepth);
    end else begin
      done_q <= 1'b0;
      unique case (state_q)
        StIdle:     if (start_i) state_q <= StBeats;
        StBeats:    state_q <= StLines;
        StLines:    state_q <= StDescribe;
        StDescribe: if (last_port && desc_ready[port_q]) state_q <= StRun;
        StRun:
          if (!any_beats_q && port_q == '0 && writers_idle) begin
            state_q <= StIdle;
            done_q  <= 1'b1;
          end
        default: state_q <= StIdle;
      endcase
      credit_q    <= credit_q + CreditBits'(pop) - CreditBits'(read && needs_credit);
      arriving_q  <= {arriving_q[MaxLatency-2:0], read};
      pack_full_q <= to_queue_q && arrive && (pack_q == 2'd3);
      if (to_queue_q && arrive) pack_q <= pack_q + 2'd1;
      if (send && any_beats_q) part_q <= last_part ? '0 : part_q + PartBits'(1);
      if (send || (state_q == StDescribe && desc_ready[port_q])) port_q <= last_port ? '0 : port_q + PortBits'(1);
    end
  end

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      to_queue_q <= instr_i.unit == codesign_pkg::UnitQueue;
      to_res_q   <= instr_i.unit == codesign_pkg::UnitRes;
      words_q    <= instr_i.words;
      left_q     <= instr_i.words;
      any_left_q <= instr_i.words != 0;
      word_q     <= instr_i.src_base;
      line_q     <= instr_i.mem_addr;
    end else if (read) begin
      left_q <= left_q - 32'd1;
      any_left_q <= left_q != 32'd1;
      word_q <= word_q + 16'd1;
    end
    if (state_q == StBeats) begin
      beats_left_q <= to_queue_q ? {2'd0, words_q[31:2]} : to_res_q ? times(words_q, ResBeats) : times(words_q, ActBeats);
      desc_addr_q  <= output_base_i + {28'd0, line_q, 4'd0};
    end else if (send && any_beats_q) begin
      beats_left_q <= beats_left_q - 32'd1;
      any_beats_q  <= beats_left_q != 32'd1;
    end
    if (state_q == StLines) begin
      lines_q     <= (beats_left_q + 32'(Ports - 1)) >> PortShift;
      any_beats_q <= beats_left_q != 0;
    end
    if (state_q == StDescribe && desc_ready[port_q]) desc_addr_q <= desc_addr_q + {32'd0, output_stripe_i};
    // A whole number of beats may reach past the last entry: those read as 0.
    outside_q <= {outside_q[codesign_pkg::MemLatency-2:0], 32'(word_q) >= codesign_pkg::QueueWords};
    if (arrive) pack_data_q <= {outside_q[codesign_pkg::MemLatency-1] ? 32'd0 : queue_data_i, pack_data_q[3:1]};
  end

  logic unused;
  assign unused = ^{instr_i, word_q, out_full};   // the credits keep the FIFO from overflowing
endmodule
