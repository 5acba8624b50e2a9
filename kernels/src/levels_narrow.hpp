// SPDX-License-Identifier: Apache-2.0
// The frame of the kernels that multiply into 16 bits first (AVX2, NEON): products of pairs must not saturate there, so
// they see codes of at most 7 bits, or two digits of 4. `Ops` is the instruction set's part.
#pragma once

#include "levels_kernels.hpp"

namespace codesign::levels {
namespace {

constexpr std::int64_t kCells = kChunk / kGroup;  // of a chunk and panel
constexpr int kSafeBits = 7;                      // 2 * 127 * 128 < 2^15

// Where the levels' digits begin and how many bits they span.
struct Span {
  int low = 8, bits = 0;
  explicit Span(const LevelWeight& weight) {
    int high = 0;
    for (int l = 0; l < weight.count; ++l) {
      const Level& level = weight.levels[l];
      low = level.position < low ? level.position : low;
      high = level.position + level.bits > high ? level.position + level.bits : high;
    }
    bits = high - low;
  }
};

// Codes of a chunk of a panel, shifted down to their lowest level.
template <class Ops>
void expand_chunk(const LevelWeight& weight, const Span& span, std::int64_t chunks, std::int64_t panel,
                  std::int64_t chunk, std::uint8_t* codes) {
  for (int l = 0; l < weight.count; ++l) {
    const Level& level = weight.levels[l];
    const std::uint8_t* cells =
        level.cells + panel * panel_bytes(chunks, level.bits) + chunk * panel_bytes(1, level.bits);
    Ops::expand(cells, level.bits, level.position - span.low, l > 0, codes);
  }
}

// Sums of a panel and R rows to where they go.
template <class Ops>
void emit(const Output& out, std::int64_t row, std::int64_t panel, const std::int32_t* sums, std::int32_t correction) {
  const std::int64_t column = panel * kPanel, left = out.outputs - column, at = row * out.outputs + column;
  if (left >= kPanel && out.acc == nullptr) {
    Ops::rescale(sums, correction, out.rescale.bias + column, out.rescale.scale + column, out.y + at);
    return;
  }
  for (std::int64_t n = 0; n < (left < kPanel ? left : kPanel); ++n) {
    const std::int32_t sum = sums[n] + correction;
    if (out.acc == nullptr) {
      const double wide = static_cast<double>(std::int64_t{sum} + out.rescale.bias[column + n]);
      out.y[at + n] = Ops::rescale_one(wide * out.rescale.scale[column + n] + 0.5);
    } else {
      out.acc[at + n] = out.accumulate ? out.acc[at + n] + sum : sum;
    }
  }
}

// R rows with a panel; the first rows expand its codes, one chunk at a time, unless `ready`.
template <class Ops, int R, bool kWide>
void dot_rows(const Rows& rows, const LevelWeight& weight, const Span& span, const Output& out, std::int64_t row,
              std::int64_t panel, std::uint8_t* codes, bool ready, bool keep) {
  typename Ops::template Sums<R> sums;
  for (std::int64_t c = 0; c < rows.chunks; ++c) {
    std::uint8_t* chunk = codes + (keep ? c * kCells * kCell : 0);
    if (!ready) {
      expand_chunk<Ops>(weight, span, rows.chunks, panel, c, chunk);
    }
    sums.template add<kWide>(chunk, rows.x + row * rows.stride + c * kChunk, rows.stride);
  }
  for (int r = 0; r < R; ++r) {
    alignas(32) std::int32_t total[kPanel];
    sums.total(r, span.low, total);
    emit<Ops>(out, row + r, panel, total, rows.corrections[row + r]);
  }
}

template <class Ops, bool kWide>
void narrow_panel(const Rows& rows, const LevelWeight& weight, const Span& span, const Output& out, std::int64_t panel,
                  std::uint8_t* codes) {
  const bool keep = rows.count > 4;
  std::int64_t row = 0;
  for (; row + 4 <= rows.count; row += 4) {
    dot_rows<Ops, 4, kWide>(rows, weight, span, out, row, panel, codes, row > 0, keep);
  }
  for (; row < rows.count; ++row) {
    dot_rows<Ops, 1, kWide>(rows, weight, span, out, row, panel, codes, keep, keep);
  }
}

template <class Ops>
void narrow_gemm(const Rows& rows, const LevelWeight& weight, const Output& out, PanelRange panels) {
  const Span span(weight);
  auto* codes =
      static_cast<std::uint8_t*>(scratch(Slot::weights, static_cast<std::size_t>(rows.chunks * kCells * kCell)));
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    if (span.bits > kSafeBits) {
      narrow_panel<Ops, true>(rows, weight, span, out, panel, codes);
    } else {
      narrow_panel<Ops, false>(rows, weight, span, out, panel, codes);
    }
  }
}

// Dots of a group of one kind of cells; codes of a chunk at a time.
template <class Ops>
void narrow_group(const ResidualRows& rows, const std::uint8_t* cells, int bits, std::int64_t row, std::int64_t panel,
                  std::int64_t group, std::int32_t* dots) {
  constexpr std::int64_t kGroupChunks = kResidualGroup / kChunk;
  alignas(64) std::uint8_t codes[kCells * kCell];
  typename Ops::template Sums<1> sums;
  const std::int64_t end = (group + 1) * kGroupChunks < rows.chunks ? (group + 1) * kGroupChunks : rows.chunks;
  for (std::int64_t c = group * kGroupChunks; c < end; ++c) {
    Ops::expand(cells + panel * panel_bytes(rows.chunks, bits) + c * panel_bytes(1, bits), bits, 0, false, codes);
    sums.template add<false>(codes, rows.x + row * rows.stride + c * kChunk, rows.stride);
  }
  sums.total(0, 0, dots);
}

template <class Ops>
void narrow_residual(const ResidualRows& rows, const ResidualWeight& weight, std::int64_t* acc, bool accumulate,
                     PanelRange panels) {
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const std::int64_t column = panel * kPanel, left = weight.outputs - column, width = left < kPanel ? left : kPanel;
    for (std::int64_t t = 0; t < rows.count; ++t) {
      std::int64_t sums[kPanel] = {};
      for (std::int64_t group = 0; group < rows.groups; ++group) {
        const std::int64_t at = group * weight.outputs + column, sum = rows.sums[t * rows.groups + group];
        alignas(32) std::int32_t dots[kPanel];
        narrow_group<Ops>(rows, weight.base, 2, t, panel, group, dots);
        for (std::int64_t n = 0; n < width; ++n) {
          sums[n] += std::int64_t{weight.base_multiplier[at + n]} * dots[n] - weight.base_zero[at + n] * sum;
        }
        for (int p = 0; p < weight.planes; ++p) {
          narrow_group<Ops>(rows, weight.plane[p], 1, t, panel, group, dots);
          for (std::int64_t n = 0; n < width; ++n) {
            sums[n] += weight.plane_multiplier[p][at + n] * (2 * std::int64_t{dots[n]} - sum);
          }
        }
      }
      for (std::int64_t n = 0; n < width; ++n) {
        std::int64_t& to = acc[t * weight.outputs + column + n];
        to = (accumulate ? to : 0) + sums[n];
      }
    }
  }
}

}  // namespace
}  // namespace codesign::levels
