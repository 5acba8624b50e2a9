// SPDX-License-Identifier: Apache-2.0
// Expansion of packed cells in registers, and what becomes of a panel's sums; for AVX-512 with VNNI, VBMI and GFNI.
//
// One level: its digits stay where they are in the byte, so a cell takes a broadcast and one AND; the sums of lane i
// (outputs that lie in field i) are then too large by 2^(bits * i), a power of two that is shifted out at the end.
// They cannot wrap: 240 * 128 * 8192 < 2^31. Several levels: a product with a matrix of bits (GF2P8AFFINEQB) moves each
// field to its place in the code, and the levels are ORed.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "levels_kernels.hpp"

namespace codesign::levels {
namespace {

constexpr std::int64_t kCells = kChunk / kGroup;  // of a chunk and panel

template <int kBits>
inline __m512i broadcast(const std::uint8_t* p) {
  if constexpr (kBits == 1) {
    std::int64_t cell;
    std::memcpy(&cell, p, sizeof cell);
    return _mm512_set1_epi64(cell);
  } else if constexpr (kBits == 2) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  } else if constexpr (kBits == 4) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  } else {
    return _mm512_loadu_si512(p);
  }
}

inline __m512i broadcast4(const std::int8_t* x) {
  std::int32_t four;
  std::memcpy(&four, x, sizeof four);
  return _mm512_set1_epi32(four);
}

// One level, digits left in their fields.
template <int kBits>
struct Single {
  static constexpr bool kScaled = true;
  static constexpr bool kFourPanels = true;   // at once, even short ones
  static constexpr bool kTiles = kBits == 8;  // cells are codes already
  static constexpr bool kPairs = false;       // two panels are expanded together
  __m512i mask, lane_shift;
  __m128i position;
  const std::uint8_t* cells;
  std::int64_t panel_stride;

  Single(const Level& level, std::int64_t chunks)
      : position(_mm_cvtsi32_si128(level.position)), cells(level.cells), panel_stride(panel_bytes(chunks, kBits)) {
    alignas(64) std::uint64_t masks[8];
    alignas(64) std::int32_t shifts[16];
    for (int q = 0; q < 8; ++q) {
      const int shift = kBits * (q / kBits);
      masks[q] = 0x0101010101010101ULL * (((1U << kBits) - 1) << shift);
      shifts[2 * q] = shifts[2 * q + 1] = shift;
    }
    mask = _mm512_load_si512(masks);
    lane_shift = _mm512_load_si512(shifts);
  }

  struct Panel {
    const std::uint8_t* cells;
  };
  Panel panel(std::int64_t index) const { return {cells + index * panel_stride}; }
  __m512i cell(const Panel& p, std::int64_t index) const {
    const __m512i all = broadcast<kBits>(p.cells + index * 8 * kBits);
    return kBits == 8 ? all : _mm512_and_si512(all, mask);
  }
  __m512i finish(__m512i sums) const {
    return _mm512_sll_epi32(kBits == 8 ? sums : _mm512_srav_epi32(sums, lane_shift), position);
  }
};

// The matrix, per lane of 8 bytes, that takes the level's field to its place in the code.
inline __m512i field_matrix(const Level& level) {
  alignas(64) std::uint64_t matrices[8];
  for (int q = 0; q < 8; ++q) {
    const int shift = level.bits * (q / level.bits);
    matrices[q] = 0;
    for (int t = 0; t < level.bits; ++t) {
      matrices[q] |= std::uint64_t{1} << (8 * (7 - (level.position + t)) + shift + t);
    }
  }
  return _mm512_load_si512(matrices);
}

// Levels of kBits..., ORed to whole codes.
template <int kBits0, int kBits1, int kBits2>
struct Combined {
  static constexpr bool kScaled = false;
  static constexpr bool kTiles = false;
  static constexpr bool kPairs = false;
  static constexpr int kCount = kBits2 == 0 ? 2 : 3;
  static constexpr bool kFourPanels = kCount == 2;  // prefetchers do not follow twelve short streams
  __m512i matrix0, matrix1, matrix2;
  const std::uint8_t* cells[3];
  std::int64_t panel_stride[3];

  Combined(const LevelWeight& weight, std::int64_t chunks)
      : matrix0(field_matrix(weight.levels[0])),
        matrix1(field_matrix(weight.levels[1])),
        matrix2(kCount == 3 ? field_matrix(weight.levels[2]) : _mm512_setzero_si512()) {
    for (int l = 0; l < kCount; ++l) {
      cells[l] = weight.levels[l].cells;
      panel_stride[l] = panel_bytes(chunks, weight.levels[l].bits);
    }
  }

  struct Panel {
    const std::uint8_t *cells0, *cells1, *cells2;
  };
  Panel panel(std::int64_t index) const {
    return {cells[0] + index * panel_stride[0], cells[1] + index * panel_stride[1],
            kCount == 3 ? cells[2] + index * panel_stride[2] : nullptr};
  }
  __m512i cell(const Panel& p, std::int64_t index) const {
    const __m512i a = _mm512_gf2p8affine_epi64_epi8(broadcast<kBits0>(p.cells0 + index * 8 * kBits0), matrix0, 0);
    const __m512i b = _mm512_gf2p8affine_epi64_epi8(broadcast<kBits1>(p.cells1 + index * 8 * kBits1), matrix1, 0);
    if constexpr (kCount == 2) {
      return _mm512_or_si512(a, b);
    } else {
      const __m512i c = _mm512_gf2p8affine_epi64_epi8(broadcast<kBits2>(p.cells2 + index * 8 * kBits2), matrix2, 0);
      return _mm512_ternarylogic_epi32(a, b, c, 0xFE);
    }
  }
  __m512i finish(__m512i sums) const { return sums; }
};

// Cells that were expanded before: 64 bytes a cell, one panel after another.
template <class Expander>
struct Expanded {
  const Expander& expander;
  const std::uint8_t* codes;
  std::int64_t first, panel_stride;

  struct Panel {
    const std::uint8_t* cells;
  };
  Panel panel(std::int64_t index) const { return {codes + (index - first) * panel_stride}; }
  __m512i cell(const Panel& p, std::int64_t index) const { return _mm512_load_si512(p.cells + index * kCell); }
  __m512i finish(__m512i sums) const { return expander.finish(sums); }
};

// Calls `f` with the expander of the weight's levels; false where there is none for this set of levels.
template <class F>
bool with_expander(const LevelWeight& w, std::int64_t chunks, F&& f) {
  const auto bits = [&](int l) { return l < w.count ? w.levels[l].bits : 0; };
  if (bits(1) == 0) {
    switch (bits(0)) {
      case 1:
        f(Single<1>(w.levels[0], chunks));
        return true;
      case 2:
        f(Single<2>(w.levels[0], chunks));
        return true;
      case 4:
        f(Single<4>(w.levels[0], chunks));
        return true;
      default:
        f(Single<8>(w.levels[0], chunks));
        return true;
    }
  }
  if (bits(0) == 2 && bits(1) == 2 && bits(2) == 0) {
    f(Combined<2, 2, 0>(w, chunks));
    return true;
  }
  if (bits(0) == 2 && bits(1) == 4 && bits(2) == 0) {
    f(Combined<2, 4, 0>(w, chunks));
    return true;
  }
  if (bits(0) == 2 && bits(1) == 2 && bits(2) == 4) {
    f(Combined<2, 2, 4>(w, chunks));
    return true;
  }
  return false;
}

// Eight sums times scale plus `addend`, rounded down. One rounding in the fused multiply-add, which is exact: all is a
// multiple of 2^-shift below 2^(53 - shift), or for shifts above 53 so small that the result is 0 (docs/edge.md, 2).
inline __m512i rescaled(__m256i sums, __m512d scale, __m512d addend) {
  constexpr int kFloor = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  return _mm512_cvt_roundpd_epi64(_mm512_fmadd_pd(_mm512_cvtepi32_pd(sums), scale, addend), kFloor);
}

// The outputs that a panel has.
inline __mmask16 panel_mask(std::int64_t outputs, std::int64_t panel) {
  const std::int64_t left = outputs - panel * kPanel;
  return static_cast<__mmask16>(left >= kPanel ? 0xFFFF : (1 << left) - 1);
}

// What all rows of a panel share on the way out.
struct PanelOutput {
  std::int32_t* acc;  // at the panel's first column
  std::int8_t* y;
  const std::int64_t stride, column;
  const bool accumulate;
  __mmask16 mask;
  __m512d scale_low, scale_high, addend_low, addend_high;  // addend: bias * scale + 0.5
  bool small;                                              // every scale is below 1, so that results are int32

  PanelOutput(const Output& o, std::int64_t panel)
      : acc(o.acc == nullptr ? nullptr : o.acc + panel * kPanel),
        y(o.y == nullptr ? nullptr : o.y + panel * kPanel),
        stride(o.outputs),
        column(panel * kPanel),
        accumulate(o.accumulate) {
    mask = panel_mask(o.outputs, panel);
    scale_low = scale_high = addend_low = addend_high = _mm512_setzero_pd();
    small = true;
    if (o.acc == nullptr) {
      const __m512d half = _mm512_set1_pd(0.5), one = _mm512_set1_pd(1);
      const __m512i bias = _mm512_maskz_loadu_epi32(mask, o.rescale.bias + column);
      const __m512 scale = _mm512_maskz_loadu_ps(mask, o.rescale.scale + column);
      scale_low = _mm512_cvtps_pd(_mm512_castps512_ps256(scale));
      scale_high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(scale, 1));
      addend_low = _mm512_fmadd_pd(_mm512_cvtepi32_pd(_mm512_castsi512_si256(bias)), scale_low, half);
      addend_high = _mm512_fmadd_pd(_mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(bias, 1)), scale_high, half);
      small = (_mm512_cmp_pd_mask(scale_low, one, _CMP_GE_OQ) | _mm512_cmp_pd_mask(scale_high, one, _CMP_GE_OQ)) == 0;
    }
  }

  __m128i narrow(__m512i sums) const {
    const __m512i low = rescaled(_mm512_castsi512_si256(sums), scale_low, addend_low);
    const __m512i high = rescaled(_mm512_extracti64x4_epi64(sums, 1), scale_high, addend_high);
    if (small) {
      const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
      return _mm512_cvtsepi32_epi8(_mm512_permutex2var_epi32(low, even, high));
    }
    return _mm_unpacklo_epi64(_mm512_cvtsepi64_epi8(low), _mm512_cvtsepi64_epi8(high));
  }

  void emit(std::int64_t row, __m512i sums, std::int32_t correction) const {
    sums = _mm512_add_epi32(sums, _mm512_set1_epi32(correction));
    if (acc == nullptr) {
      _mm_mask_storeu_epi8(y + row * stride, mask, narrow(sums));
      return;
    }
    std::int32_t* to = acc + row * stride;
    if (accumulate) {
      sums = _mm512_add_epi32(sums, _mm512_maskz_loadu_epi32(mask, to));
    }
    _mm512_mask_storeu_epi32(to, mask, sums);
  }
};

// Sets of levels without an expander: each level by itself, added to acc. Needs sums, so y goes through an array of
// them.
inline void by_level(LevelKernel gemm, const Rows& rows, const LevelWeight& weight, const Output& out,
                     PanelRange panels) {
  Output sums = out;
  if (out.acc == nullptr) {
    sums.acc = static_cast<std::int32_t*>(
        scratch(Slot::products, sizeof(std::int32_t) * static_cast<std::size_t>(rows.count * weight.outputs)));
    sums.accumulate = false;
  }
  alignas(64) static thread_local std::int32_t zeros[kRowBlock];
  for (int l = 0; l < weight.count; ++l) {
    LevelWeight one = weight;
    one.count = 1;
    one.levels[0] = weight.levels[l];
    Rows part = rows;
    part.corrections = l == 0 ? rows.corrections : zeros;
    gemm(part, one, sums, panels);
    sums.accumulate = true;
  }
  if (out.acc == nullptr) {
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const PanelOutput to(out, panel);
      for (std::int64_t t = 0; t < rows.count; ++t) {
        to.emit(t, _mm512_maskz_loadu_epi32(to.mask, sums.acc + t * weight.outputs + to.column), 0);
      }
    }
  }
}

}  // namespace

// Rows by VPDPBUSD; also what AMX uses for one or two rows.
void gemm_avx512(const Rows& rows, const LevelWeight& weight, const Output& out, PanelRange panels);
std::int32_t sum_avx512(const std::int8_t* x, std::int64_t inputs);
void residual_avx512(const ResidualRows& rows, const ResidualWeight& weight, std::int64_t* acc, bool accumulate,
                     PanelRange panels);
void residual_amx(const ResidualRows& rows, const ResidualWeight& weight, std::int64_t* acc, bool accumulate,
                  PanelRange panels);
void trits_avx512(const std::uint8_t* in, std::int64_t cells, std::uint8_t* out);

}  // namespace codesign::levels
