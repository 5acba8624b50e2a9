// SPDX-License-Identifier: Apache-2.0
// A pass: what the unified unit does for one layer, and the loop over its rows for one weight tile.
#pragma once

#include "codesign/memories.hpp"
#include "codesign/post.hpp"
#include "codesign/reciprocal.hpp"
#include "codesign/softmax.hpp"
#include "codesign/stream.hpp"

namespace codesign {

struct Pass {
  config::PassKind kind;
  config::PassPost post;
  // Weights from the stream: their planes, and the factor 2^aligned_by that their sums carry.
  Planes planes;
  unsigned aligned_by;
  unsigned rows;
  unsigned n_tiles;
  unsigned k_words;
  // Activations, weights that come from ACT (keys, values), results.
  unsigned src_base;
  unsigned src_stride;
  unsigned tile_base;
  unsigned tile_stride;
  unsigned dst_base;
  unsigned dst_stride;
  Scale first;   // scores
  Scale second;  // GELU, attention output
  // Expert layers: which queue names the tokens (below `tokens`), whether x comes from them (gather) or y goes to them
  // (scatter).
  unsigned expert;
  unsigned tokens;
  bool gather;
  bool scatter;
  // Attention: keys, the head's columns [low, high), and the granule that holds the first of them.
  unsigned keys;
  unsigned first_granule;
  unsigned column_low;
  unsigned column_high;
};

// Simd lanes of PROB(row maximum - score) for one word of keys, and their sum; keys >= `keys` give 0.
inline void probabilities(const Memories& m, unsigned row, unsigned key_word, unsigned keys,
                          Activation (&x)[config::Simd], RowSum& sum) {
#pragma HLS INLINE
  RowSum total = 0;
  for (unsigned s = 0; s < config::Simd; ++s) {
#pragma HLS UNROLL
    const ScoreDistance distance = m.row_max[row] - m.score[row * config::KeyWords + key_word][s];
    x[s] = key_word * config::Simd + s < keys ? probability(distance) : Activation(0);
    total += x[s];
  }
  sum = total;
}

// Scores of one tile of keys: to the score memory, and into the row's running maximum (keys >= `keys` excluded). The
// last tile may reach beyond the row.
inline void write_scores(Memories& m, unsigned row, unsigned key_tile, unsigned keys,
                         const Residual (&result)[config::Pe]) {
#pragma HLS INLINE
  bool write[config::Pe];
  Score highest = key_tile == 0 ? Score(-32768) : m.row_max[row];
  for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
    const unsigned key = key_tile * config::Pe + p;
    write[p] = key < config::KeyWords * config::Simd;
    if (key < keys && result[p] > highest) {
      highest = result[p];
    }
  }
  m.row_max[row] = highest;
  write_lanes(m.score, row * config::KeyWords, key_tile * config::PeGranules, result, write);
}

// int8 results of group `tile` of Pe lanes of a row in ACT, counted from the granule where a head begins.
inline void write_act(Memories& m, const Pass& pass, unsigned row, unsigned tile,
                      const Residual (&result)[config::Pe]) {
#pragma HLS INLINE
  Activation value[config::Pe];
  bool write[config::Pe];
  for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
    const unsigned column = pass.first_granule * config::Granule + tile * config::Pe + p;
    value[p] = saturate<ActivationBits>(result[p]);
    write[p] = pass.post != config::PassPost::PostMix || (column >= pass.column_low && column < pass.column_high);
  }
  write_lanes(m.act, pass.dst_base + row * pass.dst_stride, pass.first_granule + tile * config::PeGranules, value,
              write);
}

// int16 results in RES, overwriting or added to what is there.
inline void write_res(Memories& m, const Pass& pass, unsigned row, unsigned tile,
                      const Residual (&result)[config::Pe]) {
#pragma HLS INLINE
  const unsigned word = pass.dst_base + row * pass.dst_stride + tile;
  for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
    const ap_int<ResidualBits + 1> sum = m.res[word][p] + result[p];
    m.res[word][p] = adds_to_res(pass.post) ? saturate<ResidualBits>(sum) : result[p];
  }
}

// The token of a queue's entry; a queue from a ROUTE of more rows must not lead outside the memories.
inline unsigned token_of(const Pass& pass, const QueueEntry& entry) {
#pragma HLS INLINE
  const unsigned token = entry.range(15, 0).to_uint();
  return token < pass.tokens ? token : 0;
}

// One finished row of accumulators through the post-processor to its destination.
inline void finish_row(Memories& m, const Pass& pass, unsigned row, unsigned tile, const QueueEntry& entry,
                       const RowSum& row_sum, const Accumulator (&total)[config::Pe], const Tile& weights) {
#pragma HLS INLINE
  Scale first = pass.first;
  Scale second = pass.second;
  if (pass.post == config::PassPost::PostMix) {
    const Mantissa inverse = reciprocal(row_sum);
    first.multiplier = inverse.value;
    first.shift = ReciprocalScaleBits - int(config::ProbabilityFractionBits) + inverse.exponent;
  }
  if (pass.post == config::PassPost::PostGated) {
    second.multiplier = entry.range(31, 16);
    second.shift = config::GateFractionBits;
  }
  Residual result[config::Pe];
  post_process(pass.post, pass.aligned_by, total, weights.channel, first, second, result);
  const unsigned y_row = pass.scatter ? token_of(pass, entry) : row;
  if (pass.post == config::PassPost::PostScore) {
    write_scores(m, row, tile, pass.keys, result);
  } else if (pass.post == config::PassPost::PostLogits) {
    write_scores(m, row, 0, config::Pe, result);
  } else if (goes_to_act(pass.post)) {
    write_act(m, pass, y_row, tile, result);
  } else if (goes_to_res(pass.post)) {
    write_res(m, pass, y_row, tile, result);
  }
}

// Every row of the pass against one tile, one row a cycle. Rows differ, so no iteration reads what another writes.
inline void run_tile(Memories& m, const Pass& pass, unsigned n_tile, unsigned k_word, const Tile& tile) {
#pragma HLS INLINE off
  for (unsigned row = 0; row < pass.rows; ++row) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 1 max = config::MaxRows
#pragma HLS DEPENDENCE variable = m.act type = inter dependent = false
#pragma HLS DEPENDENCE variable = m.res type = inter dependent = false
#pragma HLS DEPENDENCE variable = m.acc type = inter dependent = false
#pragma HLS DEPENDENCE variable = m.score type = inter dependent = false
#pragma HLS DEPENDENCE variable = m.row_max type = inter dependent = false
#pragma HLS DEPENDENCE variable = m.row_sum type = inter dependent = false
    const QueueEntry entry = m.queue[pass.expert][row + 1];
    Activation x[config::Simd];
    RowSum row_sum = 0;
    if (pass.kind == config::PassKind::KindMix) {
      probabilities(m, row, k_word, pass.keys, x, row_sum);
      row_sum += k_word == 0 ? RowSum(0) : m.row_sum[row];
      m.row_sum[row] = row_sum;
    } else {
      const unsigned x_row = pass.gather ? token_of(pass, entry) : row;
      read_window(m, pass.src_base + x_row * pass.src_stride + k_word, pass.first_granule, x);
    }
    PartialSum sum[config::Pe];
    mac_array(tile.weight, x, sum);
    Accumulator total[config::Pe];
    for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
      total[p] = sum[p] + (k_word == 0 ? Accumulator(0) : m.acc[row][p]);
      m.acc[row][p] = total[p];
    }
    if (k_word + 1 == pass.k_words) {
      finish_row(m, pass, row, n_tile, entry, row_sum, total, tile);
    }
  }
}

}  // namespace codesign
