// SPDX-License-Identifier: Apache-2.0
// AVX-512: norm, GELU and additions.
#include "operators_avx512.hpp"

#include "operators_common.hpp"
#include "simd_avx512.hpp"

namespace codesign::avx512 {
namespace {

struct Moments {
  std::int64_t sum, squares;
  int largest;  // magnitude
};

// The magnitude is asked for only where it matters: dim * |x| + |sum| <= 2^16 * dim.
constexpr int kAlwaysSingle = 256;

Moments moments(const std::int16_t* x, int count) {
  const __m512i ones = _mm512_set1_epi16(1), low = _mm512_set1_epi64(0xFFFFFFFF);
  __m512i sum = _mm512_setzero_si512(), even = sum, odd = sum, largest = sum;
  for (int i = 0; i < count; i += 32) {
    const __m512i v = _mm512_maskz_loadu_epi16(first_words(count - i), x + i);
    sum = _mm512_dpwssd_epi32(sum, v, ones);
    const __m512i squares = _mm512_madd_epi16(v, v);  // up to 2^31: unsigned
    even = _mm512_add_epi64(even, _mm512_and_si512(squares, low));
    odd = _mm512_add_epi64(odd, _mm512_srli_epi64(squares, 32));
    if (count > kAlwaysSingle) {
      largest = _mm512_max_epu16(largest, _mm512_abs_epi16(v));
    }
  }
  int reach = 0;
  if (count > kAlwaysSingle) {
    const __m512i pairs =
        _mm512_max_epu32(_mm512_and_si512(largest, _mm512_set1_epi32(0xFFFF)), _mm512_srli_epi32(largest, 16));
    reach = static_cast<int>(_mm512_reduce_max_epu32(pairs));
  }
  return {_mm512_reduce_add_epi32(sum), _mm512_reduce_add_epi64(_mm512_add_epi64(even, odd)), reach};
}

// n * gain + bias, shifted, of 16 + 16 columns: floor((dim * x - sum) * R * 2^-(12 + e) + 0.5) as in Rescale.
struct Affine {
  __m512 dim, sum, factor;
  __m128i shift;

  __m512i normalised(__m512i x) const {
    const __m512 c = _mm512_fmsub_ps(_mm512_cvtepi32_ps(x), dim, sum);  // exact: below 2^24
    return _mm512_cvt_roundps_epi32(_mm512_fmadd_round_ps(c, factor, _mm512_set1_ps(0.5F), kDown), kDown);
  }

  __m512i operator()(const Norm& norm, const std::int16_t* x, int column) const {
    const __m512i v = _mm512_loadu_si512(x + column);
    const __m512i a = normalised(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(v)));
    const __m512i b = normalised(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(v, 1)));
    const __m512i n = pack_words(a, b), gain = _mm512_loadu_si512(norm.gain_packed + column);
    const __m512i low = _mm512_mullo_epi16(n, gain), high = _mm512_mulhi_epi16(n, gain);
    const __m512i first =
        _mm512_add_epi32(_mm512_unpacklo_epi16(low, high), _mm512_loadu_si512(norm.bias_narrow + column));
    const __m512i second =
        _mm512_add_epi32(_mm512_unpackhi_epi16(low, high), _mm512_loadu_si512(norm.bias_narrow + column + 16));
    return pack_words(_mm512_sra_epi32(first, shift), _mm512_sra_epi32(second, shift));
  }
};

}  // namespace

void norm_rows(const Norm& norm, Range rows) {
  for (int r = rows.begin; r < rows.end; ++r) {
    const std::int16_t* x = norm.x + r * norm.x_stride;
    std::int8_t* y = norm.y + r * norm.y_stride;
    const Moments m = moments(x, norm.dim);
    const std::int64_t variance = norm.dim * m.squares - m.sum * m.sum;
    const std::int64_t reach = std::int64_t{norm.dim} * m.largest + (m.sum < 0 ? -m.sum : m.sum);
    if (!norm.narrow || variance == 0 || reach > (1 << 24)) {
      norm_row(norm, x, y);
      continue;
    }
    const Mantissa root = rsqrt(*norm.tables, variance);
    const float scale = static_cast<float>(root.value) * power_of_two(-(12 + root.exponent));
    const Affine affine{_mm512_set1_ps(static_cast<float>(norm.dim)), _mm512_set1_ps(static_cast<float>(m.sum)),
                        _mm512_set1_ps(scale), _mm_cvtsi32_si128(norm.shift)};
    for (int c = 0; c < norm.dim; c += 64) {
      _mm512_storeu_si512(y + c, pack_bytes(affine(norm, x, c), affine(norm, x, c + 32)));
    }
  }
}

void gelu_words(const Gelu& gelu, const std::int16_t* u, std::int8_t* y, int count) {
  const GeluTable table(gelu);
  for (int i = 0; i < count; i += 32) {
    const __mmask32 mask = first_words(count - i);
    const __m512i words = table(_mm512_maskz_loadu_epi16(mask, u + i));
    _mm512_mask_cvtsepi16_storeu_epi8(y + i, mask, words);
  }
}

void add_words(const std::int16_t* a, const std::int16_t* b, std::int16_t* y, int count) {
  for (int i = 0; i < count; i += 32) {
    const __mmask32 mask = first_words(count - i);
    const __m512i sum = _mm512_adds_epi16(_mm512_maskz_loadu_epi16(mask, a + i), _mm512_maskz_loadu_epi16(mask, b + i));
    _mm512_mask_storeu_epi16(y + i, mask, sum);
  }
}

// vpmulhrsw is (o * gate + 2^14) >> 15 for a gate of 15 bits.
void gated_add_words(std::int16_t* y, const std::int16_t* o, std::uint32_t gate, int count) {
  if (gate > 32767) {
    codesign::gated_add_words(y, o, gate, count);
    return;
  }
  const __m512i g = _mm512_set1_epi16(static_cast<short>(gate));
  for (int i = 0; i < count; i += 32) {
    const __mmask32 mask = first_words(count - i);
    const __m512i part = _mm512_mulhrs_epi16(_mm512_maskz_loadu_epi16(mask, o + i), g);
    _mm512_mask_storeu_epi16(y + i, mask, _mm512_adds_epi16(_mm512_maskz_loadu_epi16(mask, y + i), part));
  }
}

}  // namespace codesign::avx512
