// SPDX-License-Identifier: Apache-2.0
// NEON (Armv8.0): products of codes of at most 7 bits in 16 bits, added in pairs to 32 bits.
#include <arm_neon.h>

#include <cmath>
#include <cstring>

#include "levels_narrow.hpp"

namespace codesign::levels {
namespace {

// Field `i` of a cell of kBits: 8 * kBits codes, 16 at a time.
template <int kBits>
inline uint8x16_t quarter_cell(const std::uint8_t* cell, int quarter) {
  const uint8x16_t mask = vdupq_n_u8(static_cast<std::uint8_t>((1 << kBits) - 1));
  if constexpr (kBits == 1) {
    const uint8x8_t bytes = vld1_u8(cell);
    const int8x16_t shift = vcombine_s8(vdup_n_s8(static_cast<std::int8_t>(-2 * quarter)),
                                        vdup_n_s8(static_cast<std::int8_t>(-2 * quarter - 1)));
    return vandq_u8(vshlq_u8(vcombine_u8(bytes, bytes), shift), mask);
  } else if constexpr (kBits == 2) {
    return vandq_u8(vshlq_u8(vld1q_u8(cell), vdupq_n_s8(static_cast<std::int8_t>(-2 * quarter))), mask);
  } else if constexpr (kBits == 4) {
    const uint8x16_t bytes = vld1q_u8(cell + 16 * (quarter % 2));
    return vandq_u8(vshlq_u8(bytes, vdupq_n_s8(static_cast<std::int8_t>(-4 * (quarter / 2)))), mask);
  } else {
    return vld1q_u8(cell + 16 * quarter);
  }
}

template <int kBits>
void expand_bits(const std::uint8_t* cells, int position, bool add, std::uint8_t* codes) {
  const int8x16_t shift = vdupq_n_s8(static_cast<std::int8_t>(position));
  for (std::int64_t i = 0; i < kCells; ++i) {
    for (int q = 0; q < 4; ++q) {
      std::uint8_t* to = codes + i * kCell + 16 * q;
      const uint8x16_t v = vshlq_u8(quarter_cell<kBits>(cells + i * 8 * kBits, q), shift);
      vst1q_u8(to, add ? vorrq_u8(v, vld1q_u8(to)) : v);
    }
  }
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
    int32x4_t sums[R][8];  // pairs of partial sums of 16 outputs
    int32x4_t high[R][8];  // of the upper digits, where codes are wide
    Sums() {
      for (int r = 0; r < R; ++r) {
        for (int i = 0; i < 8; ++i) {
          sums[r][i] = high[r][i] = vdupq_n_s32(0);
        }
      }
    }

    template <bool kWide>
    void add(const std::uint8_t* codes, const std::int8_t* x, std::int64_t stride) {
      for (std::int64_t i = 0; i < kCells; ++i) {
        for (int r = 0; r < R; ++r) {
          std::int32_t word;
          std::memcpy(&word, x + r * stride + i * kGroup, sizeof word);
          const int8x8_t four = vreinterpret_s8_s32(vdup_n_s32(word));
          for (int j = 0; j < 8; ++j) {
            const uint8x8_t c = vld1_u8(codes + i * kCell + 8 * j);
            const uint8x8_t low = kWide ? vand_u8(c, vdup_n_u8(15)) : c;
            sums[r][j] = vpadalq_s16(sums[r][j], vmull_s8(vreinterpret_s8_u8(low), four));
            if constexpr (kWide) {
              high[r][j] = vpadalq_s16(high[r][j], vmull_s8(vreinterpret_s8_u8(vshr_n_u8(c, 4)), four));
            }
          }
        }
      }
    }

    void total(int r, int shift, std::int32_t* to) const {
      for (int j = 0; j < 4; ++j) {
        const int32x4_t low = vpaddq_s32(sums[r][2 * j], sums[r][2 * j + 1]);
        const int32x4_t upper = vpaddq_s32(high[r][2 * j], high[r][2 * j + 1]);
        vst1q_s32(to + 4 * j, vshlq_s32(vaddq_s32(low, vshlq_n_s32(upper, 4)), vdupq_n_s32(shift)));
      }
    }
  };

  static void rescale(const std::int32_t* sums, std::int32_t correction, const std::int32_t* bias, const float* scale,
                      std::int8_t* y) {
    for (int n = 0; n < kPanel; ++n) {
      const double wide = static_cast<double>(std::int64_t{sums[n]} + correction + bias[n]);
      y[n] = rescale_one(wide * static_cast<double>(scale[n]) + 0.5);
    }
  }

  static std::int8_t rescale_one(double value) {
    const double floored = std::floor(value);
    return static_cast<std::int8_t>(floored < -128 ? -128 : floored > 127 ? 127 : floored);
  }
};

std::int32_t sum(const std::int8_t* x, std::int64_t inputs) {
  int32x4_t total = vdupq_n_s32(0);
  for (std::int64_t k = 0; k < inputs; k += 16) {
    total = vpadalq_s16(total, vpaddlq_s8(vld1q_s8(x + k)));
  }
  return vaddvq_s32(total);
}

// The highest trit of each byte: 3 v / 256; leaves the rest in v.
inline uint8x16_t next_trit(uint8x16_t& v) {
  const uint8x16_t trit = vshrq_n_u8(vhaddq_u8(v, vshrq_n_u8(v, 1)), 6);
  v = vaddq_u8(v, vaddq_u8(v, v));
  return trit;
}

void trits(const std::uint8_t* in, std::int64_t cells, std::uint8_t* out) {
  std::int64_t cell = 0;
  for (; cell + 2 <= cells; ++cell, in += kTritBytes, out += kTernaryBytes) {  // reads 3 bytes of the next
    uint8x16_t v = vld1q_u8(in);
    uint8x16_t whole = next_trit(v);
    whole = vorrq_u8(whole, vshlq_n_u8(next_trit(v), 2));
    whole = vorrq_u8(whole, vshlq_n_u8(next_trit(v), 4));
    whole = vorrq_u8(whole, vshlq_n_u8(next_trit(v), 6));
    std::uint8_t fifth[16];
    vst1q_u8(out, whole);
    vst1q_u8(fifth, next_trit(v));
    for (int j = 0; j < 3; ++j) {
      out[kTritBytes + j] =
          static_cast<std::uint8_t>(fifth[j] | fifth[j + 3] << 2 | fifth[j + 6] << 4 | fifth[j + 9] << 6);
    }
  }
  kPortable.trits(in, cells - cell, out);
}

}  // namespace

const Kernels kNeon{sum, narrow_gemm<Ops>, narrow_residual<Ops>, trits};

}  // namespace codesign::levels
