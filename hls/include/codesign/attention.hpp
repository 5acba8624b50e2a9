// SPDX-License-Identifier: Apache-2.0
// ATTENTION: weight tiles from keys and values in ACT, and the two passes of a head (scores, mix of values).
#pragma once

#include "codesign/pass.hpp"

namespace codesign {

// Row p of the tile is window `window` of key `key_tile * Pe + p`; lanes outside the head's columns are 0.
inline void take_keys(const Memories& m, const Pass& pass, unsigned key_tile, unsigned window, Tile& tile) {
#pragma HLS INLINE
  const unsigned first_column = pass.first_granule * config::Granule + window * config::Simd;
  for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS PIPELINE II = 1
    const unsigned key = key_tile * config::Pe + p;
    const bool exists = key < pass.keys;
    Activation lanes[config::Simd];
    read_window(m, pass.tile_base + (exists ? key : 0) * pass.tile_stride + window, pass.first_granule, lanes);
    for (unsigned s = 0; s < config::Simd; ++s) {
#pragma HLS UNROLL
      const unsigned column = first_column + s;
      const bool used = exists && column >= pass.column_low && column < pass.column_high;
      tile.weight[p][s] = used ? lanes[s] : Activation(0);
    }
  }
}

// Column s of the tile is lane group `group` of key `key_word * Simd + s`; its probability is 0 where no such key
// exists.
inline void take_values(const Memories& m, const Pass& pass, unsigned group, unsigned key_word, Tile& tile) {
#pragma HLS INLINE
  for (unsigned s = 0; s < config::Simd; ++s) {
#pragma HLS PIPELINE II = 1
    const unsigned key = key_word * config::Simd + s;
    Activation lanes[config::Simd];
    read_window(m, pass.tile_base + (key < pass.keys ? key : 0) * pass.tile_stride,
                pass.first_granule + group * config::PeGranules, lanes);
    for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
      tile.weight[p][s] = lanes[p];
    }
  }
}

// The stationary operands of an attention pass; a dense layer's come from the stream instead.
inline void take_operands(const Memories& m, const Pass& pass, unsigned n_tile, unsigned k_word, Tile& tile) {
#pragma HLS INLINE off
  if (pass.kind == config::PassKind::KindScore) {
    take_keys(m, pass, n_tile, k_word, tile);
  } else if (pass.kind == config::PassKind::KindMix) {
    take_values(m, pass, n_tile, k_word, tile);
  }
}

// What both passes of a head share: its columns, the granule they begin in, rows and keys.
inline Pass head_pass(const Instruction& in, unsigned head) {
#pragma HLS INLINE
  Pass pass = {};
  pass.column_low = head * in.dim.to_uint();
  pass.column_high = pass.column_low + in.dim.to_uint();
  pass.first_granule = pass.column_low / config::Granule;
  pass.rows = in.rows;
  pass.keys = in.keys;
  pass.tile_stride = in.src_stride;
  return pass;
}

// Scores of all queries against tiles of Pe keys, over the windows that overlap the head.
inline Pass score_pass(const Instruction& in, unsigned head) {
#pragma HLS INLINE
  Pass pass = head_pass(in, head);
  pass.kind = config::PassKind::KindScore;
  pass.post = config::PassPost::PostScore;
  pass.n_tiles = divide_up(pass.keys, config::Pe);
  pass.k_words = divide_up(pass.column_high - pass.first_granule * config::Granule, config::Simd);
  pass.src_base = in.src_base;
  pass.src_stride = in.src_stride;
  pass.tile_base = in.aux_base;
  pass.first.multiplier = in.multiplier;
  pass.first.shift = in.shift;
  return pass;
}

// Probabilities times values, for the groups of Pe lanes that overlap the head.
inline Pass mix_pass(const Instruction& in, unsigned head) {
#pragma HLS INLINE
  Pass pass = head_pass(in, head);
  pass.kind = config::PassKind::KindMix;
  pass.post = config::PassPost::PostMix;
  pass.n_tiles = divide_up(pass.column_high - pass.first_granule * config::Granule, config::Pe);
  pass.k_words = divide_up(pass.keys, config::Simd);
  pass.tile_base = in.aux2_base;
  pass.dst_base = in.dst_base;
  pass.dst_stride = in.dst_stride;
  pass.second.multiplier = in.multiplier2;
  pass.second.shift = in.shift2;
  return pass;
}

}  // namespace codesign
