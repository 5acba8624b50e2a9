// SPDX-License-Identifier: Apache-2.0
// GELU on 10 fraction bits: ReLU minus a small interpolated table (the method of Edge-MoE). Judge: gelu_fixed.
//
// Not inlined: every lane is an instance with a ROM of its own; inlined, all lanes would queue for one ROM's two ports.
#pragma once

#include "codesign/types.hpp"

namespace codesign {

inline Residual gelu(const Residual& u) {
#pragma HLS INLINE off
#pragma HLS PIPELINE II = 1
  constexpr int Domain = config::GeluDomainBits;
  constexpr int Segment = config::GeluSegmentBits;
  constexpr int Round = Segment + config::GeluGuardBits;
  const ap_int<ResidualBits + 1> wide = u;
  const ap_uint<ResidualBits> magnitude = u < 0 ? ap_uint<ResidualBits>(-wide) : ap_uint<ResidualBits>(u);
  const bool inside = (magnitude >> Domain) == 0;
  const ap_uint<Domain - Segment> index = magnitude.range(Domain - 1, Segment);
  const ap_uint<Segment> fraction = magnitude.range(Segment - 1, 0);
  const int left = config::GeluDeltaTable[index.to_uint()];
  const int right = config::GeluDeltaTable[index.to_uint() + 1];
  const int delta = ((left << Segment) + (right - left) * int(fraction.to_uint()) + (1 << (Round - 1))) >> Round;
  const Residual relu = u < 0 ? Residual(0) : u;
  return inside ? Residual(relu - delta) : relu;
}

}  // namespace codesign
