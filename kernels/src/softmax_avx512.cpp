// SPDX-License-Identifier: Apache-2.0
// AVX-512: probabilities, the mean that they weigh, and gates.
#include "operators_avx512.hpp"
#include "operators_common.hpp"
#include "simd_avx512.hpp"

namespace codesign::avx512 {
namespace {

// A table of 256 words in registers, looked up by the low 8 bits of each word.
struct WordTable {
  __m512i part[8];
  explicit WordTable(const std::uint16_t* words) {
    for (int i = 0; i < 8; ++i) {
      part[i] = _mm512_loadu_si512(words + 32 * i);
    }
  }
  __m512i operator()(__m512i index) const {
    const __mmask32 bit6 = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
    const __mmask32 bit7 = _mm512_test_epi16_mask(index, _mm512_set1_epi16(128));
    const __m512i a = _mm512_permutex2var_epi16(part[0], index, part[1]);
    const __m512i b = _mm512_permutex2var_epi16(part[2], index, part[3]);
    const __m512i c = _mm512_permutex2var_epi16(part[4], index, part[5]);
    const __m512i d = _mm512_permutex2var_epi16(part[6], index, part[7]);
    const __m512i low = _mm512_mask_blend_epi16(bit6, a, b), high = _mm512_mask_blend_epi16(bit6, c, d);
    return _mm512_mask_blend_epi16(bit7, low, high);
  }
};

// PROB of 32 distances: (T[d & 255] + (1 << (7 + i))) >> (8 + i), i = d >> 8; shifts of 16 and more give 0.
__m512i probability(const WordTable& table, __m512i d) {
  const __m512i i = _mm512_srli_epi16(d, 8);
  const __m512i half = _mm512_sllv_epi16(_mm512_set1_epi16(128), i);
  return _mm512_srlv_epi16(_mm512_add_epi16(table(d), half), _mm512_add_epi16(i, _mm512_set1_epi16(8)));
}

int largest_of(__m512i words) {
  const __m512i even = _mm512_srai_epi32(_mm512_slli_epi32(words, 16), 16), odd = _mm512_srai_epi32(words, 16);
  return _mm512_reduce_max_epi32(_mm512_max_epi32(even, odd));
}

}  // namespace

std::int64_t probabilities(const Tables& tables, const std::int16_t* t, std::uint8_t* p, int count) {
  const __m512i lowest = _mm512_set1_epi16(-32768);
  __m512i largest = lowest;
  for (int j = 0; j < count; j += 32) {
    largest = _mm512_max_epi16(largest, _mm512_mask_loadu_epi16(lowest, first_words(count - j), t + j));
  }
  const __m512i top = _mm512_set1_epi16(static_cast<short>(largest_of(largest)));
  const WordTable table(tables.probability);
  const __m512i ones = _mm512_set1_epi16(1);
  __m512i total = _mm512_setzero_si512();
  for (int j = 0; j < count; j += 32) {
    const __mmask32 mask = first_words(count - j);
    const __m512i d = _mm512_sub_epi16(top, _mm512_maskz_loadu_epi16(mask, t + j));  // 16 bits, unsigned
    const __m512i v = _mm512_maskz_mov_epi16(mask, probability(table, d));
    total = _mm512_dpwssd_epi32(total, v, ones);
    _mm512_mask_cvtepi16_storeu_epi8(p + j, mask, v);
  }
  return _mm512_reduce_add_epi32(total);  // below 2^24
}

// |sums| <= 128 * total, so that they fit single precision where that is at most 2^24.
void mix_sums(const Mix& mix, const std::int32_t* sums, std::int64_t total, std::int8_t* y, int count) {
  if (total > (1 << 17)) {
    codesign::mix_sums(mix, sums, total, y, count);
    return;
  }
  const Mantissa r = reciprocal(*mix.tables, total);
  const __m512 mean = _mm512_set1_ps(static_cast<float>(r.value) * power_of_two(-(22 + r.exponent)));
  const __m512 out = _mm512_set1_ps(static_cast<float>(mix.factor));
  const __m512i low = _mm512_set1_epi32(-32768), high = _mm512_set1_epi32(32767);
  for (int c = 0; c < count; c += 16) {
    const __mmask16 mask = static_cast<__mmask16>(first_words(count - c));
    const __m512i z = rescale_single(_mm512_maskz_loadu_epi32(mask, sums + c), mean);
    const __m512i words = _mm512_min_epi32(_mm512_max_epi32(z, low), high);
    _mm512_mask_cvtsepi32_storeu_epi8(y + c, mask, rescale_single(words, out));
  }
}

// One vector holds the logits of a row; the first of the largest is the lowest set bit of a comparison.
void route_rows(const Route& route, Range rows) {
  if (route.experts > 32) {
    codesign::route_rows(route, rows);
    return;
  }
  const WordTable table(route.tables->exp2);
  const __mmask32 all = first_words(route.experts);
  const __m512i lowest = _mm512_set1_epi16(-32768), low = _mm512_set1_epi32(0xFFFF);
  for (int r = rows.begin; r < rows.end; ++r) {
    const std::int16_t* t = route.logits + r * route.logits_stride;
    std::uint16_t* gates = route.gates + r * route.gates_stride;
    const __m512i v = _mm512_mask_loadu_epi16(lowest, all, t);
    const int top = largest_of(v);
    const __m512i d = _mm512_sub_epi16(_mm512_set1_epi16(static_cast<short>(top)), v);
    const __m512i x = _mm512_maskz_srlv_epi16(all, table(d), _mm512_srli_epi16(d, 8));
    const int total = _mm512_reduce_add_epi32(_mm512_add_epi32(_mm512_and_si512(x, low), _mm512_srli_epi32(x, 16)));
    const Mantissa inverse = reciprocal(*route.tables, total);
    alignas(64) std::uint16_t weights[32];
    _mm512_store_si512(weights, x);
    _mm512_mask_storeu_epi16(gates, all, _mm512_setzero_si512());
    __mmask32 left = all;
    for (int chosen = 0, largest = top; chosen < route.top_k; ++chosen) {
      if (chosen > 0) {
        largest = largest_of(_mm512_mask_mov_epi16(lowest, left, v));
      }
      const __mmask32 equal = _mm512_mask_cmpeq_epi16_mask(left, v, _mm512_set1_epi16(static_cast<short>(largest)));
      const int best = std::countr_zero(static_cast<std::uint32_t>(equal));
      left &= ~(1U << best);
      gates[best] = gate_of(weights[best], inverse);
    }
  }
}

}  // namespace codesign::avx512
