// SPDX-License-Identifier: Apache-2.0
// AVX-512 VNNI: few rows expand a cell in registers and use it for all of them; many rows share expanded panels.
#include "levels_avx512.hpp"

namespace codesign::levels {
namespace {

constexpr std::int64_t kFusedRows = 32;  // more rows are worth a scratch of codes that are ORed from several levels

template <class Source, int R, int P>
inline void store(const Source& source, const PanelOutput* to, std::int64_t row, const Rows& rows,
                  const __m512i (&sums)[P][R]) {
  for (int p = 0; p < P; ++p) {
    for (int r = 0; r < R; ++r) {
      to[p].emit(row + r, source.finish(sums[p][r]), rows.corrections[row + r]);
    }
  }
}

// R rows by P panels. U groups at a time have sums of their own: VPDPBUSD takes 5 cycles, and two start in each.
template <int R, int P, class Source>
void dot(const Source& source, const Rows& rows, std::int64_t row, std::int64_t panel, const PanelOutput* to) {
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
  store<Source, R, P>(source, to, row, rows, sums[0]);
}

template <int P, class Source>
void all_rows(const Source& source, const Rows& rows, std::int64_t panel, const PanelOutput* to) {
  std::int64_t row = 0;
  for (; row + 8 <= rows.count; row += 8) {
    dot<8, P>(source, rows, row, panel, to);
  }
  if (row + 4 <= rows.count) {
    dot<4, P>(source, rows, row, panel, to);
    row += 4;
  }
  if (row + 2 <= rows.count) {
    dot<2, P>(source, rows, row, panel, to);
    row += 2;
  }
  if (row < rows.count) {
    dot<1, P>(source, rows, row, panel, to);
  }
}

// The codes of one or two panels, for rows to share.
template <class Expander>
void expand(const Expander& expander, std::int64_t panel, int count, std::int64_t cells, std::uint8_t* codes) {
  const Expander own = expander;  // a store of codes could otherwise change it
  for (int p = 0; p < count; ++p) {
    const auto from = own.panel(panel + p);
    for (std::int64_t i = 0; i < cells; ++i, codes += kCell) {
      _mm512_store_si512(codes, own.cell(from, i));
    }
  }
}

template <class Expander>
void run(const Expander& expander, const Rows& rows, const Output& out, PanelRange panels) {
  const std::int64_t cells = rows.chunks * kCells;
  const bool share = !Expander::kScaled && rows.count > kFusedRows;
  auto* codes =
      share ? static_cast<std::uint8_t*>(scratch(Slot::weights, static_cast<std::size_t>(2 * cells * kCell))) : nullptr;
  for (std::int64_t panel = panels.begin; panel < panels.end; panel += 2) {
    const bool two = panel + 1 < panels.end;
    const PanelOutput to[2] = {{out, panel}, {out, panel + (two ? 1 : 0)}};
    if (share) {
      expand(expander, panel, two ? 2 : 1, cells, codes);
      const Expanded<Expander> source{expander, codes, panel, cells * kCell};
      two ? all_rows<2>(source, rows, panel, to) : all_rows<1>(source, rows, panel, to);
    } else {
      two ? all_rows<2>(expander, rows, panel, to) : all_rows<1>(expander, rows, panel, to);
    }
  }
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

struct ResidualKernelArguments {
  const ResidualRows& rows;
  const ResidualWeight& weight;
  const Single<2>& base;
  const Single<1>& planes;
};

// Sums of a panel for R rows, in double: every term is an integer, and all partial sums stay below 2^53:
// per group |A0 (u0 . x)| < 2^31, |Z sum(x)| <= 2^31 * 2^14, |Ap (2 up . x - sum(x))| <= 2^15 * 2^14; 64 groups.
template <int R>
void residual_rows(const ResidualKernelArguments& a, std::int64_t row, std::int64_t panel, std::int64_t* acc,
                   bool accumulate) {
  constexpr std::int64_t kGroupCells = kResidualGroup / kGroup;
  const ResidualWeight& w = a.weight;
  const std::int64_t column = panel * kPanel, left = w.outputs - column, cells = a.rows.chunks * kCells;
  const auto mask = static_cast<__mmask16>(left >= kPanel ? 0xFFFF : (1 << left) - 1);
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

// Spreads the 13 bytes of each of four cells over lanes of 16.
inline __m512i four_cells(const std::uint8_t* in) {
  alignas(64) std::uint8_t index[64];
  for (int i = 0; i < 64; ++i) {
    index[i] = static_cast<std::uint8_t>(kTritBytes * (i / 16) + (i % 16 < kTritBytes ? i % 16 : 0));
  }
  constexpr __mmask64 kBytes = (1ULL << (4 * kTritBytes)) - 1;
  return _mm512_permutexvar_epi8(_mm512_load_si512(index), _mm512_maskz_loadu_epi8(kBytes, in));
}

inline __m512i look_up(const __m512i (&table)[4], __m512i index) {
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), _mm512_permutex2var_epi8(table[0], index, table[1]),
                                _mm512_permutex2var_epi8(table[2], index, table[3]));
}

}  // namespace

void gemm_avx512(const Rows& rows, const LevelWeight& weight, const Output& out, PanelRange panels) {
  const bool done = with_expander(weight, rows.chunks, [&](const auto& expander) { run(expander, rows, out, panels); });
  if (!done) {
    by_level(gemm_avx512, rows, weight, out, panels);
  }
}

std::int32_t sum_avx512(const std::int8_t* x, std::int64_t inputs) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i a = _mm512_setzero_si512(), b = a;
  std::int64_t k = 0;
  for (; k + 2 * kChunk <= inputs; k += 2 * kChunk) {
    a = _mm512_dpbusd_epi32(a, ones, _mm512_loadu_si512(x + k));
    b = _mm512_dpbusd_epi32(b, ones, _mm512_loadu_si512(x + k + kChunk));
  }
  if (k < inputs) {
    a = _mm512_dpbusd_epi32(a, ones, _mm512_loadu_si512(x + k));
  }
  return _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
}

void residual_avx512(const ResidualRows& rows, const ResidualWeight& weight, std::int64_t* acc, bool accumulate,
                     PanelRange panels) {
  const Single<2> base({weight.base, 2, 0}, rows.chunks);
  const Single<1> planes({nullptr, 1, 0}, rows.chunks);
  const ResidualKernelArguments a{rows, weight, base, planes};
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

void trits_avx512(const std::uint8_t* in, std::int64_t cells, std::uint8_t* out) {
  __m512i four[4], fifth[4];
  for (int i = 0; i < 4; ++i) {
    four[i] = _mm512_loadu_si512(kTrits.four + 64 * i);
    fifth[i] = _mm512_loadu_si512(kTrits.fifth + 64 * i);
  }
  // The fifth trits 0..11 go to bytes 13..15: trit t + 3 q is field q of byte 13 + t.
  const __m512i gather = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1));
  const __m512i fields = _mm512_set1_epi32(0x40100401);
  const __m512i last =
      _mm512_broadcast_i32x4(_mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8));
  constexpr __mmask64 kFirst = 0x1FFF1FFF1FFF1FFFULL;
  std::int64_t cell = 0;
  for (; cell + 4 <= cells; cell += 4, in += 4 * kTritBytes, out += 4 * kTernaryBytes) {
    const __m512i v = four_cells(in);
    const __m512i bytes = _mm512_shuffle_epi8(look_up(fifth, v), gather);
    const __m512i rest = _mm512_dpbusd_epi32(_mm512_setzero_si512(), bytes, fields);
    const __m512i whole = _mm512_mask_blend_epi8(kFirst, _mm512_shuffle_epi8(rest, last), look_up(four, v));
    _mm512_storeu_si512(out, whole);
  }
  kPortable.trits(in, cells - cell, out);
}

const Kernels kAvx512Vnni{sum_avx512, gemm_avx512, residual_avx512, trits_avx512};

}  // namespace codesign::levels
