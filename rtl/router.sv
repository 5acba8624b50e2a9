// SPDX-License-Identifier: Apache-2.0
//
// Chooses `top_k` experts a token and fills the expert queues in ascending token order (codesign/spec/ops.py, RouteParams).
// Rows of logits are buffered as they come. For each row the largest logit is picked `top_k` times; the softmax over all experts
// runs beside it and meets the picks after `GateDelay` cycles. At the end the counts go to the heads of the queues.
module router (
  input  logic                                      clk_i,
  input  logic                                      rst_ni,
  input  logic                                      start_i,        // rows_i, num_experts_i, top_k_i are held until done_o
  input  logic [15:0]                               rows_i,
  input  logic [7:0]                                num_experts_i,
  input  logic [7:0]                                top_k_i,
  output logic                                      done_o,
  input  logic                                      logits_valid_i,
  input  logic [codesign_pkg::RowBits-1:0]          logits_row_i,
  // verilator lint_off UNUSEDSIGNAL
  input  logic [codesign_pkg::Pe-1:0][15:0]         logits_i,       // the first MaxExperts count
  // verilator lint_on UNUSEDSIGNAL
  output logic                                      queue_we_o,
  output logic [codesign_pkg::QueueAddrBits-1:0]    queue_waddr_o,
  output logic [31:0]                               queue_wdata_o,
  output logic [codesign_pkg::MaxExperts-1:0][15:0] counts_o
);

  localparam int unsigned Experts = codesign_pkg::MaxExperts;
  localparam int unsigned MaxRows = codesign_pkg::MaxRows;
  localparam int unsigned RowBits = codesign_pkg::RowBits;
  localparam int unsigned AddrBits = codesign_pkg::QueueAddrBits;
  localparam int unsigned IndexBits = Experts > 1 ? $clog2(Experts) : 1;
  localparam int unsigned PickLatency = IndexBits;
  localparam int unsigned SumLatency = Experts > 1 ? $clog2(Experts) : 1;
  localparam int unsigned SumBits = 17 + SumLatency;
  localparam int unsigned ExpLatency = 3;
  localparam int unsigned GateDelay = ExpLatency + SumLatency + 5;  // from the first pick to the reciprocal of the row's sum
  localparam int unsigned CountBits = $clog2(PickLatency + 3) + 1;

  typedef enum logic [2:0] {
    StIdle,
    StRead,    // wait for the row
    StLoad,    // its logits leave the buffer
    StPick,    // the tree works
    StDrain,   // the last picks become entries
    StCounts,
    StDone
  } state_t;

  state_t                 state_q;
  logic [15:0]            row_q, arrived_q;
  logic [CountBits-1:0]   wait_q;
  logic [7:0]             picked_q;
  logic [Experts*16-1:0]  logits_q, buffer_rdata;
  logic [Experts-1:0]     exists_q, candidate_q;
  logic                   buffer_ren, pick, first_pick, last_row;
  logic [IndexBits-1:0]   pick_index;
  logic signed [15:0]     pick_value, maximum_q, maximum;
  logic [IndexBits-1:0]   expert_q;
  logic [4:0]             drain_q;

  // The last count is in the queue memory 3 cycles after its state.
  logic [1:0] done_q;
  assign done_o = done_q[1];

  always_ff @(posedge clk_i) done_q <= {done_q[0] && rst_ni, state_q == StDone && rst_ni};

  assign last_row = row_q == rows_i - 16'd1;

  // ---- buffer ----
  assign buffer_ren = state_q == StRead && arrived_q > row_q;

  sdp_ram #(.Width(Experts * 16), .Depth(MaxRows)) u_buffer (
    .clk_i,
    .we_i(logits_valid_i), .waddr_i(logits_row_i), .wdata_i(logits_i[Experts-1:0]),
    .ren_i(buffer_ren), .raddr_i(RowBits'(row_q)), .rdata_o(buffer_rdata)
  );

  // ---- picking ----
  argmax_tree #(.Inputs(Experts)) u_argmax (
    .clk_i, .candidate_i(candidate_q), .x_i(logits_q), .index_o(pick_index), .maximum_o(pick_value)
  );

  assign pick = state_q == StPick && wait_q == CountBits'(PickLatency);
  assign first_pick = pick && picked_q == 8'd0;
  assign maximum = first_pick ? pick_value : maximum_q;

  always_ff @(posedge clk_i) begin
    if (logits_valid_i) arrived_q <= arrived_q + 16'd1;
    for (int unsigned i = 0; i < Experts; i++) exists_q[i] <= 8'(i) < num_experts_i;

    unique case (state_q)
      StIdle: begin
        row_q <= '0;
        expert_q <= '0;
        if (start_i) begin
          arrived_q <= '0;
          state_q <= StRead;
        end
      end
      StRead: begin
        wait_q <= '0;
        if (buffer_ren) state_q <= StLoad;
      end
      StLoad: begin
        wait_q <= wait_q + CountBits'(1);
        picked_q <= '0;
        if (wait_q == CountBits'(codesign_pkg::MemLatency - 1)) begin
          logits_q <= buffer_rdata;
          candidate_q <= exists_q;
          wait_q <= '0;
          state_q <= StPick;
        end
      end
      StPick: begin
        wait_q <= wait_q + CountBits'(1);
        drain_q <= '0;
        if (pick) begin
          wait_q <= '0;
          maximum_q <= maximum;
          picked_q <= picked_q + 8'd1;
          for (int unsigned i = 0; i < Experts; i++) if (pick_index == IndexBits'(i)) candidate_q[i] <= 1'b0;
          if (picked_q == top_k_i - 8'd1) begin
            row_q <= row_q + 16'd1;
            state_q <= last_row ? StDrain : StRead;
          end
        end
      end
      StDrain: begin
        drain_q <= drain_q + 5'd1;
        if (drain_q == 5'(GateDelay + 8)) state_q <= StCounts;
      end
      StCounts: begin
        expert_q <= expert_q + IndexBits'(1);
        if (expert_q == IndexBits'(Experts - 1)) state_q <= StDone;
      end
      StDone: state_q <= StIdle;
      default: state_q <= StIdle;
    endcase

    if (!rst_ni) state_q <= StIdle;
  end

  // ---- softmax over all experts ----
  logic [Experts*17-1:0] exp2;
  logic [SumBits-1:0]    exp2_sum;
  logic [15:0]           inverse, inverse_q;
  logic signed [5:0]     exponent, exponent_q;
  logic                  inverse_valid;

  for (genvar i = 0; i < Experts; i++) begin : gen_exp2
    exp2_lane u_exp2 (
      .clk_i, .mask_i(!exists_q[i]), .maximum_i(maximum), .t_i(logits_q[i*16 +: 16]), .exp2_o(exp2[i*17 +: 16])
    );
    assign exp2[i*17+16] = 1'b0;
  end

  if (Experts > 1) begin : gen_sum
    adder_tree #(.Inputs(Experts), .InBits(17)) u_sum (.clk_i, .x_i(exp2), .sum_o(exp2_sum));
  end else begin : gen_one
    always_ff @(posedge clk_i) exp2_sum <= SumBits'(exp2);
  end

  reciprocal #(.InBits(SumBits)) u_inverse (.clk_i, .z_i(exp2_sum), .reciprocal_o(inverse), .exponent_o(exponent));
  delay_line #(.Width(1), .Stages(GateDelay)) u_inverse_valid (.clk_i, .d_i(first_pick && rst_ni), .q_o(inverse_valid));

  always_ff @(posedge clk_i) begin
    if (inverse_valid) begin
      inverse_q <= inverse;
      exponent_q <= exponent;
    end
  end

  // ---- the picks meet the sum: gate = (x * R + (1 << (14 + e))) >> (15 + e), then the entry ----
  logic [15:0]          pick_exp2, pick_exp2_late;
  logic                 late_valid, gate1_q, gate2_q, gate3_q;
  logic [IndexBits-1:0] late_index, index1_q, index2_q, index3_q;
  logic [RowBits-1:0]   late_row, row1_q, row2_q, row3_q;
  logic [31:0]          product_q;
  logic [5:0]           shift_q;
  logic [15:0]          gate2, gate3;
  logic [16:0]          shifted_q;
  logic [Experts-1:0][15:0] counts_q;
  logic [15:0]          count;
  logic [AddrBits-1:0]  head_q;

  exp2_lane u_pick_exp2 (.clk_i, .mask_i(1'b0), .maximum_i(maximum), .t_i(pick_value), .exp2_o(pick_exp2));
  delay_line #(.Width(16), .Stages(GateDelay + 1 - ExpLatency)) u_late_exp2 (.clk_i, .d_i(pick_exp2), .q_o(pick_exp2_late));
  delay_line #(.Width(1 + IndexBits + RowBits), .Stages(GateDelay + 1)) u_late_pick (
    .clk_i, .d_i({pick && rst_ni, pick_index, row_q[RowBits-1:0]}), .q_o({late_valid, late_index, late_row})
  );

  assign gate2 = 16'((shifted_q + 17'd1) >> 1);

  always_comb begin
    count = '0;
    for (int unsigned i = 0; i < Experts; i++) if (index3_q == IndexBits'(i)) count = counts_q[i];
  end

  always_ff @(posedge clk_i) begin
    product_q <= 32'(pick_exp2_late) * 32'(inverse_q);
    shift_q <= 6'(29 - codesign_pkg::GateFractionBits) + unsigned'(exponent_q);
    gate1_q <= late_valid;
    index1_q <= late_index;
    row1_q <= late_row;

    shifted_q <= 17'(product_q >> shift_q);
    gate2_q <= gate1_q;
    index2_q <= index1_q;
    row2_q <= row1_q;

    gate3 <= gate2;
    gate3_q <= gate2_q;
    index3_q <= index2_q;
    row3_q <= row2_q;
    head_q <= AddrBits'(32'(state_q == StCounts ? expert_q : index2_q) * (MaxRows + 1));

    for (int unsigned i = 0; i < Experts; i++) if (gate3_q && index3_q == IndexBits'(i)) counts_q[i] <= counts_q[i] + 16'd1;
    if (state_q == StIdle && start_i) counts_q <= '0;
    if (!rst_ni) counts_q <= '0;
  end

  // During StCounts `index3_q` follows the expert whose count is written, one cycle behind, as does `head_q`.
  logic                 head_valid_q;
  logic [IndexBits-1:0] head_index_q;
  logic [15:0]          head_count;

  always_ff @(posedge clk_i) begin
    head_valid_q <= state_q == StCounts && rst_ni;
    head_index_q <= expert_q;
  end

  always_comb begin
    head_count = '0;
    for (int unsigned i = 0; i < Experts; i++) if (head_index_q == IndexBits'(i)) head_count = counts_q[i];
  end

  always_ff @(posedge clk_i) begin
    queue_we_o <= (gate3_q || head_valid_q) && rst_ni;
    queue_waddr_o <= head_valid_q ? head_q : head_q + AddrBits'(1) + AddrBits'(count);
    queue_wdata_o <= head_valid_q ? {16'd0, head_count} : {gate3, 16'(row3_q)};
  end

  assign counts_o = counts_q;

  logic unused_bits;
  assign unused_bits = ^count;

endmodule
