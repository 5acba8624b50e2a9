// SPDX-License-Identifier: Apache-2.0
// The portable kernels: a panel's codes once to bytes, then plain sums.
#include <algorithm>
#include <cmath>

#include "levels_kernels.hpp"

namespace codesign::levels {
namespace {

constexpr std::int64_t kCells = kChunk / kGroup;  // of a chunk and panel

// The codes of a whole panel from all levels, one a byte.
void expand(const LevelWeight& weight, std::int64_t chunks, std::int64_t panel, std::uint8_t* codes) {
  std::fill(codes, codes + chunks * kCells * kCell, std::uint8_t{0});
  for (int l = 0; l < weight.count; ++l) {
    const Level& level = weight.levels[l];
    const std::uint8_t* cells = level.cells + panel * panel_bytes(chunks, level.bits);
    const int width = 8 * level.bits, mask = (1 << level.bits) - 1;
    for (std::int64_t cell = 0; cell < chunks * kCells; ++cell) {
      for (int i = 0; i < 8 / level.bits; ++i) {
        for (int j = 0; j < width; ++j) {
          const int digit = (cells[cell * width + j] >> (i * level.bits)) & mask;
          std::uint8_t& code = codes[cell * kCell + i * width + j];
          code = static_cast<std::uint8_t>(code | (digit << level.position));
        }
      }
    }
  }
}

void dot(const std::uint8_t* codes, const std::int8_t* x, std::int64_t cells, std::int32_t* sums) {
  for (std::int64_t cell = 0; cell < cells; ++cell) {
    for (std::int64_t n = 0; n < kPanel; ++n) {
      for (std::int64_t k = 0; k < kGroup; ++k) {
        sums[n] += codes[cell * kCell + n * kGroup + k] * x[cell * kGroup + k];
      }
    }
  }
}

std::int8_t rescaled(std::int64_t sum, double scale) {
  const double value = std::floor(static_cast<double>(sum) * scale + 0.5);
  return static_cast<std::int8_t>(std::clamp(value, -128.0, 127.0));
}

void emit(const Output& out, std::int64_t row, std::int64_t panel, const std::int32_t* sums) {
  const std::int64_t first = panel * kPanel, last = std::min(out.outputs, first + kPanel);
  for (std::int64_t n = first; n < last; ++n) {
    const std::int32_t sum = sums[n - first];
    const std::int64_t at = row * out.outputs + n;
    if (out.acc == nullptr) {
      out.y[at] = rescaled(std::int64_t{sum} + out.rescale.bias[n], out.rescale.scale[n]);
    } else {
      out.acc[at] = out.accumulate ? out.acc[at] + sum : sum;
    }
  }
}

void gemm(const Rows& rows, const LevelWeight& weight, const Output& out, PanelRange panels) {
  const std::int64_t cells = rows.chunks * kCells;
  auto* codes = static_cast<std::uint8_t*>(scratch(Slot::weights, static_cast<std::size_t>(cells * kCell)));
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    expand(weight, rows.chunks, panel, codes);
    for (std::int64_t t = 0; t < rows.count; ++t) {
      std::int32_t sums[kPanel];
      std::fill(sums, sums + kPanel, rows.corrections[t]);
      dot(codes, rows.x + t * rows.stride, cells, sums);
      emit(out, t, panel, sums);
    }
  }
}

// One term of a group: multiplier * (factor * (u . x)) - constant * sum(x), for the outputs of a panel.
struct Term {
  const std::uint8_t* codes;
  const std::int16_t* multiplier;
  const std::int32_t* zero;  // null for a plane
};

void add_term(const ResidualRows& rows, const Term& term, std::int64_t t, std::int64_t group, std::int64_t outputs,
              std::int64_t first, std::int64_t* sums) {
  constexpr std::int64_t kGroupCells = kResidualGroup / kGroup;
  const std::int64_t begin = group * kGroupCells, end = std::min(rows.chunks * kCells, begin + kGroupCells);
  std::int32_t dots[kPanel] = {};
  dot(term.codes + begin * kCell, rows.x + t * rows.stride + begin * kGroup, end - begin, dots);
  const std::int64_t sum = rows.sums[t * rows.groups + group];
  for (std::int64_t n = 0; n < std::min(kPanel, outputs - first); ++n) {
    const std::int64_t at = group * outputs + first + n;
    const std::int64_t a = term.multiplier[at], d = dots[n];
    sums[n] += term.zero != nullptr ? a * d - term.zero[at] * sum : a * (2 * d - sum);
  }
}

void residual(const ResidualRows& rows, const ResidualWeight& weight, std::int64_t* acc, bool accumulate,
              PanelRange panels) {
  const std::int64_t size = rows.chunks * kCells * kCell, outputs = weight.outputs;
  auto* codes = static_cast<std::uint8_t*>(scratch(Slot::weights, static_cast<std::size_t>(3 * size)));
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    Term terms[1 + kMaxPlanes] = {{codes, weight.base_multiplier, weight.base_zero}};
    expand({outputs, weight.inputs, 1, {{weight.base, 2, 0}}, 0}, rows.chunks, panel, codes);
    for (int p = 0; p < weight.planes; ++p) {
      std::uint8_t* plane = codes + (1 + p) * size;
      expand({outputs, weight.inputs, 1, {{weight.plane[p], 1, 0}}, 0}, rows.chunks, panel, plane);
      terms[1 + p] = {plane, weight.plane_multiplier[p], nullptr};
    }
    const std::int64_t first = panel * kPanel;
    for (std::int64_t t = 0; t < rows.count; ++t) {
      std::int64_t sums[kPanel] = {};
      for (std::int64_t group = 0; group < rows.groups; ++group) {
        for (int i = 0; i < 1 + weight.planes; ++i) {
          add_term(rows, terms[i], t, group, outputs, first, sums);
        }
      }
      for (std::int64_t n = first; n < std::min(outputs, first + kPanel); ++n) {
        std::int64_t& to = acc[t * outputs + n];
        to = (accumulate ? to : 0) + sums[n - first];
      }
    }
  }
}

std::int32_t sum(const std::int8_t* x, std::int64_t inputs) {
  std::int32_t total = 0;
  for (std::int64_t k = 0; k < inputs; ++k) {
    total += x[k];
  }
  return total;
}

void trits(const std::uint8_t* in, std::int64_t cells, std::uint8_t* out) {
  for (std::int64_t cell = 0; cell < cells; ++cell, in += kTritBytes, out += kTernaryBytes) {
    for (int j = 0; j < kTritBytes; ++j) {
      out[j] = kTrits.four[in[j]];
    }
    for (int j = 0; j < 3; ++j) {
      out[kTritBytes + j] = static_cast<std::uint8_t>(kTrits.fifth[in[j]] | kTrits.fifth[in[j + 3]] << 2 |
                                                      kTrits.fifth[in[j + 6]] << 4 | kTrits.fifth[in[j + 9]] << 6);
    }
  }
}

constexpr TritTables trit_tables() {
  TritTables tables{};
  for (int v = 0; v < 256; ++v) {
    int rest = v;
    for (int i = 0; i < 5; ++i) {
      const int trit = rest * 3 >> 8;
      rest = rest * 3 & 255;
      if (i < 4) {
        tables.four[v] = static_cast<std::uint8_t>(tables.four[v] | trit << (2 * i));
      } else {
        tables.fifth[v] = static_cast<std::uint8_t>(trit);
      }
    }
  }
  return tables;
}

}  // namespace

constexpr TritTables kTrits = trit_tables();
const Kernels kPortable{sum, gemm, residual, trits};

}  // namespace codesign::levels
