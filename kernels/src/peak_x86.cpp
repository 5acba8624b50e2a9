// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "codesign/operators.hpp"
#include "codesign/peak.hpp"

namespace codesign {

// Sixteen named registers: the compiler would keep an array of sums in memory.
void spin_vnni(int rounds) {
  for (int i = 0; i < rounds; ++i) {
    __asm__ volatile(
        ".irp sum, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
        "vpdpbusd %%zmm30, %%zmm31, %%zmm\\sum\n"
        ".endr" ::
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
              "xmm13", "xmm14", "xmm15");
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
