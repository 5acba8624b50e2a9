// SPDX-License-Identifier: Apache-2.0
//
// The stream: everything that a run reads from DRAM, in Program order and ahead of its use, over Ports AXI masters
// (docs/machine.md, "The stream"). The Program's own lines go to the program store, all else becomes blocks in the block FIFO.
//
// flush_i (a pulse, or held) forgets everything; idle_o rises when the last outstanding burst has been swallowed. Only then
// may start_i come.
module block_stream (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        start_i,
  input  logic        flush_i,
  input  logic [63:0] memory_base_i,       // these hold during a run
  input  logic [63:0] input_base_i,
  input  logic [63:0] output_base_i,
  input  logic [31:0] memory_stripe_i,
  input  logic [31:0] input_stripe_i,
  input  logic [31:0] output_stripe_i,
  input  logic [31:0] program_addr_i,
  input  logic [15:0] num_instructions_i,  // > 0

  output logic        program_we_o,
  output logic [$clog2(codesign_pkg::MaxInstructions*codesign_pkg::InstructionBeats/codesign_pkg::Ports)-1:0] program_waddr_o,
  output logic [codesign_pkg::Ports*128-1:0] program_line_o,
  input  logic        program_loaded_i,    // all lines are written; holds until the run is over

  output logic        req_o,               // program store: taken with gnt_i, instr_i comes with valid_i
  output logic [15:0] index_o,
  input  logic        gnt_i,
  input  logic        valid_i,
  input  codesign_pkg::instr_t instr_i,

  input  logic [15:0] completed_i,         // number of instructions complete: all below are
  input  logic [codesign_pkg::MaxExperts-1:0][15:0] counts_i,

  output logic        block_avail_o,
  input  logic        block_pop_i,
  output logic [codesign_pkg::BlockBits-1:0] block_o,   // BlockLatency after the pop

  output logic [3:0]  state_o,
  output logic        idle_o,              // no outstanding read
  output logic        error_o,             // an error response arrives in this cycle

  output logic [codesign_pkg::Ports-1:0][63:0]  m_axi_araddr,
  output logic [codesign_pkg::Ports-1:0][7:0]   m_axi_arlen,
  output logic [codesign_pkg::Ports-1:0]        m_axi_arvalid,
  input  logic [codesign_pkg::Ports-1:0]        m_axi_arready,
  input  logic [codesign_pkg::Ports-1:0][127:0] m_axi_rdata,
  input  logic [codesign_pkg::Ports-1:0][1:0]   m_axi_rresp,
  input  logic [codesign_pkg::Ports-1:0]        m_axi_rlast,
  input  logic [codesign_pkg::Ports-1:0]        m_axi_rvalid,
  output logic [codesign_pkg::Ports-1:0]        m_axi_rready
);
  localparam int unsigned Ports    = codesign_pkg::Ports;
  localparam int unsigned AddrBits = $clog2(codesign_pkg::MaxInstructions * codesign_pkg::InstructionBeats / Ports);
  localparam logic [3:0] StateDraining = 4'd15;

  logic                    flushing_q, flush;
  logic                    desc_valid, desc_take, desc_ones, desc_program, cmd_ready;
  logic [Ports-1:0]        reader_ready, reader_idle, reader_error, beat_valid, beat_ready;
  logic [Ports-1:0][63:0]  desc_addr;
  logic [31:0]             desc_beats, desc_count;
  logic [Ports-1:0][127:0] beat;
  logic [Ports*128-1:0]    line;
  logic                    line_valid, line_ready, program_we, block_push, block_room;
  logic [codesign_pkg::BlockBits-1:0] block;
  logic [AddrBits-1:0]     program_waddr_q;
  logic [3:0]              fetch_state;

  assign flush     = flush_i || flushing_q;
  assign desc_take = desc_valid && cmd_ready && (&reader_ready);
  assign idle_o    = (&reader_idle) && !flushing_q;
  assign error_o   = (|reader_error) && !flush;
  assign state_o   = (fetch_state == 4'd0 && !idle_o) ? StateDraining : fetch_state;

  always_ff @(posedge clk_i) begin
    if (!rst_ni)            flushing_q <= 1'b0;
    else if (flush_i)       flushing_q <= 1'b1;
    else if (&reader_idle)  flushing_q <= 1'b0;
  end

  fetcher u_fetcher (
    .clk_i,
    .rst_ni,
    .flush_i       (flush),
    .start_i,
    .memory_base_i,
    .input_base_i,
    .output_base_i,
    .memory_stripe_i,
    .input_stripe_i,
    .output_stripe_i,
    .program_addr_i,
    .num_instructions_i,
    .program_loaded_i,
    .req_o,
    .index_o,
    .gnt_i,
    .valid_i,
    .instr_i,
    .completed_i,
    .counts_i,
    .desc_valid_o  (desc_valid),
    .desc_ready_i  (cmd_ready && (&reader_ready)),
    .desc_addr_o   (desc_addr),
    .desc_beats_o  (desc_beats),
    .desc_count_o  (desc_count),
    .desc_ones_o   (desc_ones),
    .desc_program_o(desc_program),
    .state_o       (fetch_state)
  );

  for (genvar m = 0; m < Ports; m++) begin : g_port
    axi_reader u_reader (
      .clk_i,
      .rst_ni,
      .flush_i      (flush),
      .desc_addr_i  (desc_addr[m]),
      .desc_beats_i (desc_beats),
      .desc_valid_i (desc_take),
      .desc_ready_o (reader_ready[m]),
      .beat_o       (beat[m]),
      .beat_valid_o (beat_valid[m]),
      .beat_ready_i (beat_ready[m]),
      .idle_o       (reader_idle[m]),
      .error_o      (reader_error[m]),
      .m_axi_araddr (m_axi_araddr[m]),
      .m_axi_arlen  (m_axi_arlen[m]),
      .m_axi_arvalid(m_axi_arvalid[m]),
      .m_axi_arready(m_axi_arready[m]),
      .m_axi_rdata  (m_axi_rdata[m]),
      .m_axi_rresp  (m_axi_rresp[m]),
      .m_axi_rlast  (m_axi_rlast[m]),
      .m_axi_rvalid (m_axi_rvalid[m]),
      .m_axi_rready (m_axi_rready[m])
    );
  end

  line_join u_line_join (
    .beat_i      (beat),
    .beat_valid_i(beat_valid),
    .beat_ready_o(beat_ready),
    .line_o      (line),
    .line_valid_o(line_valid),
    .line_ready_i(line_ready)
  );

  collector u_collector (
    .clk_i,
    .rst_ni,
    .flush_i      (flush),
    .cmd_valid_i  (desc_take),
    .cmd_ready_o  (cmd_ready),
    .cmd_count_i  (desc_count),
    .cmd_ones_i   (desc_ones),
    .cmd_program_i(desc_program),
    .line_i       (line),
    .line_valid_i (line_valid),
    .line_ready_o (line_ready),
    .program_we_o (program_we),
    .block_push_o (block_push),
    .block_o      (block),
    .block_room_i (block_room)
  );

  assign program_we_o    = program_we;
  assign program_line_o  = line;
  assign program_waddr_o = program_waddr_q;

  always_ff @(posedge clk_i) begin
    if (start_i)         program_waddr_q <= '0;
    else if (program_we) program_waddr_q <= program_waddr_q + AddrBits'(1);
  end

  block_fifo u_block_fifo (
    .clk_i,
    .rst_ni,
    .clear_i(flush),
    .push_i (block_push),
    .block_i(block),
    .room_o (block_room),
    .avail_o(block_avail_o),
    .pop_i  (block_pop_i),
    .block_o(block_o)
  );
endmodule
