// SPDX-License-Identifier: Apache-2.0
//
// LayerNorm in integers (codesign/spec/ops.py, NormParams): RES int16 -> ACT int8, Pe channels a cycle. Two passes over the rows:
// sum and sum of squares of every row to R ~ 1/sqrt(V) and S in a memory, then the rows again through norm_lane. The parameter
// records arrive meanwhile.
module norm_unit (
  input  logic                                  clk_i,
  input  logic                                  rst_ni,
  input  logic                                  start_i,
  // verilator lint_off UNUSEDSIGNAL
  input  codesign_pkg::instr_t                  instr_i,   // held until done_o; only a NORM's fields are read
  // verilator lint_on UNUSEDSIGNAL
  output logic                                  done_o,
  // stream: n_tiles * RecordBeats beats
  input  logic [127:0]                          beat_i,
  input  logic                                  beat_valid_i,
  output logic                                  beat_ready_o,
  // residual memory
  output logic                                  res_ren_o,
  output logic [codesign_pkg::ResAddrBits-1:0]  res_raddr_o,
  input  logic [codesign_pkg::Pe-1:0][15:0]     res_rdata_i,
  // activation memory
  output logic [codesign_pkg::Simd-1:0]         act_we_o,
  output logic [codesign_pkg::ActAddrBits-1:0]  act_waddr_o,
  output logic [codesign_pkg::Simd-1:0][7:0]    act_wdata_o
);

  localparam int unsigned Simd = codesign_pkg::Simd;
  localparam int unsigned Pe = codesign_pkg::Pe;
  localparam int unsigned MaxRows = codesign_pkg::MaxRows;
  localparam int unsigned RowBits = codesign_pkg::RowBits;
  localparam int unsigned Latency = codesign_pkg::MemLatency;
  localparam int unsigned RecordBeats = codesign_pkg::RecordBeats;
  localparam int unsigned Groups = Simd / Pe;
  localparam int unsigned SubBits = Groups > 1 ? $clog2(Groups) : 1;
  localparam int unsigned ParamWords = (codesign_pkg::NormDimMax + Pe - 1) / Pe;
  localparam int unsigned ParamAddrBits = ParamWords > 1 ? $clog2(ParamWords) : 1;
  localparam int unsigned BeatCountBits = RecordBeats > 1 ? $clog2(RecordBeats) : 1;
  localparam int unsigned DimBits = $clog2(codesign_pkg::NormDimMax + 1);
  localparam int unsigned SumBits = 16 + DimBits;     // |sum of D int16|
  localparam int unsigned SquareBits = 31 + DimBits;  // sum of D squares
  localparam int unsigned VarBits = SquareBits + DimBits;

  // Stages, counted from the cycle of the residual read.
  localparam int unsigned XStage = Latency;
  localparam int unsigned TreeStage = XStage + 2 + $clog2(Pe);
  localparam int unsigned RowStage = TreeStage + 1;      // sums of the whole row
  localparam int unsigned VarStage = RowStage + 4;
  localparam int unsigned StatsStage = VarStage + 5;
  localparam int unsigned OutStage = XStage + 16;
  localparam int unsigned LastStage = OutStage > StatsStage ? OutStage : StatsStage;

  typedef enum logic [2:0] {
    StIdle,
    StStats,
    StStatsDrain,
    StNorm,
    StNormDrain,
    StDone
  } state_t;

  state_t              state_q;
  logic [15:0]         row_q, tile_q, row_addr_q, rows_last, tiles_last;
  logic                reading, tile_end, row_end;
  logic [LastStage:0]  stats, norm, row_begin, row_final;
  logic [LastStage:1]  stats_q, norm_q, row_begin_q, row_final_q;
  logic                stats0_q, norm0_q, row_begin0_q, row_final0_q;
  logic [ParamAddrBits-1:0] tile0_q;

  assign rows_last = instr_i.rows - 16'd1;
  assign tiles_last = instr_i.n_tiles - 16'd1;
  assign done_o = state_q == StDone;

  // ---- parameters ----
  logic                     params_q, params_end;  // still loading
  logic [ParamAddrBits-1:0] param_word_q;
  logic [BeatCountBits-1:0] param_beat_q;
  logic [RecordBeats-1:0]   param_we;
  logic [RecordBeats*96-1:0] param_rdata;

  assign beat_ready_o = params_q;
  assign params_end = param_beat_q == BeatCountBits'(RecordBeats - 1);

  always_comb begin
    for (int unsigned i = 0; i < RecordBeats; i++) param_we[i] = params_q && beat_valid_i && param_beat_q == BeatCountBits'(i);
  end

  always_ff @(posedge clk_i) begin
    if (state_q == StIdle) begin
      params_q <= start_i;
      param_word_q <= '0;
      param_beat_q <= '0;
    end else if (params_q && beat_valid_i) begin
      param_beat_q <= params_end ? '0 : param_beat_q + BeatCountBits'(1);
      if (params_end) param_word_q <= param_word_q + ParamAddrBits'(1);
      if (params_end && 16'(param_word_q) == tiles_last) params_q <= 1'b0;
    end
    if (!rst_ni) params_q <= 1'b0;
  end

  logic [ParamAddrBits-1:0] param_raddr;
  delay_line #(.Width(ParamAddrBits), .Stages(XStage + 9 - Latency)) u_tile (.clk_i, .d_i(tile0_q), .q_o(param_raddr));

  sdp_ram #(.Width(RecordBeats * 96), .Depth(ParamWords), .WriteLanes(RecordBeats)) u_params (
    .clk_i,
    .we_i(param_we), .waddr_i(param_word_q), .wdata_i({RecordBeats{beat_i[111:64], beat_i[47:0]}}),
    .ren_i(norm[XStage+9-Latency]), .raddr_i(param_raddr), .rdata_o(param_rdata)
  );

  // ---- reading the rows, twice ----
  assign reading = state_q == StStats || state_q == StNorm;
  assign tile_end = tile_q == tiles_last;
  assign row_end = row_q == rows_last;

  logic stats_all, norm_all;  // the last row's statistics, or result, are being written
  logic stats_all_q;

  always_ff @(posedge clk_i) begin
    unique case (state_q)
      StIdle: begin
        row_q <= '0;
        tile_q <= '0;
        row_addr_q <= instr_i.src_base;
        if (start_i) state_q <= StStats;
      end
      StStats, StNorm: begin
        tile_q <= tile_end ? '0 : tile_q + 16'd1;
        if (tile_end) begin
          row_q <= row_end ? '0 : row_q + 16'd1;
          row_addr_q <= row_end ? instr_i.src_base : row_addr_q + instr_i.src_stride;
          if (row_end) state_q <= state_q == StStats ? StStatsDrain : StNormDrain;
        end
      end
      StStatsDrain: if (stats_all_q && !params_q) state_q <= StNorm;
      StNormDrain: if (norm_all) state_q <= StDone;
      StDone: state_q <= StIdle;
      default: state_q <= StIdle;
    endcase
    if (state_q == StIdle) stats_all_q <= 1'b0;
    else if (stats_all) stats_all_q <= 1'b1;
    if (!rst_ni) state_q <= StIdle;
  end

  always_ff @(posedge clk_i) begin
    stats0_q <= state_q == StStats && rst_ni;
    norm0_q <= state_q == StNorm && rst_ni;
    row_begin0_q <= tile_q == 16'd0;
    row_final0_q <= tile_end;
    tile0_q <= ParamAddrBits'(tile_q);
    res_raddr_o <= codesign_pkg::ResAddrBits'(row_addr_q + tile_q);
    res_ren_o <= reading && rst_ni;
    stats_q <= stats[LastStage-1:0];
    norm_q <= norm[LastStage-1:0];
    row_begin_q <= row_begin[LastStage-1:0];
    row_final_q <= row_final[LastStage-1:0];
    if (!rst_ni) begin
      stats_q <= '0;
      norm_q <= '0;
    end
  end

  assign stats = {stats_q, stats0_q};
  assign norm = {norm_q, norm0_q};
  assign row_begin = {row_begin_q, row_begin0_q};
  assign row_final = {row_final_q, row_final0_q};

  // ---- statistics of a row ----
  localparam int unsigned SumTreeBits = 16 + $clog2(Pe);
  localparam int unsigned SquareTreeBits = 32 + $clog2(Pe);

  logic [Pe*16-1:0]          x1_q, x2_q;
  logic [Pe*32-1:0]          square_q;
  logic [SumTreeBits-1:0]    sum_tree;
  logic [SquareTreeBits-1:0] square_tree;
  logic signed [SumBits-1:0] sum_q;
  logic [SquareBits-1:0]     squares_q;
  logic [VarBits-1:0]        scaled1_q, scaled2_q, scaled3_q, variance_q;
  logic [2*SumBits-1:0]      sum_squared1_q, sum_squared2_q, sum_squared3_q;
  logic [SumBits-1:0]        stats_sum;
  logic [15:0]               stats_rsqrt;
  logic signed [5:0]         stats_exponent;

  always_ff @(posedge clk_i) begin
    x1_q <= res_rdata_i;
    x2_q <= x1_q;
    for (int unsigned i = 0; i < Pe; i++) begin
      square_q[i*32 +: 32] <= 32'(signed'(x1_q[i*16 +: 16])) * 32'(signed'(x1_q[i*16 +: 16]));
    end
  end

  adder_tree #(.Inputs(Pe), .InBits(16)) u_sum (.clk_i, .x_i(x2_q), .sum_o(sum_tree));
  adder_tree #(.Inputs(Pe), .InBits(32)) u_squares (.clk_i, .x_i(square_q), .sum_o(square_tree));

  always_ff @(posedge clk_i) begin
    sum_q <= (row_begin[TreeStage] ? '0 : sum_q) + SumBits'(signed'(sum_tree));
    squares_q <= (row_begin[TreeStage] ? '0 : squares_q) + SquareBits'(square_tree);
    // V = D * Q - S * S
    scaled1_q <= VarBits'(squares_q) * VarBits'(instr_i.dim);
    scaled2_q <= scaled1_q;
    scaled3_q <= scaled2_q;
    sum_squared1_q <= (2*SumBits)'(sum_q) * (2*SumBits)'(sum_q);
    sum_squared2_q <= sum_squared1_q;
    sum_squared3_q <= sum_squared2_q;
    variance_q <= scaled3_q - VarBits'(sum_squared3_q);
  end

  rsqrt #(.InBits(VarBits)) u_rsqrt (.clk_i, .v_i(variance_q), .rsqrt_o(stats_rsqrt), .exponent_o(stats_exponent));
  delay_line #(.Width(SumBits), .Stages(StatsStage - RowStage)) u_row_sum (.clk_i, .d_i(sum_q), .q_o(stats_sum));

  // ---- the statistics of all rows ----
  localparam int unsigned StatsBits = SumBits + 16 + 6;
  logic [RowBits-1:0]   stats_row_q, norm_row_q;
  logic                 stats_we;
  logic [StatsBits-1:0] stats_rdata;

  assign stats_we = stats[StatsStage] && row_final[StatsStage];
  assign stats_all = stats_we && 16'(stats_row_q) == rows_last;

  always_ff @(posedge clk_i) begin
    if (state_q == StIdle) begin
      stats_row_q <= '0;
      norm_row_q <= '0;
    end else begin
      if (stats_we) stats_row_q <= stats_row_q + RowBits'(1);
      if (norm[XStage] && row_final[XStage]) norm_row_q <= norm_row_q + RowBits'(1);
    end
  end

  sdp_ram #(.Width(StatsBits), .Depth(MaxRows)) u_stats (
    .clk_i,
    .we_i(stats_we), .waddr_i(stats_row_q),
    .wdata_i({6'(22 - codesign_pkg::NormFractionBits) + unsigned'(stats_exponent), stats_rsqrt, stats_sum}),
    .ren_i(norm[XStage]), .raddr_i(norm_row_q), .rdata_o(stats_rdata)
  );

  // ---- the rows again ----
  logic [15:0]     rsqrt_q;
  logic [5:0]      shift_q, out_shift_q;
  logic [Pe*8-1:0] y, y_q;

  always_ff @(posedge clk_i) begin
    rsqrt_q <= stats_rdata[SumBits +: 16];
    shift_q <= stats_rdata[SumBits+16 +: 6];
    out_shift_q <= instr_i.shift[5:0] - 6'd1;
    y_q <= y;
  end

  for (genvar i = 0; i < Pe; i++) begin : gen_lane
    norm_lane #(.DimBits(DimBits), .SumBits(SumBits)) u_lane (
      .clk_i,
      .dim_i(instr_i.dim[DimBits-1:0]),
      .x_i(res_rdata_i[i]),
      .sum_i(stats_rdata[SumBits-1:0]),
      .rsqrt_i(rsqrt_q),
      .shift_i(shift_q),
      .gain_i(param_rdata[i*48+32 +: 16]),
      .bias_i(param_rdata[i*48 +: 32]),
      .out_shift_less_one_i(out_shift_q),
      .y_o(y[i*8 +: 8])
    );
  end

  // ---- results ----
  logic [15:0]        out_row_addr_q, out_word_q, out_row_q;
  logic [SubBits-1:0] out_sub_q;

  assign norm_all = norm[OutStage] && row_final[OutStage] && out_row_q == rows_last;

  always_ff @(posedge clk_i) begin
    if (state_q == StIdle) begin
      out_row_addr_q <= instr_i.dst_base;
      out_row_q <= '0;
      out_word_q <= '0;
      out_sub_q <= '0;
    end else if (norm[OutStage]) begin
      out_sub_q <= out_sub_q == SubBits'(Groups - 1) ? '0 : out_sub_q + SubBits'(1);
      if (out_sub_q == SubBits'(Groups - 1)) out_word_q <= out_word_q + 16'd1;
      if (row_final[OutStage]) begin
        out_row_addr_q <= out_row_addr_q + instr_i.dst_stride;
        out_row_q <= out_row_q + 16'd1;
        out_word_q <= '0;
        out_sub_q <= '0;
      end
    end
  end

  always_comb begin
    for (int unsigned i = 0; i < Simd; i++) act_we_o[i] = norm[OutStage] && (Groups == 1 || out_sub_q == SubBits'(i / Pe));
  end

  assign act_waddr_o = codesign_pkg::ActAddrBits'(out_row_addr_q + out_word_q);
  assign act_wdata_o = {Groups{y_q}};

  logic unused_bits;
  assign unused_bits = ^{sum_squared3_q, beat_i[127:112], beat_i[63:48], row_begin, row_final, norm, stats};

endmodule
