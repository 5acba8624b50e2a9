// SPDX-License-Identifier: Apache-2.0
// Powers of two for the single-pass softmax and for the router. `distance` is maximum - score >= 0, 8 fraction bits.
//
// The judge: codesign.reference.functions.exp2_fixed and probability. Not inlined, for the reason given in gelu.hpp.
#pragma once

#include "codesign/types.hpp"

namespace codesign {

constexpr int Exp2Bits = 16;
using Exp2 = ap_uint<Exp2Bits>;

// 2^(15 - distance / 256), truncated; 0 when the integer part exceeds 15.
inline Exp2 exp2_fixed(const ScoreDistance& distance) {
#pragma HLS INLINE off
#pragma HLS PIPELINE II = 1
  const ap_uint<config::Log2FractionBits> fraction = distance.range(config::Log2FractionBits - 1, 0);
  const unsigned whole = distance.to_uint() >> config::Log2FractionBits;
  const Exp2 mantissa = config::Exp2Table[fraction.to_uint()];
  return whole >= Exp2Bits ? Exp2(0) : Exp2(mantissa >> whole);
}

// 127 * 2^(-distance / 256), rounded half up: 0..127.
inline Activation probability(const ScoreDistance& distance) {
#pragma HLS INLINE off
#pragma HLS PIPELINE II = 1
  const ap_uint<config::Log2FractionBits> fraction = distance.range(config::Log2FractionBits - 1, 0);
  const unsigned whole = distance.to_uint() >> config::Log2FractionBits;
  const unsigned scaled = config::Exp2Table[fraction.to_uint()] * config::ProbabilityMax;
  const unsigned shift = Exp2Bits - 1 + (whole < Exp2Bits ? whole : 0);
  return whole >= Exp2Bits ? Activation(0) : Activation((scaled + (1U << (shift - 1))) >> shift);
}

}  // namespace codesign
