// SPDX-License-Identifier: Apache-2.0
// What a variant implements, and the operators that are made of it. Formulas: codesign/spec/ops.py.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "codesign/cpu.hpp"
#include "codesign/gemm.hpp"
#include "codesign/pool.hpp"

namespace codesign {

// The tables of codesign.reference.tables, and what follows from them.
struct Tables {
  // Throws std::invalid_argument for tables of other sizes.
  Tables(std::span<const std::uint16_t> exp2, std::span<const std::uint16_t> reciprocal,
         std::span<const std::uint16_t> rsqrt, std::span<const std::uint16_t> gelu_delta);

  // GELU with the requantization multiplier * 2^-shift.
  Gelu gelu(int multiplier, int shift) const;

  std::uint16_t exp2[256];
  std::uint16_t reciprocal[65];
  std::uint16_t rsqrt[97];
  std::uint16_t gelu_delta[65];
  // EXP2[f] * 127 >> 7: 15 bits are enough for PROB, whose shift of 15 + i drops those 7 whatever i.
  alignas(64) std::uint16_t probability[256];
};

// NORM of rows of `dim` elements; y is writable up to a multiple of 64 columns.
struct Norm {
  const Tables* tables;
  const std::int16_t* x;
  std::ptrdiff_t x_stride;
  std::int8_t* y;
  std::ptrdiff_t y_stride;
  int dim;
  int shift;
  const std::int16_t* gain;         // padded to a multiple of 64 with 0,
  const std::int16_t* gain_packed;  // in the order of two packed vectors (operators_avx512.cpp)
  const std::int64_t* bias;         // with half a unit of the shift,
  const std::int32_t* bias_narrow;  // the same where `narrow`: gain * n + bias cannot leave 32 bits
  bool narrow;
};

// The end of ATTENTION: y = sat8(rq(sat16(rq(sums, 1 / total)), out)).
struct Mix {
  const Tables* tables;
  double factor;  // of `out`
};

// ROUTE's second half: logits [rows, experts] to gates.
struct Route {
  const Tables* tables;
  const std::int16_t* logits;
  std::ptrdiff_t logits_stride;
  std::uint16_t* gates;
  std::ptrdiff_t gates_stride;
  int experts;
  int top_k;
};

// Keys or values of one head, int8 [rows, columns].
struct Head {
  const std::int8_t* data;
  std::ptrdiff_t stride;
  int rows;
  int columns;
};

// One variant. Everything is for one thread; `enter` and `leave` stand around calls of the others on each thread.
struct Kernels {
  bool signed_cells;
  void (*enter)();
  void (*leave)();
  void (*linear)(const Linear& layer, Range rows, Range panels, const Scratch& scratch);
  void (*norm)(const Norm& norm, Range rows);
  void (*gelu)(const Gelu& gelu, const std::int16_t* u, std::int8_t* y, int count);
  void (*add)(const std::int16_t* a, const std::int16_t* b, std::int16_t* y, int count);
  // y += o * gate * 2^-15, both product and sum saturated
  void (*gated_add)(std::int16_t* y, const std::int16_t* o, std::uint32_t gate, int count);
  // p[j] = PROB(max(t) - t[j]); their sum
  std::int64_t (*probabilities)(const Tables& tables, const std::int16_t* t, std::uint8_t* p, int count);
  void (*mix)(const Mix& mix, const std::int32_t* sums, std::int64_t total, std::int8_t* y, int count);
  void (*route)(const Route& route, Range rows);
  // As weights with outputs = keys, inputs = dims; and with outputs = dims, inputs = keys. Padding is left as it is.
  void (*pack_keys)(const Head& keys, std::uint8_t* cells, bool signed_cells);
  void (*pack_values)(const Head& values, std::uint8_t* cells, bool signed_cells);
};

// The kernels of a variant that is available.
const Kernels& kernels(Variant variant);

const Kernels& portable_kernels();
#if defined(__aarch64__)
const Kernels& neon_kernels();
#endif
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& amx_kernels();
#endif

}  // namespace codesign
