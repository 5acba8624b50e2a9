// SPDX-License-Identifier: Apache-2.0
// The machine executes one Program (docs/machine.md).
//
// A Program falls into segments: each EXPERTS begins a new one. Within a segment a reader process issues instructions
// and fills the data FIFO while the executor works (a dataflow region, as far ahead as the FIFO reaches). At an EXPERTS
// the reader must wait for the queues anyway, so the segment's end costs nothing, the counts enter the next region as
// plain inputs, and no channel runs backwards: C-simulation is sequential and exact.
#pragma once

#include "codesign/layer.hpp"
#include "codesign/norm.hpp"
#include "codesign/router.hpp"
#include "codesign/transfer.hpp"

namespace codesign {

inline void run_instruction(Memories& m, const Instruction& in, DataStream& data, Beat* output_base) {
#pragma HLS INLINE
  switch (in.opcode) {
    case config::Opcode::OpLoad:
      run_load(m, in, data);
      break;
    case config::Opcode::OpStore:
      run_store(m, in, output_base);
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
  }
}

// The executor process. `counts` are those of the queues when the segment is over.
inline void execute_segment(unsigned first, unsigned last, IssueStream& issue, DataStream& data, Beat* output_base,
                            QueueCounts& counts, config::Status& status) {
#pragma HLS INLINE off
  static Memories memories;
  config::Status result = config::Status::StatusOk;
  for (unsigned i = first; i < last; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = config::MaxInstructions
    const Instruction in = decode(issue.read());
    if (!is_legal(in.opcode)) {
      result = config::Status::StatusIllegalInstruction;
      break;
    }
    run_instruction(memories, in, data, output_base);
  }
  for (unsigned e = 0; e < config::MaxExperts; ++e) {
#pragma HLS UNROLL
    counts[e] = memories.queue[e][0];
  }
  status = result;
}

inline void run_segment(const InstructionWord (&program)[config::MaxInstructions], unsigned first, unsigned last,
                        const QueueCounts& counts, const Beat* memory_base, const Beat* input_base, Beat* output_base,
                        QueueCounts& next_counts, config::Status& status) {
#pragma HLS INLINE off
#pragma HLS DATAFLOW
  IssueStream issue("issue");
  DataStream data("data");
#pragma HLS STREAM variable = issue depth = 8
#pragma HLS STREAM variable = data depth = config::FifoBeats
  read_segment(program, first, last, counts, memory_base, input_base, issue, data);
  execute_segment(first, last, issue, data, output_base, next_counts, status);
}

inline void fetch_program(const Beat* memory_base, unsigned address, unsigned instructions,
                          InstructionWord (&program)[config::MaxInstructions]) {
#pragma HLS INLINE off
  const Beat* from = memory_base + address;
  InstructionWord word = 0;
  for (unsigned i = 0; i < instructions * config::InstructionBeats; ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS LOOP_TRIPCOUNT min = 4 max = 1024
    word = (from[i], word.range(config::InstructionBits - 1, config::BeatBits));
    program[i / config::InstructionBeats] = word;
  }
}

// One past the last instruction of the segment that starts at `first`.
inline unsigned segment_end(const InstructionWord (&program)[config::MaxInstructions], unsigned first, unsigned end) {
#pragma HLS INLINE off
  unsigned last = first + 1;
  while (last < end && opcode_of(program[last]) != config::Opcode::OpExperts) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = config::MaxInstructions
    ++last;
  }
  return last;
}

// A Program longer than the machine's program memory is refused as a whole.
inline config::Status run_program(const Beat* memory_base, const Beat* input_base, Beat* output_base, unsigned address,
                                  unsigned instructions) {
#pragma HLS INLINE off
  static InstructionWord program[config::MaxInstructions];
  if (instructions > config::MaxInstructions) {
    return config::Status::StatusIllegalInstruction;
  }
  fetch_program(memory_base, address, instructions, program);
  QueueCounts counts;
  QueueCounts next_counts;
#pragma HLS ARRAY_PARTITION variable = counts complete
#pragma HLS ARRAY_PARTITION variable = next_counts complete
  for (unsigned e = 0; e < config::MaxExperts; ++e) {
#pragma HLS UNROLL
    counts[e] = 0;
  }
  config::Status status = config::Status::StatusOk;
  unsigned first = 0;
  while (first < instructions && status == config::Status::StatusOk) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 16
    const unsigned last = segment_end(program, first, instructions);
    run_segment(program, first, last, counts, memory_base, input_base, output_base, next_counts, status);
    for (unsigned e = 0; e < config::MaxExperts; ++e) {
#pragma HLS UNROLL
      counts[e] = next_counts[e];
    }
    first = last;
  }
  return status;
}

}  // namespace codesign
