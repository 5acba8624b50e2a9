// SPDX-License-Identifier: Apache-2.0
// The DRAM stream: the reader that fills it in Program order, and what execution takes from it (records, weight tiles).
#pragma once

#include "codesign/instruction.hpp"
#include "codesign/unified_unit.hpp"

namespace codesign {

using DataStream = hls::stream<Beat>;
using IssueStream = hls::stream<InstructionWord>;
using QueueCounts = Count[config::MaxExperts];

inline void read_beats(const Beat* source, unsigned address, unsigned beats, DataStream& data) {
#pragma HLS INLINE off
  const Beat* from = source + address;
  for (unsigned i = 0; i < beats; ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 16384
    data.write(from[i]);
  }
}

// The beats of one instruction. An expert whose queue is empty is not read.
inline void read_instruction(const Instruction& in, const QueueCounts& counts, const Beat* memory_base,
                             const Beat* input_base, DataStream& data) {
#pragma HLS INLINE
  switch (in.opcode) {
    case config::Opcode::OpLoad:
    case config::Opcode::OpLinear:
    case config::Opcode::OpNorm:
    case config::Opcode::OpRoute:
      if (in.space == config::Space::SpaceInput) {
        read_beats(input_base, in.mem_addr, in.beats, data);
      } else {
        read_beats(memory_base, in.mem_addr, in.beats, data);
      }
      break;
    case config::Opcode::OpExperts:
      for (unsigned e = 0; e < in.num_experts && e < config::MaxExperts; ++e) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = config::MaxExperts
        if (counts[e] != 0) {
          read_beats(memory_base, in.mem_addr + e * in.beats.to_uint(), in.beats, data);
        }
      }
      break;
    case config::Opcode::OpStore:
    case config::Opcode::OpAttention:
      break;
  }
}

// The reader process: issues instructions [first, last) and streams their data ahead of execution.
inline void read_segment(const InstructionWord (&program)[config::MaxInstructions], unsigned first, unsigned last,
                         const QueueCounts& counts, const Beat* memory_base, const Beat* input_base, IssueStream& issue,
                         DataStream& data) {
#pragma HLS INLINE off
  for (unsigned i = first; i < last; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = config::MaxInstructions
    const InstructionWord word = program[i];
    issue.write(word);
    if (!is_legal(opcode_of(word))) {
      break;
    }
    read_instruction(decode(word), counts, memory_base, input_base, data);
  }
}

// One parameter record: bias [31:0], multiplier or gain [47:32], shift [53:48].
inline Channel channel_of(const Beat& beat, unsigned index) {
#pragma HLS INLINE
  const unsigned lsb = index * config::RecordBits;
  Channel channel;
  channel.bias = beat.range(lsb + BiasBits - 1, lsb);
  channel.multiplier = beat.range(lsb + BiasBits + MultiplierBits - 1, lsb + BiasBits);
  channel.shift = beat.range(lsb + BiasBits + MultiplierBits + ShiftBits - 1, lsb + BiasBits + MultiplierBits);
  return channel;
}

// The records of beat `part` of a tile, into their channels.
inline void put_channels(const Beat& beat, unsigned part, Channel (&channel)[config::Pe]) {
#pragma HLS INLINE
  for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
    if (p / RecordsPerBeat == part) {
      channel[p] = channel_of(beat, p % RecordsPerBeat);
    }
  }
}

// Spread the weights of one beat, Bits each, over the tile: index p * Simd + s counts on from `beat_index` beats.
template <unsigned Bits>
void expand_beat(const Beat& beat, unsigned beat_index, Tile& tile) {
#pragma HLS INLINE
  constexpr unsigned Chunk = ActivationsPerBeat;  // Simd is a multiple of it, so a chunk lies in one row
  constexpr unsigned Chunks = config::BeatBits / Bits / Chunk;
  constexpr unsigned RowChunks = config::Simd / Chunk;
  for (unsigned q = 0; q < Chunks; ++q) {
#pragma HLS UNROLL
    const unsigned chunk = beat_index * Chunks + q;
    for (unsigned g = 0; g < RowChunks; ++g) {
#pragma HLS UNROLL
      for (unsigned i = 0; i < Chunk; ++i) {
#pragma HLS UNROLL
        const unsigned lsb = (q * Chunk + i) * Bits;
        if (g == chunk % RowChunks) {
          tile.weight[chunk / RowChunks][g * Chunk + i] = ap_int<Bits>(beat.range(lsb + Bits - 1, lsb));
        }
      }
    }
  }
}

template <unsigned Bits>
void take_weights(DataStream& data, Tile& tile) {
#pragma HLS INLINE
  for (unsigned b = 0; b < config::Pe * config::Simd * Bits / config::BeatBits; ++b) {
#pragma HLS PIPELINE II = 1
    expand_beat<Bits>(data.read(), b, tile);
  }
}

inline void take_channels(DataStream& data, Tile& tile) {
#pragma HLS INLINE
  for (unsigned b = 0; b < config::RecordBeats; ++b) {
#pragma HLS PIPELINE II = 1
    put_channels(data.read(), b, tile.channel);
  }
}

// The next tile of a dense stream; `first` of an n tile comes behind its records, the others keep the previous tile's.
// `enable` is inside so that the call is unconditional: HLS runs it beside the pass over the previous tile.
inline void take_tile(DataStream& data, config::WeightFormat format, bool enable, bool first, const Tile& previous,
                      Tile& tile) {
#pragma HLS INLINE off
  if (!enable) {
    return;
  }
  if (first) {
    take_channels(data, tile);
  } else {
    for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
      tile.channel[p] = previous.channel[p];
    }
  }
  if (format == config::WeightFormat::WeightTernary) {
    take_weights<config::TernaryBits>(data, tile);
  } else {
    take_weights<ActivationBits>(data, tile);
  }
}

}  // namespace codesign
