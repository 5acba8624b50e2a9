// SPDX-License-Identifier: Apache-2.0
// Products of int8 rows with weights that stay packed in levels of 1, 2, 4 or 8 bits (docs/edge.md, sections 1 and 4).
// Every variant computes the same bits. Weights of up to kMaxInputs inputs; then no sum can wrap.
#pragma once

#include <cstdint>

#include "codesign/cpu.hpp"

namespace codesign {

inline constexpr int kMaxLevels = 3;
inline constexpr int kMaxPlanes = 2;
inline constexpr std::int64_t kMaxInputs = 8192;

// Digits of `bits` bits (1, 2, 4 or 8) at bit `position` of the code, in cells [panels, padded inputs / 4, 8 * bits].
struct Level {
  const std::uint8_t* cells = nullptr;
  int bits = 0;
  int position = 0;
};

// The levels of one weight that are read; their digits do not overlap, and position + bits <= 8.
struct LevelWeight {
  std::int64_t outputs = 0;
  std::int64_t inputs = 0;
  int count = 0;
  Level levels[kMaxLevels];
  std::int32_t offset = 0;  // added to every weight: -128 for int8, -1 for ternary, 0 to leave the correction out
};

// Panels of 16 outputs; what several threads divide.
struct PanelRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// acc[rows, outputs] (+)= x[rows, inputs] . w^T for the outputs of the panels.
void level_gemm(Variant variant, const std::int8_t* x, std::int64_t rows, const LevelWeight& weight, std::int32_t* acc,
                bool accumulate, PanelRange panels);

// y = clamp(floor((acc + bias) * scale + 0.5)), both per output; scale = multiplier * 2^-shift
// (16 bits, so a float holds it), |acc + bias| < 2^31.
struct OutputRescale {
  const std::int32_t* bias = nullptr;
  const float* scale = nullptr;
};

// A whole layer: y[rows, outputs] = rescaled x . w^T, without an array of sums.
void level_linear(Variant variant, const std::int8_t* x, std::int64_t rows, const LevelWeight& weight,
                  const OutputRescale& rescale, std::int8_t* y, PanelRange panels);

// D2MoE's format: groups of 128 inputs with integer multipliers, all [groups, outputs]. |A| <= 4095 and
// 0 <= Z <= 3 * 4095, so that every weight fits int16; beyond that the sums of variants may differ.
struct ResidualWeight {
  std::int64_t outputs = 0;
  std::int64_t inputs = 0;
  const std::uint8_t* base = nullptr;  // cells of 2 bits
  const std::int16_t* base_multiplier = nullptr;
  const std::int32_t* base_zero = nullptr;
  int planes = 0;
  const std::uint8_t* plane[kMaxPlanes] = {};  // cells of 1 bit
  const std::int16_t* plane_multiplier[kMaxPlanes] = {};
};

inline constexpr std::int64_t kResidualGroup = 128;

// acc[rows, outputs] (+)= sum over groups of A0 * (u0 . x) - Z * sum(x) + sum over planes of Ap * (2 * (up . x) -
// sum(x)).
void residual_gemm(Variant variant, const std::int8_t* x, std::int64_t rows, const ResidualWeight& weight,
                   std::int64_t* acc, bool accumulate, PanelRange panels);

inline constexpr std::int64_t kTritBytes = 13;
inline constexpr std::int64_t kTernaryBytes = 16;

// Cells of trits (13 bytes) to cells of 2 bits (16 bytes).
void decode_trits(Variant variant, const std::uint8_t* trits, std::int64_t cells, std::uint8_t* out);

}  // namespace codesign
