// SPDX-License-Identifier: Apache-2.0
// C-simulation of the machine, and the test bench of C/RTL co-simulation. Command line: docs/bundle.md.
//
//   csim MEMORY INPUTS OUTPUTS PROGRAM_ADDR NUM_INSTRUCTIONS INPUT_BYTES OUTPUT_BYTES RUNS
//
// Exit status: 0 done, 2 bad arguments or files, 3 the machine stopped with a status other than OK. Errors are one
// line.
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "../src/codesign_top.hpp"
#include "codesign/instruction.hpp"

namespace {

using codesign::Beat;
using codesign::Instruction;
using Bytes = std::vector<char>;
using Beats = std::vector<Beat>;

constexpr std::size_t BeatBytes = codesign::config::BeatBits / 8;

struct Arguments {
  std::string memory;
  std::string inputs;
  std::string outputs;
  std::uint32_t program_addr;
  std::uint32_t num_instructions;
  std::uint32_t input_bytes;
  std::uint32_t output_bytes;
  std::uint32_t runs;
};

[[noreturn]] void refuse(const std::string& message) {
  throw std::runtime_error(message);
}

std::uint32_t number(const char* name, const char* text) {
  char* end = nullptr;
  errno = 0;
  const unsigned long long value = std::strtoull(text, &end, 10);
  const bool digits = text[0] >= '0' && text[0] <= '9';
  if (!digits || *end != '\0' || errno != 0 || value > std::numeric_limits<std::uint32_t>::max()) {
    refuse(std::string(name) + " must be a number below 2^32, not '" + text + "'; see docs/bundle.md");
  }
  return static_cast<std::uint32_t>(value);
}

Arguments parse(int argc, char** argv) {
  if (argc != 9) {
    refuse("there must be 8 arguments, not " + std::to_string(argc - 1) +
           "; call: csim MEMORY INPUTS OUTPUTS PROGRAM_ADDR NUM_INSTRUCTIONS INPUT_BYTES OUTPUT_BYTES RUNS");
  }
  Arguments a = {argv[1],
                 argv[2],
                 argv[3],
                 number("PROGRAM_ADDR", argv[4]),
                 number("NUM_INSTRUCTIONS", argv[5]),
                 number("INPUT_BYTES", argv[6]),
                 number("OUTPUT_BYTES", argv[7]),
                 number("RUNS", argv[8])};
  if (a.input_bytes % BeatBytes != 0 || a.output_bytes % BeatBytes != 0) {
    refuse("INPUT_BYTES and OUTPUT_BYTES must be multiples of " + std::to_string(BeatBytes) + ", not " + argv[6] +
           " and " + argv[7] + "; take them from manifest.json");
  }
  return a;
}

Bytes read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) {
    refuse(path + " must be a readable file: " + std::strerror(errno));
  }
  Bytes bytes(static_cast<std::size_t>(file.tellg()));
  file.seekg(0);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(bytes.size())) && !bytes.empty()) {
    refuse(path + " must be readable to its end");
  }
  return bytes;
}

// Beats of `bytes` bytes, at least `at_least` of them (co-simulation copies whole declared depths).
Beats to_beats(const char* bytes, std::size_t count, std::size_t at_least) {
  const std::size_t beats = count / BeatBytes;
  Beats result(beats > at_least ? beats : at_least);
  for (std::size_t i = 0; i < beats; ++i) {
    for (std::size_t half = 0; half < 2; ++half) {
      std::uint64_t word = 0;
      for (std::size_t b = 0; b < 8; ++b) {
        word |= std::uint64_t(static_cast<unsigned char>(bytes[i * BeatBytes + half * 8 + b])) << (8 * b);
      }
      result[i].range(static_cast<int>(half) * 64 + 63, static_cast<int>(half) * 64) = ap_uint<64>(word);
    }
  }
  return result;
}

void append_bytes(const Beats& beats, std::size_t count, Bytes& bytes) {
  for (std::size_t i = 0; i < count / BeatBytes; ++i) {
    for (int half = 0; half < 2; ++half) {
      const std::uint64_t word = beats[i].range(half * 64 + 63, half * 64).to_uint64();
      for (unsigned b = 0; b < 8; ++b) {
        bytes.push_back(static_cast<char>(word >> (8 * b)));
      }
    }
  }
}

void write_file(const std::string& path, const Bytes& bytes) {
  const std::string temporary = path + ".part";
  std::ofstream file(temporary, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    refuse(path + " must be writable: " + std::strerror(errno));
  }
}

void check_range(std::uint32_t index, const char* buffer, std::uint64_t last, std::uint64_t beats) {
  if (last > beats) {
    refuse("instruction " + std::to_string(index) + " must stay within the " + buffer + " buffer of " +
           std::to_string(beats) + " beats, not reach beat " + std::to_string(last) +
           "; use the memory image and sizes of one bundle");
  }
}

std::uint64_t store_beats(const Instruction& in) {
  switch (in.unit) {
    case codesign::config::Unit::UnitAct:
      return std::uint64_t(in.words.to_uint()) * codesign::config::ActBeats;
    case codesign::config::Unit::UnitRes:
      return std::uint64_t(in.words.to_uint()) * codesign::config::ResBeats;
    case codesign::config::Unit::UnitQueue:
      return in.words.to_uint() / 4;
  }
  return 0;
}

// What the hardware could only answer with a bus error is refused before the run: addresses outside the buffers.
void check_program(const Arguments& a, const Beats& memory) {
  const std::uint64_t program_end =
      a.program_addr + std::uint64_t(a.num_instructions) * codesign::config::InstructionBeats;
  if (program_end > memory.size()) {
    refuse("the program must lie within MEMORY's " + std::to_string(memory.size()) + " beats, not end at beat " +
           std::to_string(program_end) + "; take PROGRAM_ADDR and NUM_INSTRUCTIONS from manifest.json");
  }
  for (std::uint32_t i = 0; i < a.num_instructions; ++i) {
    codesign::InstructionWord word = 0;
    for (unsigned b = 0; b < codesign::config::InstructionBeats; ++b) {
      const int lsb = static_cast<int>(b * codesign::config::BeatBits);
      word.range(lsb + static_cast<int>(codesign::config::BeatBits) - 1, lsb) =
          memory[a.program_addr + i * codesign::config::InstructionBeats + b];
    }
    const Instruction in = codesign::decode(word);
    const std::uint64_t addr = in.mem_addr.to_uint();
    const std::uint64_t beats = in.beats.to_uint();
    if (in.opcode == codesign::config::Opcode::OpStore) {
      check_range(i, "output", addr + store_beats(in), a.output_bytes / BeatBytes);
    } else if (in.opcode == codesign::config::Opcode::OpExperts) {
      check_range(i, "memory", addr + beats * in.num_experts.to_uint(), memory.size());
    } else if (in.space == codesign::config::Space::SpaceInput) {
      check_range(i, "input", addr + beats, a.input_bytes / BeatBytes);
    } else {
      check_range(i, "memory", addr + beats, memory.size());
    }
  }
}

void check_sizes(const Arguments& a, const Bytes& memory, const Bytes& inputs) {
  if (memory.size() % BeatBytes != 0 || memory.empty()) {
    refuse(a.memory + " must be a memory image of whole " + std::to_string(BeatBytes) + "-byte beats, not " +
           std::to_string(memory.size()) + " bytes; generate the bundle again");
  }
  if (inputs.size() != std::uint64_t(a.runs) * a.input_bytes) {
    refuse(a.inputs + " must hold RUNS x INPUT_BYTES = " + std::to_string(std::uint64_t(a.runs) * a.input_bytes) +
           " bytes, not " + std::to_string(inputs.size()));
  }
}

// One run of the machine. Returns its status register.
unsigned run_once(const Arguments& a, const Beats& memory, const char* input, Bytes& outputs) {
#ifdef CODESIGN_MEMORY_BEATS
  const Beats in = to_beats(input, a.input_bytes, CODESIGN_INPUT_BEATS);
  Beats out(CODESIGN_OUTPUT_BEATS > a.output_bytes / BeatBytes ? CODESIGN_OUTPUT_BEATS : a.output_bytes / BeatBytes);
#else
  const Beats in = to_beats(input, a.input_bytes, 1);
  Beats out(a.output_bytes / BeatBytes + 1);
#endif
  codesign::Register magic = 0;
  codesign::Register isa_version = 0;
  codesign::Register design_hash = 0;
  codesign::Register status = 0;
  codesign::Register cycles = 0;
  codesign_top(memory.data(), in.data(), out.data(), a.program_addr, a.num_instructions, &magic, &isa_version,
               &design_hash, &status, &cycles);
  if (magic != codesign::config::Magic || isa_version != codesign::config::IsaVersion ||
      design_hash != codesign::config::DesignHash) {
    refuse("the machine must identify itself with the header's magic, version and hash, and it did not");
  }
  append_bytes(out, a.output_bytes, outputs);
  return status.to_uint();
}

int simulate(const Arguments& a) {
  const Bytes memory_bytes = read_file(a.memory);
  const Bytes inputs = read_file(a.inputs);
  check_sizes(a, memory_bytes, inputs);
  const Beats memory = to_beats(memory_bytes.data(), memory_bytes.size(), 1);
  check_program(a, memory);
  Bytes outputs;
  for (std::uint32_t run = 0; run < a.runs; ++run) {
    const unsigned status = run_once(a, memory, inputs.data() + std::size_t(run) * a.input_bytes, outputs);
    if (status != static_cast<unsigned>(codesign::config::Status::StatusOk)) {
      std::fprintf(stderr,
                   "csim: run %u must end with status 0, not %u (1: illegal instruction); see docs/machine.md\n", run,
                   status);
      return 3;
    }
  }
  write_file(a.outputs, outputs);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return simulate(parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "csim: %s\n", error.what());
    return 2;
  }
}
