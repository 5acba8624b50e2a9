// SPDX-License-Identifier: Apache-2.0
//
// Cuts a compute instruction into passes of the unified unit: LINEAR and ROUTE one, ATTENTION two a head (scores, mix),
// EXPERTS two an expert that has tokens (first layer, second layer).
module pass_issuer (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        start_i,
  input  codesign_pkg::instr_t instr_i,    // held until done_o
  input  logic [codesign_pkg::MaxExperts-1:0][15:0] counts_i,
  output logic        done_o,              // pulse: every pass is complete

  output codesign_pkg::pass_t pass_o,
  output logic        pass_valid_o,
  input  logic        pass_ready_i,
  input  logic        pass_done_i
);
  localparam int unsigned ExpertBits    = (codesign_pkg::MaxExperts > 1) ? $clog2(codesign_pkg::MaxExperts) : 1;
  localparam int unsigned QueueAddrBits = codesign_pkg::QueueAddrBits;

  typedef enum logic [2:0] {
    StIdle,
    StTiles,     // ATTENTION: count tiles of Pe keys and words of Simd keys
    StExpert,    // EXPERTS: look for the next expert with tokens
    StForm,      // registers its fields
    StPass,      // pass_q on the wires
    StDrain,     // wait for the passes under way
    StDone
  } state_t;

  state_t                   state_q;
  codesign_pkg::pass_t      pass_q;
  logic                     second_q;      // second pass of a head or an expert
  logic [7:0]               unit_q;        // head or expert
  logic [15:0]              column_q;      // first column of the head
  logic [15:0]              tiles_q, tile_keys_q, words_q, word_keys_q;
  logic [QueueAddrBits-1:0] queue_base_q;  // first entry of the expert's queue
  logic [1:0]               under_way_q;
  logic [15:0]              count;
  logic                     attention, experts, last_head, tiles_done, words_done, accepted;

  assign attention    = instr_i.opcode == codesign_pkg::OpAttention;
  assign experts      = instr_i.opcode == codesign_pkg::OpExperts;
  assign last_head    = unit_q == instr_i.num_heads - 8'd1;
  assign count        = counts_i[unit_q[ExpertBits-1:0]];
  assign tiles_done   = tile_keys_q >= instr_i.rows;
  assign words_done   = word_keys_q >= instr_i.rows;
  assign pass_o       = pass_q;
  assign pass_valid_o = (state_q == StPass) && (under_way_q != 2'd3);
  assign accepted     = pass_valid_o && pass_ready_i;
  assign done_o       = state_q == StDone;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q     <= StIdle;
      under_way_q <= 2'd0;
    end else begin
      unique case (state_q)
        StIdle:  if (start_i) state_q <= attention ? StTiles : experts ? StExpert : StForm;
        StTiles: if (tiles_done && words_done) state_q <= StForm;
        StExpert:
          if (unit_q == instr_i.num_experts) state_q <= StDrain;
          else if (count != 0)               state_q <= StForm;
        StForm: state_q <= StPass;
        StPass:
          if (accepted) begin
            if (experts)        state_q <= second_q ? StExpert : StForm;
            else if (attention) state_q <= (second_q && last_head) ? StDrain : StForm;
            else                state_q <= StDrain;
          end
        StDrain: if (under_way_q == 2'd0) state_q <= StDone;
        StDone:  state_q <= StIdle;
        default: state_q <= StIdle;
      endcase
      under_way_q <= under_way_q + 2'(accepted) - 2'(pass_done_i);
    end
  end

  always_ff @(posedge clk_i) begin
    unique case (state_q)
      StIdle: begin
        second_q     <= 1'b0;
        unit_q       <= 8'd0;
        column_q     <= 16'd0;
        tiles_q      <= 16'd0;
        tile_keys_q  <= 16'd0;
        words_q      <= 16'd0;
        word_keys_q  <= 16'd0;
        queue_base_q <= QueueAddrBits'(1);
      end
      StTiles: begin
        if (!tiles_done) begin
          tiles_q     <= tiles_q + 16'd1;
          tile_keys_q <= tile_keys_q + 16'(codesign_pkg::Pe);
        end
        if (!words_done) begin
          words_q     <= words_q + 16'd1;
          word_keys_q <= word_keys_q + 16'(codesign_pkg::Simd);
        end
      end
      StExpert:
        if (count == 0) begin
          unit_q       <= unit_q + 8'd1;
          queue_base_q <= queue_base_q + QueueAddrBits'(codesign_pkg::MaxRows + 1);
        end
      StPass:
        if (accepted) begin
          second_q <= !second_q;
          if (second_q) begin
            unit_q       <= unit_q + 8'd1;
            column_q     <= column_q + instr_i.dim;
            queue_base_q <= queue_base_q + QueueAddrBits'(codesign_pkg::MaxRows + 1);
          end
        end
      default: ;
    endcase
  end

  // The fields that a pass takes from its instruction, by the half of the head or expert.
  codesign_pkg::pass_t pass;

  always_comb begin
    pass            = '0;
    pass.kind       = codesign_pkg::KindDense;
    pass.ternary    = instr_i.weight_format == codesign_pkg::WeightTernary;
    pass.rows       = instr_i.rows;
    pass.k_words    = instr_i.k_words;
    pass.n_tiles    = instr_i.n_tiles;
    pass.src_base   = instr_i.src_base;
    pass.src_stride = instr_i.src_stride;
    pass.dst_base   = instr_i.dst_base;
    pass.dst_stride = instr_i.dst_stride;
    pass.queue_base = queue_base_q;
    pass.column     = column_q;
    pass.dim        = instr_i.dim;
    pass.multiplier = instr_i.multiplier;
    pass.shift      = instr_i.shift[5:0];
    unique case (instr_i.post)
      codesign_pkg::PostGelu:  pass.post = codesign_pkg::PostGelu;
      codesign_pkg::PostInt16: pass.post = codesign_pkg::PostInt16;
      codesign_pkg::PostAdd:   pass.post = codesign_pkg::PostAdd;
      default:                 pass.post = codesign_pkg::PostInt8;
    endcase
    unique case (instr_i.opcode)
      codesign_pkg::OpRoute: pass.post = codesign_pkg::PostLogits;
      codesign_pkg::OpAttention: begin
        pass.kind    = second_q ? codesign_pkg::KindMix : codesign_pkg::KindScore;
        pass.post    = second_q ? codesign_pkg::PostMix : codesign_pkg::PostScore;
        pass.kv_base = second_q ? instr_i.aux2_base : instr_i.aux_base;
        pass.n_tiles = tiles_q;
        pass.k_words = words_q;
        if (second_q) begin
          pass.multiplier = instr_i.multiplier2;
          pass.shift      = instr_i.shift2[5:0];
        end
      end
      codesign_pkg::OpExperts: begin
        pass.queued = 1'b1;
        pass.rows   = count;
        pass.post   = second_q ? codesign_pkg::PostGated : codesign_pkg::PostGelu;
        if (second_q) begin
          pass.k_words    = instr_i.k_words2;
          pass.n_tiles    = instr_i.n_tiles2;
          pass.src_base   = instr_i.aux_base;
          pass.src_stride = instr_i.aux_stride;
        end else begin
          pass.dst_base   = instr_i.aux_base;
          pass.dst_stride = instr_i.aux_stride;
        end
      end
      default: ;
    endcase
  end

  always_ff @(posedge clk_i) begin
    if (state_q == StForm) pass_q <= pass;
  end

  logic unused_instr;
  assign unused_instr = ^{instr_i, unit_q};
endmodule
