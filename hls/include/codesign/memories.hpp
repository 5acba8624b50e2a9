// SPDX-License-Identifier: Apache-2.0
// The on-chip memories (docs/machine.md, "Memories"). Lanes are banks of their own: writes may cover any Pe of Simd
// lanes.
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

// Write Pe values into lane group `group` of an activation or score word; `write` masks single lanes.
template <typename Lane, unsigned Words>
void write_group(Lane (&memory)[Words][config::Simd], unsigned word, unsigned group, const Lane (&value)[config::Pe],
                 const bool (&write)[config::Pe]) {
#pragma HLS INLINE
  for (unsigned g = 0; g < LaneGroups; ++g) {
#pragma HLS UNROLL
    for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
      if (g == group && write[p]) {
        memory[word][g * config::Pe + p] = value[p];
      }
    }
  }
}

}  // namespace codesign
