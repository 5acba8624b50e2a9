// SPDX-License-Identifier: Apache-2.0
//
// LayerNorm in integers (codesign/spec/ops.py, NormParams): RES int16 -> ACT int8, one word of Pe channels a cycle. Each row is read
// once: its words wait in a FIFO while norm_stats makes the row's factors of them, then pass through the lanes to a FIFO of results.
// Rows follow each other without a gap. The parameter records are kept in a memory, a word a tile of channels.
//
// `state_o`: 0 idle; 1 rows are still to be read; 2 all rows are read, records are missing; 3 results are still to be written.
module norm_unit (
  input  logic                                  clk_i,
  input  logic                                  rst_ni,
  input  logic                                  start_i,        // only while idle
  // verilator lint_off UNUSEDSIGNAL
  input  codesign_pkg::instr_t                  instr_i,        // at start_i; only a NORM's fields are read
  // verilator lint_on UNUSEDSIGNAL
  input  logic                                  chained_i,      // at start_i: row r is read when r < rows_ready_i
  input  logic [codesign_pkg::RowBits:0]        rows_ready_i,
  output logic [codesign_pkg::RowBits:0]        rows_o,         // rows whose results are all written
  output logic                                  done_o,
  output logic [3:0]                            state_o,
  // block stream: n_tiles * RecordBlocks blocks
  input  logic                                  block_avail_i,
  output logic                                  block_pop_o,
  // verilator lint_off UNUSEDSIGNAL
  input  logic [codesign_pkg::BlockBits-1:0]    block_i,        // BlockLatency after its pop; of a record, bias and gain are read
  // verilator lint_on UNUSEDSIGNAL
  output logic                                  block_done_o,
  // residual memory
  output logic                                  res_ren_o,
  output logic [codesign_pkg::ResAddrBits-1:0]  res_raddr_o,
  input  logic [codesign_pkg::Pe-1:0][15:0]     res_rdata_i,
  // activation memory: Pe lanes from a granule on
  output logic                                  w_valid_o,
  input  logic                                  w_ready_i,
  output logic [codesign_pkg::ActAddrBits-1:0]  w_word_o,
  output logic [codesign_pkg::GranuleBits-1:0]  w_granule_o,
  output logic [codesign_pkg::Pe-1:0][7:0]      w_data_o
);

  localparam int unsigned Pe = codesign_pkg::Pe;
  localparam int unsigned RowBits = codesign_pkg::RowBits;
  localparam int unsigned MemLatency = codesign_pkg::MemLatency;
  localparam int unsigned BlockLatency = codesign_pkg::BlockLatency;
  localparam int unsigned RecordBlocks = codesign_pkg::RecordBlocks;
  localparam int unsigned BlockRecords = Pe / RecordBlocks;
  localparam int unsigned RecordBits = codesign_pkg::RecordBits;
  localparam int unsigned BiasBits = codesign_pkg::BiasBits;
  localparam int unsigned Tiles = codesign_pkg::NormDimMax / Pe;
  localparam int unsigned TileBits = Tiles > 1 ? $clog2(Tiles) : 1;
  localparam int unsigned PartBits = RecordBlocks > 1 ? $clog2(RecordBlocks) : 1;
  localparam int unsigned DimBits = $clog2(codesign_pkg::NormDimMax + 1);

  // A row's words wait about 25 + $clog2(Pe) cycles; a FIFO too small would only cost time.
  localparam int unsigned RowFifoBits = $clog2(Tiles + 36);
  // Results on their way through lanes and FIFO: their latency and that of the credit's return are below 24 cycles.
  localparam int unsigned OutFifoBits = 5;

  // Stages of the second half, counted from the cycle a word is taken from the row FIFO: lane inputs, then lane results.
  localparam int unsigned LaneStage = MemLatency;
  localparam int unsigned OutStage = LaneStage + 12;

  // ---- the instruction ----
  logic [15:0]          src_stride_q, dst_stride_q;
  logic [DimBits-1:0]   dim_q;
  logic [5:0]           shift_q;
  logic                 chained_q, busy_q, reading_q, loading_q;
  logic                 out_accept, out_row_end, out_end, read_end;
  logic [TileBits-1:0]  tiles_last_q;  // counters compare with the last, so that they need no bit more
  logic [RowBits-1:0]   rows_last_q;

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      src_stride_q <= instr_i.src_stride;
      dst_stride_q <= instr_i.dst_stride;
      dim_q <= instr_i.dim[DimBits-1:0];
      shift_q <= instr_i.shift[5:0];
      chained_q <= chained_i;
      tiles_last_q <= TileBits'(instr_i.n_tiles - 16'd1);
      rows_last_q <= RowBits'(instr_i.rows - 16'd1);
    end
    if (start_i) busy_q <= 1'b1;
    else if (out_end) busy_q <= 1'b0;
    done_o <= out_end;
    if (!rst_ni) begin
      busy_q <= 1'b0;
      done_o <= 1'b0;
    end
  end

  always_comb begin
    state_o = 4'd0;
    if (busy_q) state_o = reading_q ? 4'd1 : loading_q ? 4'd2 : 4'd3;
  end

  // ---- parameters: gain and bias of each channel ----
  logic [PartBits-1:0]         pop_part_q, write_part_q;
  logic                        pop_tile_end, write_tile_end;
  logic [BlockLatency-1:0]     block_valid_q;
  logic [TileBits-1:0]         pop_tile_q, write_tile_q;
  logic [TileBits:0]           tiles_loaded_q;
  logic [RecordBlocks-1:0]     param_we;
  logic [Pe*16-1:0]            gain_wdata, gain;
  logic [Pe*BiasBits-1:0]      bias_wdata, bias;

  assign block_pop_o = loading_q && block_avail_i;
  assign pop_tile_end = pop_part_q == PartBits'(RecordBlocks - 1);
  assign block_done_o = block_pop_o && pop_tile_end && pop_tile_q == tiles_last_q;
  assign write_tile_end = write_part_q == PartBits'(RecordBlocks - 1);

  always_comb begin
    for (int unsigned i = 0; i < RecordBlocks; i++) begin
      param_we[i] = block_valid_q[BlockLatency-1] && write_part_q == PartBits'(i);
      for (int unsigned r = 0; r < BlockRecords; r++) begin
        gain_wdata[(i*BlockRecords+r)*16 +: 16] = block_i[r*RecordBits+BiasBits +: 16];
        bias_wdata[(i*BlockRecords+r)*BiasBits +: BiasBits] = block_i[r*RecordBits +: BiasBits];
      end
    end
  end

  always_ff @(posedge clk_i) begin
    block_valid_q <= {block_valid_q[BlockLatency-2:0], block_pop_o};
    if (start_i) begin
      loading_q <= 1'b1;
      pop_tile_q <= '0;
      pop_part_q <= '0;
      write_part_q <= '0;
      write_tile_q <= '0;
      tiles_loaded_q <= '0;
    end else begin
      if (block_pop_o) begin
        pop_part_q <= pop_tile_end ? '0 : pop_part_q + PartBits'(1);
        if (pop_tile_end) pop_tile_q <= pop_tile_q + TileBits'(1);
        if (block_done_o) loading_q <= 1'b0;
      end
      if (block_valid_q[BlockLatency-1]) begin
        write_part_q <= write_tile_end ? '0 : write_part_q + PartBits'(1);
        if (write_tile_end) begin
          write_tile_q <= write_tile_q + TileBits'(1);
          tiles_loaded_q <= tiles_loaded_q + (TileBits + 1)'(1);
        end
      end
    end
    if (!rst_ni) begin
      loading_q <= 1'b0;
      block_valid_q <= '0;
    end
  end

  // ---- reading the rows ----
  localparam int unsigned XStage = MemLatency + 2;  // from the decision to read a word to its copy in x_q
  logic [15:0]            row_addr_q;
  logic [RowBits-1:0]     row_q;
  logic [TileBits-1:0]    tile_q;
  logic                   read, take, tile_end;
  logic [RowFifoBits:0]   row_words_q;               // decided to be read, not yet taken from the FIFO
  logic [XStage:1]        read_q, begin_q, end_q;
  logic [Pe-1:0][15:0]    x_q;

  assign tile_end = tile_q == tiles_last_q;
  assign read = reading_q && !row_words_q[RowFifoBits] && (!chained_q || (RowBits + 1)'(row_q) < rows_ready_i);
  assign read_end = read && tile_end && row_q == rows_last_q;

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      reading_q <= 1'b1;
      row_q <= '0;
      tile_q <= '0;
      row_addr_q <= instr_i.src_base;
      row_words_q <= '0;
    end else begin
      if (read) begin
        tile_q <= tile_end ? '0 : tile_q + TileBits'(1);
        if (tile_end) begin
          row_q <= row_q + RowBits'(1);
          row_addr_q <= row_addr_q + src_stride_q;
        end
        if (read_end) reading_q <= 1'b0;
      end
      if (read && !take) row_words_q <= row_words_q + (RowFifoBits + 1)'(1);
      if (!read && take) row_words_q <= row_words_q - (RowFifoBits + 1)'(1);
    end
    res_ren_o <= read && rst_ni;
    res_raddr_o <= codesign_pkg::ResAddrBits'(row_addr_q + 16'(tile_q));
    read_q <= {read_q[XStage-1:1], read};
    begin_q <= {begin_q[XStage-1:1], tile_q == '0};
    end_q <= {end_q[XStage-1:1], tile_end};
    x_q <= res_rdata_i;
    if (!rst_ni) begin
      reading_q <= 1'b0;
      read_q <= '0;
    end
  end

  // ---- statistics, and the words that wait for them ----
  localparam int unsigned ScaleBits = DimBits + 16;
  localparam int unsigned OffsetBits = DimBits + 32;
  logic                         stats_valid, row_valid, take_end;
  logic signed [ScaleBits-1:0]  stats_scale, scale;
  logic signed [OffsetBits-1:0] stats_offset, offset;
  logic [4:0]                   stats_half, half;
  logic [RowFifoBits-1:0]       x_write_q, x_read_q;
  logic [Pe*16-1:0]             x;

  norm_stats #(.DimBits(DimBits)) u_stats (
    .clk_i, .rst_ni, .dim_i(dim_q),
    .valid_i(read_q[XStage]), .begin_i(begin_q[XStage]), .end_i(end_q[XStage]), .x_i(x_q),
    .valid_o(stats_valid), .scale_o(stats_scale), .offset_o(stats_offset), .half_o(stats_half)
  );

  word_fifo #(.Width(5 + OffsetBits + ScaleBits), .Depth(1 << RowFifoBits)) u_row_stats (
    .clk_i, .rst_ni, .push_i(stats_valid), .data_i({stats_half, stats_offset, stats_scale}),
    .valid_o(row_valid), .data_o({half, offset, scale}), .pop_i(take_end)
  );

  sdp_ram #(.Width(Pe * 16), .Depth(1 << RowFifoBits)) u_rows (
    .clk_i, .we_i(read_q[XStage]), .waddr_i(x_write_q), .wdata_i(x_q), .ren_i(take), .raddr_i(x_read_q), .rdata_o(x)
  );

  // ---- the words again ----
  logic [TileBits-1:0]    take_tile_q;
  logic [OutFifoBits:0]   out_words_q;  // taken, not yet written
  logic [OutStage:1]      take_q;

  assign take = row_valid && !out_words_q[OutFifoBits] && (TileBits + 1)'(take_tile_q) < tiles_loaded_q;
  assign take_end = take && take_tile_q == tiles_last_q;

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      x_write_q <= '0;
      x_read_q <= '0;
      take_tile_q <= '0;
      out_words_q <= '0;
    end else begin
      if (read_q[XStage]) x_write_q <= x_write_q + RowFifoBits'(1);
      if (take) x_read_q <= x_read_q + RowFifoBits'(1);
      if (take) take_tile_q <= take_end ? '0 : take_tile_q + TileBits'(1);
      if (take && !out_accept) out_words_q <= out_words_q + (OutFifoBits + 1)'(1);
      if (!take && out_accept) out_words_q <= out_words_q - (OutFifoBits + 1)'(1);
    end
    take_q <= rst_ni ? {take_q[OutStage-1:1], take} : '0;
  end

  // Each input of the lanes at its time; the memories of the parameters take MemLatency of it.
  localparam int unsigned GainStage = LaneStage + 5 - MemLatency;
  localparam int unsigned BiasStage = LaneStage + 8 - MemLatency;
  logic signed [ScaleBits-1:0]  lane_scale;
  logic signed [OffsetBits-1:0] lane_offset;
  logic [4:0]                   lane_half;
  logic [5:0]                   out_shift_q;
  logic [TileBits-1:0]          gain_tile, bias_tile;
  logic [Pe*8-1:0]              y;

  delay_line #(.Width(ScaleBits), .Stages(LaneStage)) u_scale (.clk_i, .d_i(scale), .q_o(lane_scale));
  delay_line #(.Width(OffsetBits), .Stages(LaneStage + 1)) u_offset (.clk_i, .d_i(offset), .q_o(lane_offset));
  delay_line #(.Width(5), .Stages(LaneStage + 3)) u_half (.clk_i, .d_i(half), .q_o(lane_half));
  delay_line #(.Width(TileBits), .Stages(GainStage)) u_gain_tile (.clk_i, .d_i(take_tile_q), .q_o(gain_tile));
  delay_line #(.Width(TileBits), .Stages(BiasStage - GainStage)) u_bias_tile (.clk_i, .d_i(gain_tile), .q_o(bias_tile));

  sdp_ram #(.Width(Pe * 16), .Depth(Tiles), .WriteLanes(RecordBlocks)) u_gain (
    .clk_i, .we_i(param_we), .waddr_i(write_tile_q), .wdata_i(gain_wdata),
    .ren_i(take_q[GainStage]), .raddr_i(gain_tile), .rdata_o(gain)
  );
  sdp_ram #(.Width(Pe * BiasBits), .Depth(Tiles), .WriteLanes(RecordBlocks)) u_bias (
    .clk_i, .we_i(param_we), .waddr_i(write_tile_q), .wdata_i(bias_wdata),
    .ren_i(take_q[BiasStage]), .raddr_i(bias_tile), .rdata_o(bias)
  );

  // Shifts of 33 and more all give 0, as |n * gain + bias| < 2**32.
  always_ff @(posedge clk_i) out_shift_q <= shift_q > 6'd33 ? 6'd32 : shift_q - 6'd1;

  for (genvar i = 0; i < Pe; i++) begin : gen_lane
    norm_lane #(.DimBits(DimBits)) u_lane (
      .clk_i, .x_i(x[i*16 +: 16]), .scale_i(lane_scale), .offset_i(lane_offset), .half_i(lane_half),
      .gain_i(gain[i*16 +: 16]), .bias_i(bias[i*BiasBits +: BiasBits]), .out_shift_less_one_i(out_shift_q),
      .y_o(y[i*8 +: 8])
    );
  end

  // ---- results: tile j of a row goes to granule j * PeGranules of it ----
  localparam int unsigned ActGranules = codesign_pkg::ActGranules;
  localparam int unsigned PeGranules = codesign_pkg::PeGranules;
  localparam int unsigned GranuleBits = codesign_pkg::GranuleBits;
  logic [RowBits-1:0]   out_row_q;
  logic [TileBits-1:0]  out_tile_q;
  logic [15:0]          out_row_addr_q, out_word_q;
  logic [GranuleBits:0] next_granule;
  logic                 next_word;

  word_fifo #(.Width(Pe * 8), .Depth(1 << OutFifoBits)) u_out (
    .clk_i, .rst_ni, .push_i(take_q[OutStage]), .data_i(y), .valid_o(w_valid_o), .data_o(w_data_o), .pop_i(out_accept)
  );

  assign out_accept = w_valid_o && w_ready_i;
  assign out_row_end = out_accept && out_tile_q == tiles_last_q;
  assign out_end = out_row_end && out_row_q == rows_last_q;
  assign next_granule = (GranuleBits + 1)'(w_granule_o) + (GranuleBits + 1)'(PeGranules);
  assign next_word = next_granule >= (GranuleBits + 1)'(ActGranules);
  assign w_word_o = codesign_pkg::ActAddrBits'(out_word_q);

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      out_row_q <= '0;
      out_tile_q <= '0;
      out_row_addr_q <= instr_i.dst_base;
      out_word_q <= instr_i.dst_base;
      w_granule_o <= '0;
      rows_o <= '0;
    end else if (out_row_end) begin
      out_row_q <= out_row_q + RowBits'(1);
      out_tile_q <= '0;
      out_row_addr_q <= out_row_addr_q + dst_stride_q;
      out_word_q <= out_row_addr_q + dst_stride_q;
      w_granule_o <= '0;
      rows_o <= rows_o + (RowBits + 1)'(1);
    end else if (out_accept) begin
      out_tile_q <= out_tile_q + TileBits'(1);
      out_word_q <= out_word_q + 16'(next_word);
      w_granule_o <= GranuleBits'(next_word ? next_granule - (GranuleBits + 1)'(ActGranules) : next_granule);
    end
    if (!rst_ni) rows_o <= '0;
  end

endmodule
