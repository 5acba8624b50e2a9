// SPDX-License-Identifier: Apache-2.0
// The one MAC array: PE rows of SIMD int8 weights, stationary, times one word of SIMD int8 activations a cycle.
//
// Dense layers, attention scores and the mix of values all call `mac_array`; they differ in where its operands come
// from.
#pragma once

#include "codesign/types.hpp"

namespace codesign {

// Per-channel parameters of the post-processor.
struct Channel {
  Bias bias;
  Multiplier multiplier;
  Shift shift;
};

// Stationary operands of one pass over the rows, held in registers.
template <unsigned PE, unsigned SIMD>
struct WeightTile {
  Activation weight[PE][SIMD];
  Channel channel[PE];

  WeightTile() {
#pragma HLS ARRAY_PARTITION variable = weight complete dim = 0
#pragma HLS ARRAY_PARTITION variable = channel complete dim = 0
  }
};

using Tile = WeightTile<config::Pe, config::Simd>;

// Sum of SIMD products of two activations, at most 2^23 in magnitude for SIMD <= 512.
using PartialSum = ap_int<32>;

// `sum[p] = sum_s weight[p][s] * x[s]`, two products in one DSP48E2: rows p and p + 1 share the multiplier as
// `((w[p+1] << 18) + w[p]) * x`. Four such products stay below 2^17 in the low half, so four DSPs chain their cascade
// before the halves are taken apart (the high half then owes the low half's sign). The innermost operands are plain
// integers of the values' own range, which HLS narrows to 27 x 8 bits and which keeps C-simulation fast.
template <unsigned PE, unsigned SIMD>
void mac_array(const Activation (&weight)[PE][SIMD], const Activation (&x)[SIMD], PartialSum (&sum)[PE]) {
#pragma HLS INLINE
  constexpr unsigned Cascade = 4;
  constexpr int HighLsb = 18;
  static_assert(PE % 2 == 0 && SIMD % Cascade == 0, "rows pair up, columns come in cascades");
  for (unsigned p = 0; p < PE; p += 2) {
#pragma HLS UNROLL
    int low = 0;
    int high = 0;
    for (unsigned s = 0; s < SIMD; s += Cascade) {
#pragma HLS UNROLL
      long long chain = 0;
      for (unsigned c = 0; c < Cascade; ++c) {
#pragma HLS UNROLL
        const int pair = weight[p + 1][s + c].to_int() * (1 << HighLsb) + weight[p][s + c].to_int();
        chain += static_cast<long long>(pair) * x[s + c].to_int();
      }
      const int tail = ap_int<HighLsb>(chain).to_int();
      low += tail;
      high += static_cast<int>((chain - tail) >> HighLsb);
    }
    sum[p] = low;
    sum[p + 1] = high;
  }
}

}  // namespace codesign
