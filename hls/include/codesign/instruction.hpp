// SPDX-License-Identifier: Apache-2.0
// One macro-instruction, taken apart. Field positions come from codesign/schedule/isa.py through the generated header.
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
  Shift shift;
  Multiplier multiplier;
  Multiplier multiplier2;
  Shift shift2;
  ap_uint<config::FieldMemAddr.width> mem_addr;
  ap_uint<config::FieldBeats.width> beats;
  ap_uint<config::FieldWords.width> words;
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
  in.beats = field_of(word, config::FieldBeats);
  in.words = field_of(word, config::FieldWords);
  return in;
}

inline config::Opcode opcode_of(const InstructionWord& word) {
#pragma HLS INLINE
  return static_cast<config::Opcode>(field_of(word, config::FieldOpcode));
}

inline bool is_legal(const config::Opcode& opcode) {
#pragma HLS INLINE
  switch (opcode) {
    case config::Opcode::OpLoad:
    case config::Opcode::OpStore:
    case config::Opcode::OpLinear:
    case config::Opcode::OpAttention:
    case config::Opcode::OpNorm:
    case config::Opcode::OpRoute:
    case config::Opcode::OpExperts:
      return true;
  }
  return false;
}

}  // namespace codesign
