// SPDX-License-Identifier: Apache-2.0
// Between levels.cpp, which prepares the rows, and the kernels of each variant.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codesign/levels.hpp"

namespace codesign::levels {

inline constexpr std::int64_t kPanel = 16;  // outputs
inline constexpr std::int64_t kGroup = 4;   // inputs
inline constexpr std::int64_t kChunk = 64;  // inputs: what they are padded to, and what a tile of AMX holds
inline constexpr std::int64_t kCell = kPanel * kGroup;
inline constexpr std::int64_t kRowBlock = 256;  // rows that a kernel is given at most, so that scratch is bounded

// Rows of int8, each readable (and zero) up to a multiple of kChunk.
struct Rows {
  const std::int8_t* x;
  std::int64_t count;
  std::int64_t stride;
  std::int64_t chunks;
  const std::int32_t* corrections;  // per row: offset * sum of x
};

// Where sums go: acc, or rescaled to y.
struct Output {
  std::int64_t outputs;
  std::int32_t* acc;
  bool accumulate;
  OutputRescale rescale;
  std::int8_t* y;
};

struct ResidualRows {
  const std::int8_t* x;
  std::int64_t count;
  std::int64_t stride;
  std::int64_t chunks;
  std::int64_t groups;
  const std::int32_t* sums;  // [rows, groups]
};

// Sums of `inputs` values.
using SumKernel = std::int32_t (*)(const std::int8_t* x, std::int64_t inputs);
using LevelKernel = void (*)(const Rows& rows, const LevelWeight& weight, const Output& out, PanelRange panels);
using ResidualKernel = void (*)(const ResidualRows& rows, const ResidualWeight& weight, std::int64_t* acc,
                                bool accumulate, PanelRange panels);
using TritKernel = void (*)(const std::uint8_t* trits, std::int64_t cells, std::uint8_t* out);

struct Kernels {
  SumKernel sum;
  LevelKernel gemm;
  ResidualKernel residual;
  TritKernel trits;
};

extern const Kernels kPortable;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512Vnni;
extern const Kernels kAmxInt8;
#endif
#if defined(__aarch64__)
extern const Kernels kNeon;
#endif

// Memory of the calling thread, aligned to 64 bytes, kept for the next call. One use at a time per `slot`.
enum class Slot { rows, sums, weights, tiles, products, count };
void* scratch(Slot slot, std::size_t bytes);

// Bytes of a level's panel.
inline std::int64_t panel_bytes(std::int64_t chunks, int bits) {
  return chunks * (kChunk / kGroup) * 8 * bits;
}

// The trits of a byte, lowest field first: byte j of a cell holds codes j, j + 16, j + 32 and j + 48, then, for j < 12,
// code 13 + j % 3 + 16 * (j / 3).
struct TritTables {
  std::uint8_t four[256];  // the first four, as a byte of 2-bit fields
  std::uint8_t fifth[256];
};
extern const TritTables kTrits;

}  // namespace codesign::levels
