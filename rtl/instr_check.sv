// SPDX-License-Identifier: Apache-2.0
//
// Judges one instruction by the rules of codesign/schedule/legal.py: every rule that `violation` states, and no other (those of
// its place in the Program: dispatcher). Rules without a product are evaluated side by side; products share one pipelined multiplier, one a cycle, in a fixed order of steps. The
// verdict comes 14 cycles after start_i, whatever the instruction.
module instr_check (
  input  logic clk_i,
  input  logic rst_ni,
  input  logic start_i,                    // pulse
  input  codesign_pkg::instr_t instr_i,    // held from start_i to done_o
  output logic done_o,                     // pulse
  output logic legal_o                     // with done_o
);
  localparam int unsigned RecordBlocks = codesign_pkg::RecordBlocks;
  localparam int unsigned MaxKeys      = codesign_pkg::KeyWords * codesign_pkg::Simd;
  localparam int unsigned QueueDepth   = (codesign_pkg::QueueWords + 3) / 4 * 4;
  localparam int unsigned SimdBits     = $clog2(codesign_pkg::Simd);
  localparam int unsigned WordShift    = $clog2(codesign_pkg::ActGranules);
  localparam int unsigned Widths       = $bits(instr_i.widths) / codesign_pkg::WidthBits;

  // Steps that put a product's factors into the pipeline, and the steps when results are there.
  localparam logic [3:0] StepSize0 = 4'd0;   // LOAD: words of the blocks; ATTENTION: columns; others: blocks of the stream
  localparam logic [3:0] StepSize1 = 4'd1;   // EXPERTS: blocks of the second layer
  localparam logic [3:0] StepSrc   = 4'd4;   // areas: base + rows * stride inside the memory
  localparam logic [3:0] StepAux   = 4'd5;
  localparam logic [3:0] StepAux2  = 4'd6;
  localparam logic [3:0] StepDst   = 4'd7;
  localparam logic [3:0] StepLast  = 4'd13;

  logic [3:0] step_q;
  logic       busy_q;

  logic op_load, op_store, op_linear, op_attention, op_norm, op_route, op_experts, dense, unit_act, unit_res, dst_act;

  assign op_load      = instr_i.opcode == codesign_pkg::OpLoad;
  assign op_store     = instr_i.opcode == codesign_pkg::OpStore;
  assign op_linear    = instr_i.opcode == codesign_pkg::OpLinear;
  assign op_attention = instr_i.opcode == codesign_pkg::OpAttention;
  assign op_norm      = instr_i.opcode == codesign_pkg::OpNorm;
  assign op_route     = instr_i.opcode == codesign_pkg::OpRoute;
  assign op_experts   = instr_i.opcode == codesign_pkg::OpExperts;
  assign dense        = op_linear || op_route || op_experts;
  assign unit_act     = instr_i.unit == codesign_pkg::UnitAct;
  assign unit_res     = instr_i.unit == codesign_pkg::UnitRes;
  assign dst_act      = op_attention || op_norm || instr_i.post == codesign_pkg::PostInt8 ||
                        instr_i.post == codesign_pkg::PostGelu;

  // ---- rules without a product: three cycles ----
  logic [17:0] granules, granules_q;       // n_tiles * Pe / Granule: 1 to 4 granules a tile
  logic [17:0] words, hidden_q;            // ACT words of a row of n_tiles; the wider of it and k_words2
  logic [21:0] lanes;
  logic [32:0] end_q;                      // first word after a LOAD's or STORE's
  logic [32:0] depth;
  logic [32:0] words_high_q;               // LOAD: words + one block's
  logic        codes_q, counts_q, ranges_q, widths_q, inside_q, scaled_q, flat_q, widths_known, shift_ok, shift2_ok;

  assign lanes = {granules_q, 4'd0};
  assign words = (granules_q + 18'(codesign_pkg::ActGranules - 1)) >> WordShift;
  assign shift_ok  = (instr_i.shift[7:6] == '0) && (instr_i.shift != '0);
  assign shift2_ok = (instr_i.shift2[7:6] == '0) && (instr_i.shift2 != '0);
  assign depth = unit_act ? 33'(codesign_pkg::ActWords) : unit_res ? 33'(codesign_pkg::ResWords) : 33'(QueueDepth);

  always_comb begin
    unique case (codesign_pkg::PeGranules)
      1:       granules = 18'(instr_i.n_tiles);
      2:       granules = {1'b0, instr_i.n_tiles, 1'b0};
      3:       granules = {1'b0, instr_i.n_tiles, 1'b0} + 18'(instr_i.n_tiles);
      default: granules = {instr_i.n_tiles, 2'b00};
    endcase
    widths_known = 1'b1;
    for (int unsigned e = 0; e < Widths; e++) begin
      if (instr_i.widths[e*codesign_pkg::WidthBits +: codesign_pkg::WidthBits] == '1) widths_known = 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    granules_q   <= granules;
    hidden_q     <= (words > 18'(instr_i.k_words2)) ? words : 18'(instr_i.k_words2);
    end_q        <= 33'(instr_i.words) + 33'(op_load ? instr_i.dst_base : instr_i.src_base);
    words_high_q <= 33'(instr_i.words) + (unit_act ? 33'(codesign_pkg::BlockActWords) : 33'(codesign_pkg::BlockResWords));

    codes_q <= (instr_i.reserved == '0) && (op_load || op_store || dense || op_attention || op_norm) &&
               (instr_i.post <= codesign_pkg::PostAdd) && (instr_i.weight_format <= codesign_pkg::WeightInt2) &&
               (instr_i.space <= codesign_pkg::SpaceOutput) && (instr_i.unit <= codesign_pkg::UnitQueue);
    widths_q <= !op_experts || (widths_known && (instr_i.widths == '0 || instr_i.weight_format == codesign_pkg::WeightInt8));
    unique case (instr_i.opcode)
      codesign_pkg::OpLoad:  counts_q <= (unit_act || unit_res) && (instr_i.words != '0) && (instr_i.blocks[31:17] == '0);
      codesign_pkg::OpStore: counts_q <= (instr_i.space == codesign_pkg::SpaceOutput) && (instr_i.words != '0) &&
                                         (unit_act || unit_res || instr_i.words[1:0] == 2'd0);
      codesign_pkg::OpAttention: counts_q <= (instr_i.keys != '0) && (instr_i.num_heads != '0) && (instr_i.dim != '0);
      codesign_pkg::OpNorm:      counts_q <= (instr_i.n_tiles != '0) && (instr_i.dim != '0);
      codesign_pkg::OpRoute:     counts_q <= (instr_i.k_words != '0) && (instr_i.n_tiles == 16'd1) && (instr_i.num_experts != '0) &&
                                             (instr_i.top_k != '0);
      codesign_pkg::OpExperts:   counts_q <= (instr_i.k_words != '0) && (instr_i.n_tiles != '0) && (instr_i.k_words2 != '0) &&
                                             (instr_i.n_tiles2 != '0) && (instr_i.num_experts != '0);
      default:                   counts_q <= (instr_i.k_words != '0) && (instr_i.n_tiles != '0);
    endcase
    ranges_q <= (op_load || op_store || (instr_i.rows != '0 && 32'(instr_i.rows) <= codesign_pkg::MaxRows)) &&
                (!op_attention || 32'(instr_i.keys) <= MaxKeys) &&
                (!(op_route || op_experts) || 32'(instr_i.num_experts) <= codesign_pkg::MaxExperts) &&
                (!op_route || instr_i.top_k <= instr_i.num_experts) && (!op_experts || instr_i.ahead <= instr_i.num_experts);
    inside_q <= (!(op_load || op_store) || end_q <= depth) &&
                (!op_norm || (22'(instr_i.dim) <= lanes && 32'(lanes) <= codesign_pkg::NormDimMax));
    scaled_q <= (instr_i.space == codesign_pkg::SpaceMemory || op_load || op_store || op_attention) &&
                (shift_ok || !(op_experts || op_attention || op_norm || (op_linear && instr_i.post == codesign_pkg::PostGelu))) &&
                (shift2_ok || !op_attention);
    flat_q   <= codes_q && counts_q && ranges_q && widths_q && inside_q && scaled_q;
  end

  // ---- products ----
  typedef enum logic [1:0] {
    ProdNone,
    ProdSize,
    ProdAct,     // base + product < ActWords
    ProdRes      // base + product <= ResWords
  } prod_t;

  prod_t       kind, kind_a_q, kind_b_q, kind_c_q, kind_d_q;
  logic [16:0] a, a_q;
  logic [19:0] b, b_q, tile_blocks;
  logic [15:0] base, base_a_q, base_b_q, base_c_q, stride, stride_q, k_words;
  logic [19:0] width, width_q;
  logic [36:0] m_q, p_q, sum_q;
  logic        second_a_q, second_b_q, second_c_q, second;
  logic [19:0] columns_q;
  logic        legal_q, area_ok, size_ok;

  // Blocks of one n tile; a NORM's tile has records only.
  assign k_words     = second ? instr_i.k_words2 : instr_i.k_words;
  assign tile_blocks = 20'(RecordBlocks) + (op_norm ? 20'd0 : 20'(k_words) << (2'd3 - instr_i.weight_format[1:0]));
  assign second      = step_q == StepSize1;

  always_comb begin
    kind   = ProdNone;
    a      = 17'(instr_i.rows);
    b      = 20'(instr_i.src_stride);
    base   = instr_i.src_base;
    stride = instr_i.src_stride;
    width  = op_attention ? columns_q : op_norm ? 20'(instr_i.n_tiles) : 20'(instr_i.k_words);
    unique case (step_q)
      StepSize0: begin
        kind = op_store ? ProdNone : ProdSize;
        a    = op_load ? instr_i.blocks[16:0] : op_attention ? 17'(instr_i.num_heads) : 17'(instr_i.n_tiles);
        b    = tile_blocks;
        if (op_load)      b = unit_act ? 20'(codesign_pkg::BlockActWords) : 20'(codesign_pkg::BlockResWords);
        if (op_attention) b = 20'(instr_i.dim);
      end
      StepSize1: begin
        kind = op_experts ? ProdSize : ProdNone;
        a    = 17'(instr_i.n_tiles2);
        b    = tile_blocks;
      end
      StepSrc: if (!(op_load || op_store)) kind = op_norm ? ProdRes : ProdAct;
      StepAux: begin
        base = instr_i.aux_base;
        if (op_experts) begin
          kind   = ProdAct;
          b      = 20'(instr_i.aux_stride);
          stride = instr_i.aux_stride;
          width  = 20'(hidden_q);
        end else begin
          kind = op_attention ? ProdAct : ProdNone;
          a    = 17'(instr_i.keys);
        end
      end
      StepAux2: begin
        kind = op_attention ? ProdAct : ProdNone;
        a    = 17'(instr_i.keys);
        base = instr_i.aux2_base;
      end
      StepDst: begin
        if (op_attention || op_norm || op_linear || op_experts) kind = (dst_act && !op_experts) ? ProdAct : ProdRes;
        b      = 20'(instr_i.dst_stride);
        base   = instr_i.dst_base;
        stride = instr_i.dst_stride;
        if (!op_attention) begin
          width = op_experts ? 20'(instr_i.n_tiles2) : dst_act ? 20'(words) : 20'(instr_i.n_tiles);
        end
      end
      default: ;
    endcase
  end

  // One DSP48E2 with its input, product and output registers, then the sum, then the comparison.
  always_ff @(posedge clk_i) begin
    kind_a_q   <= busy_q ? kind : ProdNone;
    kind_b_q   <= kind_a_q;
    kind_c_q   <= kind_b_q;
    kind_d_q   <= kind_c_q;
    second_a_q <= second;
    second_b_q <= second_a_q;
    second_c_q <= second_b_q;
    a_q        <= a;
    b_q        <= b;
    base_a_q   <= base;
    base_b_q   <= base_a_q;
    base_c_q   <= base_b_q;
    m_q        <= a_q * b_q;
    p_q        <= m_q;
    if (kind_c_q == ProdSize) begin
      sum_q <= p_q + (second_c_q ? sum_q : 37'd0);
    end else begin
      sum_q <= p_q + 37'(base_c_q);
    end
    if (kind_c_q == ProdSize) columns_q <= 20'((p_q[24:0] + 25'(codesign_pkg::Simd - 1)) >> SimdBits);
    stride_q <= stride;
    width_q  <= width;
  end

  // The sum of the sizes is judged at the last of them: at the first, EXPERTS' is not complete.
  always_comb begin
    area_ok = 1'b1;
    size_ok = 1'b1;
    unique case (kind_d_q)
      ProdAct: area_ok = sum_q < 37'(codesign_pkg::ActWords);
      ProdRes: area_ok = sum_q <= 37'(codesign_pkg::ResWords);
      ProdSize:
        if (op_load)            size_ok = (37'(instr_i.words) <= sum_q) && (sum_q < 37'(words_high_q));
        else if (!op_attention) size_ok = (sum_q == 37'(instr_i.blocks)) || (op_experts && step_q != StepSize1 + 4'd4);
      default: ;
    endcase
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      busy_q <= 1'b0;
      step_q <= 4'd0;
    end else if (start_i) begin
      busy_q <= 1'b1;
      step_q <= 4'd0;
    end else if (busy_q) begin
      step_q <= step_q + 4'd1;
      if (step_q == StepLast) busy_q <= 1'b0;
    end
    if (start_i) legal_q <= 1'b1;
    else if (!area_ok || !size_ok || ((kind_a_q == ProdAct || kind_a_q == ProdRes) && width_q > 20'(stride_q))) legal_q <= 1'b0;
  end

  assign done_o  = busy_q && (step_q == StepLast);
  assign legal_o = legal_q && flat_q;

  logic unused_instr;
  assign unused_instr = ^instr_i;
endmodule
