// SPDX-License-Identifier: Apache-2.0
//
// Cuts an instruction into passes of the unified unit: LINEAR and ROUTE one, ATTENTION two a head (scores, mix), EXPERTS two
// an expert that has tokens (first layer, second layer) and one that drops the blocks of an expert that was requested ahead
// and has none. It is free for the next instruction as soon as the last pass is handed over.
module pass_issuer (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        start_i,             // pulse, only when idle_o
  input  codesign_pkg::instr_t instr_i,    // held from start_i until idle_o
  input  codesign_pkg::row_source_t source_i,   // with start_i: of the first pass
  input  logic [codesign_pkg::MaxExperts-1:0][15:0] counts_i,   // final, a cycle before start_i of EXPERTS
  output logic        idle_o,
  output logic        reads_o,             // pulse: this EXPERTS will pop blocks
  output logic        nothing_o,           // pulse: this EXPERTS has no pass at all
  output logic [3:0]  state_o,

  output codesign_pkg::pass_t pass_o,
  output logic        pass_valid_o,
  input  logic        pass_ready_i
);
  localparam int unsigned MaxExperts    = codesign_pkg::MaxExperts;
  localparam int unsigned ExpertBits    = (MaxExperts > 1) ? $clog2(MaxExperts) : 1;
  localparam int unsigned QueueAddrBits = codesign_pkg::QueueAddrBits;
  localparam int unsigned QueueRows     = codesign_pkg::MaxRows + 1;
  localparam int unsigned WidthBits     = codesign_pkg::WidthBits;
  localparam int unsigned SimdBits      = $clog2(codesign_pkg::Simd);

  typedef enum logic [3:0] {
    StIdle    = 4'd0,
    StTiles   = 4'd1,    // ATTENTION: count tiles of Pe keys
    StWanted  = 4'd2,    // EXPERTS: which experts yield a pass
    StBlocks  = 4'd3,    // EXPERTS: weight tiles of an expert
    StExpert  = 4'd4,    // EXPERTS: the next expert that yields a pass
    StForm    = 4'd5,    // registers its fields
    StPass    = 4'd6,    // pass_q on the wires
    StNothing = 4'd7
  } state_t;

  state_t                   state_q;
  codesign_pkg::pass_t      pass, pass_q;
  logic                     attention, experts, second_q, last_unit_q, drop_q, accepted;
  logic [7:0]               unit_q;          // head or expert
  logic [15:0]              column_q;        // first column of the head
  logic [15:0]              tiles_q, tile_keys_q;
  logic [16:0]              key_words;
  logic [QueueAddrBits-1:0] queue_base_q;    // first entry of the expert's queue
  logic [MaxExperts-1:0]    tokens_q, wanted_q, wanted;
  logic [15:0]              count, count_q;
  logic [$bits(instr_i.widths)-1:0] widths_q;
  logic [WidthBits-1:0]     width_q;
  logic [16:0]              tile_sum_q;      // n_tiles of both layers
  logic [18:0]              records;         // blocks of their records
  logic [31:0]              tile_blocks, weight_tiles_q, drop_blocks_q;

  assign attention    = instr_i.opcode == codesign_pkg::OpAttention;
  assign experts      = instr_i.opcode == codesign_pkg::OpExperts;
  assign count        = counts_i[unit_q[ExpertBits-1:0]];
  assign key_words    = (17'(instr_i.keys) + 17'(codesign_pkg::Simd - 1)) >> SimdBits;
  assign records      = 19'(tile_sum_q) * 19'(codesign_pkg::RecordBlocks);
  assign tile_blocks  = instr_i.blocks - 32'(records);   // stored planes of all weight tiles
  assign pass_o       = pass_q;
  assign pass_valid_o = state_q == StPass;
  assign accepted     = pass_valid_o && pass_ready_i;
  assign idle_o       = state_q == StIdle;
  assign reads_o      = (state_q == StBlocks) && (wanted_q != '0);
  assign nothing_o    = state_q == StNothing;
  assign state_o      = state_q;

  always_comb begin
    for (int unsigned e = 0; e < MaxExperts; e++) begin
      wanted[e] = (e < 32'(instr_i.num_experts)) && (tokens_q[e] || e < 32'(instr_i.ahead));
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= StIdle;
    end else begin
      unique case (state_q)
        StIdle:    if (start_i) state_q <= attention ? StTiles : experts ? StWanted : StPass;
        StTiles:   if (tile_keys_q >= instr_i.keys) state_q <= StForm;
        StWanted:  state_q <= StBlocks;
        StBlocks:  state_q <= (wanted_q == '0) ? StNothing : StExpert;
        StExpert:  if (wanted_q[0]) state_q <= StForm;
        StForm:    state_q <= StPass;
        StPass:
          if (accepted) begin
            if (pass_q.last)                           state_q <= StIdle;
            else if (experts && (second_q || drop_q)) state_q <= StExpert;
            else                                       state_q <= StForm;
          end
        default: state_q <= StIdle;
      endcase
    end
  end

  always_ff @(posedge clk_i) begin
    for (int unsigned e = 0; e < MaxExperts; e++) tokens_q[e] <= counts_i[e] != 16'd0;
    tile_sum_q <= 17'(instr_i.n_tiles) + 17'(instr_i.n_tiles2);
    unique case (state_q)
      StIdle: begin
        second_q     <= 1'b0;
        drop_q       <= 1'b0;
        unit_q       <= 8'd0;
        column_q     <= 16'd0;
        tiles_q      <= 16'd1;
        tile_keys_q  <= 16'(codesign_pkg::Pe);
        queue_base_q <= QueueAddrBits'(1);
        widths_q     <= instr_i.widths;
        last_unit_q  <= !experts && (instr_i.num_heads == 8'd1);
      end
      StTiles:
        if (tile_keys_q < instr_i.keys) begin
          tiles_q     <= tiles_q + 16'd1;
          tile_keys_q <= tile_keys_q + 16'(codesign_pkg::Pe);
        end
      StWanted: wanted_q <= wanted;
      StBlocks: weight_tiles_q <= {3'd0, tile_blocks[31:3]};   // slices are cut from 8 planes only
      StExpert: begin
        wanted_q    <= wanted_q >> 1;
        last_unit_q <= (wanted_q >> 1) == '0;
        if (wanted_q[0]) begin
          count_q <= count;
          width_q <= widths_q[WidthBits-1:0];
          drop_q  <= count == 16'd0;
          unique case (widths_q[WidthBits-1:0])
            codesign_pkg::WidthSlice4: drop_blocks_q <= weight_tiles_q + {weight_tiles_q[29:0], 2'd0};
            codesign_pkg::WidthSlice2: drop_blocks_q <= weight_tiles_q + {weight_tiles_q[30:0], 1'd0};
            default:                   drop_blocks_q <= tile_blocks;
          endcase
        end else begin
          unit_q       <= unit_q + 8'd1;
          widths_q     <= widths_q >> WidthBits;
          queue_base_q <= queue_base_q + QueueAddrBits'(QueueRows);
        end
      end
      StPass:
        if (accepted) begin
          if (second_q || drop_q) begin
            second_q     <= 1'b0;
            drop_q       <= 1'b0;
            unit_q       <= unit_q + 8'd1;
            column_q     <= column_q + instr_i.dim;
            widths_q     <= widths_q >> WidthBits;
            queue_base_q <= queue_base_q + QueueAddrBits'(QueueRows);
            last_unit_q  <= unit_q + 8'd2 == instr_i.num_heads;   // EXPERTS: StExpert decides
          end else begin
            second_q <= 1'b1;
          end
        end
      default: ;
    endcase
  end

  // Blocks of a weight tile in the FIFO, and what the array's sums are shifted by. A slice brings its planes and one of ones.
  logic [3:0] planes;
  logic [2:0] align;
  logic       stored;

  assign stored = !experts || (width_q == codesign_pkg::WidthStored);

  always_comb begin
    unique case (instr_i.weight_format)
      codesign_pkg::WeightInt4: {planes, align} = {4'd4, 3'd4};
      codesign_pkg::WeightInt2: {planes, align} = {4'd2, 3'd6};
      default:                  {planes, align} = {4'd8, 3'd0};
    endcase
    if (!stored) {planes, align} = {width_q == codesign_pkg::WidthSlice4 ? 4'd5 : 4'd3, 3'd0};
  end

  always_comb begin
    pass            = '0;
    pass.kind       = codesign_pkg::KindDense;
    pass.source     = (state_q == StIdle) ? source_i : codesign_pkg::RowsReady;
    pass.last       = 1'b1;
    pass.planes     = planes;
    pass.align      = align;
    pass.rows       = instr_i.rows;
    pass.keys       = instr_i.keys;
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
    pass.shift      = instr_i.shift[codesign_pkg::ShiftBits-1:0];
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
        pass.source  = second_q ? codesign_pkg::RowsPass : codesign_pkg::RowsReady;
        pass.last    = second_q && last_unit_q;
        pass.kv_base = second_q ? instr_i.aux2_base : instr_i.aux_base;
        pass.n_tiles = tiles_q;
        pass.k_words = key_words[15:0];
        if (second_q) begin
          pass.multiplier = instr_i.multiplier2;
          pass.shift      = instr_i.shift2[codesign_pkg::ShiftBits-1:0];
        end
      end
      codesign_pkg::OpExperts: begin
        pass.last   = (second_q || drop_q) && last_unit_q;
        pass.queued = 1'b1;
        pass.rows   = count_q;
        pass.post   = second_q ? codesign_pkg::PostGated : codesign_pkg::PostGelu;
        pass.source = second_q ? codesign_pkg::RowsPass : codesign_pkg::RowsReady;
        if (second_q) begin
          pass.k_words    = instr_i.k_words2;
          pass.n_tiles    = instr_i.n_tiles2;
          pass.src_base   = instr_i.aux_base;
          pass.src_stride = instr_i.aux_stride;
        end else begin
          pass.dst_base   = instr_i.aux_base;
          pass.dst_stride = instr_i.aux_stride;
        end
        if (drop_q) begin
          pass.kind   = codesign_pkg::KindDrop;
          pass.blocks = drop_blocks_q + 32'(records);
        end
      end
      default: ;
    endcase
  end

  always_ff @(posedge clk_i) begin
    if (state_q == StIdle || state_q == StForm) pass_q <= pass;
  end

  logic unused_bits;
  assign unused_bits = ^{instr_i, unit_q, key_words[16], tile_blocks[2:0]};
endmodule
