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

template <unsigned Lanes, unsigned Bits, typename Lane>
void unpack_beat(const Beat& beat, unsigned part, Lane (&word)[Lanes]) {
#pragma HLS INLINE
  constexpr unsigned PerBeat = config::BeatBits / Bits;
  for (unsigned g = 0; g < Lanes / PerBeat; ++g) {
#pragma HLS UNROLL
    for (unsigned i = 0; i < PerBeat; ++i) {
#pragma HLS UNROLL
      if (g == part) {
        word[g * PerBeat + i] = beat.range(i * Bits + Bits - 1, i * Bits);
      }
    }
  }
}

inline void run_load(Memories& m, const Instruction& in, DataStream& data) {
#pragma HLS INLINE off
  const bool to_res = in.unit == config::Unit::UnitRes;
  const unsigned parts = to_res ? config::ResBeats : config::ActBeats;
  unsigned word = in.dst_base;
  unsigned part = 0;
  for (unsigned i = 0; i < in.words.to_uint() * parts; ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 16384
    const Beat beat = data.read();
    if (to_res) {
      unpack_beat<config::Pe, ResidualBits>(beat, part, m.res[word]);
    } else {
      unpack_beat<config::Simd, ActivationBits>(beat, part, m.act[word]);
    }
    const bool last = part + 1 == parts;
    part = last ? 0 : part + 1;
    word += last ? 1 : 0;
  }
}

inline void store_words(const Memories& m, const Instruction& in, Beat* output_base) {
#pragma HLS INLINE off
  const bool from_res = in.unit == config::Unit::UnitRes;
  const unsigned parts = from_res ? config::ResBeats : config::ActBeats;
  Beat* to = output_base + in.mem_addr.to_uint();
  unsigned word = in.src_base;
  unsigned part = 0;
  for (unsigned i = 0; i < in.words.to_uint() * parts; ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 16384
    Beat beat;
    if (from_res) {
      beat = pack_beat<config::Pe, ResidualBits>(m.res[word], part);
    } else {
      beat = pack_beat<config::Simd, ActivationBits>(m.act[word], part);
    }
    to[i] = beat;
    const bool last = part + 1 == parts;
    part = last ? 0 : part + 1;
    word += last ? 1 : 0;
  }
}

// Four entries a beat; entry a of the QUEUE is entry a % (MaxRows + 1) of expert a / (MaxRows + 1), 0 beyond the last.
inline void store_queue(const Memories& m, const Instruction& in, Beat* output_base) {
#pragma HLS INLINE off
  constexpr unsigned EntryBits = 32;
  constexpr unsigned PerBeat = config::BeatBits / EntryBits;
  unsigned expert = in.src_base.to_uint() / (config::MaxRows + 1);
  unsigned entry = in.src_base.to_uint() % (config::MaxRows + 1);
  Beat* to = output_base + in.mem_addr.to_uint();
  for (unsigned i = 0; i < in.words.to_uint() / PerBeat; ++i) {
#pragma HLS PIPELINE
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 1024
    Beat beat = 0;
    for (unsigned j = 0; j < PerBeat; ++j) {
#pragma HLS UNROLL
      const QueueEntry value = expert < config::MaxExperts ? m.queue[expert][entry] : QueueEntry(0);
      beat.range(j * EntryBits + EntryBits - 1, j * EntryBits) = value;
      const bool last = entry == config::MaxRows;
      entry = last ? 0 : entry + 1;
      expert += last ? 1 : 0;
    }
    to[i] = beat;
  }
}

inline void run_store(const Memories& m, const Instruction& in, Beat* output_base) {
#pragma HLS INLINE
  if (in.unit == config::Unit::UnitQueue) {
    store_queue(m, in, output_base);
  } else {
    store_words(m, in, output_base);
  }
}

}  // namespace codesign
