// SPDX-License-Identifier: Apache-2.0
// NEON: products of 8 bits are widened to 16 and added in pairs to 32; with the dot product instruction where it is.
#include "operators_common.hpp"

#if defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

namespace codesign {
namespace {

// Loops over registers are unrolled early, or the compiler would keep the arrays of sums in memory.
constexpr int kRows = 2;
constexpr int kQuarters = 4;  // of a cell: 4 outputs x 4 inputs

int8x16_t four_inputs(const std::int8_t* x) {
  std::int32_t four;
  std::memcpy(&four, x, sizeof four);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

template <int kCount>
void cells_sums(const std::int8_t* cells, int groups, const std::int8_t* x, std::ptrdiff_t stride,
                const std::int32_t* bias, std::int32_t* sums) {
  int32x4_t low[kCount][kQuarters], high[kCount][kQuarters];
#pragma GCC unroll 8
  for (int r = 0; r < kCount; ++r) {
#pragma GCC unroll 8
    for (int q = 0; q < kQuarters; ++q) {
      low[r][q] = high[r][q] = vdupq_n_s32(0);
    }
  }
  for (int g = 0; g < groups; ++g) {
#pragma GCC unroll 8
    for (int q = 0; q < kQuarters; ++q) {
      const int8x16_t w = vld1q_s8(cells + static_cast<std::size_t>(g) * kCellCodes + 16 * q);
#pragma GCC unroll 8
      for (int r = 0; r < kCount; ++r) {
        const int8x16_t four = four_inputs(x + r * stride + g * kGroupInputs);
        low[r][q] = vpadalq_s16(low[r][q], vmull_s8(vget_low_s8(w), vget_low_s8(four)));
        high[r][q] = vpadalq_s16(high[r][q], vmull_high_s8(w, four));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kCount; ++r) {
#pragma GCC unroll 8
    for (int q = 0; q < kQuarters; ++q) {
      const int32x4_t sum = vpaddq_s32(low[r][q], high[r][q]);
      vst1q_s32(sums + r * kPanelOutputs + 4 * q, vaddq_s32(sum, vld1q_s32(bias + 4 * q)));
    }
  }
}

template <int kCount>
__attribute__((target("arch=armv8.2-a+dotprod"))) void cells_dots(const std::int8_t* cells, int groups,
                                                                  const std::int8_t* x, std::ptrdiff_t stride,
                                                                  const std::int32_t* bias, std::int32_t* sums) {
  int32x4_t acc[kCount][kQuarters];
#pragma GCC unroll 8
  for (int r = 0; r < kCount; ++r) {
#pragma GCC unroll 8
    for (int q = 0; q < kQuarters; ++q) {
      acc[r][q] = vld1q_s32(bias + 4 * q);
    }
  }
  for (int g = 0; g < groups; ++g) {
    int8x16_t four[kCount];
#pragma GCC unroll 8
    for (int r = 0; r < kCount; ++r) {
      std::int32_t inputs;
      std::memcpy(&inputs, x + r * stride + g * kGroupInputs, sizeof inputs);
      four[r] = vreinterpretq_s8_s32(vdupq_n_s32(inputs));
    }
#pragma GCC unroll 8
    for (int q = 0; q < kQuarters; ++q) {
      const int8x16_t w = vld1q_s8(cells + static_cast<std::size_t>(g) * kCellCodes + 16 * q);
#pragma GCC unroll 8
      for (int r = 0; r < kCount; ++r) {
        acc[r][q] = vdotq_s32(acc[r][q], w, four[r]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kCount; ++r) {
#pragma GCC unroll 8
    for (int q = 0; q < kQuarters; ++q) {
      vst1q_s32(sums + r * kPanelOutputs + 4 * q, acc[r][q]);
    }
  }
}

bool has_dot_product() {
#if defined(__linux__)
  constexpr unsigned long kDotProduct = 1UL << 20;  // HWCAP_ASIMDDP
  static const bool found = (getauxval(AT_HWCAP) & kDotProduct) != 0;
  return found;
#else
  return false;
#endif
}

void panel_sums(const Linear& l, int row, int rows, const std::int8_t* cells, const std::int32_t* bias,
                const Scratch& scratch) {
  const int groups = l.weights.blocks() * kBlockGroups;
  const auto products = rows == 2 ? cells_sums<2> : cells_sums<1>;
  const auto dots = rows == 2 ? cells_dots<2> : cells_dots<1>;
  (has_dot_product() ? dots : products)(cells, groups, l.x + row * l.x_stride, l.x_stride, bias, scratch.sums());
}

void linear(const Linear& l, Range rows, Range panels, const Scratch& scratch) {
  linear_by_panels<kRows>(l, rows, panels, scratch, panel_sums);
}

}  // namespace

const Kernels& neon_kernels() {
  static const Kernels table{true,       do_nothing,   do_nothing,      linear,           norm_rows,
                             gelu_words, add_words,    gated_add_words, probabilities_of, mix_sums,
                             route_rows, pack_keys_of, pack_values_of};
  return table;
}

}  // namespace codesign
#endif
