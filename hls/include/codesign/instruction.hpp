// SPDX-License-Identifier: Apache-2.0
// One macro-instruction, taken apart. Field positions come from codesign/schedule/isa.py through the generated header.
// `chain`, `fence` and `ahead` concern engines that overlap instructions; this one does not, and only judges them.
#pragma once

#include "codesign/types.hpp"

namespace codesign {

struct Instruction {
  config::Opcode opcode;
  config::PassPost post;
  config::WeightFormat weight_format;
  config::Space space;
  config::Unit unit;
  ap_uint<config::FieldRows.width> rows;
  ap_uint<config::FieldKWords.width> k_words;
  ap_uint<config::FieldNTiles.width> n_tiles;
  ap_uint<config::FieldKWords2.width> k_words2;
  ap_uint<config::FieldNTiles2.width> n_tiles2;
  ap_uint<config::FieldSrcBase.width> src_base;
  ap_uint<config::FieldSrcStride.width> src_stride;
  ap_uint<config::FieldDstBase.width> dst_base;
  ap_uint<config::FieldDstStride.width> dst_stride;
  ap_uint<config::FieldAuxBase.width> aux_base;
  ap_uint<config::FieldAuxStride.width> aux_stride;
  ap_uint<config::FieldAux2Base.width> aux2_base;
  ap_uint<config::FieldDim.width> dim;
  ap_uint<config::FieldNumHeads.width> num_heads;
  ap_uint<config::FieldNumExperts.width> num_experts;
  ap_uint<config::FieldTopK.width> top_k;
  ap_uint<config::FieldShift.width> shift;
  Multiplier multiplier;
  Multiplier multiplier2;
  ap_uint<config::FieldShift2.width> shift2;
  ap_uint<config::FieldMemAddr.width> mem_addr;
  ap_uint<config::FieldBlocks.width> blocks;
  ap_uint<config::FieldWords.width> words;
  ap_uint<config::FieldFence.width> fence;
  ap_uint<config::FieldKeys.width> keys;
  ap_uint<config::FieldAhead.width> ahead;
  ap_uint<config::FieldWidths.width> widths;
};

inline unsigned field_of(const InstructionWord& word, const config::Field& field) {
#pragma HLS INLINE
  return word.range(field.lsb + field.width - 1, field.lsb).to_uint();
}

inline Instruction decode(const InstructionWord& word) {
#pragma HLS INLINE
  Instruction in;
  in.opcode = static_cast<config::Opcode>(field_of(word, config::FieldOpcode));
  in.post = static_cast<config::PassPost>(field_of(word, config::FieldPost));
  in.weight_format = static_cast<config::WeightFormat>(field_of(word, config::FieldWeightFormat));
  in.space = static_cast<config::Space>(field_of(word, config::FieldSpace));
  in.unit = static_cast<config::Unit>(field_of(word, config::FieldUnit));
  in.rows = field_of(word, config::FieldRows);
  in.k_words = field_of(word, config::FieldKWords);
  in.n_tiles = field_of(word, config::FieldNTiles);
  in.k_words2 = field_of(word, config::FieldKWords2);
  in.n_tiles2 = field_of(word, config::FieldNTiles2);
  in.src_base = field_of(word, config::FieldSrcBase);
  in.src_stride = field_of(word, config::FieldSrcStride);
  in.dst_base = field_of(word, config::FieldDstBase);
  in.dst_stride = field_of(word, config::FieldDstStride);
  in.aux_base = field_of(word, config::FieldAuxBase);
  in.aux_stride = field_of(word, config::FieldAuxStride);
  in.aux2_base = field_of(word, config::FieldAux2Base);
  in.dim = field_of(word, config::FieldDim);
  in.num_heads = field_of(word, config::FieldNumHeads);
  in.num_experts = field_of(word, config::FieldNumExperts);
  in.top_k = field_of(word, config::FieldTopK);
  in.shift = field_of(word, config::FieldShift);
  in.multiplier = field_of(word, config::FieldMultiplier);
  in.multiplier2 = field_of(word, config::FieldMultiplier2);
  in.shift2 = field_of(word, config::FieldShift2);
  in.mem_addr = field_of(word, config::FieldMemAddr);
  in.blocks = field_of(word, config::FieldBlocks);
  in.words = field_of(word, config::FieldWords);
  in.fence = field_of(word, config::FieldFence);
  in.keys = field_of(word, config::FieldKeys);
  in.ahead = field_of(word, config::FieldAhead);
  in.widths = word.range(config::FieldWidths.lsb + config::FieldWidths.width - 1, config::FieldWidths.lsb);
  return in;
}

inline config::Opcode opcode_of(const InstructionWord& word) {
#pragma HLS INLINE
  return static_cast<config::Opcode>(field_of(word, config::FieldOpcode));
}

// Bit planes of a weight tile: how many rest in memory, and how many of them the instruction takes.
struct Planes {
  unsigned stored;
  unsigned taken;
};

// A slice takes fewer planes than are stored; the machine then appends a plane of ones.
inline bool is_slice(const Planes& planes) {
#pragma HLS INLINE
  return planes.taken < planes.stored;
}

inline unsigned stored_planes(config::WeightFormat format) {
#pragma HLS INLINE
  switch (format) {
    case config::WeightFormat::WeightInt8:
      return 8;
    case config::WeightFormat::WeightInt4:
      return 4;
    case config::WeightFormat::WeightInt2:
      return 2;
  }
  return 0;
}

// The planes of the instruction's layers; those of EXPERTS differ from expert to expert.
inline Planes planes_of(const Instruction& in, unsigned expert) {
#pragma HLS INLINE
  Planes planes;
  planes.stored = stored_planes(in.weight_format);
  planes.taken = planes.stored;
  const unsigned lsb = expert * config::WidthBits;
  const bool chosen = in.opcode == config::Opcode::OpExperts && lsb < config::FieldWidths.width;
  const unsigned code = chosen ? ap_uint<config::WidthBits>(in.widths >> lsb).to_uint() : 0;
  if (static_cast<config::Width>(code) == config::Width::WidthSlice4) {
    planes.taken = 4;
  } else if (static_cast<config::Width>(code) == config::Width::WidthSlice2) {
    planes.taken = 2;
  }
  return planes;
}

}  // namespace codesign
