// SPDX-License-Identifier: Apache-2.0
// The passes of dense layers: LINEAR and ROUTE (one), and the two of each expert.
#pragma once

#include "codesign/pass.hpp"

namespace codesign {

inline Pass dense_pass(const Instruction& in, config::PassPost post, unsigned expert) {
#pragma HLS INLINE
  Pass pass = {};
  pass.kind = config::PassKind::KindDense;
  pass.post = post;
  pass.planes = planes_of(in, expert);
  pass.aligned_by = is_slice(pass.planes) ? 0 : ActivationBits - pass.planes.stored;
  pass.rows = in.rows;
  pass.k_words = in.k_words;
  pass.n_tiles = in.n_tiles;
  pass.src_base = in.src_base;
  pass.src_stride = in.src_stride;
  pass.dst_base = in.dst_base;
  pass.dst_stride = in.dst_stride;
  pass.second.multiplier = in.multiplier;
  pass.second.shift = in.shift;
  pass.expert = expert;
  pass.tokens = in.rows;
  return pass;
}

// First layer of expert e: the queue's tokens in, hidden rows 0..count-1 out.
inline Pass hidden_pass(const Instruction& in, unsigned expert, unsigned count) {
#pragma HLS INLINE
  Pass pass = dense_pass(in, config::PassPost::PostGelu, expert);
  pass.rows = count;
  pass.gather = true;
  pass.dst_base = in.aux_base;
  pass.dst_stride = in.aux_stride;
  return pass;
}

// Second layer: hidden rows in, gated and added to the residual of the queue's tokens.
inline Pass output_pass(const Instruction& in, unsigned expert, unsigned count) {
#pragma HLS INLINE
  Pass pass = dense_pass(in, config::PassPost::PostGated, expert);
  pass.rows = count;
  pass.scatter = true;
  pass.k_words = in.k_words2;
  pass.n_tiles = in.n_tiles2;
  pass.src_base = in.aux_base;
  pass.src_stride = in.aux_stride;
  return pass;
}

}  // namespace codesign
