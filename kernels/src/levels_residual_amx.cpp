// SPDX-License-Identifier: Apache-2.0
// The residual format by AMX.
#include "levels_residual.hpp"
#include "levels_tiles.hpp"

namespace codesign::levels {
namespace {

class TileSums {
 public:
  TileSums(const ByteSums& to, std::int64_t panel) : to_(to), panel_(panel / 2) {}

  // Of panel p of those that are computed together; the low bytes' lie before the high ones'.
  void put(std::int64_t first, std::int64_t count, int p, const std::int32_t* sums) const {
    if (p % 2 == 0) {
      return;
    }
    for (std::int64_t t = 0; t < count; ++t) {
      const std::int32_t* high = sums + t * kPanel;
      to_.put(first + t, panel_ + p / 2, _mm512_load_si512(high - kTileRows * kPanel), _mm512_load_si512(high));
    }
  }

 private:
  const ByteSums& to_;
  std::int64_t panel_;
};

template <int kPlanes>
void run(const ResidualRows& rows, const ResidualWeight& weight, const ByteSums& to, PanelRange panels) {
  const Bytes<kPlanes> expander(weight, rows.chunks);
  multiply(rows, expander, {2 * panels.begin, 2 * panels.end},
           [&](auto, std::int64_t panel) { return TileSums(to, panel); });
}

}  // namespace

void residual_amx(const ResidualRows& rows, const ResidualWeight& weight, std::int64_t* acc, bool accumulate,
                  PanelRange panels) {
  if (rows.count <= kFewRows) {
    residual_avx512(rows, weight, acc, accumulate, panels);
    return;
  }
  const ByteSums to(rows, weight, acc, accumulate);
  if (weight.planes == 0) {
    run<0>(rows, weight, to, panels);
  } else if (weight.planes == 1) {
    run<1>(rows, weight, to, panels);
  } else {
    run<2>(rows, weight, to, panels);
  }
}

}  // namespace codesign::levels
