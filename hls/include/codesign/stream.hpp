// SPDX-License-Identifier: Apache-2.0
// The stream of blocks: the reader that fills it in Program order, and what execution takes from it (records, tiles).
#pragma once

#include "codesign/instruction.hpp"
#include "codesign/spaces.hpp"
#include "codesign/unified_unit.hpp"

namespace codesign {

using BlockStream = hls::stream<Block>;
using IssueStream = hls::stream<InstructionWord>;
using QueueCounts = Count[config::MaxExperts];

// `blocks` blocks from a line of a space, one line a cycle.
inline void read_blocks(const Beat* gmem0, const Beat* gmem1, const Beat* gmem2, const Beat* gmem3, const Space& space,
                        Address first, unsigned blocks, BlockStream& data) {
#pragma HLS INLINE off
  Block block = 0;
  unsigned part = 0;
  for (Address i = 0; i < Address(blocks) * config::BlockLines; ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 16384
    push_line(block, read_line(gmem0, gmem1, gmem2, gmem3, space, first + i));
    const bool last = part + 1 == config::BlockLines;
    part = last ? 0 : part + 1;
    if (last) {
      data.write(block);
    }
  }
}

// The blocks of one dense layer, of whose tiles only the first planes are taken. Returns the line after it.
inline Address read_slice(const Beat* gmem0, const Beat* gmem1, const Beat* gmem2, const Beat* gmem3,
                          const Space& space, Address line, unsigned n_tiles, unsigned k_words, const Planes& planes,
                          BlockStream& data) {
#pragma HLS INLINE
  for (unsigned n = 0; n < n_tiles; ++n) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 16
    read_blocks(gmem0, gmem1, gmem2, gmem3, space, line, config::RecordBlocks, data);
    line += config::RecordBlocks * config::BlockLines;
    for (unsigned k = 0; k < k_words; ++k) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 16
      read_blocks(gmem0, gmem1, gmem2, gmem3, space, line, planes.taken, data);
      line += planes.stored * config::BlockLines;
    }
  }
  return line;
}

// The blocks of one instruction. An expert whose queue is empty is not read.
inline void read_instruction(const Instruction& in, const QueueCounts& counts, const Beat* gmem0, const Beat* gmem1,
                             const Beat* gmem2, const Beat* gmem3, const Spaces& spaces, BlockStream& data) {
#pragma HLS INLINE
#pragma HLS ALLOCATION function instances = read_blocks limit = 1
  const Space space = space_of(spaces, in.space);
  if (in.opcode != config::Opcode::OpExperts) {
    if (in.opcode != config::Opcode::OpAttention) {
      read_blocks(gmem0, gmem1, gmem2, gmem3, space, in.mem_addr, in.blocks, data);
    }
    return;
  }
  for (unsigned e = 0; e < in.num_experts; ++e) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = config::MaxExperts
    const Planes planes = planes_of(in, e);
    Address line = in.mem_addr + Address(e) * in.blocks.to_uint() * config::BlockLines;
    if (counts[e] != 0 && !is_slice(planes)) {
      read_blocks(gmem0, gmem1, gmem2, gmem3, space, line, in.blocks, data);
    } else if (counts[e] != 0) {
      for (unsigned layer = 0; layer < 2; ++layer) {
        line = read_slice(gmem0, gmem1, gmem2, gmem3, space, line, layer == 0 ? in.n_tiles : in.n_tiles2,
                          layer == 0 ? in.k_words : in.k_words2, planes, data);
      }
    }
  }
}

// The reader process: issues instructions [first, last), all legal and none a STORE, and streams their blocks ahead of
// execution.
inline void read_segment(const InstructionWord (&program)[config::MaxInstructions], unsigned first, unsigned last,
                         const QueueCounts& counts, const Beat* gmem0, const Beat* gmem1, const Beat* gmem2,
                         const Beat* gmem3, const Spaces& spaces, IssueStream& issue, BlockStream& data) {
#pragma HLS INLINE off
  for (unsigned i = first; i < last; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = config::MaxInstructions
    const InstructionWord word = program[i];
    issue.write(word);
    read_instruction(decode(word), counts, gmem0, gmem1, gmem2, gmem3, spaces, data);
  }
}

// Parameter record `index` of a block: bias [31:0], multiplier or gain [47:32], shift [53:48].
inline Channel channel_of(const Block& block, unsigned index) {
#pragma HLS INLINE
  const unsigned lsb = index * config::RecordBits;
  const ap_uint<config::RecordBits> record = block.range(lsb + config::RecordBits - 1, lsb);
  Channel channel;
  channel.bias = record.range(BiasBits - 1, 0);
  channel.multiplier = record.range(BiasBits + MultiplierBits - 1, BiasBits);
  channel.shift = record.range(BiasBits + MultiplierBits + ShiftBits - 1, BiasBits + MultiplierBits);
  return channel;
}

// The records of block `part` of a tile, into their channels.
inline void put_channels(const Block& block, unsigned part, Channel (&channel)[config::Pe]) {
#pragma HLS INLINE
  for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
    if (p / RecordsPerBlock == part) {
      channel[p] = channel_of(block, p % RecordsPerBlock);
    }
  }
}

// Bit `ActivationBits - 1 - plane` of every weight; the first plane clears the bits below.
inline void put_plane(const Block& block, unsigned plane, Tile& tile) {
#pragma HLS INLINE
  for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
    const ap_uint<config::Simd> row = block.range(p * config::Simd + config::Simd - 1, p * config::Simd);
    for (unsigned s = 0; s < config::Simd; ++s) {
#pragma HLS UNROLL
      const int above = plane == 0 ? 0 : tile.weight[p][s].to_int();
      tile.weight[p][s] = above | int(row[s]) << (ActivationBits - 1 - plane);
    }
  }
}

// The next tile of a dense stream; `first` of an n tile comes behind its records, the others keep the previous tile's.
// A slice ends with a plane of ones. `enable` is inside so that the call is unconditional: HLS runs it beside the pass
// over the previous tile.
inline void take_tile(BlockStream& data, const Planes& planes, bool enable, bool first, const Tile& previous,
                      Tile& tile) {
#pragma HLS INLINE off
  if (!enable) {
    return;
  }
  if (first) {
    for (unsigned part = 0; part < config::RecordBlocks; ++part) {
#pragma HLS PIPELINE II = 1
      put_channels(data.read(), part, tile.channel);
    }
  } else {
    for (unsigned p = 0; p < config::Pe; ++p) {
#pragma HLS UNROLL
      tile.channel[p] = previous.channel[p];
    }
  }
  const unsigned all = planes.taken + (is_slice(planes) ? 1 : 0);
  for (unsigned plane = 0; plane < all; ++plane) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 8
    Block block = ~Block(0);
    if (plane < planes.taken) {
      block = data.read();
    }
    put_plane(block, plane, tile);
  }
}

}  // namespace codesign
