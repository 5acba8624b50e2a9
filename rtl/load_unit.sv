// SPDX-License-Identifier: Apache-2.0
//
// LOAD: unpacks blocks into consecutive words of ACT or RES, one word a cycle.
//
// Words are cut straight out of the stream's bus, so each block has its turn of as many cycles as it has words, and block_done_o
// comes with the last cycle of the last block's turn (its pop is the first). A block is popped only when all its words have a
// place in the little FIFO before ACT, whose writer may have to wait.
module load_unit (
  input  logic         clk_i,
  input  logic         rst_ni,

  input  logic         start_i,
  input  codesign_pkg::instr_t instr_i,    // in the cycle of start_i
  output logic         done_o,             // pulse: all words are written
  output logic [3:0]   state_o,

  input  logic         block_avail_i,
  output logic         block_pop_o,
  input  logic [codesign_pkg::BlockBits-1:0] block_i,      // BlockLatency after the pop
  output logic         block_done_o,

  output logic                                 w_valid_o,  // whole words of ACT
  input  logic                                 w_ready_i,
  output logic [codesign_pkg::ActAddrBits-1:0] w_word_o,
  output logic [codesign_pkg::Simd-1:0][7:0]   w_data_o,

  output logic                                 res_we_o,
  output logic [codesign_pkg::ResAddrBits-1:0] res_waddr_o,
  output logic [codesign_pkg::Pe-1:0][15:0]    res_wdata_o
);
  localparam int unsigned ActWords  = codesign_pkg::BlockActWords;     // of a block
  localparam int unsigned ResWords  = codesign_pkg::BlockResWords;
  localparam int unsigned ActBits   = codesign_pkg::Simd * 8;
  localparam int unsigned ResBits   = codesign_pkg::Pe * 16;
  localparam int unsigned Latency   = codesign_pkg::BlockLatency;
  localparam int unsigned PartBits  = 3;                               // at most 8 words a block
  localparam int unsigned OutDepth  = 16;                              // two blocks
  localparam int unsigned CreditBits = $clog2(OutDepth) + 1;

  typedef enum logic [1:0] {
    StIdle,
    StRun,     // blocks are popped
    StDrain    // words are on their way
  } state_t;

  state_t                state_q;
  logic                  done_q, to_res_q, room, in_turn, last_part, last_block_q, out_full, out_valid, out_pop;
  logic [31:0]           blocks_left_q, words_left_q;
  logic [15:0]           word_q;
  logic [PartBits-1:0]   part_q, part;             // word of the block whose turn it is
  logic [Latency-1:0]    turn_q;                   // this unit's block stands on the bus
  logic [Latency-1:0][PartBits-1:0] turn_part_q;
  logic                  taken_q;                  // data_q or res_data_q holds a word
  logic [ActBits-1:0]    act_data_q;
  logic [ResBits-1:0]    res_data_q;
  logic [ActWords-1:0][ActBits-1:0] act_words;
  logic [ResWords-1:0][ResBits-1:0] res_words;
  logic [CreditBits-1:0] credit_q;                 // places of the FIFO neither filled nor promised
  logic                  wanted, push, written;

  assign act_words    = block_i;
  assign res_words    = block_i;
  assign room         = to_res_q || (credit_q >= CreditBits'(ActWords));
  assign block_pop_o  = (state_q == StRun) && (part_q == '0) && room && block_avail_i;
  assign part         = block_pop_o ? '0 : part_q;
  assign in_turn      = block_pop_o || (part_q != '0);
  assign last_part    = part == (to_res_q ? PartBits'(ResWords - 1) : PartBits'(ActWords - 1));
  assign block_done_o = in_turn && last_part && last_block_q;
  assign done_o       = done_q;
  assign state_o      = {2'd0, state_q};

  // A word beyond the last one (padding of the last block) is dropped.
  assign wanted       = taken_q && (words_left_q != 0);
  assign push         = wanted && !to_res_q;
  assign res_we_o     = wanted && to_res_q;
  assign res_waddr_o  = word_q[codesign_pkg::ResAddrBits-1:0];
  assign res_wdata_o  = res_data_q;

  sync_fifo #(
    .Width(ActBits),
    .Depth(OutDepth)
  ) u_out (
    .clk_i,
    .rst_ni,
    .clear_i(start_i),
    .push_i (push),
    .data_i (act_data_q),
    .full_o (out_full),
    .valid_o(out_valid),
    .data_o (w_data_o),
    .pop_i  (out_pop)
  );

  assign w_valid_o = out_valid;
  assign w_word_o  = word_q[codesign_pkg::ActAddrBits-1:0];
  assign out_pop   = out_valid && w_ready_i;
  assign written   = out_pop || res_we_o;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      done_q  <= 1'b0;
      part_q  <= '0;
      turn_q  <= '0;
      taken_q <= 1'b0;
    end else begin
      done_q <= 1'b0;
      unique case (state_q)
        StIdle:  if (start_i) state_q <= StRun;
        StRun:   if (block_done_o) state_q <= StDrain;
        StDrain:
          if (turn_q == '0 && !taken_q && !out_valid) begin
            state_q <= StIdle;
            done_q  <= 1'b1;
          end
        default: state_q <= StIdle;
      endcase
      if (in_turn) part_q <= last_part ? '0 : part + PartBits'(1);
      turn_q  <= {turn_q[Latency-2:0], in_turn};
      taken_q <= turn_q[Latency-1];
    end
  end

  always_ff @(posedge clk_i) begin
    turn_part_q <= {turn_part_q[Latency-2:0], part};
    if (turn_q[Latency-1]) begin
      act_data_q <= act_words[32'(turn_part_q[Latency-1]) % ActWords];
      res_data_q <= res_words[32'(turn_part_q[Latency-1]) % ResWords];
    end
    if (start_i) begin
      to_res_q      <= instr_i.unit == codesign_pkg::UnitRes;
      blocks_left_q <= instr_i.blocks;
      last_block_q  <= instr_i.blocks == 32'd1;
      words_left_q  <= instr_i.words;
      word_q        <= instr_i.dst_base;
      credit_q      <= CreditBits'(OutDepth);
    end else begin
      if (in_turn && last_part) begin
        blocks_left_q <= blocks_left_q - 32'd1;
        last_block_q  <= blocks_left_q == 32'd2;
      end
      if (wanted)  words_left_q <= words_left_q - 32'd1;
      if (written) word_q <= word_q + 16'd1;
      credit_q <= credit_q + CreditBits'(out_pop) - (block_pop_o ? CreditBits'(ActWords) : '0);
    end
  end

  logic unused;
  assign unused = ^{instr_i, word_q, out_full};   // the credits keep the FIFO from overflowing
endmodule
