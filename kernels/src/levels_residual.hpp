// SPDX-License-Identifier: Apache-2.0
// The residual format as two products of 8 bits. What base and planes of an input stand for, w = A0 u0 - Z + the sum of
// +-Ap, fits int16 (|A| <= 4095, 0 <= Z <= 3 * 4095), and w + 2^15 is a low and a high byte: panels 2 i and 2 i + 1. So
// sums run through all groups of inputs, and only 2^15 times the sum of the row is left to subtract.
//
// Bytes are looked up: a lane of 16 bytes holds 4 outputs x 4 inputs, and VPSHUFB's table of 16 the four values that
// the base can give each of these outputs in a group. There is a table for each setting of the planes' bits.
#pragma once

#include <numeric>

#include "levels_avx512.hpp"

namespace codesign::levels {
namespace {

template <int kPlanes>
class Bytes {
 public:
  static constexpr bool kTiles = false;
  static constexpr bool kPairs = true;
  static constexpr bool kFourPanels = true;

  struct Panel {
    const std::uint8_t* base;
    const std::uint8_t* plane[kMaxPlanes];
    std::int64_t index;
  };

  Bytes(const ResidualWeight& weight, std::int64_t chunks)
      : weight_(weight), chunks_(chunks), base_({weight.base, 2, 0}, chunks), plane_({nullptr, 1, 0}, chunks) {}

  Panel panel(std::int64_t number) const {
    const std::int64_t index = number / 2, bytes = panel_bytes(chunks_, 1);
    Panel to{weight_.base + index * panel_bytes(chunks_, 2), {}, index};
    for (int p = 0; p < kPlanes; ++p) {
      to.plane[p] = weight_.plane[p] + index * bytes;
    }
    return to;
  }

  // The cells of a chunk; chunks of a panel come one after the other, the first of a group first. `turn`: which of two
  // panels, when they take turns.
  void pair(const Panel& from, int turn, std::int64_t chunk, std::uint8_t* low, std::uint8_t* high) const {
    if (chunk % kGroupChunks == 0) {
      fill(from.index, chunk / kGroupChunks, tables_[turn]);
    }
    const Tables tables = tables_[turn];  // a store of codes could otherwise change it
    const __m512i field = base_.lane_shift, bit = plane_.mask;
    const __m512i lanes = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0C0C0C0C));
#pragma GCC unroll 4
    for (std::int64_t i = 0; i < kCells; ++i) {
      const std::int64_t at = chunk * kCells + i;
      const __m512i codes = _mm512_srlv_epi32(broadcast<2>(from.base + at * 16), field);
      const __m512i index = _mm512_ternarylogic_epi32(codes, _mm512_set1_epi8(3), lanes, 0xEA);  // (a & b) | c
      __m512i a = _mm512_shuffle_epi8(tables.low[0], index), b = _mm512_shuffle_epi8(tables.high[0], index);
      if constexpr (kPlanes > 0) {
        const __mmask64 set = _mm512_test_epi8_mask(broadcast<1>(from.plane[0] + at * 8), bit);
        a = _mm512_mask_shuffle_epi8(a, set, tables.low[1], index);
        b = _mm512_mask_shuffle_epi8(b, set, tables.high[1], index);
        if constexpr (kPlanes > 1) {
          const __mmask64 other = _mm512_test_epi8_mask(broadcast<1>(from.plane[1] + at * 8), bit);
          a = _mm512_mask_shuffle_epi8(a, other, tables.low[2], index);
          b = _mm512_mask_shuffle_epi8(b, other, tables.high[2], index);
          a = _mm512_mask_shuffle_epi8(a, _kand_mask64(set, other), tables.low[3], index);
          b = _mm512_mask_shuffle_epi8(b, _kand_mask64(set, other), tables.high[3], index);
        }
      }
      _mm512_store_si512(low + i * kCell, a);
      _mm512_store_si512(high + i * kCell, b);
    }
  }

 private:
  static constexpr std::int64_t kGroupChunks = kResidualGroup / kChunk;

  struct Tables {
    __m512i low[1 << kPlanes], high[1 << kPlanes];
  };

  // The bytes that outputs of a panel can have in a group.
  void fill(std::int64_t panel, std::int64_t group, Tables& tables) const {
    const std::int64_t at = group * weight_.outputs + panel * kPanel;
    const __mmask16 mask = panel_mask(weight_.outputs, panel);
    const auto multiplier = [&](const std::int16_t* of) {
      return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, of + at));
    };
    const __m512i step = multiplier(weight_.base_multiplier);
    __m512i plane[kPlanes + 1], least = _mm512_set1_epi32(1 << 15);
    least = _mm512_sub_epi32(least, _mm512_maskz_loadu_epi32(mask, weight_.base_zero + at));
    for (int p = 0; p < kPlanes; ++p) {
      plane[p] = multiplier(weight_.plane_multiplier[p]);
      least = _mm512_sub_epi32(least, plane[p]);
    }
    for (int set = 0; set < 1 << kPlanes; ++set) {
      __m512i w = least;
      for (int p = 0; p < kPlanes; ++p) {
        w = (set >> p & 1) == 0 ? w : _mm512_add_epi32(w, _mm512_slli_epi32(plane[p], 1));
      }
      to_bytes(w, step, tables.low[set], tables.high[set]);
    }
  }

  // Bytes of w, w + step, w + 2 step and w + 3 step of each output.
  static void to_bytes(__m512i w, __m512i step, __m512i& low, __m512i& high) {
    const __m512i second = _mm512_add_epi32(w, step), third = _mm512_add_epi32(second, step);
    const __m512i fourth = _mm512_add_epi32(third, step);
    const __m512i first_words = _mm512_mask_blend_epi16(0xAAAAAAAA, w, _mm512_slli_epi32(second, 16));
    const __m512i last_words = _mm512_mask_blend_epi16(0xAAAAAAAA, third, _mm512_slli_epi32(fourth, 16));
    const __m512i low_first =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
    const __m512i high_first =
        _mm512_broadcast_i32x4(_mm_setr_epi8(1, 3, 0, 2, 5, 7, 4, 6, 9, 11, 8, 10, 13, 15, 12, 14));
    const __m512i first = _mm512_shuffle_epi8(first_words, low_first);
    const __m512i last = _mm512_shuffle_epi8(last_words, high_first);
    low = _mm512_mask_blend_epi16(0xAAAAAAAA, first, last);
    high = _mm512_rol_epi32(_mm512_mask_blend_epi16(0xAAAAAAAA, last, first), 16);
  }

  const ResidualWeight& weight_;
  std::int64_t chunks_;
  Single<2> base_;
  Single<1> plane_;
  mutable Tables tables_[2];
};

// Where the sums of pairs of panels go.
class ByteSums {
 public:
  ByteSums(const ResidualRows& rows, const ResidualWeight& weight, std::int64_t* acc, bool accumulate)
      : weight_(weight), acc_(acc), accumulate_(accumulate) {
    for (std::int64_t t = 0; t < rows.count; ++t) {
      const std::int32_t* sums = rows.sums + t * rows.groups;
      minus_[t] = -(std::accumulate(sums, sums + rows.groups, std::int64_t{0}) << 15);
    }
  }

  // acc (+)= 2^8 high + low - 2^15 times the sum of the row.
  void put(std::int64_t row, std::int64_t panel, __m512i low, __m512i high) const {
    const __m512i minus = _mm512_set1_epi64(minus_[row]);
    const __mmask16 mask = panel_mask(weight_.outputs, panel);
    std::int64_t* to = acc_ + row * weight_.outputs + panel * kPanel;
    add(whole(_mm512_castsi512_si256(low), _mm512_castsi512_si256(high), minus), static_cast<__mmask8>(mask), to);
    add(whole(_mm512_extracti64x4_epi64(low, 1), _mm512_extracti64x4_epi64(high, 1), minus),
        static_cast<__mmask8>(mask >> 8), to + 8);
  }

 private:
  static __m512i whole(__m256i low, __m256i high, __m512i minus) {
    const __m512i top = _mm512_slli_epi64(_mm512_cvtepi32_epi64(high), 8);
    return _mm512_add_epi64(_mm512_add_epi64(top, _mm512_cvtepi32_epi64(low)), minus);
  }

  void add(__m512i sums, __mmask8 mask, std::int64_t* to) const {
    const __m512i before = accumulate_ ? _mm512_maskz_loadu_epi64(mask, to) : _mm512_setzero_si512();
    _mm512_mask_storeu_epi64(to, mask, _mm512_add_epi64(before, sums));
  }

  const ResidualWeight& weight_;
  std::int64_t* acc_;
  bool accumulate_;
  std::int64_t minus_[kRowBlock];
};

}  // namespace
}  // namespace codesign::levels
