// SPDX-License-Identifier: Apache-2.0
// The post-processor: one row of Pe accumulators a cycle through two requantizations, the same for every pass.
#pragma once

#include "codesign/gelu.hpp"
#include "codesign/types.hpp"
#include "codesign/unified_unit.hpp"

namespace codesign {

struct Scale {
  Multiplier multiplier;
  Shift shift;
};

// Which of the two stages a pass uses, and where its result goes.
inline bool scales_per_channel(config::PassPost post) {
#pragma HLS INLINE
  return post != config::PassPost::PostScore && post != config::PassPost::PostMix;
}

inline bool has_second_stage(config::PassPost post) {
#pragma HLS INLINE
  return post == config::PassPost::PostGelu || post == config::PassPost::PostMix || post == config::PassPost::PostGated;
}

inline bool goes_to_act(config::PassPost post) {
#pragma HLS INLINE
  return post == config::PassPost::PostInt8 || post == config::PassPost::PostGelu || post == config::PassPost::PostMix;
}

inline bool adds_to_res(config::PassPost post) {
#pragma HLS INLINE
  return post == config::PassPost::PostAdd || post == config::PassPost::PostGated;
}

inline bool goes_to_res(config::PassPost post) {
#pragma HLS INLINE
  return post == config::PassPost::PostInt16 || adds_to_res(post);
}

// Sums of weights aligned to the top of 8 bits lose that factor, 2^aligned_by, exactly. Stage 1 to int16 by the
// channel's scale or by `first`, GELU where asked, stage 2 to int16 by `second` where used. The caller saturates to
// int8: saturating twice is saturating to the narrower.
inline void post_process(config::PassPost post, unsigned aligned_by, const Accumulator (&acc)[config::Pe],
                         const Channel (&channel)[config::Pe], const Scale& first, const Scale& second,
                         Residual (&result)[config::Pe]) {
#pragma HLS INLINE
  const bool per_channel = scales_per_channel(post);
  for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
    const Accumulator sum = acc[p] >> aligned_by;
    const Biased biased = sum + (per_channel ? channel[p].bias : Bias(0));
    const Multiplier multiplier = per_channel ? channel[p].multiplier : first.multiplier;
    const Shift shift = per_channel ? channel[p].shift : first.shift;
    const Residual mid = requantize<ResidualBits>(biased, multiplier, shift);
    const Residual between = post == config::PassPost::PostGelu ? gelu(mid) : mid;
    result[p] = has_second_stage(post) ? requantize<ResidualBits>(between, second.multiplier, second.shift) : between;
  }
}

}  // namespace codesign
