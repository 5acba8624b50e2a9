// SPDX-License-Identifier: Apache-2.0
//
// The post-processor (docs/machine.md, "The unified compute unit"): the parameter records, and a lane for each of the Pe sums of a
// row. Times are counted from the row's sums.
module post_processor #(
  parameter int unsigned Pe = codesign_pkg::Pe,
  parameter int unsigned AccBits = codesign_pkg::AccBits,
  parameter int unsigned TagBits = 3,
  parameter int unsigned SetBits = 3
) (
  input  logic                               clk_i,
  input  logic                               rst_ni,
  // the pass that is written
  input  logic                               plan_we_i,
  input  logic [TagBits-1:0]                 plan_tag_i,
  // verilator lint_off UNUSEDSIGNAL
  input  codesign_pkg::pass_t                plan_pass_i,   // kind, post, align, multiplier, shift
  // verilator lint_on UNUSEDSIGNAL
  // record sets
  input  logic                               record_we_i,
  input  logic [1:0]                         record_part_i,
  input  logic [SetBits-1:0]                 record_set_i,
  input  logic [codesign_pkg::BlockBits-1:0] record_block_i,
  output logic                               record_retire_o,
  // the row, 1 before its sums
  input  logic                               valid_i,
  input  logic                               last_k_i,
  input  logic                               tile_end_i,
  input  logic                               dense_i,
  input  logic                               mix_i,
  input  logic [TagBits-1:0]                 tag_i,
  input  logic [Pe*AccBits-1:0]              acc_i,         // 0
  input  logic [15:0]                        inverse_i,     // 1: reciprocal of the row's sum
  input  logic [5:0]                         inverse_exponent_i,
  input  logic [TagBits-1:0]                 gelu_tag_i,    // 6
  output logic [Pe*16-1:0]                   middle_o,      // 7
  input  logic [TagBits-1:0]                 second_tag_i,  // 12
  input  logic [15:0]                        gate_i,        // 13
  output logic [Pe*16-1:0]                   value_o        // 20
);

  typedef struct packed {
    logic [2:0]  align;
    logic [15:0] multiplier;
    logic [5:0]  shift;
  } first_t;

  typedef struct packed {
    codesign_pkg::pass_post_t post;
    logic [15:0]              multiplier;
    logic [5:0]               shift;
  } second_t;

  first_t             plan_first, first;
  second_t            plan_second, second;
  logic               plan_gelu, gelu, dense_q, dense2_q, mix_q, mix2_q;
  logic [15:0]        multiplier_q, row_multiplier, multiplier2_q;
  logic [5:0]         shift_q, row_shift, shift2_q;
  logic [SetBits-1:0] set_q;
  logic [Pe*32-1:0]   record_bias;
  logic [Pe*16-1:0]   record_multiplier, record_multiplier_q;
  logic [Pe*6-1:0]    record_shift, record_shift_q;

  always_comb begin
    plan_first.align = plan_pass_i.kind == codesign_pkg::KindDense ? plan_pass_i.align : 3'd0;
    plan_first.multiplier = plan_pass_i.multiplier;
    plan_first.shift = plan_pass_i.shift;
    plan_second.post = plan_pass_i.post;
    plan_second.multiplier = plan_pass_i.multiplier;
    plan_second.shift = plan_pass_i.shift;
    plan_gelu = plan_pass_i.post == codesign_pkg::PostGelu;
  end

  pass_table #(.Width($bits(plan_first)), .TagBits(TagBits)) u_first (
    .clk_i, .we_i(plan_we_i), .wtag_i(plan_tag_i), .wdata_i(plan_first), .rtag_i(tag_i), .rdata_o(first)
  );
  pass_table #(.Width(1), .TagBits(TagBits)) u_gelu (
    .clk_i, .we_i(plan_we_i), .wtag_i(plan_tag_i), .wdata_i(plan_gelu), .rtag_i(gelu_tag_i), .rdata_o(gelu)
  );
  pass_table #(.Width($bits(plan_second)), .TagBits(TagBits)) u_second (
    .clk_i, .we_i(plan_we_i), .wtag_i(plan_tag_i), .wdata_i(plan_second), .rtag_i(second_tag_i), .rdata_o(second)
  );

  record_bank #(.SetBits(SetBits)) u_records (
    .clk_i, .we_i(record_we_i), .part_i(record_part_i), .wset_i(record_set_i), .block_i(record_block_i),
    .ren_i(valid_i && last_k_i), .rset_i(set_q),
    .bias_o(record_bias), .multiplier_o(record_multiplier), .shift_o(record_shift)
  );

  assign record_retire_o = tile_end_i && last_k_i && dense_i;
  assign row_multiplier = mix2_q ? inverse_i : multiplier_q;
  assign row_shift = mix2_q ? 6'(30 - codesign_pkg::ProbabilityFractionBits) + inverse_exponent_i : shift_q;

  always_ff @(posedge clk_i) begin
    set_q <= set_q + SetBits'(record_retire_o);
    if (!rst_ni) set_q <= '0;
    // 0
    dense_q <= dense_i;
    mix_q <= mix_i;
    // 1
    dense2_q <= dense_q;
    mix2_q <= mix_q;
    multiplier_q <= first.multiplier;
    shift_q <= first.shift;
    record_multiplier_q <= record_multiplier;
    record_shift_q <= record_shift;
    // 14: GELU and MIX requantize a second time, GATED scales by the gate; multiplier 2, shift 1 changes nothing
    multiplier2_q <= 16'd2;
    shift2_q <= 6'd1;
    if (second.post == codesign_pkg::PostGelu || second.post == codesign_pkg::PostMix) begin
      multiplier2_q <= second.multiplier;
      shift2_q <= second.shift;
    end
    if (second.post == codesign_pkg::PostGated) begin
      multiplier2_q <= gate_i;
      shift2_q <= 6'(codesign_pkg::GateFractionBits);
    end
  end

  for (genvar i = 0; i < Pe; i++) begin : gen_lane
    post_lane #(.AccBits(AccBits)) u_lane (
      .clk_i,
      .acc_i(acc_i[i*AccBits +: AccBits]),
      .align_i(first.align),
      .bias_i(dense_q ? record_bias[i*32 +: 32] : 32'd0),
      .multiplier_i(dense2_q ? record_multiplier_q[i*16 +: 16] : row_multiplier),
      .shift_i(dense2_q ? record_shift_q[i*6 +: 6] : row_shift),
      .gelu_i(gelu),
      .multiplier2_i(multiplier2_q),
      .shift2_i(shift2_q),
      .middle_o(middle_o[i*16 +: 16]),
      .value_o(value_o[i*16 +: 16])
    );
  end

endmodule
