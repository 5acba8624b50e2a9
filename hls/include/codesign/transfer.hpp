// SPDX-License-Identifier: Apache-2.0
// LOAD and STORE: consecutive words of an on-chip memory from the stream, and to the output buffer.
#pragma once

#include "codesign/memories.hpp"
#include "codesign/stream.hpp"

namespace codesign {

// Lane `part * PerBeat + i` of a word, i = 0..PerBeat-1, packed into a beat; banks keep constant indices.
template <unsigned Lanes, unsigned Bits, typename Lane>
Beat pack_beat(const Lane (&word)[Lanes], unsigned part) {
#pragma HLS INLINE
  constexpr unsigned PerBeat = config::BeatBits / Bits;
  Beat beat = 0;
  for (unsigned g = 0; g < Lanes / PerBeat; ++g) {
#pragma HLS UNROLL
    for (unsigned i = 0; i < PerBeat; ++i) {
#pragma HLS UNROLL
      if (g == part) {
        beat.range(i * Bits + Bits - 1, i * Bits) = word[g * PerBeat + i].range(Bits - 1, 0);
      }
    }
  }
  return beat;
}

// The lowest bits of a block as the lanes of a word.
template <unsigned Lanes, unsigned Bits, typename Lane>
void unpack_word(const Block& block, Lane (&word)[Lanes]) {
#pragma HLS INLINE
  const ap_uint<Lanes * Bits> low = block.range(Lanes * Bits - 1, 0);
  for (unsigned i = 0; i < Lanes; ++i) {
#pragma HLS UNROLL
    word[i] = low.range(i * Bits + Bits - 1, i * Bits);
  }
}

// One word a cycle. Words of ACT are as many bits as Simd int8, words of RES as Pe int16.
inline void run_load(Memories& m, const Instruction& in, BlockStream& data) {
#pragma HLS INLINE off
  constexpr unsigned ActBits = config::Simd * ActivationBits;
  constexpr unsigned ResBits = config::Pe * ResidualBits;
  const bool to_res = in.unit == config::Unit::UnitRes;
  const unsigned per_block = to_res ? config::BlockResWords : config::BlockActWords;
  Block block = 0;
  unsigned part = 0;
  for (unsigned i = 0; i < in.words.to_uint(); ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 4096
    if (part == 0) {
      block = data.read();
    } else if (to_res && config::BlockResWords > 1) {
      block >>= ResBits;
    } else if (!to_res && config::BlockActWords > 1) {
      block >>= ActBits;
    }
    if (to_res) {
      unpack_word<config::Pe, ResidualBits>(block, m.res[in.dst_base + i]);
    } else {
      unpack_word<config::Simd, ActivationBits>(block, m.act[in.dst_base + i]);
    }
    part = part + 1 == per_block ? 0 : part + 1;
  }
}

// The words' beats, one after another over the ports, and zeros to the end of the last line.
inline void store_words(const Memories& m, const Instruction& in, Beat* gmem0, Beat* gmem1, Beat* gmem2, Beat* gmem3,
                        const Space& output) {
#pragma HLS INLINE off
  const bool from_res = in.unit == config::Unit::UnitRes;
  const unsigned parts = from_res ? config::ResBeats : config::ActBeats;
  const unsigned end = in.src_base + in.words.to_uint();
  const unsigned lines = divide_up(in.words.to_uint() * parts, config::Ports);
  unsigned word = in.src_base;
  unsigned part = 0;
  for (unsigned i = 0; i < lines; ++i) {
#pragma HLS PIPELINE
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 16384
    Beat beat[MaxPorts];
    for (unsigned p = 0; p < config::Ports; ++p) {
#pragma HLS UNROLL
      beat[p] = 0;
      if (word < end && from_res) {
        beat[p] = pack_beat<config::Pe, ResidualBits>(m.res[word], part);
      } else if (word < end) {
        beat[p] = pack_beat<config::Simd, ActivationBits>(m.act[word], part);
      }
      const bool last = part + 1 == parts;
      part = last ? 0 : part + 1;
      word += last ? 1 : 0;
    }
    write_line(gmem0, gmem1, gmem2, gmem3, output, Address(in.mem_addr) + i, beat);
  }
}

// Four entries a beat; entry a of the QUEUE is entry a % (MaxRows + 1) of expert a / (MaxRows + 1), 0 beyond the last.
inline void store_queue(const Memories& m, const Instruction& in, Beat* gmem0, Beat* gmem1, Beat* gmem2, Beat* gmem3,
                        const Space& output) {
#pragma HLS INLINE off
  constexpr unsigned EntryBits = 32;
  constexpr unsigned PerBeat = config::BeatBits / EntryBits;
  unsigned left = in.words;
  unsigned expert = in.src_base.to_uint() / (config::MaxRows + 1);
  unsigned entry = in.src_base.to_uint() % (config::MaxRows + 1);
  const unsigned lines = divide_up(in.words.to_uint(), PerBeat * config::Ports);
  for (unsigned i = 0; i < lines; ++i) {
#pragma HLS PIPELINE
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 1024
    Beat beat[MaxPorts];
    for (unsigned p = 0; p < config::Ports; ++p) {
#pragma HLS UNROLL
      beat[p] = 0;
      for (unsigned j = 0; j < PerBeat; ++j) {
#pragma HLS UNROLL
        const bool exists = left != 0 && expert < config::MaxExperts;
        const QueueEntry value = exists ? m.queue[expert][entry] : QueueEntry(0);
        beat[p].range(j * EntryBits + EntryBits - 1, j * EntryBits) = value;
        const bool last = entry == config::MaxRows;
        entry = last ? 0 : entry + 1;
        expert += last ? 1 : 0;
        left -= left != 0 ? 1 : 0;
      }
    }
    write_line(gmem0, gmem1, gmem2, gmem3, output, Address(in.mem_addr) + i, beat);
  }
}

inline void run_store(const Memories& m, const Instruction& in, Beat* gmem0, Beat* gmem1, Beat* gmem2, Beat* gmem3,
                      const Space& output) {
#pragma HLS INLINE
  if (in.unit == config::Unit::UnitQueue) {
    store_queue(m, in, gmem0, gmem1, gmem2, gmem3, output);
  } else {
    store_words(m, in, gmem0, gmem1, gmem2, gmem3, output);
  }
}

}  // namespace codesign
