// SPDX-License-Identifier: Apache-2.0
#include "codesign/peak.hpp"

#include <algorithm>
#include <chrono>

namespace codesign {

double peak_macs_per_second(Variant variant) {
  void (*spin)(int) = nullptr;
  double macs = 0;
#if defined(__x86_64__)
  if (variant == Variant::avx512_vnni) {
    spin = spin_vnni;
    macs = kVnniMacs;
  } else if (variant == Variant::amx_int8) {
    spin = spin_amx;
    macs = kAmxMacs;
  }
#endif
  if (spin == nullptr || !available(variant)) {
    return 0;
  }
  constexpr int kRounds = 20000, kRuns = 50;
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    spin(kRounds);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, kRounds * macs / seconds.count());
  }
  return best;
}

}  // namespace codesign
