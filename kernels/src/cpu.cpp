// SPDX-License-Identifier: Apache-2.0
#include "codesign/cpu.hpp"

#include <initializer_list>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace codesign {
namespace {

#if defined(__x86_64__)
bool has_avx512_vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("gfni");
}

// Linux gives a process the tile registers only on request (Documentation/arch/x86/xstate.rst).
bool has_amx_int8() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;
  constexpr long kTileData = 18;
  unsigned eax = 7, ebx = 0, ecx = 0, edx = 0;
  __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  constexpr unsigned kTile = 1U << 24, kInt8 = 1U << 25;
  if ((edx & kTile) == 0 || (edx & kInt8) == 0)
    return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

bool detect(Variant variant) {
  switch (variant) {
    case Variant::portable:
      return true;
#if defined(__aarch64__)
    case Variant::neon:
      return true;
#endif
#if defined(__x86_64__)
    case Variant::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Variant::avx512_vnni:
      return has_avx512_vnni();
    case Variant::amx_int8:
      return has_avx512_vnni() && has_amx_int8();
#endif
    default:
      return false;
  }
}

}  // namespace

bool available(Variant variant) {
  static const bool found[] = {detect(Variant::portable), detect(Variant::neon), detect(Variant::avx2),
                               detect(Variant::avx512_vnni), detect(Variant::amx_int8)};
  return found[static_cast<int>(variant)];
}

Variant best_variant() {
  for (Variant v : {Variant::amx_int8, Variant::avx512_vnni, Variant::avx2, Variant::neon}) {
    if (available(v))
      return v;
  }
  return Variant::portable;
}

}  // namespace codesign
