// SPDX-License-Identifier: Apache-2.0
// The operators in plain loops, which the compiler vectorizes for the instruction set of the file that includes this:
// portable, AVX2 and NEON, and the rare rows of AVX-512. All in an unnamed namespace: each file has its own copy.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "codesign/operators.hpp"

namespace codesign {
namespace {

inline int clamp8(int x) {
  return x < -128 ? -128 : x > 127 ? 127 : x;
}
inline int clamp16(int x) {
  return x < -32768 ? -32768 : x > 32767 ? 32767 : x;
}

// floor(acc * factor + 0.5), clamped to 16 bits (gemm.hpp says why it is exact).
inline int requantize16(double acc, double factor) {
  double v = acc * factor + 0.5;
  v = v < -32768.0 ? -32768.0 : v;
  v = v > 32767.0 ? 32767.0 : v;
  const int t = static_cast<int>(v);
  return t - (v < t);
}

inline int gelu_word(const Gelu& gelu, int u) {
  const int a = u < 0 ? -u : u;
  const int i = a >> 6;
  const int delta = i < 64 ? (gelu.left[i] + ((gelu.slope[i] * (a & 63)) >> 6)) >> 4 : 0;
  return clamp8(requantize16((u > 0 ? u : 0) - delta, gelu.factor));
}

// (R, e) with 1 / z ~ R * 2^-(30 + e)
struct Mantissa {
  int value;
  int exponent;
};

inline Mantissa interpolate(const std::uint16_t* table, std::int64_t v, int exponent) {
  const int i = static_cast<int>(v >> 9), f = static_cast<int>(v & 511);
  return {table[i] - (((table[i] - table[i + 1]) * f + 256) >> 9), exponent};
}

inline std::int64_t shift_either(std::int64_t x, int right) {
  return right >= 0 ? x >> right : x << -right;
}

inline int log2_floor(std::int64_t x) {
  return 63 - std::countl_zero(static_cast<std::uint64_t>(x));
}

inline Mantissa reciprocal(const Tables& tables, std::int64_t z) {
  const int e = log2_floor(z) - 15;
  return interpolate(tables.reciprocal, shift_either(z, e) - (1 << 15), e);
}

inline Mantissa rsqrt(const Tables& tables, std::int64_t v) {
  const int e = (log2_floor(v) >> 1) - 7;
  return interpolate(tables.rsqrt, shift_either(v, 2 * e) - (1 << 14), e);
}

// Bytes of the panels from `begin`, as they lie or expanded from fewer bits: signed, or codes where `codes` is true.
inline void expand_cells(const Weights& w, const std::uint8_t* packed, std::size_t cells, bool codes,
                         std::uint8_t* out) {
  const int width = 8 * w.bits, mask = (1 << w.bits) - 1, back = codes ? 0 : w.offset;
  for (std::size_t c = 0; c < cells; ++c, packed += width) {
    for (int i = 0; i < 8 / w.bits; ++i) {
      for (int j = 0; j < width; ++j) {
        *out++ = static_cast<std::uint8_t>((packed[j] >> (i * w.bits) & mask) - back);
      }
    }
  }
}

// The epilogue of `rows` x `columns` sums from row `row` and column `column` of the layer on.
inline void store_sums(const Linear& l, const std::int32_t* sums, int sums_stride, int row, int rows, int column,
                       int columns) {
  const double* factor = l.rescale.wide + column;
  for (int r = 0; r < rows; ++r, sums += sums_stride) {
    const std::ptrdiff_t at = (row + r) * l.y_stride + column;
    std::int8_t* y8 = static_cast<std::int8_t*>(l.y) + at;
    std::int16_t* y16 = static_cast<std::int16_t*>(l.y) + at;
    switch (l.store) {
      case Store::sums:
        std::memcpy(static_cast<std::int32_t*>(l.y) + at, sums, sizeof(std::int32_t) * columns);
        break;
      case Store::int8:
        for (int n = 0; n < columns; ++n) {
          y8[n] = static_cast<std::int8_t>(clamp8(requantize16(sums[n], factor[n])));
        }
        break;
      case Store::int16:
        for (int n = 0; n < columns; ++n) {
          y16[n] = static_cast<std::int16_t>(requantize16(sums[n], factor[n]));
        }
        break;
      case Store::gelu:
        for (int n = 0; n < columns; ++n) {
          y8[n] = static_cast<std::int8_t>(gelu_word(*l.gelu, requantize16(sums[n], factor[n])));
        }
        break;
      case Store::add: {
        const std::int16_t* residual = l.residual + (row + r) * l.residual_stride + column;
        for (int n = 0; n < columns; ++n) {
          y16[n] = static_cast<std::int16_t>(clamp16(residual[n] + requantize16(sums[n], factor[n])));
        }
        break;
      }
    }
  }
}

// LINEAR by panels: `panel_sums(l, row, rows, cells, bias, scratch)` leaves kRows x 16 sums in scratch.sums().
template <int kRows, typename PanelSums>
void linear_by_panels(const Linear& l, Range rows, Range panels, const Scratch& scratch, PanelSums panel_sums) {
  const std::size_t cells = static_cast<std::size_t>(l.weights.blocks()) * kBlockGroups;
  for (int p = panels.begin; p < panels.end; ++p) {
    const std::uint8_t* bytes = l.weights.panel(p);
    if (l.weights.bits != 8) {
      expand_cells(l.weights, bytes, cells, false, scratch.expanded());
      bytes = scratch.expanded();
    }
    for (int r = rows.begin; r < rows.end; r += kRows) {
      const int count = std::min(kRows, rows.end - r);
      panel_sums(l, r, count, reinterpret_cast<const std::int8_t*>(bytes), l.bias + p * kPanelOutputs, scratch);
      store_sums(l, scratch.sums(), kPanelOutputs, r, count, p * kPanelOutputs, kPanelOutputs);
    }
  }
}

inline void norm_row(const Norm& norm, const std::int16_t* x, std::int8_t* y) {
  std::int64_t sum = 0, squares = 0;
  for (int i = 0; i < norm.dim; ++i) {
    sum += x[i];
    squares += x[i] * x[i];
  }
  const std::int64_t variance = norm.dim * squares - sum * sum;
  const Mantissa r = variance > 0 ? rsqrt(*norm.tables, variance) : Mantissa{0, 0};
  const double factor = std::ldexp(static_cast<double>(r.value), -(12 + r.exponent));
  for (int i = 0; i < norm.dim; ++i) {
    const int n = requantize16(static_cast<double>(norm.dim * x[i] - sum), factor);
    const std::int64_t v = (n * std::int64_t{norm.gain[i]} + norm.bias[i]) >> norm.shift;
    y[i] = static_cast<std::int8_t>(v < -128 ? -128 : v > 127 ? 127 : v);
  }
}

inline void norm_rows(const Norm& norm, Range rows) {
  for (int r = rows.begin; r < rows.end; ++r) {
    norm_row(norm, norm.x + r * norm.x_stride, norm.y + r * norm.y_stride);
  }
}

inline void gelu_words(const Gelu& gelu, const std::int16_t* u, std::int8_t* y, int count) {
  for (int i = 0; i < count; ++i) {
    y[i] = static_cast<std::int8_t>(gelu_word(gelu, u[i]));
  }
}

inline void add_words(const std::int16_t* a, const std::int16_t* b, std::int16_t* y, int count) {
  for (int i = 0; i < count; ++i) {
    y[i] = static_cast<std::int16_t>(clamp16(a[i] + b[i]));
  }
}

inline void gated_add_words(std::int16_t* y, const std::int16_t* o, std::uint32_t gate, int count) {
  const int g = static_cast<int>(gate);
  for (int i = 0; i < count; ++i) {
    y[i] = static_cast<std::int16_t>(clamp16(y[i] + clamp16((o[i] * g + (1 << 14)) >> 15)));
  }
}

inline std::int64_t probabilities_of(const Tables& tables, const std::int16_t* t, std::uint8_t* p, int count) {
  int largest = t[0];
  for (int j = 1; j < count; ++j) {
    largest = std::max<int>(largest, t[j]);
  }
  std::int64_t total = 0;
  for (int j = 0; j < count; ++j) {
    const int d = largest - t[j], i = std::min(d >> 8, 8);
    const int v = (tables.probability[d & 255] + (1 << (7 + i))) >> (8 + i);
    p[j] = static_cast<std::uint8_t>(i < 8 ? v : 0);
    total += p[j];
  }
  return total;
}

inline void mix_sums(const Mix& mix, const std::int32_t* sums, std::int64_t total, std::int8_t* y, int count) {
  const Mantissa r = reciprocal(*mix.tables, total);
  const double factor = std::ldexp(static_cast<double>(r.value), -(22 + r.exponent));
  for (int c = 0; c < count; ++c) {
    y[c] = static_cast<std::int8_t>(clamp8(requantize16(requantize16(sums[c], factor), mix.factor)));
  }
}

inline void pack_keys_of(const Head& keys, std::uint8_t* cells, bool signed_cells) {
  const int groups = (keys.columns + kBlockInputs - 1) / kBlockInputs * kBlockGroups;
  const std::uint8_t flip = signed_cells ? 0 : 128;
  for (int n = 0; n < keys.rows; ++n) {
    std::uint8_t* panel = cells + static_cast<std::size_t>(n / kPanelOutputs) * groups * kCellCodes;
    for (int k = 0; k < keys.columns; ++k) {
      panel[k / 4 * kCellCodes + n % kPanelOutputs * 4 + k % 4] =
          static_cast<std::uint8_t>(keys.data[n * keys.stride + k]) ^ flip;
    }
  }
}

inline void pack_values_of(const Head& values, std::uint8_t* cells, bool signed_cells) {
  const int groups = (values.rows + kBlockInputs - 1) / kBlockInputs * kBlockGroups;
  const std::uint8_t flip = signed_cells ? 0 : 128;
  for (int k = 0; k < values.rows; ++k) {
    for (int n = 0; n < values.columns; ++n) {
      std::uint8_t* panel = cells + static_cast<std::size_t>(n / kPanelOutputs) * groups * kCellCodes;
      panel[k / 4 * kCellCodes + n % kPanelOutputs * 4 + k % 4] =
          static_cast<std::uint8_t>(values.data[k * values.stride + n]) ^ flip;
    }
  }
}

inline std::uint16_t gate_of(std::int64_t weight, const Mantissa& inverse) {
  const int shift = 15 + inverse.exponent;
  return static_cast<std::uint16_t>((weight * inverse.value + (std::int64_t{1} << (shift - 1))) >> shift);
}

inline void route_row(const Route& route, const std::int16_t* t, std::uint16_t* gates) {
  const int largest = *std::max_element(t, t + route.experts);
  const auto weight = [&](int e) {
    const int d = largest - t[e], i = d >> 8;
    return i > 15 ? 0 : route.tables->exp2[d & 255] >> i;
  };
  std::int64_t total = 0;
  for (int e = 0; e < route.experts; ++e) {
    total += weight(e);
    gates[e] = 0;
  }
  const Mantissa inverse = reciprocal(*route.tables, total);
  // The next of the chosen comes after the last one in descending order of t, then ascending order of index.
  int last = -1;
  for (int chosen = 0; chosen < route.top_k; ++chosen) {
    int best = -1;
    for (int e = 0; e < route.experts; ++e) {
      const bool later = last < 0 || t[e] < t[last] || (t[e] == t[last] && e > last);
      if (later && (best < 0 || t[e] > t[best])) {
        best = e;
      }
    }
    gates[best] = gate_of(weight(best), inverse);
    last = best;
  }
}

inline void route_rows(const Route& route, Range rows) {
  for (int r = rows.begin; r < rows.end; ++r) {
    route_row(route, route.logits + r * route.logits_stride, route.gates + r * route.gates_stride);
  }
}

inline void do_nothing() {}

}  // namespace
}  // namespace codesign
