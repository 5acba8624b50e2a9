// SPDX-License-Identifier: Apache-2.0
#include "codesign/operators.hpp"

#include <algorithm>
#include <stdexcept>

#include "operators_common.hpp"

namespace codesign {
namespace {

template <std::size_t kSize>
void copy_table(std::span<const std::uint16_t> from, std::uint16_t (&to)[kSize]) {
  if (from.size() != kSize) {
    throw std::invalid_argument("a table has the wrong number of entries");
  }
  std::copy(from.begin(), from.end(), to);
}

}  // namespace

Tables::Tables(std::span<const std::uint16_t> exp2_table, std::span<const std::uint16_t> reciprocal_table,
               std::span<const std::uint16_t> rsqrt_table, std::span<const std::uint16_t> gelu_table) {
  copy_table(exp2_table, exp2);
  copy_table(reciprocal_table, reciprocal);
  copy_table(rsqrt_table, rsqrt);
  copy_table(gelu_table, gelu_delta);
  for (int f = 0; f < 256; ++f) {
    probability[f] = static_cast<std::uint16_t>((exp2[f] * 127) >> 7);
  }
}

Gelu Tables::gelu(int multiplier, int shift) const {
  Gelu result;
  for (int i = 0; i < 64; ++i) {
    result.left[i] = static_cast<std::int16_t>(gelu_delta[i] + 8);
    result.slope[i] = static_cast<std::int16_t>(gelu_delta[i + 1] - gelu_delta[i]);
    if (result.slope[i] < -512 || result.slope[i] > 512) {
      throw std::invalid_argument("GELU's table is too steep for 16 bits");
    }
  }
  result.factor = std::ldexp(static_cast<float>(multiplier), -shift);
  return result;
}

const Kernels& kernels(Variant variant) {
  switch (variant) {
#if defined(__aarch64__)
    case Variant::neon:
      return neon_kernels();
#endif
#if defined(__x86_64__)
    case Variant::avx2:
      return avx2_kernels();
    case Variant::avx512_vnni:
      return avx512_kernels();
    case Variant::amx_int8:
      return amx_kernels();
#endif
    default:
      return portable_kernels();
  }
}

}  // namespace codesign
