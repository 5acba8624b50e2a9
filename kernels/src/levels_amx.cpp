// SPDX-License-Identifier: Apache-2.0
// Weights in levels by AMX.
#include <utility>

#include "levels_tiles.hpp"

namespace codesign::levels {
namespace {

// Takes the sums of P panels.
template <int P, class Expander>
class PanelSums {
 public:
  PanelSums(const Expander& expander, const Rows& rows, const Output& out, std::int64_t panel)
      : PanelSums(expander, rows, out, panel, std::make_integer_sequence<int, P>()) {}

  // Copies keep what every row needs in registers: a store of int8 could otherwise change it.
  void put(std::int64_t first, std::int64_t count, int p, const std::int32_t* sums) const {
    const Expander expander = expander_;
    const PanelOutput to = to_[p];
    const std::int32_t* corrections = corrections_ + first;
    for (std::int64_t t = 0; t < count; ++t) {
      to.emit(first + t, expander.finish(_mm512_load_si512(sums + t * kPanel)), corrections[t]);
    }
  }

 private:
  template <int... I>
  PanelSums(const Expander& expander, const Rows& rows, const Output& out, std::int64_t panel,
            std::integer_sequence<int, I...>)
      : expander_(expander), corrections_(rows.corrections), to_{PanelOutput(out, panel + I)...} {}

  const Expander& expander_;
  const std::int32_t* corrections_;
  PanelOutput to_[P];
};

void gemm(const Rows& rows, const LevelWeight& weight, const Output& out, PanelRange panels) {
  if (rows.count <= kFewRows) {
    gemm_avx512(rows, weight, out, panels);
    return;
  }
  const auto run = [&](const auto& expander) {
    using Expander = std::decay_t<decltype(expander)>;
    multiply(rows, expander, panels, [&](auto count, std::int64_t panel) {
      return PanelSums<decltype(count)::value, Expander>(expander, rows, out, panel);
    });
  };
  if (!with_expander(weight, rows.chunks, run)) {
    by_level(gemm, rows, weight, out, panels);
  }
}

}  // namespace

const Kernels kAmxInt8{sum_avx512, gemm, residual_amx, trits_avx512};

}  // namespace codesign::levels
