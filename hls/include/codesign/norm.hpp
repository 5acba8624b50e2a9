// SPDX-License-Identifier: Apache-2.0
// NORM: LayerNorm in integers, in three pipelined loops (sums of every row, their reciprocal roots, the affine part).
#pragma once

#include "codesign/memories.hpp"
#include "codesign/reciprocal.hpp"
#include "codesign/stream.hpp"

namespace codesign {

constexpr unsigned NormTiles = divide_up(config::NormDimMax, config::Pe);
constexpr unsigned DimBits = bits_of(NormTiles * config::Pe);
// Sum of a row, sum of its squares, and D times the latter: D^2 times the variance.
using NormSum = ap_int<ResidualBits + DimBits>;
using NormSquares = ap_uint<2 * ResidualBits - 1 + DimBits>;
using NormVariance = ap_uint<2 * ResidualBits - 1 + 2 * DimBits>;

struct NormRow {
  NormSum sum;
  Mantissa root;
};

// (S, 1/sqrt(D*Q - S*S)); a row of equal values has no root, and any will do: its D*x - S are 0.
inline NormRow norm_row(const NormSum& sum, const NormSquares& squares, unsigned dim) {
#pragma HLS INLINE
  const ap_uint<DimBits> d = dim;
  const NormVariance scaled = d * squares;
  const NormVariance mean = sum * sum;
  const NormVariance variance = scaled - mean;
  NormRow row;
  row.sum = sum;
  row.root = rsqrt(variance == 0 ? NormVariance(1) : variance);
  return row;
}

// sat8((n * gain + bias + (1 << (shift - 1))) >> shift) with n = sat16((D*x - S) / sigma), 10 fraction bits.
inline Activation norm_value(const Residual& x, const NormRow& row, unsigned dim, const Residual& gain,
                             const Bias& bias, const Shift& shift) {
#pragma HLS INLINE
  const ap_int<ResidualBits + DimBits + 2> centred = x * ap_int<DimBits + 1>(dim) - row.sum;
  const Shift down = RsqrtScaleBits - int(config::NormFractionBits) + row.root.exponent;
  const Residual n = requantize<ResidualBits>(centred, row.root.value, down);
  const ap_int<BiasBits + 2> affine = n * gain + bias;
  return saturate<ActivationBits>(shift_round(affine, shift));
}

inline void take_gains(const Instruction& in, BlockStream& data, Channel (&channel)[NormTiles][config::Pe]) {
#pragma HLS INLINE
  unsigned tile = 0;
  unsigned part = 0;
  for (unsigned i = 0; i < in.n_tiles.to_uint() * config::RecordBlocks; ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 1024
    put_channels(data.read(), part, channel[tile]);
    const bool last = part + 1 == config::RecordBlocks;
    part = last ? 0 : part + 1;
    tile += last ? 1 : 0;
  }
}

inline void norm_sums(const Memories& m, const Instruction& in, NormSum (&sum)[config::MaxRows],
                      NormSquares (&squares)[config::MaxRows]) {
#pragma HLS INLINE off
  NormSum s = 0;
  NormSquares q = 0;
  unsigned row = 0;
  unsigned tile = 0;
  for (unsigned i = 0; i < in.rows.to_uint() * in.n_tiles.to_uint(); ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 4096
    NormSum s_word = 0;
    NormSquares q_word = 0;
    for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
      const Residual x = m.res[in.src_base + row * in.src_stride.to_uint() + tile][p];
      s_word += x;
      q_word += x * x;
    }
    s = s_word + (tile == 0 ? NormSum(0) : s);
    q = q_word + (tile == 0 ? NormSquares(0) : q);
    sum[row] = s;
    squares[row] = q;
    const bool last = tile + 1 == in.n_tiles;
    tile = last ? 0 : tile + 1;
    row += last ? 1 : 0;
  }
}

inline void norm_apply(Memories& m, const Instruction& in, const NormRow (&rows)[config::MaxRows],
                       const Channel (&channel)[NormTiles][config::Pe]) {
#pragma HLS INLINE off
  unsigned row = 0;
  unsigned tile = 0;
  for (unsigned i = 0; i < in.rows.to_uint() * in.n_tiles.to_uint(); ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 4096
#pragma HLS DEPENDENCE variable = m.act type = inter dependent = false
    Activation value[config::Pe];
    bool write[config::Pe];
    for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
      const Residual x = m.res[in.src_base + row * in.src_stride.to_uint() + tile][p];
      const Residual gain = channel[tile][p].multiplier;  // a NORM's record holds the signed gain here
      value[p] = norm_value(x, rows[row], in.dim, gain, channel[tile][p].bias, in.shift);
      write[p] = true;
    }
    write_lanes(m.act, in.dst_base + row * in.dst_stride.to_uint(), tile * config::PeGranules, value, write);
    const bool last = tile + 1 == in.n_tiles;
    tile = last ? 0 : tile + 1;
    row += last ? 1 : 0;
  }
}

inline void run_norm(Memories& m, const Instruction& in, BlockStream& data) {
#pragma HLS INLINE off
  static Channel channel[NormTiles][config::Pe];
  static NormSum sum[config::MaxRows];
  static NormSquares squares[config::MaxRows];
  static NormRow rows[config::MaxRows];
#pragma HLS ARRAY_PARTITION variable = channel complete dim = 2
  take_gains(in, data, channel);
  norm_sums(m, in, sum, squares);
  for (unsigned row = 0; row < in.rows; ++row) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 1 max = config::MaxRows
    rows[row] = norm_row(sum[row], squares[row], in.dim);
  }
  norm_apply(m, in, rows, channel);
}

}  // namespace codesign
