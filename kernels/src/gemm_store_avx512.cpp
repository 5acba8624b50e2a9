// SPDX-License-Identifier: Apache-2.0
// AVX-512: the epilogue of dense layers, and the expansion of cells.
#include <algorithm>
#include <cstring>

#include "operators_avx512.hpp"
#include "simd_avx512.hpp"

namespace codesign::avx512 {
namespace {

// One panel of one row at a time: the last of an odd number of panels, and the last of an odd number of rows.
template <typename Factor>
struct OnePanel {
  Factor factor;
  OnePanel(const Linear& l, int column) : factor(l.rescale, column) {}

  __m512i words(const std::int32_t* sums) const {
    const __m512i v = factor(_mm512_loadu_si512(sums));
    return pack_words(v, v);
  }
};

template <typename Factor>
struct TwoPanels {
  Factor first, second;
  TwoPanels(const Linear& l, int column) : first(l.rescale, column), second(l.rescale, column + kPanelOutputs) {}

  // The sums of a row, saturated to words in the order of vpackssdw.
  __m512i words(const std::int32_t* sums) const {
    return pack_words(first(_mm512_loadu_si512(sums)), second(_mm512_loadu_si512(sums + kPanelOutputs)));
  }
};

struct Keep {
  explicit Keep(const Linear&) {}
  __m512i operator()(__m512i words) const { return words; }
};

struct Activate {
  GeluTable table;
  explicit Activate(const Linear& l) : table(*l.gelu) {}
  __m512i operator()(__m512i words) const { return table(words); }
};

template <typename Panels>
constexpr bool kWhole = false;
template <typename Factor>
constexpr bool kWhole<TwoPanels<Factor>> = true;

template <typename Panels, typename Activation>
void store_bytes(const Linear& l, const std::int32_t* sums, int stride, Range rows, int column) {
  const Panels panels(l, column);
  const Activation activation(l);
  std::int8_t* y = static_cast<std::int8_t*>(l.y) + rows.begin * l.y_stride + column;
  for (int r = rows.begin; r < rows.end; r += 2, sums += 2 * stride, y += 2 * l.y_stride) {
    const bool two = r + 1 < rows.end;
    const __m512i a = activation(panels.words(sums));
    const __m512i b = activation(panels.words(two ? sums + stride : sums));
    const __m512i bytes = pack_bytes(a, b);
    const __m256i low = _mm512_castsi512_si256(bytes), high = _mm512_extracti64x4_epi64(bytes, 1);
    if constexpr (kWhole<Panels>) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), low);
      if (two) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + l.y_stride), high);
      }
    } else {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(y), _mm256_castsi256_si128(low));
      if (two) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(y + l.y_stride), _mm256_castsi256_si128(high));
      }
    }
  }
}

template <typename Panels, bool kAdd>
void store_words(const Linear& l, const std::int32_t* sums, int stride, Range rows, int column) {
  const Panels panels(l, column);
  constexpr __mmask32 kWidth = kWhole<Panels> ? 0xFFFFFFFFU : 0xFFFFU;
  std::int16_t* y = static_cast<std::int16_t*>(l.y) + rows.begin * l.y_stride + column;
  const std::int16_t* residual = kAdd ? l.residual + rows.begin * l.residual_stride + column : nullptr;
  for (int r = rows.begin; r < rows.end; ++r, sums += stride, y += l.y_stride) {
    __m512i words = in_order(panels.words(sums));
    if constexpr (kAdd) {
      words = _mm512_adds_epi16(words, _mm512_maskz_loadu_epi16(kWidth, residual));
      residual += l.residual_stride;
    }
    _mm512_mask_storeu_epi16(y, kWidth, words);
  }
}

template <typename Panels>
void store(const Linear& l, const std::int32_t* sums, int stride, Range rows, int column) {
  switch (l.store) {
    case Store::int8:
      return store_bytes<Panels, Keep>(l, sums, stride, rows, column);
    case Store::gelu:
      return store_bytes<Panels, Activate>(l, sums, stride, rows, column);
    case Store::int16:
      return store_words<Panels, false>(l, sums, stride, rows, column);
    case Store::add:
      return store_words<Panels, true>(l, sums, stride, rows, column);
    case Store::sums:
      break;
  }
}

void copy_sums(const Linear& l, const std::int32_t* sums, int stride, Range rows, Range panels) {
  const int columns = (panels.end - panels.begin) * kPanelOutputs;
  std::int32_t* y = static_cast<std::int32_t*>(l.y) + rows.begin * l.y_stride + panels.begin * kPanelOutputs;
  for (int r = rows.begin; r < rows.end; ++r, sums += stride, y += l.y_stride) {
    std::memcpy(y, sums, sizeof(std::int32_t) * columns);
  }
}

// Byte j of a cell holds codes j, j + 8b, ... from its low end. One affine map over bits, vgf2p8affineqb, with a matrix
// for each eight bytes, picks a code out of each byte and turns it into its weight:
// ternary, w = u - 1: bit 0 is not u0, all others (the sign) are not (u0 xor u1), for u in 0..2;
// 4 bits, w = u - 8: bits 0-2 are u0-u2, all others are not u3.
constexpr std::uint64_t pick(int bits, bool codes, int part) {
  std::uint64_t matrix = 0;
  for (int bit = 0; bit < 8; ++bit) {
    std::uint64_t from = 0;
    if (bit < bits && (codes || bits == 4 || bit == 0)) {
      from = std::uint64_t{1} << bit;
    } else if (!codes) {
      from = bits == 2 ? 3 : 8;
    }
    matrix |= (from << (part * bits)) << (8 * (7 - bit));  // byte 7 - i makes bit i
  }
  return matrix;
}

template <int kBits, bool kCodes>
void expand_cells(const std::uint8_t* packed, std::size_t cells, std::uint8_t* out) {
  constexpr int kInvert = kCodes ? 0 : kBits == 2 ? 0xFF : 0xF8;
  alignas(64) std::uint64_t matrices[8];
  for (int i = 0; i < 8; ++i) {
    matrices[i] = pick(kBits, kCodes, i / kBits);
  }
  const __m512i matrix = _mm512_load_si512(matrices);
  for (std::size_t c = 0; c < cells; ++c, packed += 8 * kBits, out += kCellCodes) {
    const __m512i v = kBits == 2 ? _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)))
                                 : _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed)));
    _mm512_store_si512(out, _mm512_gf2p8affine_epi64_epi8(v, matrix, kInvert));
  }
}

template <typename Factor>
void store_panels(const Linear& l, const std::int32_t* sums, int stride, Range rows, Range panels) {
  for (int p = panels.begin; p < panels.end; p += 2, sums += 2 * kPanelOutputs) {
    if (p + 1 < panels.end) {
      store<TwoPanels<Factor>>(l, sums, stride, rows, p * kPanelOutputs);
    } else {
      store<OnePanel<Factor>>(l, sums, stride, rows, p * kPanelOutputs);
    }
  }
}

}  // namespace

void store_block(const Linear& l, const std::int32_t* sums, int sums_stride, Range rows, Range panels) {
  if (l.store == Store::sums) {
    copy_sums(l, sums, sums_stride, rows, panels);
  } else if (l.rescale.narrow) {
    store_panels<Single>(l, sums, sums_stride, rows, panels);
  } else {
    store_panels<Wide>(l, sums, sums_stride, rows, panels);
  }
}

void expand(const Weights& w, const std::uint8_t* packed, std::size_t cells, bool codes, std::uint8_t* out) {
  if (w.bits == 2) {
    codes ? expand_cells<2, true>(packed, cells, out) : expand_cells<2, false>(packed, cells, out);
  } else {
    codes ? expand_cells<4, true>(packed, cells, out) : expand_cells<4, false>(packed, cells, out);
  }
}

}  // namespace codesign::avx512
