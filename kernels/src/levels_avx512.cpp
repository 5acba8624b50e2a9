// SPDX-License-Identifier: Apache-2.0
// AVX-512 VNNI: few rows expand a cell in registers and use it for all of them; many rows share expanded panels.
#include "levels_rows.hpp"

namespace codesign::levels {
namespace {

constexpr std::int64_t kFusedRows = 32;  // more rows are worth a scratch of codes that are ORed from several levels

template <class Source>
struct RowSums {
  const Source& source;
  const std::int32_t* corrections;
  const PanelOutput* to;

  template <int P, int R>
  void put(std::int64_t row, const __m512i (&sums)[P][R]) const {
    for (int p = 0; p < P; ++p) {
      for (int r = 0; r < R; ++r) {
        to[p].emit(row + r, source.finish(sums[p][r]), corrections[row + r]);
      }
    }
  }
};

template <class Source>
void one_or_two(const Source& source, const Rows& rows, std::int64_t panel, const PanelOutput (&to)[2], bool two) {
  const RowSums<Source> sums{source, rows.corrections, to};
  two ? all_rows<2>(source, rows, panel, sums) : all_rows<1>(source, rows, panel, sums);
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
      one_or_two(source, rows, panel, to, two);
    } else {
      one_or_two(expander, rows, panel, to, two);
    }
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
