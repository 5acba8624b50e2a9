// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "codesign/gemm.hpp"

namespace codesign {
namespace {

// The fewest bits of a cell that hold all weights, and the code of weight 0.
struct Coding {
  int bits, offset;
};

Coding coding_of(const std::int8_t* weight, std::size_t count, bool signed_cells, bool whole_bytes) {
  const auto [low, high] = std::minmax_element(weight, weight + count);
  if (!whole_bytes && *low >= -1 && *high <= 1) {
    return {2, 1};
  }
  if (!whole_bytes && *low >= -8 && *high <= 7) {
    return {4, 8};
  }
  return {8, signed_cells ? 0 : 128};
}

// Code 4n + k of a cell lies in byte (4n + k) mod 8b, from bit (4n + k) / 8b * b on (codesign/kernels/layout.py).
void pack(const std::int8_t* weight, const Weights& w, std::uint8_t* cells) {
  const int width = 8 * w.bits, padded_inputs = w.blocks() * kBlockInputs;
  for (int n = 0; n < w.panels() * kPanelOutputs; ++n) {
    std::uint8_t* panel = cells + w.panel_bytes() * (n / kPanelOutputs);
    for (int k = 0; k < padded_inputs; ++k) {
      const int value = n < w.outputs && k < w.inputs ? weight[static_cast<std::size_t>(n) * w.inputs + k] : 0;
      const int position = n % kPanelOutputs * kGroupInputs + k % kGroupInputs;
      const auto code = static_cast<std::uint8_t>(value + w.offset);
      panel[static_cast<std::size_t>(k / kGroupInputs) * width + position % width] |=
          static_cast<std::uint8_t>(code << (position / width * w.bits));
    }
  }
}

}  // namespace

bool fits_single(double reach, double largest_factor) {
  return reach <= 16777216.0 && reach * largest_factor < 1073741824.0;
}

Scratch::Scratch(int most_inputs, int most_rows)
    : expanded_(round_up(most_inputs, kBlockInputs) * kPanelOutputs * 4),
      sums_(sizeof(std::int32_t) * 4096),
      row_sums_(sizeof(std::int32_t) * round_up(most_rows, kRowMultiple)),
      words_(sizeof(std::int16_t) * round_up(most_inputs, kBlockInputs) * 4) {}

Dense::Dense(const std::int8_t* weight, int outputs, int inputs, const std::int32_t* bias,
             const std::uint16_t* multiplier, const std::uint8_t* shift, int factors, bool signed_cells,
             bool whole_bytes) {
  const Coding coding = coding_of(weight, static_cast<std::size_t>(outputs) * inputs, signed_cells, whole_bytes);
  weights_ = {nullptr, coding.bits, coding.offset, outputs, inputs};
  const int padded = weights_.panels() * kPanelOutputs;
  cells_ = Buffer(weights_.panel_bytes() * weights_.panels());
  pack(weight, weights_, cells_.as<std::uint8_t>());
  weights_.cells = cells_.as<std::uint8_t>();
  bias_ = Buffer(sizeof(std::int32_t) * padded);
  wide_ = Buffer(sizeof(double) * padded);
  single_ = Buffer(sizeof(float) * padded);
  double largest = 0;
  for (int n = 0; n < outputs; ++n) {
    bias_.as<std::int32_t>()[n] = bias[n];
    const int i = factors == 1 ? 0 : n;
    const double factor = std::ldexp(multiplier[i], -shift[i]);
    wide_.as<double>()[n] = factor;
    single_.as<float>()[n] = static_cast<float>(factor);
    largest = std::max(largest, factor);
    std::int64_t reach = std::abs(static_cast<std::int64_t>(bias[n]));
    for (int k = 0; k < inputs; ++k) {
      reach += 128 * std::abs(static_cast<int>(weight[static_cast<std::size_t>(n) * inputs + k]));
    }
    reach_ = std::max(reach_, reach);
  }
  narrow_ = fits_single(static_cast<double>(reach_), largest);
}

Linear Dense::linear() const {
  Linear layer;
  layer.weights = weights_;
  layer.bias = bias_.as<std::int32_t>();
  layer.rescale = {wide_.as<double>(), single_.as<float>(), narrow_};
  return layer;
}

}  // namespace codesign
