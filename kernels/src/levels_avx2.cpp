// SPDX-License-Identifier: Apache-2.0
// AVX2: VPMADDUBSW on codes of at most 7 bits (no pair saturates), then VPMADDWD with ones to 32 bits.
#include <immintrin.h>

#include <cstring>

#include "levels_narrow.hpp"

namespace codesign::levels {
namespace {

inline __m256i broadcast_lane(const std::uint8_t* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

inline __m256i broadcast_eight(const std::uint8_t* p) {
  long long cell;
  std::memcpy(&cell, p, sizeof cell);
  return _mm256_set1_epi64x(cell);
}

// Half `h` of the codes of a cell.
template <int kBits>
inline __m256i half_cell(const std::uint8_t* cell, int h) {
  const __m256i mask = _mm256_set1_epi8(static_cast<char>((1 << kBits) - 1));
  if constexpr (kBits == 1) {
    const __m256i shift = h == 0 ? _mm256_setr_epi64x(0, 1, 2, 3) : _mm256_setr_epi64x(4, 5, 6, 7);
    return _mm256_and_si256(_mm256_srlv_epi64(broadcast_eight(cell), shift), mask);
  } else if constexpr (kBits == 2) {
    const __m256i shift = h == 0 ? _mm256_setr_epi64x(0, 0, 2, 2) : _mm256_setr_epi64x(4, 4, 6, 6);
    return _mm256_and_si256(_mm256_srlv_epi64(broadcast_lane(cell), shift), mask);
  } else if constexpr (kBits == 4) {
    const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(cell));
    return _mm256_and_si256(h == 0 ? all : _mm256_srli_epi16(all, 4), mask);
  } else {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(cell) + h);
  }
}

template <int kBits>
void expand_bits(const std::uint8_t* cells, int position, bool add, std::uint8_t* codes) {
  const __m128i shift = _mm_cvtsi32_si128(position);
  for (std::int64_t i = 0; i < kCells; ++i) {
    for (int h = 0; h < 2; ++h) {
      auto* to = reinterpret_cast<__m256i*>(codes + i * kCell) + h;
      __m256i v = _mm256_sll_epi16(half_cell<kBits>(cells + i * 8 * kBits, h), shift);
      v = add ? _mm256_or_si256(v, _mm256_load_si256(to)) : v;
      _mm256_store_si256(to, v);
    }
  }
}

inline __m256i broadcast4(const std::int8_t* x) {
  std::int32_t four;
  std::memcpy(&four, x, sizeof four);
  return _mm256_set1_epi32(four);
}

// floor(v) clamped to int8, 4 values.
inline __m128i floored(__m128i sums, __m128i bias, const float* scale) {
  const __m256d wide = _mm256_cvtepi32_pd(_mm_add_epi32(sums, bias));
  const __m256d by = _mm256_cvtps_pd(_mm_loadu_ps(scale));
  const __m256d value = _mm256_floor_pd(_mm256_fmadd_pd(wide, by, _mm256_set1_pd(0.5)));
  return _mm256_cvtpd_epi32(_mm256_max_pd(_mm256_min_pd(value, _mm256_set1_pd(127)), _mm256_set1_pd(-128)));
}

struct Ops {
  static void expand(const std::uint8_t* cells, int bits, int position, bool add, std::uint8_t* codes) {
    switch (bits) {
      case 1:
        return expand_bits<1>(cells, position, add, codes);
      case 2:
        return expand_bits<2>(cells, position, add, codes);
      case 4:
        return expand_bits<4>(cells, position, add, codes);
      default:
        return expand_bits<8>(cells, position, add, codes);
    }
  }

  template <int R>
  struct Sums {
    __m256i sums[R][2];
    Sums() {
      for (auto& row : sums) {
        row[0] = row[1] = _mm256_setzero_si256();
      }
    }

    template <bool kWide>
    void add(const std::uint8_t* codes, const std::int8_t* x, std::int64_t stride) {
      const __m256i ones = _mm256_set1_epi16(1), nibble = _mm256_set1_epi8(15), sixteen = _mm256_set1_epi16(16);
      for (std::int64_t i = 0; i < kCells; ++i) {
        for (int h = 0; h < 2; ++h) {
          const __m256i c = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + i * kCell) + h);
          const __m256i low = kWide ? _mm256_and_si256(c, nibble) : c;
          const __m256i high = _mm256_and_si256(_mm256_srli_epi16(c, 4), nibble);
          for (int r = 0; r < R; ++r) {
            const __m256i four = broadcast4(x + r * stride + i * kGroup);
            sums[r][h] = _mm256_add_epi32(sums[r][h], _mm256_madd_epi16(_mm256_maddubs_epi16(low, four), ones));
            if constexpr (kWide) {
              sums[r][h] = _mm256_add_epi32(sums[r][h], _mm256_madd_epi16(_mm256_maddubs_epi16(high, four), sixteen));
            }
          }
        }
      }
    }

    void total(int r, int shift, std::int32_t* to) const {
      const __m128i count = _mm_cvtsi32_si128(shift);
      for (int h = 0; h < 2; ++h) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(to) + h, _mm256_sll_epi32(sums[r][h], count));
      }
    }
  };

  static void rescale(const std::int32_t* sums, std::int32_t correction, const std::int32_t* bias, const float* scale,
                      std::int8_t* y) {
    __m128i four[4];
    for (int i = 0; i < 4; ++i) {
      const __m128i v =
          _mm_add_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(sums) + i), _mm_set1_epi32(correction));
      four[i] = floored(v, _mm_loadu_si128(reinterpret_cast<const __m128i*>(bias) + i), scale + 4 * i);
    }
    const __m128i all = _mm_packs_epi16(_mm_packs_epi32(four[0], four[1]), _mm_packs_epi32(four[2], four[3]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y), all);
  }

  static std::int8_t rescale_one(double value) {
    const __m128d v = _mm_floor_sd(_mm_setzero_pd(), _mm_set_sd(value));
    const __m128d clamped = _mm_max_sd(_mm_min_sd(v, _mm_set_sd(127)), _mm_set_sd(-128));
    return static_cast<std::int8_t>(_mm_cvtsd_si32(clamped));
  }
};

std::int32_t sum(const std::int8_t* x, std::int64_t inputs) {
  const __m256i ones8 = _mm256_set1_epi8(1), ones16 = _mm256_set1_epi16(1);
  __m256i total = _mm256_setzero_si256();
  for (std::int64_t k = 0; k < inputs; k += 32) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + k));
    total = _mm256_add_epi32(total, _mm256_madd_epi16(_mm256_maddubs_epi16(ones8, v), ones16));
  }
  alignas(32) std::int32_t parts[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts), total);
  std::int32_t result = 0;
  for (const std::int32_t part : parts) {
    result += part;
  }
  return result;
}

// The highest trit of each byte: 3 v / 256; leaves the rest in v.
inline __m256i next_trit(__m256i& v) {
  const __m256i one = _mm256_cmpeq_epi8(_mm256_max_epu8(v, _mm256_set1_epi8(86)), v);
  const __m256i two = _mm256_cmpeq_epi8(_mm256_max_epu8(v, _mm256_set1_epi8(static_cast<char>(171))), v);
  v = _mm256_add_epi8(v, _mm256_add_epi8(v, v));
  return _mm256_sub_epi8(_mm256_setzero_si256(), _mm256_add_epi8(one, two));
}

// Two cells, one a lane of 16 bytes. Shifts by 16 bits are enough: no field leaves its byte.
inline __m256i two_cells(__m256i v) {
  __m256i whole = next_trit(v);
  whole = _mm256_or_si256(whole, _mm256_slli_epi16(next_trit(v), 2));
  whole = _mm256_or_si256(whole, _mm256_slli_epi16(next_trit(v), 4));
  whole = _mm256_or_si256(whole, _mm256_slli_epi16(next_trit(v), 6));
  const __m256i fifth = next_trit(v);
  const __m256i gather =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_shuffle_epi8(fifth, gather), _mm256_set1_epi16(0x0401));
  const __m256i rest = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00100001));
  const __m256i last =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8));
  const __m256i first =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0));
  return _mm256_or_si256(_mm256_and_si256(whole, first), _mm256_shuffle_epi8(rest, last));
}

void trits(const std::uint8_t* in, std::int64_t cells, std::uint8_t* out) {
  std::int64_t cell = 0;
  for (; cell + 3 <= cells; cell += 2, in += 2 * kTritBytes, out += 2 * kTernaryBytes) {  // reads 3 bytes of the third
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + kTritBytes));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), two_cells(_mm256_set_m128i(high, low)));
  }
  kPortable.trits(in, cells - cell, out);
}

}  // namespace

const Kernels kAvx2{sum, narrow_gemm<Ops>, narrow_residual<Ops>, trits};

}  // namespace codesign::levels
