// SPDX-License-Identifier: Apache-2.0
// The on-chip memories (docs/machine.md, "Memories"). Lanes are banks of their own: a window may begin, and a result
// may be written, at any granule.
#pragma once

#include "codesign/types.hpp"

namespace codesign {

struct Memories {
  Activation act[config::ActWords][config::Simd];
  Residual res[config::ResWords][config::Pe];
  Score score[config::MaxRows * config::KeyWords][config::Simd];
  Accumulator acc[config::MaxRows][config::Pe];
  Score row_max[config::MaxRows];
  RowSum row_sum[config::MaxRows];
  // Entry 0 of an expert's queue is its count.
  QueueEntry queue[config::MaxExperts][config::MaxRows + 1];

  Memories() {
#pragma HLS ARRAY_PARTITION variable = act complete dim = 2
#pragma HLS ARRAY_PARTITION variable = res complete dim = 2
#pragma HLS ARRAY_PARTITION variable = score complete dim = 2
#pragma HLS ARRAY_PARTITION variable = acc complete dim = 2
#pragma HLS ARRAY_PARTITION variable = queue complete dim = 1
#pragma HLS BIND_STORAGE variable = act type = ram_s2p
#pragma HLS BIND_STORAGE variable = res type = ram_s2p
#pragma HLS BIND_STORAGE variable = score type = ram_s2p
#pragma HLS BIND_STORAGE variable = acc type = ram_s2p impl = lutram
#pragma HLS BIND_STORAGE variable = row_max type = ram_s2p impl = lutram
#pragma HLS BIND_STORAGE variable = row_sum type = ram_s2p impl = lutram
#pragma HLS BIND_STORAGE variable = queue type = ram_s2p
  }
};

// A window: the Simd lanes of ACT that begin at granule `granule` of the row at `word`.
inline void read_window(const Memories& m, unsigned word, unsigned granule, Activation (&x)[config::Simd]) {
#pragma HLS INLINE
  const unsigned first = granule % config::ActGranules;
  Activation lanes[config::Simd];
  for (unsigned s = 0; s < config::Simd; ++s) {
#pragma HLS UNROLL
    const bool next = s / config::Granule < first;
    lanes[s] = m.act[word + granule / config::ActGranules + (next ? 1 : 0)][s];
  }
  for (unsigned g = 0; g < config::ActGranules; ++g) {
#pragma HLS UNROLL
    if (g == first) {
      for (unsigned s = 0; s < config::Simd; ++s) {
#pragma HLS UNROLL
        x[s] = lanes[(g * config::Granule + s) % config::Simd];
      }
    }
  }
}

// Write Pe values from granule `granule` of the row at `word` of ACT or the score memory; `write` masks single lanes.
template <typename Lane, unsigned Words>
void write_lanes(Lane (&memory)[Words][config::Simd], unsigned word, unsigned granule, const Lane (&value)[config::Pe],
                 const bool (&write)[config::Pe]) {
#pragma HLS INLINE
  const unsigned first = granule % config::ActGranules;
  for (unsigned g = 0; g < config::ActGranules; ++g) {  // banks
#pragma HLS UNROLL
    for (unsigned v = 0; v < config::PeGranules; ++v) {  // values
#pragma HLS UNROLL
      if ((first + v) % config::ActGranules == g) {
        const unsigned at = word + (granule + v) / config::ActGranules;
        for (unsigned i = 0; i < config::Granule; ++i) {
#pragma HLS UNROLL
          if (write[v * config::Granule + i]) {
            memory[at][g * config::Granule + i] = value[v * config::Granule + i];
          }
        }
      }
    }
  }
}

}  // namespace codesign
