// SPDX-License-Identifier: Apache-2.0
// Rows times panels by VPDPBUSD, with cells from anywhere.
#pragma once

#include "levels_avx512.hpp"

namespace codesign::levels {
namespace {

// R rows by P panels, whose sums [P][R] `sink.put` takes. U groups at a time have sums of their own: VPDPBUSD takes 5
// cycles, and two start in each.
template <int R, int P, class Source, class SomeRows, class Sink>
void dot(const Source& source, const SomeRows& rows, std::int64_t row, std::int64_t panel, const Sink& sink) {
  constexpr int U = R * P >= 8 ? 1 : 8 / (R * P);
  typename Source::Panel cells[P];
  for (int p = 0; p < P; ++p) {
    cells[p] = source.panel(panel + p);
  }
  __m512i sums[U][P][R];
  for (auto& unrolled : sums) {
    for (auto& panels : unrolled) {
      for (__m512i& sum : panels) {
        sum = _mm512_setzero_si512();
      }
    }
  }
  const std::int8_t* x = rows.x + row * rows.stride;
  const std::int64_t groups = rows.chunks * kCells;
  for (std::int64_t g = 0; g < groups; g += U) {
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
      __m512i codes[P];
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) {
        codes[p] = source.cell(cells[p], g + u);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i four = broadcast4(x + r * rows.stride + (g + u) * kGroup);
#pragma GCC unroll 2
        for (int p = 0; p < P; ++p) {
          sums[u][p][r] = _mm512_dpbusd_epi32(sums[u][p][r], codes[p], four);
        }
      }
    }
  }
  for (int u = 1; u < U; ++u) {
    for (int p = 0; p < P; ++p) {
      for (int r = 0; r < R; ++r) {
        sums[0][p][r] = _mm512_add_epi32(sums[0][p][r], sums[u][p][r]);
      }
    }
  }
  sink.put(row, sums[0]);
}

template <int P, class Source, class SomeRows, class Sink>
void all_rows(const Source& source, const SomeRows& rows, std::int64_t panel, const Sink& sink) {
  std::int64_t row = 0;
  for (; row + 8 <= rows.count; row += 8) {
    dot<8, P>(source, rows, row, panel, sink);
  }
  if (row + 4 <= rows.count) {
    dot<4, P>(source, rows, row, panel, sink);
    row += 4;
  }
  if (row + 2 <= rows.count) {
    dot<2, P>(source, rows, row, panel, sink);
    row += 2;
  }
  if (row < rows.count) {
    dot<1, P>(source, rows, row, panel, sink);
  }
}

}  // namespace
}  // namespace codesign::levels
