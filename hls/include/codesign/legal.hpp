// SPDX-License-Identifier: Apache-2.0
// What the machine refuses: rule for rule codesign/schedule/legal.py, which also says what the rules are for.
#pragma once

#include "codesign/instruction.hpp"

namespace codesign {

// Sums and products of fields without overflow: the largest needs 37 bits.
using Wide = unsigned long long;

// What the rules know of the instructions before one. An `end` is how many are complete when that one is; 0: none.
struct Before {
  unsigned count;
  unsigned first_store_end;
  unsigned route_end;  // of the last ROUTE, as are rows and experts: the queues are its
  unsigned rows;
  unsigned experts;
};

constexpr Before NothingBefore = {0, 0, 0, 0, 0};

// What the instruction after `in` has before it.
inline Before then(const Before& before, const Instruction& in) {
#pragma HLS INLINE
  Before after = before;
  after.count += 1;
  if (in.opcode == config::Opcode::OpRoute) {
    after.route_end = after.count;
    after.rows = in.rows;
    after.experts = in.num_experts;
  } else if (in.opcode == config::Opcode::OpStore && before.first_store_end == 0) {
    after.first_store_end = after.count;
  }
  return after;
}

// The instruction may stand where it does.
inline bool is_in_place(const Instruction& in, const Before& before) {
#pragma HLS INLINE
  const bool reads_output = in.opcode == config::Opcode::OpLoad && in.space == config::Space::SpaceOutput;
  const bool stored = before.first_store_end != 0 && before.first_store_end <= in.fence;
  const bool routed = before.route_end != 0 && before.route_end <= in.fence && in.rows == before.rows &&
                      in.num_experts == before.experts;
  return in.fence <= before.count && (!reads_output || stored) && (in.opcode != config::Opcode::OpExperts || routed);
}

// Every code has a meaning, and nothing stands above the last field.
inline bool has_known_codes(const InstructionWord& word) {
#pragma HLS INLINE
  const unsigned opcode = field_of(word, config::FieldOpcode);
  return opcode >= unsigned(config::Opcode::OpLoad) && opcode <= unsigned(config::Opcode::OpExperts) &&
         field_of(word, config::FieldPost) <= unsigned(config::PassPost::PostAdd) &&
         field_of(word, config::FieldWeightFormat) <= unsigned(config::WeightFormat::WeightInt2) &&
         field_of(word, config::FieldSpace) <= unsigned(config::Space::SpaceOutput) &&
         field_of(word, config::FieldUnit) <= unsigned(config::Unit::UnitQueue) &&
         (word >> (config::InstructionBits - config::ReservedBits)) == 0;
}

// Rows of `width` words, and the spare word after them, lie in ACT.
inline bool in_act(Wide base, Wide stride, Wide rows, Wide width) {
#pragma HLS INLINE
  return width <= stride && base + rows * stride < config::ActWords;
}

inline bool in_res(Wide base, Wide stride, Wide rows, Wide width) {
#pragma HLS INLINE
  return width <= stride && base + rows * stride <= config::ResWords;
}

// ACT words of `columns` lanes.
inline Wide words_of_columns(Wide columns) {
#pragma HLS INLINE
  return (columns + config::Simd - 1) / config::Simd;
}

// ACT words of `tiles` tiles of Pe lanes.
inline Wide words_of_tiles(Wide tiles) {
#pragma HLS INLINE
  return words_of_columns(tiles * config::Pe);
}

inline Wide dense_blocks(Wide n_tiles, Wide k_words, Wide planes) {
#pragma HLS INLINE
  return n_tiles * (config::RecordBlocks + k_words * planes);
}

inline bool has_legal_rows(const Instruction& in) {
#pragma HLS INLINE
  return in.rows >= 1 && in.rows <= config::MaxRows;
}

inline bool is_shift(unsigned shift) {
#pragma HLS INLINE
  return shift >= 1 && shift < (1U << config::ShiftBits);
}

// Only LOAD reads other spaces.
inline bool has_stream(const Instruction& in) {
#pragma HLS INLINE
  return in.space == config::Space::SpaceMemory;
}

inline bool has_legal_source(const Instruction& in) {
#pragma HLS INLINE
  const Wide blocks = dense_blocks(in.n_tiles, in.k_words, stored_planes(in.weight_format));
  return has_legal_rows(in) && has_stream(in) && in.k_words >= 1 && in.n_tiles >= 1 &&
         in_act(in.src_base, in.src_stride, in.rows, in.k_words) && Wide(in.blocks) == blocks;
}

inline bool is_legal_load(const Instruction& in) {
#pragma HLS INLINE
  const bool act = in.unit == config::Unit::UnitAct;
  const Wide words = in.words;
  const Wide per_block = act ? config::BlockActWords : config::BlockResWords;
  const Wide room = Wide(in.blocks) * per_block;
  return in.unit != config::Unit::UnitQueue && words >= 1 &&
         Wide(in.dst_base) + words <= (act ? config::ActWords : config::ResWords) && words <= room &&
         room < words + per_block;
}

inline bool is_legal_store(const Instruction& in) {
#pragma HLS INLINE
  constexpr unsigned Fours = divide_up(config::QueueWords, 4) * 4;
  const bool queue = in.unit == config::Unit::UnitQueue;
  const Wide words = in.words;
  const Wide depth = queue ? Fours : in.unit == config::Unit::UnitRes ? config::ResWords : config::ActWords;
  return in.space == config::Space::SpaceOutput && words >= 1 && Wide(in.src_base) + words <= depth &&
         (!queue || words % 4 == 0);
}

inline bool is_legal_linear(const Instruction& in) {
#pragma HLS INLINE
  const bool to_act = in.post == config::PassPost::PostInt8 || in.post == config::PassPost::PostGelu;
  const bool scaled = in.post != config::PassPost::PostGelu || is_shift(in.shift);
  return has_legal_source(in) && scaled &&
         (to_act ? in_act(in.dst_base, in.dst_stride, in.rows, words_of_tiles(in.n_tiles))
                 : in_res(in.dst_base, in.dst_stride, in.rows, in.n_tiles));
}

inline bool is_legal_attention(const Instruction& in) {
#pragma HLS INLINE
  const Wide columns = words_of_columns(Wide(in.num_heads) * Wide(in.dim));
  return has_legal_rows(in) && in.keys >= 1 && in.keys <= config::KeyWords * config::Simd && in.num_heads >= 1 &&
         in.dim >= 1 && is_shift(in.shift) && is_shift(in.shift2) &&
         in_act(in.src_base, in.src_stride, in.rows, columns) && in_act(in.aux_base, in.src_stride, in.keys, columns) &&
         in_act(in.aux2_base, in.src_stride, in.keys, columns) && in_act(in.dst_base, in.dst_stride, in.rows, columns);
}

inline bool is_legal_norm(const Instruction& in) {
#pragma HLS INLINE
  const Wide channels = Wide(in.n_tiles) * config::Pe;
  return has_legal_rows(in) && has_stream(in) && in.n_tiles >= 1 && in.dim >= 1 && Wide(in.dim) <= channels &&
         channels <= config::NormDimMax && in_res(in.src_base, in.src_stride, in.rows, in.n_tiles) &&
         in_act(in.dst_base, in.dst_stride, in.rows, words_of_tiles(in.n_tiles)) &&
         Wide(in.blocks) == Wide(in.n_tiles) * config::RecordBlocks && is_shift(in.shift);
}

inline bool is_legal_route(const Instruction& in) {
#pragma HLS INLINE
  return has_legal_source(in) && in.n_tiles == 1 && in.num_experts >= 1 && in.num_experts <= config::MaxExperts &&
         in.top_k >= 1 && in.top_k <= in.num_experts;
}

// No expert has the width code 3, and only INT8 has slices.
inline bool has_legal_widths(const Instruction& in) {
#pragma HLS INLINE
  const ap_uint<config::FieldWidths.width> both = in.widths & (in.widths >> 1);
  bool known = true;
  for (unsigned bit = 0; bit < config::FieldWidths.width; bit += config::WidthBits) {
#pragma HLS UNROLL
    known = known && !both[bit];
  }
  return known && (in.widths == 0 || in.weight_format == config::WeightFormat::WeightInt8);
}

inline bool is_legal_experts(const Instruction& in) {
#pragma HLS INLINE
  const Wide planes = stored_planes(in.weight_format);
  const Wide blocks = dense_blocks(in.n_tiles, in.k_words, planes) + dense_blocks(in.n_tiles2, in.k_words2, planes);
  const Wide written = words_of_tiles(in.n_tiles);
  const Wide hidden = written > Wide(in.k_words2) ? written : Wide(in.k_words2);
  return has_legal_rows(in) && has_stream(in) && is_shift(in.shift) && in.num_experts >= 1 &&
         in.num_experts <= config::MaxExperts && in.ahead <= in.num_experts && in.k_words >= 1 && in.n_tiles >= 1 &&
         in.k_words2 >= 1 && in.n_tiles2 >= 1 && Wide(in.blocks) == blocks && has_legal_widths(in) &&
         in_act(in.src_base, in.src_stride, in.rows, in.k_words) &&
         in_act(in.aux_base, in.aux_stride, in.rows, hidden) &&
         in_res(in.dst_base, in.dst_stride, in.rows, in.n_tiles2);
}

inline bool is_legal(const InstructionWord& word, const Before& before) {
#pragma HLS INLINE off
  const Instruction in = decode(word);
  if (!has_known_codes(word) || !is_in_place(in, before)) {
    return false;
  }
  switch (in.opcode) {
    case config::Opcode::OpLoad:
      return is_legal_load(in);
    case config::Opcode::OpStore:
      return is_legal_store(in);
    case config::Opcode::OpLinear:
      return is_legal_linear(in);
    case config::Opcode::OpAttention:
      return is_legal_attention(in);
    case config::Opcode::OpNorm:
      return is_legal_norm(in);
    case config::Opcode::OpRoute:
      return is_legal_route(in);
    case config::Opcode::OpExperts:
      return is_legal_experts(in);
  }
  return false;
}

}  // namespace codesign
