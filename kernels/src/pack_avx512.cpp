// SPDX-License-Identifier: Apache-2.0
// AVX-512: keys and values of a head in panels of cells, as weights are.
#include <algorithm>

#include "operators_avx512.hpp"
#include "simd_avx512.hpp"

namespace codesign::avx512 {
namespace {

__mmask64 first_bytes(int count) {
  return count >= 64 ? ~0ULL : (1ULL << (count > 0 ? count : 0)) - 1;
}

// Stage by stage, element (i, j) of 16 x 16 dwords goes to (j, i).
void transpose(__m512i (&v)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {  // v[4a + i], lane L: rows 4a.. of column 4L + i
    const __m512i a = _mm512_shuffle_i32x4(v[i], v[4 + i], 0x44), b = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0x44);
    const __m512i c = _mm512_shuffle_i32x4(v[i], v[4 + i], 0xEE), d = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0xEE);
    t[i] = _mm512_shuffle_i32x4(a, b, 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(a, b, 0xDD);
    t[8 + i] = _mm512_shuffle_i32x4(c, d, 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(c, d, 0xDD);
  }
  std::copy_n(t, 16, v);
}

}  // namespace

// 16 keys x 64 inputs are 16 x 16 dwords of 4 inputs, which lie transposed in 16 cells.
void pack_keys(const Head& keys, std::uint8_t* cells, bool signed_cells) {
  const __m512i flip = _mm512_set1_epi8(signed_cells ? 0 : -128);
  for (int n = 0; n < keys.rows; n += kPanelOutputs) {
    for (int k = 0; k < keys.columns; k += kBlockInputs, cells += kBlockBytes) {
      __m512i v[16];
      for (int i = 0; i < 16; ++i) {
        const __mmask64 mask = n + i < keys.rows ? first_bytes(keys.columns - k) : 0;
        const std::int8_t* row = keys.data + std::min(n + i, keys.rows - 1) * keys.stride + k;
        v[i] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, row), flip);
      }
      transpose(v);
      for (int i = 0; i < 16; ++i) {
        _mm512_store_si512(cells + i * kCellCodes, v[i]);
      }
    }
  }
}

// 4 keys x 64 dims are a cell in each of 4 panels: bytes of 4 rows are interleaved, then 128-bit lanes transposed.
void pack_values(const Head& values, std::uint8_t* cells, bool signed_cells) {
  const __m512i flip = _mm512_set1_epi8(signed_cells ? 0 : -128);
  const std::size_t panel = round_up(values.rows, kBlockInputs) * kPanelOutputs;
  for (int k = 0; k < values.rows; k += kGroupInputs) {
    std::uint8_t* cell = cells + static_cast<std::size_t>(k) * kPanelOutputs;
    for (int n = 0; n < values.columns; n += 64) {
      __m512i r[4];
      for (int i = 0; i < 4; ++i) {
        const __mmask64 mask = k + i < values.rows ? first_bytes(values.columns - n) : 0;
        const std::int8_t* row = values.data + std::min(k + i, values.rows - 1) * values.stride + n;
        r[i] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, row), flip);
      }
      const __m512i ab0 = _mm512_unpacklo_epi8(r[0], r[1]), ab1 = _mm512_unpackhi_epi8(r[0], r[1]);
      const __m512i cd0 = _mm512_unpacklo_epi8(r[2], r[3]), cd1 = _mm512_unpackhi_epi8(r[2], r[3]);
      const __m512i q0 = _mm512_unpacklo_epi16(ab0, cd0), q1 = _mm512_unpackhi_epi16(ab0, cd0);
      const __m512i q2 = _mm512_unpacklo_epi16(ab1, cd1), q3 = _mm512_unpackhi_epi16(ab1, cd1);
      const __m512i a = _mm512_shuffle_i32x4(q0, q1, 0x44), b = _mm512_shuffle_i32x4(q2, q3, 0x44);
      const __m512i c = _mm512_shuffle_i32x4(q0, q1, 0xEE), d = _mm512_shuffle_i32x4(q2, q3, 0xEE);
      const __m512i out[4] = {_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xDD),
                              _mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xDD)};
      for (int i = 0; i < 4 && n + i * kPanelOutputs < values.columns; ++i) {
        _mm512_store_si512(cell + (n / kPanelOutputs + i) * panel, out[i]);
      }
    }
  }
}

}  // namespace codesign::avx512
