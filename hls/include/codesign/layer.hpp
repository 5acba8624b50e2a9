// SPDX-License-Identifier: Apache-2.0
// The unified unit at work: every LINEAR, ROUTE, ATTENTION and EXPERTS is a sequence of layers, and all layers run
// through the one call of `run_layer`. One call site means one MAC array: HLS shares no function between different
// callers.
#pragma once

#include "codesign/attention.hpp"
#include "codesign/experts.hpp"

namespace codesign {

// All tiles of a pass. A dense layer's next tile is taken from the stream while this one computes: the two calls share
// no variable that either writes, stand in one basic block, and so run side by side. (Two bodies by parity rather than
// a dataflow region: processes of a region may not share the memories that passes read and write.)
inline void run_layer(Memories& m, const Pass& pass, BlockStream& data) {
#pragma HLS INLINE off
#pragma HLS ALLOCATION function instances = run_tile limit = 1
#pragma HLS ALLOCATION function instances = take_tile limit = 1
#pragma HLS ALLOCATION function instances = take_operands limit = 1
  Tile even;
  Tile odd;
  const bool streamed = pass.kind == config::PassKind::KindDense;
  const unsigned tiles = pass.n_tiles * pass.k_words;
  unsigned n_tile = 0;
  unsigned k_word = 0;
  take_tile(data, pass.planes, streamed && tiles != 0, true, odd, even);
  for (unsigned t = 0; t < tiles; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 256
    const bool last_k = k_word + 1 == pass.k_words;
    const bool next = streamed && t + 1 < tiles;
    if (t % 2 == 0) {
      take_operands(m, pass, n_tile, k_word, even);
      take_tile(data, pass.planes, next, last_k, even, odd);
      run_tile(m, pass, n_tile, k_word, even);
    } else {
      take_operands(m, pass, n_tile, k_word, odd);
      take_tile(data, pass.planes, next, last_k, odd, even);
      run_tile(m, pass, n_tile, k_word, odd);
    }
    k_word = last_k ? 0 : k_word + 1;
    n_tile += last_k ? 1 : 0;
  }
}

// How many layers an instruction has: scores and mix of each head, two of each expert, one otherwise.
inline unsigned layers_of(const Instruction& in) {
#pragma HLS INLINE
  switch (in.opcode) {
    case config::Opcode::OpAttention:
      return 2 * in.num_heads.to_uint();
    case config::Opcode::OpExperts:
      return 2 * in.num_experts.to_uint();
    default:
      return 1;
  }
}

// Layer `index` of an instruction. An expert whose queue is empty has no rows; none has more than the instruction.
inline Pass pass_of(const Memories& m, const Instruction& in, unsigned index) {
#pragma HLS INLINE
  const unsigned unit = index / 2;
  const bool second = index % 2 != 0;
  switch (in.opcode) {
    case config::Opcode::OpAttention:
      return second ? mix_pass(in, unit) : score_pass(in, unit);
    case config::Opcode::OpExperts: {
      const unsigned queued = m.queue[unit][0].to_uint();
      const unsigned count = queued < in.rows.to_uint() ? queued : in.rows.to_uint();
      return second ? output_pass(in, unit, count) : hidden_pass(in, unit, count);
    }
    case config::Opcode::OpRoute:
      return dense_pass(in, config::PassPost::PostLogits, 0);
    default:
      return dense_pass(in, in.post, 0);
  }
}

inline void run_layers(Memories& m, const Instruction& in, BlockStream& data) {
#pragma HLS INLINE off
  const unsigned layers = layers_of(in);
  for (unsigned index = 0; index < layers; ++index) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 32
    const Pass pass = pass_of(m, in, index);
    if (pass.rows != 0) {
      run_layer(m, pass, data);
    }
  }
}

}  // namespace codesign
