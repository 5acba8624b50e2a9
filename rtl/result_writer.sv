// SPDX-License-Identifier: Apache-2.0
//
// Writes a row's results to ACT, to RES (over the old value or added to it) or to the router, a cycle after they come. Times are
// counted from `value_i`.
module result_writer #(
  parameter int unsigned Simd = codesign_pkg::Simd,
  parameter int unsigned Pe = codesign_pkg::Pe,
  parameter int unsigned GranuleBits = codesign_pkg::GranuleBits,
  parameter int unsigned AddrBits = 16,
  parameter int unsigned LaneBits = $clog2(Simd) + 1,
  parameter int unsigned TagBits = 3
) (
  input  logic                                 clk_i,
  input  logic                                 rst_ni,
  // the pass that is written
  input  logic                                 plan_we_i,
  input  logic [TagBits-1:0]                   plan_tag_i,
  // verilator lint_off UNUSEDSIGNAL
  input  codesign_pkg::pass_t                  plan_pass_i,  // post, last
  // verilator lint_on UNUSEDSIGNAL
  input  logic [3:0]                           plan_low_i,   // MIX: the head's first lane in its first group of Pe lanes,
  input  logic [LaneBits-1:0]                  plan_high_i,  // and its lanes in the last one
  // the row
  input  logic [TagBits-1:0]                   add_tag_i,    // MemLatency + 1 before
  input  logic                                 read_i,       // MemLatency before: it is a result
  input  logic [AddrBits-1:0]                  word_i,
  input  logic [GranuleBits-1:0]               granule_i,
  input  logic [TagBits-1:0]                   tag_i,        // 1 before
  input  logic                                 write_i,      // 0: it is a result
  input  logic                                 mix_i,
  input  logic                                 first_n_i,
  input  logic                                 last_n_i,
  input  logic [Pe*16-1:0]                     value_i,
  output logic                                 last_o,       // 1: of the last pass of its instruction
  // activation memory
  output logic                                 w_valid_o,
  output logic [codesign_pkg::ActAddrBits-1:0] w_word_o,
  output logic [GranuleBits-1:0]               w_granule_o,
  output logic [Simd*8-1:0]                    w_data_o,
  output logic [Simd-1:0]                      w_mask_o,
  // residual memory
  output logic                                 res_ren_o,
  output logic [codesign_pkg::ResAddrBits-1:0] res_raddr_o,
  input  logic [Pe*16-1:0]                     res_rdata_i,
  output logic                                 res_we_o,
  output logic [codesign_pkg::ResAddrBits-1:0] res_waddr_o,
  output logic [Pe*16-1:0]                     res_wdata_o,
  // router
  output logic                                 logits_valid_o,
  output logic [Pe*16-1:0]                     logits_o
);

  typedef struct packed {
    codesign_pkg::pass_post_t post;
    logic                     last;
    logic [3:0]               low;
    logic [LaneBits-1:0]      high;
  } out_t;

  out_t                   plan_out, out;
  logic                   to_act_q, to_res_q, to_router_q, last_q, plan_adds, add_read, adds;
  logic [AddrBits-1:0]    word;
  logic [Pe-1:0]          lanes_q;
  logic [Pe*16-1:0]       sum;
  logic [Pe*8-1:0]        act;

  always_comb begin
    plan_out.post = plan_pass_i.post;
    plan_out.last = plan_pass_i.last;
    plan_out.low = plan_low_i;
    plan_out.high = plan_high_i;
    plan_adds = plan_pass_i.post == codesign_pkg::PostAdd || plan_pass_i.post == codesign_pkg::PostGated;
  end

  pass_table #(.Width(1), .TagBits(TagBits)) u_adds (
    .clk_i, .we_i(plan_we_i), .wtag_i(plan_tag_i), .wdata_i(plan_adds), .rtag_i(add_tag_i), .rdata_o(add_read)
  );
  pass_table #(.Width($bits(plan_out)), .TagBits(TagBits)) u_out (
    .clk_i, .we_i(plan_we_i), .wtag_i(plan_tag_i), .wdata_i(plan_out), .rtag_i(tag_i), .rdata_o(out)
  );
  delay_line #(.Width(AddrBits + GranuleBits), .Stages(codesign_pkg::MemLatency + 1)) u_word (
    .clk_i, .d_i({word_i, granule_i}), .q_o({word, w_granule_o})
  );

  assign res_ren_o = read_i && add_read;
  assign res_raddr_o = codesign_pkg::ResAddrBits'(word_i);
  assign adds = out.post == codesign_pkg::PostAdd || out.post == codesign_pkg::PostGated;

  always_ff @(posedge clk_i) begin
    to_act_q <= 1'b0;
    to_res_q <= 1'b0;
    to_router_q <= 1'b0;
    if (write_i && rst_ni) begin
      unique case (out.post)
        codesign_pkg::PostInt8, codesign_pkg::PostGelu, codesign_pkg::PostMix: to_act_q <= 1'b1;
        codesign_pkg::PostInt16, codesign_pkg::PostAdd, codesign_pkg::PostGated: to_res_q <= 1'b1;
        codesign_pkg::PostLogits: to_router_q <= 1'b1;
        default: ;
      endcase
    end
    last_q <= out.last;
    for (int unsigned i = 0; i < Pe; i++) begin
      lanes_q[i] <= !mix_i || ((!first_n_i || i >= 32'(out.low)) && (!last_n_i || i < 32'(out.high)));
    end
  end

  for (genvar i = 0; i < Pe; i++) begin : gen_lane
    logic signed [16:0] total;
    logic signed [15:0] lane, sum_q;
    logic [7:0]         lane_q;

    assign lane = signed'(value_i[i*16 +: 16]);
    assign total = 17'(lane) + (adds ? 17'(signed'(res_rdata_i[i*16 +: 16])) : 17'sd0);
    always_ff @(posedge clk_i) begin
      sum_q <= total[16] == total[15] ? total[15:0] : {total[16], {15{~total[16]}}};
      lane_q <= lane[15:7] == {9{lane[15]}} ? lane[7:0] : {lane[15], {7{~lane[15]}}};
    end
    assign sum[i*16 +: 16] = sum_q;
    assign act[i*8 +: 8] = lane_q;
  end

  assign last_o = last_q;
  assign w_valid_o = to_act_q;
  assign w_word_o = codesign_pkg::ActAddrBits'(word);
  assign w_data_o = (Simd*8)'(act);
  assign w_mask_o = Simd'(lanes_q);
  assign res_we_o = to_res_q;
  assign res_waddr_o = codesign_pkg::ResAddrBits'(word);
  assign res_wdata_o = sum;
  assign logits_valid_o = to_router_q;
  assign logits_o = sum;

  logic unused_bits;
  assign unused_bits = ^{word_i, word};

endmodule
