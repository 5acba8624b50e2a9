// SPDX-License-Identifier: Apache-2.0
// The machine executes one Program (docs/machine.md).
//
// A Program falls into segments: each EXPERTS begins a new one, and each STORE stands alone. Within a segment a reader
// process issues instructions and fills the block FIFO while the executor works (a dataflow region, as far ahead as the
// FIFO reaches). At an EXPERTS the reader must wait for the queues anyway, so the segment's end costs nothing, the
// counts enter the next region as plain inputs, and no channel runs backwards: C-simulation is sequential and exact.
// Nothing behind a STORE is read before it is done, which keeps every `fence`, and a region never writes DRAM.
#pragma once

#include "codesign/layer.hpp"
#include "codesign/legal.hpp"
#include "codesign/norm.hpp"
#include "codesign/router.hpp"
#include "codesign/transfer.hpp"

namespace codesign {

// How a run ended; `fault` is the index of the instruction that was refused.
struct Outcome {
  config::Status status;
  unsigned fault;
};

inline void run_instruction(Memories& m, const Instruction& in, BlockStream& data) {
#pragma HLS INLINE
  switch (in.opcode) {
    case config::Opcode::OpLoad:
      run_load(m, in, data);
      break;
    case config::Opcode::OpNorm:
      run_norm(m, in, data);
      break;
    case config::Opcode::OpLinear:
    case config::Opcode::OpAttention:
    case config::Opcode::OpRoute:
    case config::Opcode::OpExperts:
      run_layers(m, in, data);
      if (in.opcode == config::Opcode::OpRoute) {
        fill_queues(m, in);
      }
      break;
    case config::Opcode::OpStore:  // stands between segments
      break;
  }
}

// The executor process.
inline void execute_segment(Memories& m, unsigned first, unsigned last, IssueStream& issue, BlockStream& data) {
#pragma HLS INLINE off
  for (unsigned i = first; i < last; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = config::MaxInstructions
    run_instruction(m, decode(issue.read()), data);
  }
}

inline void run_segment(Memories& m, const InstructionWord (&program)[config::MaxInstructions], unsigned first,
                        unsigned last, const QueueCounts& counts, const Beat* gmem0, const Beat* gmem1,
                        const Beat* gmem2, const Beat* gmem3, const Spaces& spaces) {
#pragma HLS INLINE off
#pragma HLS DATAFLOW
  IssueStream issue("issue");
  BlockStream data("data");
#pragma HLS STREAM variable = issue depth = 8
#pragma HLS STREAM variable = data depth = config::FifoBlocks
  read_segment(program, first, last, counts, gmem0, gmem1, gmem2, gmem3, spaces, issue, data);
  execute_segment(m, first, last, issue, data);
}

inline void fetch_program(const Beat* gmem0, const Beat* gmem1, const Beat* gmem2, const Beat* gmem3,
                          const Space& memory, unsigned address, unsigned instructions,
                          InstructionWord (&program)[config::MaxInstructions]) {
#pragma HLS INLINE off
  constexpr unsigned Lines = config::InstructionBits / LineBits;
  InstructionWord word = 0;
  for (unsigned i = 0; i < instructions * Lines; ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 1024
    push_line(word, read_line(gmem0, gmem1, gmem2, gmem3, memory, Address(address) + i));
    program[i / Lines] = word;
  }
}

// How many instructions stand before the first illegal one.
inline unsigned legal_end(const InstructionWord (&program)[config::MaxInstructions], unsigned instructions) {
#pragma HLS INLINE off
  Before before = NothingBefore;
  while (before.count < instructions && is_legal(program[before.count], before)) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = config::MaxInstructions
    before = then(before, decode(program[before.count]));
  }
  return before.count;
}

// One past the last instruction of the segment that starts at `first`; all before `end` are legal.
inline unsigned segment_end(const InstructionWord (&program)[config::MaxInstructions], unsigned first, unsigned end) {
#pragma HLS INLINE off
  unsigned last = first + 1;
  while (last < end && opcode_of(program[last]) != config::Opcode::OpExperts &&
         opcode_of(program[last]) != config::Opcode::OpStore) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = config::MaxInstructions
    ++last;
  }
  return last;
}

// A Program longer than the machine's program memory is refused as a whole, any other at its first illegal instruction,
// when those before it are done.
inline Outcome run_program(Beat* gmem0, Beat* gmem1, Beat* gmem2, Beat* gmem3, const Spaces& spaces, unsigned address,
                           unsigned instructions) {
#pragma HLS INLINE off
  static Memories memories;
  static InstructionWord program[config::MaxInstructions];
  Outcome outcome = {config::Status::StatusOk, 0};
  if (instructions > config::MaxInstructions) {
    outcome.status = config::Status::StatusIllegalInstruction;
    return outcome;
  }
  fetch_program(gmem0, gmem1, gmem2, gmem3, spaces.memory, address, instructions, program);
  const unsigned end = legal_end(program, instructions);
  if (end < instructions) {
    outcome.status = config::Status::StatusIllegalInstruction;
    outcome.fault = end;
  }
  unsigned first = 0;
  while (first < end) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 16
    const InstructionWord word = program[first];
    if (opcode_of(word) == config::Opcode::OpStore) {
      run_store(memories, decode(word), gmem0, gmem1, gmem2, gmem3, spaces.output);
      ++first;
      continue;
    }
    QueueCounts counts;
#pragma HLS ARRAY_PARTITION variable = counts complete
    for (unsigned e = 0; e < config::MaxExperts; ++e) {
#pragma HLS UNROLL
      counts[e] = memories.queue[e][0];
    }
    const unsigned last = segment_end(program, first, end);
    run_segment(memories, program, first, last, counts, gmem0, gmem1, gmem2, gmem3, spaces);
    first = last;
  }
  return outcome;
}

}  // namespace codesign
