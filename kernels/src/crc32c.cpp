// SPDX-License-Identifier: Apache-2.0
// CRC-32C: three streams at a time hide the latency of the processor's instruction; a table joins their sums.
#include "codesign/crc32c.hpp"

#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace codesign {
namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78U;  // reflected
constexpr std::size_t kStream = 1360;               // bytes of one of three streams: three fill nearly a page

using Table = std::array<std::array<std::uint32_t, 256>, 8>;

// tables[j][b]: what byte b contributes when j more bytes follow.
constexpr Table byte_tables() {
  Table tables{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit)
      crc = (crc >> 1) ^ ((crc & 1U) ? kPolynomial : 0U);
    tables[0][b] = crc;
  }
  for (std::size_t j = 1; j < 8; ++j) {
    for (std::size_t b = 0; b < 256; ++b)
      tables[j][b] = (tables[j - 1][b] >> 8) ^ tables[0][tables[j - 1][b] & 0xFFU];
  }
  return tables;
}

constexpr Table kTables = byte_tables();

// Eight bytes a step ("slicing by 8", Kounavis and Berry 2005); the state is inverted, as everywhere below.
std::uint32_t by_table(std::uint32_t state, const unsigned char* data, std::size_t size) {
  for (; size >= 8; size -= 8, data += 8) {
    const std::uint32_t low = state ^ (std::uint32_t{data[0]} | std::uint32_t{data[1]} << 8 |
                                       std::uint32_t{data[2]} << 16 | std::uint32_t{data[3]} << 24);
    state = kTables[7][low & 0xFFU] ^ kTables[6][(low >> 8) & 0xFFU] ^ kTables[5][(low >> 16) & 0xFFU] ^
            kTables[4][low >> 24] ^ kTables[3][data[4]] ^ kTables[2][data[5]] ^ kTables[1][data[6]] ^
            kTables[0][data[7]];
  }
  for (; size > 0; --size, ++data)
    state = (state >> 8) ^ kTables[0][(state ^ *data) & 0xFFU];
  return state;
}

#if defined(__x86_64__) || defined(__ARM_FEATURE_CRC32)

using ShiftTable = std::array<std::array<std::uint32_t, 256>, 4>;

// shift[i][b]: byte i of a state, moved over kStream bytes of zeros. Linear, so bytes may be moved one by one.
ShiftTable shift_tables() {
  ShiftTable shift{};
  const std::array<unsigned char, kStream> zeros{};
  for (std::size_t i = 0; i < 4; ++i) {
    std::array<std::uint32_t, 8> basis{};
    for (std::size_t bit = 0; bit < 8; ++bit)
      basis[bit] = by_table(1U << (8 * i + bit), zeros.data(), kStream);
    for (std::size_t b = 0; b < 256; ++b) {
      for (std::size_t bit = 0; bit < 8; ++bit)
        shift[i][b] ^= ((b >> bit) & 1U) ? basis[bit] : 0U;
    }
  }
  return shift;
}

std::uint32_t moved(const ShiftTable& shift, std::uint32_t state) {
  return shift[0][state & 0xFFU] ^ shift[1][(state >> 8) & 0xFFU] ^ shift[2][(state >> 16) & 0xFFU] ^
         shift[3][state >> 24];
}

#if defined(__x86_64__)
#define CODESIGN_CRC_TARGET __attribute__((target("sse4.2")))
CODESIGN_CRC_TARGET inline std::uint64_t step8(std::uint64_t state, std::uint64_t word) {
  return _mm_crc32_u64(state, word);
}
bool has_instruction() {
  return __builtin_cpu_supports("sse4.2");
}
#else
#define CODESIGN_CRC_TARGET
inline std::uint64_t step8(std::uint64_t state, std::uint64_t word) {
  return __crc32cd(static_cast<std::uint32_t>(state), word);
}
bool has_instruction() {
  return std::endian::native == std::endian::little;
}
#endif

inline std::uint64_t load8(const unsigned char* data) {
  std::uint64_t word;
  std::memcpy(&word, data, sizeof word);
  return word;
}

CODESIGN_CRC_TARGET std::uint32_t by_instruction(std::uint32_t first, const unsigned char* data, std::size_t size) {
  static const ShiftTable shift = shift_tables();
  std::uint64_t state = first;
  for (; size >= 3 * kStream; size -= 3 * kStream, data += 3 * kStream) {
    std::uint64_t second = 0;
    std::uint64_t third = 0;
    for (std::size_t i = 0; i < kStream; i += 8) {
      state = step8(state, load8(data + i));
      second = step8(second, load8(data + kStream + i));
      third = step8(third, load8(data + 2 * kStream + i));
    }
    const std::uint32_t joined = moved(shift, static_cast<std::uint32_t>(state)) ^ static_cast<std::uint32_t>(second);
    state = moved(shift, joined) ^ static_cast<std::uint32_t>(third);
  }
  for (; size >= 8; size -= 8, data += 8)
    state = step8(state, load8(data));
  return by_table(static_cast<std::uint32_t>(state), data, size);
}

#endif

}  // namespace

std::uint32_t crc32c_portable(const void* data, std::size_t size, std::uint32_t crc) {
  return ~by_table(~crc, static_cast<const unsigned char*>(data), size);
}

std::uint32_t crc32c(const void* data, std::size_t size, std::uint32_t crc) {
#if defined(__x86_64__) || defined(__ARM_FEATURE_CRC32)
  static const bool fast = has_instruction();
  if (fast)
    return ~by_instruction(~crc, static_cast<const unsigned char*>(data), size);
#endif
  return crc32c_portable(data, size, crc);
}

}  // namespace codesign
