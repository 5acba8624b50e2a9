// SPDX-License-Identifier: Apache-2.0
// Vectors of sums to integers of 8 and 16 bits. For files compiled with AVX-512 only; an unnamed namespace a file.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cstdint>

#include "codesign/gemm.hpp"

namespace codesign {
namespace {

constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

inline __mmask32 first_words(int count) {
  return count >= 32 ? 0xFFFFFFFFU : (1U << (count > 0 ? count : 0)) - 1;
}

// 2^e for a normal float.
inline float power_of_two(int e) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(127 + e) << 23);
}

// floor(v * f + 0.5) in single precision, see Rescale.
inline __m512i rescale_single(__m512i v, __m512 factor) {
  const __m512 x = _mm512_fmadd_round_ps(_mm512_cvtepi32_ps(v), factor, _mm512_set1_ps(0.5F), kDown);
  return _mm512_cvt_roundps_epi32(x, kDown);
}

// The same of 8 in double; results that leave 32 bits still saturate to 16 rightly.
inline __m256i rescale_half(__m256i v, __m512d factor) {
  const __m512d x = _mm512_fmadd_round_pd(_mm512_cvtepi32_pd(v), factor, _mm512_set1_pd(0.5), kNearest);
  return _mm512_cvt_roundpd_epi32(_mm512_min_pd(x, _mm512_set1_pd(65536.0)), kDown);  // below: INT_MIN
}

struct Single {
  __m512 factor;
  Single(const Rescale& r, int column) : factor(_mm512_loadu_ps(r.single + column)) {}
  __m512i operator()(__m512i v) const { return rescale_single(v, factor); }
};

struct Wide {
  __m512d low, high;
  Wide(const Rescale& r, int column)
      : low(_mm512_loadu_pd(r.wide + column)), high(_mm512_loadu_pd(r.wide + column + 8)) {}
  __m512i operator()(__m512i v) const {
    const __m256i a = rescale_half(_mm512_castsi512_si256(v), low);
    const __m256i b = rescale_half(_mm512_extracti64x4_epi64(v, 1), high);
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
  }
};

// Two vectors of 32 bits saturated to one of 16, in the order that vpackssdw leaves: per 128-bit lane 4 of a, 4 of b.
inline __m512i pack_words(__m512i a, __m512i b) {
  return _mm512_packs_epi32(a, b);
}
inline __m512i low_of(__m512i words) {
  return _mm512_srai_epi32(_mm512_unpacklo_epi16(words, words), 16);
}
inline __m512i high_of(__m512i words) {
  return _mm512_srai_epi32(_mm512_unpackhi_epi16(words, words), 16);
}

// The 16-bit words of a, then those of b.
inline __m512i in_order(__m512i words) {
  return _mm512_permutexvar_epi64(_mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0), words);
}

// Four vectors' words (two packed pairs) as bytes in order: a, b, c, d.
inline __m512i pack_bytes(__m512i ab, __m512i cd) {
  const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  return _mm512_permutexvar_epi32(order, _mm512_packs_epi16(ab, cd));
}

// GELU on words with 10 fraction bits, before its requantization (gemm.hpp, Gelu).
struct GeluTable {
  __m512i left[2], slope[2];
  __m512 factor;
  explicit GeluTable(const Gelu& gelu) : factor(_mm512_set1_ps(gelu.factor)) {
    for (int i = 0; i < 2; ++i) {
      left[i] = _mm512_load_si512(gelu.left + 32 * i);
      slope[i] = _mm512_load_si512(gelu.slope + 32 * i);
    }
  }
  __m512i words(__m512i u) const {
    const __m512i a = _mm512_abs_epi16(u);
    const __mmask32 inside = _mm512_cmplt_epu16_mask(a, _mm512_set1_epi16(4096));
    const __m512i i = _mm512_srli_epi16(a, 6);
    const __m512i t = _mm512_maskz_permutex2var_epi16(inside, left[0], i, left[1]);
    const __m512i d = _mm512_maskz_permutex2var_epi16(inside, slope[0], i, slope[1]);
    const __m512i f = _mm512_and_si512(a, _mm512_set1_epi16(63));
    const __m512i step = _mm512_srai_epi16(_mm512_mullo_epi16(d, f), 6);
    const __m512i delta = _mm512_srai_epi16(_mm512_add_epi16(t, step), 4);
    return _mm512_sub_epi16(_mm512_max_epi16(u, _mm512_setzero_si512()), delta);
  }
  // words in, words out, in whatever order
  __m512i operator()(__m512i u) const {
    const __m512i g = words(u);
    return pack_words(rescale_single(low_of(g), factor), rescale_single(high_of(g), factor));
  }
};

}  // namespace
}  // namespace codesign
