// SPDX-License-Identifier: Apache-2.0
// ATTENTION: weight tiles from keys and values in ACT, and the two passes of a head (scores, mix of values).
#pragma once

#include "codesign/pass.hpp"

namespace codesign {

// Row p of the tile is key `key_tile * Pe + p`, word `k_word` of the head; lanes outside the head's columns are 0.
inline void take_keys(const Memories& m, const Pass& pass, unsigned key_tile, unsigned k_word, Tile& tile) {
#pragma HLS INLINE
  const unsigned word = pass.column_low / config::Simd + k_word;
  for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS PIPELINE II = 1
    const unsigned key = key_tile * config::Pe + p;
    const bool exists = key < pass.rows;
    const unsigned address = pass.tile_base + (exists ? key : 0) * pass.tile_stride + k_word;
    for (unsigned s = 0; s < config::Simd; ++s) {
#pragma HLS UNROLL
      const unsigned column = word * config::Simd + s;
      const bool used = exists && column >= pass.column_low && column < pass.column_high;
      tile.weight[p][s] = used ? m.act[address][s] : Activation(0);
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
    const unsigned word = pass.tile_base + (key < pass.rows ? key : 0) * pass.tile_stride + group / LaneGroups;
    for (unsigned g = 0; g < LaneGroups; ++g) {
#pragma HLS UNROLL
      for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
        if (g == group % LaneGroups) {
          tile.weight[p][s] = m.act[word][g * config::Pe + p];
        }
      }
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

// Scores of all queries against tiles of Pe keys, over the words that overlap the head.
inline Pass score_pass(const Instruction& in, unsigned head) {
#pragma HLS INLINE
  Pass pass = {};
  pass.column_low = head * in.dim.to_uint();
  pass.column_high = pass.column_low + in.dim.to_uint();
  const unsigned first_word = pass.column_low / config::Simd;
  pass.kind = config::PassKind::KindScore;
  pass.post = config::PassPost::PostScore;
  pass.rows = in.rows;
  pass.n_tiles = divide_up(pass.rows, config::Pe);
  pass.k_words = divide_up(pass.column_high, config::Simd) - first_word;
  pass.src_base = in.src_base + first_word;
  pass.src_stride = in.src_stride;
  pass.tile_base = in.aux_base + first_word;
  pass.tile_stride = in.src_stride;
  pass.first.multiplier = in.multiplier;
  pass.first.shift = in.shift;
  return pass;
}

// Probabilities times values, for the lane groups that overlap the head.
inline Pass mix_pass(const Instruction& in, unsigned head) {
#pragma HLS INLINE
  Pass pass = {};
  pass.column_low = head * in.dim.to_uint();
  pass.column_high = pass.column_low + in.dim.to_uint();
  pass.kind = config::PassKind::KindMix;
  pass.post = config::PassPost::PostMix;
  pass.rows = in.rows;
  pass.n_first = pass.column_low / config::Pe;
  pass.n_tiles = divide_up(pass.column_high, config::Pe) - pass.n_first;
  pass.k_words = divide_up(pass.rows, config::Simd);
  pass.tile_base = in.aux2_base;
  pass.tile_stride = in.src_stride;
  pass.dst_base = in.dst_base;
  pass.dst_stride = in.dst_stride;
  pass.second.multiplier = in.multiplier2;
  pass.second.shift = in.shift2;
  return pass;
}

}  // namespace codesign
