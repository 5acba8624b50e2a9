// SPDX-License-Identifier: Apache-2.0
// The residual format by AVX-512 VNNI: few rows take base and planes as they are, many share cells of whole weights.
#include "levels_residual.hpp"
#include "levels_rows.hpp"

namespace codesign::levels {
namespace {

constexpr std::int64_t kShared = 16;  // rows times planes from which it is worth to look up whole weights

struct Wide {
  __m512d low, high;
};

Wide wide(__m512i v) {
  return {_mm512_cvtepi32_pd(_mm512_castsi512_si256(v)), _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(v, 1))};
}

Wide multipliers(const std::int16_t* p, __mmask16 mask) {
  return wide(_mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, p)));
}

void add_product(Wide& sum, const Wide& a, const Wide& b) {
  sum.low = _mm512_fmadd_pd(a.low, b.low, sum.low);
  sum.high = _mm512_fmadd_pd(a.high, b.high, sum.high);
}

// Integers in double to int64, stored or added.
void store_sums(const Wide& sums, __mmask16 mask, std::int64_t* to, bool accumulate) {
  const auto low = static_cast<__mmask8>(mask), high = static_cast<__mmask8>(mask >> 8);
  __m512i first = _mm512_cvtpd_epi64(sums.low), second = _mm512_cvtpd_epi64(sums.high);
  if (accumulate) {
    first = _mm512_add_epi64(first, _mm512_maskz_loadu_epi64(low, to));
    second = _mm512_add_epi64(second, _mm512_maskz_loadu_epi64(high, to + 8));
  }
  _mm512_mask_storeu_epi64(to, low, first);
  _mm512_mask_storeu_epi64(to + 8, high, second);
}

// Dots of one kind of cells of a group of 128 inputs with R rows.
template <int kBits, int R>
inline void group_dots(const Single<kBits>& expander, const std::uint8_t* cells, const std::int8_t* x,
                       std::int64_t stride, std::int64_t begin, std::int64_t end, __m512i (&dots)[R]) {
  constexpr int kChains = R == 1 ? 4 : 2;  // of a row: each sum waits for the one before
  __m512i sums[kChains][R];
  for (auto& chain : sums) {
    for (__m512i& sum : chain) {
      sum = _mm512_setzero_si512();
    }
  }
  for (std::int64_t g = begin; g < end; g += kChains) {
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      const __m512i codes = expander.cell({cells}, g + c);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        sums[c][r] = _mm512_dpbusd_epi32(sums[c][r], codes, broadcast4(x + r * stride + (g + c) * kGroup));
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 1; c < kChains; ++c) {
      sums[0][r] = _mm512_add_epi32(sums[0][r], sums[c][r]);
    }
    dots[r] = expander.finish(sums[0][r]);
  }
}

struct Arguments {
  const ResidualRows& rows;
  const ResidualWeight& weight;
  const Single<2>& base;
  const Single<1>& planes;
};

// Sums of a panel for R rows, in double: every term is an integer, and partial sums stay far below 2^53.
template <int R>
void residual_rows(const Arguments& a, std::int64_t row, std::int64_t panel, std::int64_t* acc, bool accumulate) {
  constexpr std::int64_t kGroupCells = kResidualGroup / kGroup;
  const ResidualWeight& w = a.weight;
  const std::int64_t column = panel * kPanel, cells = a.rows.chunks * kCells;
  const __mmask16 mask = panel_mask(w.outputs, panel);
  const std::int8_t* x = a.rows.x + row * a.rows.stride;
  const std::int32_t* sums = a.rows.sums + row * a.rows.groups;
  Wide total[R];
  for (Wide& t : total) {
    t = {_mm512_setzero_pd(), _mm512_setzero_pd()};
  }
  for (std::int64_t group = 0; group < a.rows.groups; ++group) {
    const std::int64_t begin = group * kGroupCells, end = begin + kGroupCells < cells ? begin + kGroupCells : cells;
    const std::int64_t at = group * w.outputs + column;
    __m512i dots[R];
    group_dots<2, R>(a.base, w.base + panel * panel_bytes(a.rows.chunks, 2), x, a.rows.stride, begin, end, dots);
    const Wide multiplier = multipliers(w.base_multiplier + at, mask);
    const Wide zero = wide(_mm512_maskz_loadu_epi32(mask, w.base_zero + at));
    for (int r = 0; r < R; ++r) {
      add_product(total[r], multiplier, wide(dots[r]));
      const __m512d minus = _mm512_set1_pd(-static_cast<double>(sums[r * a.rows.groups + group]));
      add_product(total[r], zero, {minus, minus});
    }
    for (int p = 0; p < w.planes; ++p) {
      group_dots<1, R>(a.planes, w.plane[p] + panel * panel_bytes(a.rows.chunks, 1), x, a.rows.stride, begin, end,
                       dots);
      const Wide plane = multipliers(w.plane_multiplier[p] + at, mask);
      for (int r = 0; r < R; ++r) {
        const __m512i sum = _mm512_set1_epi32(sums[r * a.rows.groups + group]);
        add_product(total[r], plane, wide(_mm512_sub_epi32(_mm512_add_epi32(dots[r], dots[r]), sum)));
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    store_sums(total[r], mask, acc + (row + r) * w.outputs + column, accumulate);
  }
}

void few(const ResidualRows& rows, const ResidualWeight& weight, std::int64_t* acc, bool accumulate,
         PanelRange panels) {
  const Single<2> base({weight.base, 2, 0}, rows.chunks);
  const Single<1> planes({nullptr, 1, 0}, rows.chunks);
  const Arguments a{rows, weight, base, planes};
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    std::int64_t row = 0;
    for (; row + 4 <= rows.count; row += 4) {
      residual_rows<4>(a, row, panel, acc, accumulate);
    }
    for (; row < rows.count; ++row) {
      residual_rows<1>(a, row, panel, acc, accumulate);
    }
  }
}

struct PairSums {
  const ByteSums& to;
  std::int64_t panel;

  template <int R>
  void put(std::int64_t row, const __m512i (&sums)[2][R]) const {
    for (int r = 0; r < R; ++r) {
      to.put(row + r, panel, sums[0][r], sums[1][r]);
    }
  }
};

template <int kPlanes>
void shared(const ResidualRows& rows, const ResidualWeight& weight, const ByteSums& to, PanelRange panels) {
  const Bytes<kPlanes> expander(weight, rows.chunks);
  const std::int64_t size = rows.chunks * kCells * kCell;
  auto* codes = static_cast<std::uint8_t*>(scratch(Slot::weights, static_cast<std::size_t>(2 * size)));
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const auto from = expander.panel(2 * panel);
    for (std::int64_t c = 0; c < rows.chunks; ++c) {
      std::uint8_t* low = codes + c * kCells * kCell;
      expander.pair(from, 0, c, low, low + size);
    }
    all_rows<2>(Expanded<Bytes<kPlanes>>{expander, codes, 2 * panel, size}, rows, 2 * panel, PairSums{to, panel});
  }
}

}  // namespace

void residual_avx512(const ResidualRows& rows, const ResidualWeight& weight, std::int64_t* acc, bool accumulate,
                     PanelRange panels) {
  if (rows.count * weight.planes < kShared) {
    few(rows, weight, acc, accumulate, panels);
    return;
  }
  const ByteSums to(rows, weight, acc, accumulate);
  if (weight.planes == 1) {
    shared<1>(rows, weight, to, panels);
  } else {
    shared<2>(rows, weight, to, panels);
  }
}

}  // namespace codesign::levels
