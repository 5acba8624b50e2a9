// SPDX-License-Identifier: Apache-2.0
// Any processor: plain C++.
#include "operators_common.hpp"

namespace codesign {
namespace {

constexpr int kRows = 4;

void panel_sums(const Linear& l, int row, int rows, const std::int8_t* cells, const std::int32_t* bias,
                const Scratch& scratch) {
  const int groups = l.weights.blocks() * kBlockGroups;
  for (int r = 0; r < rows; ++r) {
    const std::int8_t* x = l.x + (row + r) * l.x_stride;
    std::int32_t sums[kPanelOutputs];
    std::memcpy(sums, bias, sizeof sums);
    for (int g = 0; g < groups; ++g) {
      const std::int8_t* cell = cells + static_cast<std::size_t>(g) * kCellCodes;
      for (int n = 0; n < kPanelOutputs; ++n) {
        std::int32_t sum = sums[n];
        for (int k = 0; k < kGroupInputs; ++k) {
          sum += cell[n * kGroupInputs + k] * x[g * kGroupInputs + k];
        }
        sums[n] = sum;
      }
    }
    std::memcpy(scratch.sums() + r * kPanelOutputs, sums, sizeof sums);
  }
}

void linear(const Linear& l, Range rows, Range panels, const Scratch& scratch) {
  linear_by_panels<kRows>(l, rows, panels, scratch, panel_sums);
}

}  // namespace

const Kernels& portable_kernels() {
  static const Kernels table{true,       do_nothing,   do_nothing,      linear,           norm_rows,
                             gelu_words, add_words,    gated_add_words, probabilities_of, mix_sums,
                             route_rows, pack_keys_of, pack_values_of};
  return table;
}

}  // namespace codesign
