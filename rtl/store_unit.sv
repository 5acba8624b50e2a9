// SPDX-License-Identifier: Apache-2.0
//
// STORE: consecutive words of ACT, RES or QUEUE to the output buffer. Words are read ahead into a few registers while the
// writer takes the beats of the one before; queue entries are packed four to a beat first.
module store_unit (
  input  logic         clk_i,
  input  logic         rst_ni,

  input  logic         start_i,
  input  codesign_pkg::instr_t instr_i,    // held until done_o
  output logic         done_o,             // all responses of the memory are in

  input  logic [63:0]  output_base_i,

  output logic                                   act_ren_o,
  output logic [codesign_pkg::ActAddrBits-1:0]   act_addr_o,
  input  logic [codesign_pkg::Simd-1:0][7:0]     act_data_i,
  output logic                                   res_ren_o,
  output logic [codesign_pkg::ResAddrBits-1:0]   res_addr_o,
  input  logic [codesign_pkg::Pe-1:0][15:0]      res_data_i,
  output logic                                   queue_ren_o,
  output logic [codesign_pkg::QueueAddrBits-1:0] queue_addr_o,
  input  logic [31:0]                            queue_data_i,

  output logic [63:0]  desc_addr_o,
  output logic [31:0]  desc_beats_o,
  output logic         desc_valid_o,
  input  logic         desc_ready_i,
  output logic [127:0] beat_o,
  output logic         beat_valid_o,
  input  logic         beat_ready_i,
  input  logic         writer_idle_i
);
  localparam int unsigned ActBeats = codesign_pkg::ActBeats;
  localparam int unsigned ResBeats = codesign_pkg::ResBeats;
  localparam int unsigned MaxBeats = (ActBeats > ResBeats) ? ActBeats : ResBeats;
  localparam int unsigned PartBits = (MaxBeats > 1) ? $clog2(MaxBeats) : 1;
  localparam int unsigned Latency  = codesign_pkg::MemLatency;
  localparam int unsigned OutDepth = 4;    // Latency + 2, as in beat_fifo

  typedef enum logic [1:0] {
    StIdle,
    StAddress,   // output_base + mem_addr, and how many beats
    StDescribe,  // hand the descriptor to the writer
    StRun
  } state_t;

  state_t              state_q;
  logic                done_q, to_queue, to_res;
  logic [63:0]         desc_addr_q;
  logic [31:0]         desc_beats_q;
  logic [31:0]         left_q;             // words still to be read
  logic [15:0]         word_q;
  logic [2:0]          credit_q;           // output words neither filled nor promised
  logic [Latency-1:0]  arriving_q, outside_q;
  logic                ren, arrive, pack_full, push, pop, last_part;
  logic [1:0]          pack_q;             // queue entries in pack_data_q
  logic [3:0][31:0]    pack_data_q;
  logic                pack_valid_q;

  logic [OutDepth-1:0][MaxBeats-1:0][127:0] out_q;
  logic [MaxBeats-1:0][127:0] push_data, head;
  logic [1:0]          out_wptr_q, out_rptr_q;
  logic [2:0]          out_count_q;
  logic [PartBits-1:0] part_q;

  assign to_queue     = instr_i.unit == codesign_pkg::UnitQueue;
  assign to_res       = instr_i.unit == codesign_pkg::UnitRes;
  assign done_o       = done_q;

  assign desc_addr_o  = desc_addr_q;
  assign desc_beats_o = desc_beats_q;
  assign desc_valid_o = state_q == StDescribe;

  // Four queue entries share one output word: a new group starts only with a credit of its own.
  assign ren          = (state_q == StRun) && (left_q != 0) && ((credit_q != 0) || (to_queue && left_q[1:0] != 2'd0));
  assign act_ren_o    = ren && !to_queue && !to_res;
  assign res_ren_o    = ren && to_res;
  assign queue_ren_o  = ren && to_queue;
  assign act_addr_o   = word_q[codesign_pkg::ActAddrBits-1:0];
  assign res_addr_o   = word_q[codesign_pkg::ResAddrBits-1:0];
  assign queue_addr_o = word_q[codesign_pkg::QueueAddrBits-1:0];
  assign arrive       = arriving_q[Latency-1];
  assign pack_full    = arrive && (pack_q == 2'd3);

  assign push         = to_queue ? pack_valid_q : arrive;
  always_comb begin
    push_data = '0;
    if (to_queue)    push_data[0] = pack_data_q;
    else if (to_res) push_data[ResBeats-1:0] = res_data_i;
    else             push_data[ActBeats-1:0] = act_data_i;
  end

  assign head         = out_q[out_rptr_q];
  assign beat_o       = head[part_q];
  assign beat_valid_o = out_count_q != 0;
  assign last_part    = to_queue || (part_q == (to_res ? PartBits'(ResBeats - 1) : PartBits'(ActBeats - 1)));
  assign pop          = beat_valid_o && beat_ready_i && last_part;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q      <= StIdle;
      done_q       <= 1'b0;
      credit_q     <= 3'(OutDepth);
      arriving_q   <= '0;
      pack_q       <= '0;
      pack_valid_q <= 1'b0;
      out_wptr_q   <= '0;
      out_rptr_q   <= '0;
      out_count_q  <= '0;
      part_q       <= '0;
    end else begin
      done_q <= 1'b0;
      unique case (state_q)
        StIdle:     if (start_i) state_q <= StAddress;
        StAddress:  state_q <= StDescribe;
        StDescribe: if (desc_ready_i) state_q <= StRun;
        StRun:
          if (left_q == 0 && credit_q == 3'(OutDepth) && writer_idle_i) begin
            state_q <= StIdle;
            done_q  <= 1'b1;
          end
        default: state_q <= StIdle;
      endcase
      credit_q     <= credit_q + 3'(pop) - 3'(ren && !(to_queue && left_q[1:0] != 2'd0));
      arriving_q   <= {arriving_q[Latency-2:0], ren};
      pack_valid_q <= to_queue && pack_full;
      if (to_queue && arrive) pack_q <= pack_q + 2'd1;
      out_wptr_q   <= out_wptr_q + 2'(push);
      out_rptr_q   <= out_rptr_q + 2'(pop);
      out_count_q  <= out_count_q + 3'(push) - 3'(pop);
      if (beat_valid_o && beat_ready_i) part_q <= last_part ? '0 : part_q + PartBits'(1);
    end
  end

  always_ff @(posedge clk_i) begin
    if (state_q == StAddress) begin
      desc_addr_q <= output_base_i + {28'd0, instr_i.mem_addr, 4'd0};
      if (to_queue)    desc_beats_q <= {2'd0, instr_i.words[31:2]};
      else if (to_res) desc_beats_q <= instr_i.words * 32'(ResBeats);
      else             desc_beats_q <= instr_i.words * 32'(ActBeats);
    end
    if (state_q == StIdle) begin
      left_q <= instr_i.words;
      word_q <= instr_i.src_base;
    end else if (ren) begin
      left_q <= left_q - 32'd1;
      word_q <= word_q + 16'd1;
    end
    // A whole number of beats may reach past the last entry: those read as 0.
    outside_q <= {outside_q[Latency-2:0], word_q >= 16'(codesign_pkg::QueueWords)};
    if (arrive) pack_data_q <= {outside_q[Latency-1] ? 32'd0 : queue_data_i, pack_data_q[3:1]};
    if (push) out_q[out_wptr_q] <= push_data;
  end

  logic unused_instr;
  assign unused_instr = ^{instr_i, word_q};
endmodule
