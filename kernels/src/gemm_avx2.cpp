// SPDX-License-Identifier: Apache-2.0
// AVX2: bytes are widened to 16 bits and multiplied by vpmaddwd. (vpmaddubsw would saturate.)
#include <immintrin.h>

#include "operators_common.hpp"

namespace codesign {
namespace {

// Loops over registers are unrolled early, or the compiler would keep the arrays of sums in memory.
constexpr int kRows = 3;
constexpr int kQuarters = 4;  // of a cell: 4 outputs x 4 inputs

// words: the rows of x in 16 bits. A quarter's products come in two sums an output, which are added at the end.
template <int kCount>
void cells_sums(const std::int8_t* cells, int groups, const std::int16_t* words, std::ptrdiff_t stride,
                const std::int32_t* bias, std::int32_t* sums) {
  __m256i acc[kCount][kQuarters];
#pragma GCC unroll 8
  for (int r = 0; r < kCount; ++r) {
#pragma GCC unroll 8
    for (int q = 0; q < kQuarters; ++q) {
      acc[r][q] = _mm256_setzero_si256();
    }
  }
  for (int g = 0; g < groups; ++g) {
#pragma GCC unroll 8
    for (int q = 0; q < kQuarters; ++q) {
      const std::int8_t* quarter = cells + static_cast<std::size_t>(g) * kCellCodes + 16 * q;
      const __m256i w = _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(quarter)));
#pragma GCC unroll 8
      for (int r = 0; r < kCount; ++r) {
        std::int64_t four;
        std::memcpy(&four, words + r * stride + g * kGroupInputs, sizeof four);
        acc[r][q] = _mm256_add_epi32(acc[r][q], _mm256_madd_epi16(w, _mm256_set1_epi64x(four)));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kCount; ++r) {
#pragma GCC unroll 8
    for (int half = 0; half < 2; ++half) {
      const __m256i both = _mm256_hadd_epi32(acc[r][2 * half], acc[r][2 * half + 1]);
      const __m256i ordered = _mm256_permute4x64_epi64(both, 0xD8);
      const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bias + 8 * half));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + r * kPanelOutputs + 8 * half),
                          _mm256_add_epi32(ordered, b));
    }
  }
}

void panel_sums(const Linear& l, int row, int rows, const std::int8_t* cells, const std::int32_t* bias,
                const Scratch& scratch) {
  const int inputs = l.weights.blocks() * kBlockInputs;
  for (int r = 0; r < rows; ++r) {
    const std::int8_t* x = l.x + (row + r) * l.x_stride;
    for (int k = 0; k < inputs; k += 16) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + k));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(scratch.words() + r * inputs + k), _mm256_cvtepi8_epi16(bytes));
    }
  }
  const int groups = inputs / kGroupInputs;
  const auto call = rows == 3 ? cells_sums<3> : rows == 2 ? cells_sums<2> : cells_sums<1>;
  call(cells, groups, scratch.words(), inputs, bias, scratch.sums());
}

void linear(const Linear& l, Range rows, Range panels, const Scratch& scratch) {
  linear_by_panels<kRows>(l, rows, panels, scratch, panel_sums);
}

}  // namespace

const Kernels& avx2_kernels() {
  static const Kernels table{true,       do_nothing,   do_nothing,      linear,           norm_rows,
                             gelu_words, add_words,    gated_add_words, probabilities_of, mix_sums,
                             route_rows, pack_keys_of, pack_values_of};
  return table;
}

}  // namespace codesign
