// SPDX-License-Identifier: Apache-2.0
//
// LOAD: beats of the stream into consecutive words of ACT or RES, one beat a cycle.
module load_unit (
  input  logic         clk_i,
  input  logic         rst_ni,

  input  logic         start_i,
  input  codesign_pkg::instr_t instr_i,    // held until done_o
  output logic         done_o,

  input  logic [127:0] beat_i,
  input  logic         beat_valid_i,
  output logic         beat_ready_o,

  output logic [codesign_pkg::Simd-1:0]        act_we_o,
  output logic [codesign_pkg::ActAddrBits-1:0] act_waddr_o,
  output logic [codesign_pkg::Simd-1:0][7:0]   act_wdata_o,
  output logic                                 res_we_o,
  output logic [codesign_pkg::ResAddrBits-1:0] res_waddr_o,
  output logic [codesign_pkg::Pe-1:0][15:0]    res_wdata_o
);
  localparam int unsigned ActBeats = codesign_pkg::ActBeats;
  localparam int unsigned ResBeats = codesign_pkg::ResBeats;
  localparam int unsigned MaxBeats = (ActBeats > ResBeats) ? ActBeats : ResBeats;
  localparam int unsigned PartBits = (MaxBeats > 1) ? $clog2(MaxBeats) : 1;

  logic                busy_q, done_q, to_res, take_q, last_part;
  logic [31:0]         left_q;             // words still to be taken
  logic [15:0]         word_q, wword_q;
  logic [PartBits-1:0] part_q, wpart_q;    // beat within the word
  logic                wlast_q;
  logic [ResBeats-1:0][127:0] parts_q;     // the newest beats, the last one on top

  assign to_res       = instr_i.unit == codesign_pkg::UnitRes;
  assign last_part    = part_q == (to_res ? PartBits'(ResBeats - 1) : PartBits'(ActBeats - 1));
  assign beat_ready_o = busy_q && (left_q != 0);
  assign done_o       = done_q;

  // The write port sees registers only: the beat taken in the cycle before.
  always_comb begin
    for (int unsigned i = 0; i < codesign_pkg::Simd; i++) act_we_o[i] = take_q && !to_res && (wpart_q == PartBits'(i / 16));
  end
  assign act_waddr_o = wword_q[codesign_pkg::ActAddrBits-1:0];
  assign act_wdata_o = {ActBeats{parts_q[ResBeats-1]}};
  assign res_we_o    = take_q && to_res && wlast_q;
  assign res_waddr_o = wword_q[codesign_pkg::ResAddrBits-1:0];
  assign res_wdata_o = parts_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      busy_q <= 1'b0;
      done_q <= 1'b0;
      take_q <= 1'b0;
    end else begin
      take_q <= beat_ready_o && beat_valid_i;
      done_q <= busy_q && (left_q == 0);
      if (start_i)          busy_q <= 1'b1;
      else if (left_q == 0) busy_q <= 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    wpart_q <= part_q;
    wword_q <= word_q;
    wlast_q <= last_part;
    if (start_i) begin
      left_q <= instr_i.words;
      word_q <= instr_i.dst_base;
      part_q <= '0;
    end else if (beat_ready_o && beat_valid_i) begin
      part_q <= last_part ? '0 : part_q + PartBits'(1);
      if (last_part) begin
        left_q <= left_q - 32'd1;
        word_q <= word_q + 16'd1;
      end
    end
    if (beat_ready_o && beat_valid_i) begin
      for (int unsigned i = 0; i + 1 < ResBeats; i++) parts_q[i] <= parts_q[i+1];
      parts_q[ResBeats-1] <= beat_i;
    end
  end

  logic unused_instr;
  assign unused_instr = ^{instr_i, wword_q};
endmodule
