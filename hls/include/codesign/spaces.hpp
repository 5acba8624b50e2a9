// SPDX-License-Identifier: Apache-2.0
// The spaces in DRAM: beat m of line i lies at `base + m * stripe + i`, all in beats, and port m alone touches stripe
// m.
//
// Every master is one pointer from address 0, indexed with physical addresses, so that bases and stripes are plain
// registers.
#pragma once

#include "codesign/types.hpp"

namespace codesign {

constexpr unsigned MaxPorts = 4;
using Address = unsigned long long;

struct Space {
  Address base;
  Address stripe;
};

struct Spaces {
  Space memory;
  Space input;
  Space output;
};

inline Space space_of(const Spaces& spaces, config::Space which) {
#pragma HLS INLINE
  return which == config::Space::SpaceInput    ? spaces.input
         : which == config::Space::SpaceOutput ? spaces.output
                                               : spaces.memory;
}

// One beat from every port. In a loop over `line` each port sees consecutive addresses, which Vitis turns into bursts.
inline Line read_line(const Beat* gmem0, const Beat* gmem1, const Beat* gmem2, const Beat* gmem3, const Space& space,
                      Address line) {
#pragma HLS INLINE
  Beat beat[MaxPorts];
  beat[0] = gmem0[space.base + line];
  if (config::Ports > 1) {
    beat[1] = gmem1[space.base + space.stripe + line];
  }
  if (config::Ports > 2) {
    beat[2] = gmem2[space.base + 2 * space.stripe + line];
    beat[3] = gmem3[space.base + 3 * space.stripe + line];
  }
  Line result = 0;
  for (unsigned m = 0; m < config::Ports; ++m) {
#pragma HLS UNROLL
    result.range(m * config::BeatBits + config::BeatBits - 1, m * config::BeatBits) = beat[m];
  }
  return result;
}

inline void write_line(Beat* gmem0, Beat* gmem1, Beat* gmem2, Beat* gmem3, const Space& space, Address line,
                       const Beat (&beat)[MaxPorts]) {
#pragma HLS INLINE
  gmem0[space.base + line] = beat[0];
  if (config::Ports > 1) {
    gmem1[space.base + space.stripe + line] = beat[1];
  }
  if (config::Ports > 2) {
    gmem2[space.base + 2 * space.stripe + line] = beat[2];
    gmem3[space.base + 3 * space.stripe + line] = beat[3];
  }
}

}  // namespace codesign
