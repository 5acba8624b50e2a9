// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "codesign/operators.hpp"
#include "codesign/peak.hpp"

namespace codesign {

void spin_vnni(int rounds) {
  __m512i sums[16];
  for (__m512i& sum : sums) {
    sum = _mm512_setzero_si512();
  }
  const __m512i a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
  for (int i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) {
      sums[j] = _mm512_dpbusd_epi32(sums[j], a, b);
      __asm__ volatile("" : "+v"(sums[j]));
    }
  }
}

void spin_amx(int rounds) {
  amx_kernels().enter();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(6);
  for (int i = 0; i < rounds; ++i) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 6);
    _tile_dpbssd(2, 4, 6);
    _tile_dpbssd(3, 4, 6);
  }
  amx_kernels().leave();
}

}  // namespace codesign
