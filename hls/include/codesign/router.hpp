// SPDX-License-Identifier: Apache-2.0
// ROUTE: logits from the unified unit, then gates and the experts' queues, one token a cycle. Judge: functions.gates.
#pragma once

#include "codesign/pass.hpp"

namespace codesign {

// Gates of one token. `chosen[e]` for the top_k largest logits, the lower index first on a tie; lanes >= experts never.
template <unsigned E>
void choose_experts(const Score (&logit)[E], unsigned experts, unsigned top_k, Gate (&gate)[E], bool (&chosen)[E]) {
#pragma HLS INLINE
  Score highest = -32768;
  for (unsigned e = 0; e < E; ++e) {
#pragma HLS UNROLL
    highest = e < experts && logit[e] > highest ? logit[e] : highest;
  }
  Exp2 power[E];
  ap_uint<Exp2Bits + bits_of(E)> sum = 0;
  for (unsigned e = 0; e < E; ++e) {
#pragma HLS UNROLL
    power[e] = e < experts ? exp2_fixed(ScoreDistance(highest - logit[e])) : Exp2(0);
    sum += power[e];
  }
  const Mantissa inverse = reciprocal(sum);
  const Shift shift = ReciprocalScaleBits - int(config::GateFractionBits) + inverse.exponent;
  for (unsigned e = 0; e < E; ++e) {
#pragma HLS UNROLL
    unsigned ahead = 0;
    for (unsigned f = 0; f < E; ++f) {
#pragma HLS UNROLL
      ahead += f < experts && (logit[f] > logit[e] || (logit[f] == logit[e] && f < e));
    }
    const ap_int<2 * MultiplierBits + 2> product = power[e] * inverse.value;
    gate[e] = shift_round(product, shift);
    chosen[e] = e < experts && ahead < top_k;
  }
}

// Tokens enter the queues in ascending order; each queue is a memory of its own, so all chosen experts take the token
// in the same cycle.
inline void fill_queues(Memories& m, const Instruction& in) {
#pragma HLS INLINE off
  Count count[config::MaxExperts];
#pragma HLS ARRAY_PARTITION variable = count complete
  for (unsigned e = 0; e < config::MaxExperts; ++e) {
#pragma HLS UNROLL
    count[e] = 0;
  }
  for (unsigned row = 0; row < in.rows; ++row) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 1 max = config::MaxRows
#pragma HLS DEPENDENCE variable = m.queue type = inter dependent = false
    Score logit[config::MaxExperts];
    Gate gate[config::MaxExperts];
    bool chosen[config::MaxExperts];
    for (unsigned e = 0; e < config::MaxExperts; ++e) {
#pragma HLS UNROLL
      logit[e] = e < config::Pe ? m.score[row * config::KeyWords][e % config::Pe] : Score(0);
    }
    choose_experts(logit, in.num_experts, in.top_k, gate, chosen);
    for (unsigned e = 0; e < config::MaxExperts; ++e) {
#pragma HLS UNROLL
      if (chosen[e]) {
        m.queue[e][count[e] + 1] = (gate[e], Token(row));
        count[e] += 1;
      }
    }
  }
  for (unsigned e = 0; e < config::MaxExperts; ++e) {
#pragma HLS UNROLL
    if (e < in.num_experts) {
      m.queue[e][0] = count[e];
    }
  }
}

}  // namespace codesign
