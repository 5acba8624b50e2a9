// SPDX-License-Identifier: Apache-2.0
// Dense layers: weights in panels of cells (docs/edge.md, section 1; codesign/kernels/layout.py) and the fused
// epilogue.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codesign/memory.hpp"

namespace codesign {

inline constexpr int kPanelOutputs = 16;
inline constexpr int kGroupInputs = 4;
inline constexpr int kCellCodes = kPanelOutputs * kGroupInputs;
inline constexpr int kBlockInputs = 64;                           // inputs are padded to a multiple of these,
inline constexpr int kBlockGroups = kBlockInputs / kGroupInputs;  // so many cells,
inline constexpr int kBlockBytes = kBlockInputs * kPanelOutputs;  // bytes when a code is a byte
inline constexpr int kMaxInputs = 8192;
inline constexpr int kRowMultiple = 16;  // tiles read whole groups of rows: buffers of activations have that many

// A half-open range of rows or panels.
struct Range {
  int begin;
  int end;
};

// A packed weight matrix. Cells of 8 bits hold codes (w + 128), or w itself where a kernel multiplies signed by signed
// (Kernels::signed_cells): then offset is 0. Cells of fewer bits always hold codes.
struct Weights {
  const std::uint8_t* cells = nullptr;
  int bits = 8;
  int offset = 0;
  int outputs = 0;
  int inputs = 0;

  int blocks() const { return (inputs + kBlockInputs - 1) / kBlockInputs; }
  int panels() const { return (outputs + kPanelOutputs - 1) / kPanelOutputs; }
  std::size_t panel_bytes() const { return static_cast<std::size_t>(blocks()) * kBlockBytes / 8 * bits; }
  const std::uint8_t* panel(int index) const { return cells + panel_bytes() * index; }
};

// Requantization factors m * 2^-s per output, padded to whole panels with 0.
//
// floor(acc * f + 0.5) is exact in one fused multiply-add in double (docs/edge.md, section 2). Where `narrow` holds it
// is exact in single precision as well, if the multiply-add rounds towards minus infinity: acc (|acc| <= 2^24) and f
// (16 bits) are floats, so the sum is rounded once, downward, to the largest float not above it; every integer of at
// most 24 bits is a float, so no integer lies between the two, and their floors agree (beyond, both saturate).
struct Rescale {
  const double* wide = nullptr;
  const float* single = nullptr;
  bool narrow = false;
};

// |acc| up to 2^24 is a float; results below 2^30 convert to int32.
bool fits_single(double reach, double largest_factor);

// GELU on int16 with 10 fraction bits, then a requantization to int8 (spec/ops.py, GELU).
// delta = (T[i] * 64 + D[i] * f + 512) >> 10 = (T[i] + 8 + ((D[i] * f) >> 6)) >> 4, all in 16 bits: |D[i]| <= 512.
struct Gelu {
  alignas(64) std::int16_t left[64];   // T[i] + 8
  alignas(64) std::int16_t slope[64];  // D[i] = T[i + 1] - T[i]
  float factor;                        // m * 2^-s < 2^15 times at most 2^15: always narrow
};

enum class Store { sums, int8, int16, gelu, add };

// y = store(x . w^T + bias). x must be readable up to a multiple of 16 rows and of 64 columns (any values there), y
// writable up to a multiple of 16 columns.
struct Linear {
  const std::int8_t* x = nullptr;
  std::ptrdiff_t x_stride = 0;  // elements from row to row, as all strides
  Weights weights;
  const std::int32_t* bias = nullptr;  // padded to whole panels with 0
  Store store = Store::sums;
  Rescale rescale;
  const Gelu* gelu = nullptr;              // Store::gelu
  const std::int16_t* residual = nullptr;  // Store::add: y = sat16(residual + requantized)
  std::ptrdiff_t residual_stride = 0;
  void* y = nullptr;  // int32, int8, int16, int8, int16
  std::ptrdiff_t y_stride = 0;
};

// What one thread needs beside its operands.
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(int most_inputs, int most_rows);

  std::uint8_t* expanded() const { return expanded_.as<std::uint8_t>(); }  // four panels in bytes
  std::int32_t* sums() const { return sums_.as<std::int32_t>(); }          // 4,096 of them
  std::int32_t* row_sums() const { return row_sums_.as<std::int32_t>(); }
  std::int16_t* words() const { return words_.as<std::int16_t>(); }  // four rows in 16 bits

 private:
  Buffer expanded_, sums_, row_sums_, words_;
};

// A dense layer's constants, packed once.
class Dense {
 public:
  // weight int8 [outputs, inputs]; bias int32 [outputs]; multiplier, shift [factors], factors being outputs or 1.
  // Cells have the fewest bits that hold all weights, 8 if `whole_bytes`.
  Dense(const std::int8_t* weight, int outputs, int inputs, const std::int32_t* bias, const std::uint16_t* multiplier,
        const std::uint8_t* shift, int factors, bool signed_cells, bool whole_bytes);

  // The layer with x and y left open.
  Linear linear() const;
  // The largest magnitude that a sum, of any of the products in any order, and its bias can have.
  std::int64_t reach() const { return reach_; }
  int outputs() const { return weights_.outputs; }
  int inputs() const { return weights_.inputs; }
  int bits() const { return weights_.bits; }
  std::size_t bytes() const { return cells_.bytes(); }

 private:
  Weights weights_;
  Buffer cells_, bias_, wide_, single_;
  bool narrow_ = false;
  std::int64_t reach_ = 0;
};

}  // namespace codesign
