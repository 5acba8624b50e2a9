// SPDX-License-Identifier: Apache-2.0
// The machine's integer types, every width derived from the generated header, and the two rounding helpers.
//
// Formulas: codesign/spec/ops.py. `requantize` is `saturate((a * m + (1 << (s - 1))) >> s)`, round half up.
#pragma once

// ap_int's constructors leave a value unset until it is assigned, and its range() walks backwards when its bounds do;
// g++ reports both at every use.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Waggressive-loop-optimizations"
#endif
// A block has up to 64 x 64 bits; the default limit is 1024.
#ifndef AP_INT_MAX_W
#define AP_INT_MAX_W 4096
#endif
#include <ap_int.h>
#include <hls_stream.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include "codesign_config.hpp"

namespace codesign {

// Bits of the unsigned number n (at least 1).
constexpr unsigned bits_of(unsigned long long n) {
  unsigned bits = 1;
  while (n >>= 1) {
    ++bits;
  }
  return bits;
}

constexpr unsigned divide_up(unsigned n, unsigned d) {
  return (n + d - 1) / d;
}

constexpr unsigned ActivationBits = config::BeatBits * config::ActBeats / config::Simd;
constexpr unsigned ResidualBits = config::BeatBits * config::ResBeats / config::Pe;
constexpr unsigned LineBits = config::Ports * config::BeatBits;
constexpr unsigned RecordsPerBlock = config::BlockBits / config::RecordBits;

using config::BiasBits;
using config::MultiplierBits;
using config::ShiftBits;

using Beat = ap_uint<config::BeatBits>;
using Line = ap_uint<LineBits>;
using Block = ap_uint<config::BlockBits>;
using InstructionWord = ap_uint<config::InstructionBits>;
using Register = ap_uint<32>;
using WideRegister = ap_uint<64>;

using Activation = ap_int<ActivationBits>;
using Residual = ap_int<ResidualBits>;
using Accumulator = ap_int<config::AccBits>;
using Bias = ap_int<BiasBits>;
using Multiplier = ap_uint<MultiplierBits>;
using Shift = ap_uint<ShiftBits>;
// Accumulator plus bias.
using Biased = ap_int<(config::AccBits > BiasBits ? config::AccBits : BiasBits) + 1>;

// A row of the score memory, a queue's entry, sums over one row.
using Score = ap_int<16>;
using ScoreDistance = ap_uint<16>;
using RowSum = ap_uint<bits_of(1ULL * config::ProbabilityMax * config::KeyWords * config::Simd)>;
using QueueEntry = ap_uint<32>;
using Gate = ap_uint<16>;
using Token = ap_uint<16>;
using Count = ap_uint<bits_of(config::MaxRows)>;

// The word shifted down by one line, with `line` on top: a word read in lines, the lowest first.
template <int W>
void push_line(ap_uint<W>& word, const Line& line) {
#pragma HLS INLINE
  if (W > int(LineBits)) {
    word >>= LineBits;
  }
  word.range(W - 1, W - LineBits) = line;
}

// Clamp to the range of a signed type of To bits.
template <unsigned To, int From>
ap_int<To> saturate(const ap_int<From>& x) {
#pragma HLS INLINE
  const ap_int<From> high = (ap_int<From>(1) << (To - 1)) - 1;
  const ap_int<From> low = -(ap_int<From>(1) << (To - 1));
  return x > high ? ap_int<To>(high) : x < low ? ap_int<To>(low) : ap_int<To>(x);
}

// `(x + (1 << (shift - 1))) >> shift` for shift >= 1, without a bit more than x has: floor((floor(x / 2^(s-1)) + 1) /
// 2).
template <int W>
ap_int<W> shift_round(const ap_int<W>& x, const ap_uint<ShiftBits>& shift) {
#pragma HLS INLINE
  const ap_uint<ShiftBits> down = shift - 1;
  const ap_int<W> doubled = down.to_uint() >= W ? ap_int<W>(x < 0 ? -1 : 0) : ap_int<W>(x >> down);
  return (doubled + 1) >> 1;
}

template <unsigned To, int From>
ap_int<To> requantize(const ap_int<From>& x, const Multiplier& multiplier, const Shift& shift) {
#pragma HLS INLINE
  constexpr int Product = From + MultiplierBits + 1;
  const ap_int<Product> product = x * ap_int<MultiplierBits + 1>(multiplier);
  return saturate<To>(shift_round(product, shift));
}

}  // namespace codesign
