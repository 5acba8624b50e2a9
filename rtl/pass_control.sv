// SPDX-License-Identifier: Apache-2.0
//
// Accepts passes, finds the place of a head in its words, and writes each into the tables under its tag. Up to 7 passes are under
// way; tags follow one another in the order of acceptance.
module pass_control #(
  parameter int unsigned Simd = codesign_pkg::Simd,
  parameter int unsigned Pe = codesign_pkg::Pe,
  parameter int unsigned TagBits = 3,
  parameter int unsigned LaneBits = $clog2(Simd) + 1
) (
  input  logic                                 clk_i,
  input  logic                                 rst_ni,
  input  codesign_pkg::pass_t                  pass_i,
  input  logic                                 pass_valid_i,
  output logic                                 pass_ready_o,
  input  logic                                 landed_i,        // the oldest pass is complete
  output logic                                 busy_o,
  output logic [TagBits-1:0]                   oldest_o,        // tag of the oldest pass that is not complete
  output logic [TagBits-1:0]                   next_o,          // tag of the next pass to be written
  // the pass that is written
  output logic                                 plan_we_o,
  output codesign_pkg::pass_t                  plan_pass_o,
  output logic [15:0]                          plan_k_last_o,   // k words or windows, less one
  output logic [15:0]                          plan_n_last_o,   // n tiles or groups of Pe lanes, less one
  output logic [15:0]                          plan_word_o,     // the head's first word and granule in a row
  output logic [codesign_pkg::GranuleBits-1:0] plan_granule_o,
  output logic [3:0]                           plan_low_o,      // the head's first lane in its first window or group
  output logic [LaneBits-1:0]                  plan_high_o,     // its lanes in the last window or group
  output logic [LaneBits-1:0]                  plan_tail_o      // keys in the last tile (SCORE) or word (MIX) of keys
);

  localparam int unsigned PeGranules = Pe / 16;
  localparam int unsigned SimdGranules = Simd / 16;

  typedef enum logic [1:0] {
    StIdle,
    StCount,
    StWrite
  } state_t;

  state_t              state_q;
  codesign_pkg::pass_t pass_q;
  logic                score, mix, drop, accept;
  logic [15:0]         left_q, units_q, unit, tiles, full;
  logic [LaneBits-1:0] tail_q;
  logic [TagBits-1:0]  next_q, oldest_q;

  assign score = pass_q.kind == codesign_pkg::KindScore;
  assign mix = pass_q.kind == codesign_pkg::KindMix;
  assign drop = pass_q.kind == codesign_pkg::KindDrop;
  assign unit = mix ? 16'(Pe) : 16'(Simd);
  assign pass_ready_o = state_q == StIdle && next_q + TagBits'(1) != oldest_q;
  assign accept = pass_valid_i && pass_ready_o;

  // Keys before the last tile or word: times 16 * PeGranules, or Simd, without a multiplier.
  assign tiles = pass_q.n_tiles - 16'd1;
  always_comb begin
    full = (pass_q.k_words - 16'd1) << $clog2(Simd);
    if (score) begin
      full = '0;
      for (int unsigned i = 0; i < 3; i++) if (PeGranules[i]) full = full + (tiles << (4 + i));
    end
  end

  always_ff @(posedge clk_i) begin
    unique case (state_q)
      StIdle: begin
        pass_q <= pass_i;
        left_q <= 16'(pass_i.column[3:0]) + pass_i.dim;
        units_q <= '0;
        if (accept) begin
          state_q <= pass_i.kind == codesign_pkg::KindScore || pass_i.kind == codesign_pkg::KindMix ? StCount : StWrite;
        end
      end
      StCount: begin
        tail_q <= LaneBits'(pass_q.keys - full);
        if (left_q > unit) begin
          left_q <= left_q - unit;
          units_q <= units_q + 16'd1;
        end else begin
          state_q <= StWrite;
        end
      end
      StWrite: begin
        state_q <= StIdle;
        next_q <= next_q + TagBits'(1);
      end
      default: state_q <= StIdle;
    endcase
    if (landed_i) oldest_q <= oldest_q + TagBits'(1);

    if (!rst_ni) begin
      state_q <= StIdle;
      next_q <= '0;
      oldest_q <= '0;
    end
  end

  assign busy_o = state_q != StIdle || next_q != oldest_q;
  assign oldest_o = oldest_q;
  assign next_o = next_q;
  assign plan_we_o = state_q == StWrite;
  assign plan_pass_o = pass_q;
  assign plan_k_last_o = score ? units_q : drop ? 16'd0 : pass_q.k_words - 16'd1;
  assign plan_n_last_o = mix ? units_q : drop ? 16'd0 : pass_q.n_tiles - 16'd1;
  assign plan_word_o = pass_q.column >> $clog2(Simd);
  assign plan_granule_o = codesign_pkg::GranuleBits'((pass_q.column >> 4) & 16'(SimdGranules - 1));
  assign plan_low_o = pass_q.column[3:0];
  assign plan_high_o = LaneBits'(left_q);
  assign plan_tail_o = tail_q;

endmodule
