// SPDX-License-Identifier: Apache-2.0
// AVX-512 with VNNI: vpdpbusd multiplies unsigned codes by signed inputs; the codes' offset is taken back by row sums.
#include <algorithm>
#include <cstring>

#include "operators_avx512.hpp"
#include "simd_avx512.hpp"

namespace codesign {
namespace {

constexpr int kRows = 6;
constexpr int kPanels = 4;  // 24 sums, 4 cells and an input in registers
constexpr int kSumsStride = kPanels * kPanelOutputs;

struct Cells {
  const std::uint8_t* panel[kPanels];
};

// Unrolled early, or the compiler would keep the array of sums in memory.
// corrections: offset * sum of the row's inputs.
template <int kR, int kP>
void block(const Cells& cells, int groups, const std::int8_t* x, std::ptrdiff_t stride, const std::int32_t* bias,
           const std::int32_t* corrections, std::int32_t* sums) {
  __m512i acc[kR][kP];
#pragma GCC unroll 8
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < kP; ++p) {
      acc[r][p] = _mm512_sub_epi32(_mm512_loadu_si512(bias + p * kPanelOutputs), _mm512_set1_epi32(corrections[r]));
    }
  }
  for (int g = 0; g < groups; ++g) {
    __m512i w[kP];
#pragma GCC unroll 8
    for (int p = 0; p < kP; ++p) {
      w[p] = _mm512_load_si512(cells.panel[p] + static_cast<std::size_t>(g) * kCellCodes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) {
      std::int32_t four;
      std::memcpy(&four, x + r * stride + g * kGroupInputs, sizeof four);
      const __m512i inputs = _mm512_set1_epi32(four);
#pragma GCC unroll 8
      for (int p = 0; p < kP; ++p) {
        acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], w[p], inputs);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < kP; ++p) {
      _mm512_storeu_si512(sums + r * kSumsStride + p * kPanelOutputs, acc[r][p]);
    }
  }
}

using Block = void (*)(const Cells&, int, const std::int8_t*, std::ptrdiff_t, const std::int32_t*, const std::int32_t*,
                       std::int32_t*);

template <int kR>
constexpr Block kByPanels[kPanels] = {block<kR, 1>, block<kR, 2>, block<kR, 3>, block<kR, 4>};

Block block_of(int rows, int panels) {
  constexpr const Block* kByRows[kRows] = {kByPanels<1>, kByPanels<2>, kByPanels<3>,
                                           kByPanels<4>, kByPanels<5>, kByPanels<6>};
  return kByRows[rows - 1][panels - 1];
}

void row_sums(const Linear& l, Range rows, std::int32_t* sums) {
  const __m512i ones = _mm512_set1_epi8(1);
  for (int r = rows.begin; r < rows.end; ++r) {
    __m512i sum = _mm512_setzero_si512();
    for (int b = 0; b < l.weights.blocks(); ++b) {
      sum = _mm512_dpbusd_epi32(sum, ones, _mm512_loadu_si512(l.x + r * l.x_stride + b * kBlockInputs));
    }
    sums[r - rows.begin] = _mm512_reduce_add_epi32(sum) * l.weights.offset;
  }
}

Cells cells_of(const Weights& w, int panel, int panels, std::uint8_t* expanded) {
  Cells cells{};
  const std::size_t bytes = static_cast<std::size_t>(w.blocks()) * kBlockBytes;
  for (int p = 0; p < panels; ++p) {
    if (w.bits == 8) {
      cells.panel[p] = w.panel(panel + p);
    } else {
      avx512::expand(w, w.panel(panel + p), bytes / kCellCodes, true, expanded + p * bytes);
      cells.panel[p] = expanded + p * bytes;
    }
  }
  return cells;
}

void linear(const Linear& l, Range rows, Range panels, const Scratch& scratch) {
  const int groups = l.weights.blocks() * kBlockGroups;
  row_sums(l, rows, scratch.row_sums());
  for (int p = panels.begin; p < panels.end; p += kPanels) {
    const int wide = std::min(kPanels, panels.end - p);
    const Cells cells = cells_of(l.weights, p, wide, scratch.expanded());
    for (int r = rows.begin; r < rows.end; r += kRows) {
      const int high = std::min(kRows, rows.end - r);
      block_of(high, wide)(cells, groups, l.x + r * l.x_stride, l.x_stride, l.bias + p * kPanelOutputs,
                           scratch.row_sums() + (r - rows.begin), scratch.sums());
      avx512::store_block(l, scratch.sums(), kSumsStride, {r, r + high}, {p, p + wide});
    }
  }
}

void do_nothing() {}

}  // namespace

const Kernels& avx512_kernels() {
  static const Kernels table{false,
                             do_nothing,
                             do_nothing,
                             linear,
                             avx512::norm_rows,
                             avx512::gelu_words,
                             avx512::add_words,
                             avx512::gated_add_words,
                             avx512::probabilities,
                             avx512::mix_sums,
                             avx512::route_rows,
                             avx512::pack_keys,
                             avx512::pack_values};
  return table;
}

}  // namespace codesign
