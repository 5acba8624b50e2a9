// SPDX-License-Identifier: Apache-2.0
//
// Partial sums of every row over the k words: a row's sum of this word is added to what the row had, or to what the array's sums
// are short of over all k words, and written back. Times are cycles before and after the array's sums arrive.
module accumulator #(
  parameter int unsigned Pe = codesign_pkg::Pe,
  parameter int unsigned Simd = codesign_pkg::Simd,
  parameter int unsigned AccBits = codesign_pkg::AccBits,
  parameter int unsigned RowBits = codesign_pkg::RowBits,
  parameter int unsigned SumBits = 18,
  parameter int unsigned TagBits = 3
) (
  input  logic                  clk_i,
  // the pass that is written
  input  logic                  plan_we_i,
  input  logic [TagBits-1:0]    plan_tag_i,
  input  logic [15:0]           plan_k_last_i,
  // the row
  input  logic                  read_i,      // MemLatency before: it has partial sums
  input  logic [RowBits-1:0]    read_row_i,
  input  logic [TagBits-1:0]    tag_i,       // 1 before
  input  logic                  first_k_i,   // with the sums
  input  logic [Pe*SumBits-1:0] sums_i,
  input  logic [Pe-1:0]         carries_i,   // to be added
  input  logic                  write_i,     // 1 after: it will have partial sums
  input  logic [RowBits-1:0]    write_row_i,
  output logic [Pe*AccBits-1:0] acc_o        // 1 after
);

  logic [Pe*AccBits-1:0] acc_rdata, acc_q;
  logic [AccBits-1:0]    plan_missing, missing;

  // Each cascade of eight is short by one.
  assign plan_missing = (AccBits'(plan_k_last_i) + AccBits'(1)) << $clog2(Simd / 8);

  pass_table #(.Width(AccBits), .TagBits(TagBits)) u_missing (
    .clk_i, .we_i(plan_we_i), .wtag_i(plan_tag_i), .wdata_i(plan_missing), .rtag_i(tag_i), .rdata_o(missing)
  );

  sdp_ram #(.Width(Pe * AccBits), .Depth(codesign_pkg::MaxRows)) u_sums (
    .clk_i, .we_i(write_i), .waddr_i(write_row_i), .wdata_i(acc_q), .ren_i(read_i), .raddr_i(read_row_i), .rdata_o(acc_rdata)
  );

  for (genvar i = 0; i < Pe; i++) begin : gen_lane
    logic signed [AccBits-1:0] base, sum_q;
    logic [AccBits:0]          total;  // the lowest bit makes the carry

    assign base = first_k_i ? missing : acc_rdata[i*AccBits +: AccBits];
    assign total = {base, 1'b1} + {AccBits'(signed'(sums_i[i*SumBits +: SumBits])), carries_i[i]};
    always_ff @(posedge clk_i) sum_q <= total[AccBits:1];
    assign acc_q[i*AccBits +: AccBits] = sum_q;

    logic unused_carry;
    assign unused_carry = total[0];
  end

  assign acc_o = acc_q;

endmodule
