// SPDX-License-Identifier: Apache-2.0
// C-simulation of the machine, and the test bench of C/RTL co-simulation. Command line: docs/bundle.md.
//
//   csim MEMORY INPUTS OUTPUTS PROGRAM_ADDR NUM_INSTRUCTIONS INPUT_BYTES OUTPUT_BYTES RUNS
//
// MEMORY, each input and each output buffer are in DRAM form: stripe after stripe, a stripe the size / ports. Exit
// status: 0 done, 2 bad arguments or files, 3 the machine stopped with a status other than OK. Errors are one line.
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
#include "codesign/legal.hpp"

namespace {

using codesign::Beat;
using codesign::Instruction;
using Bytes = std::vector<char>;
using Beats = std::vector<Beat>;

constexpr std::size_t BeatBytes = codesign::config::BeatBits / 8;
constexpr std::size_t LineBytes = BeatBytes * codesign::config::Ports;
// Spaces begin at multiples of 4 KiB, as a driver allocates them; run_hls.tcl allows for it.
constexpr std::size_t PageBeats = 4096 / BeatBytes;
// C/RTL co-simulation copies a memory for every master, and back; elsewhere one memory serves all.
#ifdef CODESIGN_DRAM_BEATS
constexpr std::size_t Memories = codesign::config::Ports;
constexpr std::size_t LeastBeats = CODESIGN_DRAM_BEATS;
#else
constexpr std::size_t Memories = 1;
constexpr std::size_t LeastBeats = 0;
#endif

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
  if (a.input_bytes % LineBytes != 0 || a.output_bytes % LineBytes != 0) {
    refuse("INPUT_BYTES and OUTPUT_BYTES must be multiples of " + std::to_string(LineBytes) + ", not " + argv[6] +
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

Beat to_beat(const char* bytes) {
  Beat beat = 0;
  for (int half = 0; half < 2; ++half) {
    std::uint64_t word = 0;
    for (int b = 0; b < 8; ++b) {
      word |= std::uint64_t(static_cast<unsigned char>(bytes[half * 8 + b])) << (8 * b);
    }
    beat.range(half * 64 + 63, half * 64) = ap_uint<64>(word);
  }
  return beat;
}

void append_beat(const Beat& beat, Bytes& bytes) {
  for (int half = 0; half < 2; ++half) {
    const std::uint64_t word = ap_uint<64>(beat.range(half * 64 + 63, half * 64)).to_uint64();
    for (int b = 0; b < 8; ++b) {
      bytes.push_back(static_cast<char>(word >> (8 * b)));
    }
  }
}

// A space in physical memory, in beats.
struct Region {
  std::size_t base;
  std::size_t stripe;

  std::size_t lines() const { return stripe; }
  std::size_t end() const { return base + stripe * codesign::config::Ports; }
};

// The region of `bytes` bytes in the first page after `used` beats.
Region region(std::size_t used, std::size_t bytes) {
  return {(used + PageBeats - 1) / PageBeats * PageBeats, bytes / LineBytes};
}

// Physical memory as each master sees it, and where the spaces lie in it.
struct Dram {
  Region memory;
  Region input;
  Region output;
  std::vector<Beats> views;

  Dram(std::size_t memory_bytes, std::size_t input_bytes, std::size_t output_bytes)
      : memory(region(1, memory_bytes)),
        input(region(memory.end(), input_bytes)),
        output(region(input.end(), output_bytes)),
        views(Memories, Beats(output.end() > LeastBeats ? output.end() : LeastBeats)) {}

  Beat* view(std::size_t port) { return views[port % Memories].data(); }
  void fill(const Region& at, const char* bytes) {
    for (Beats& view : views) {
      for (std::size_t i = at.base; i < at.end(); ++i) {
        view[i] = bytes == nullptr ? Beat(0) : to_beat(bytes + (i - at.base) * BeatBytes);
      }
    }
  }
  void append(const Region& at, Bytes& bytes) {
    for (std::size_t port = 0; port < codesign::config::Ports; ++port) {
      for (std::size_t i = 0; i < at.stripe; ++i) {
        append_beat(view(port)[at.base + port * at.stripe + i], bytes);
      }
    }
  }
};

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

void check_range(std::uint32_t index, const char* buffer, std::uint64_t last, std::uint64_t lines) {
  if (last > lines) {
    refuse("instruction " + std::to_string(index) + " must stay within the " + buffer + " buffer of " +
           std::to_string(lines) + " lines, not reach line " + std::to_string(last) +
           "; use the memory image and sizes of one bundle");
  }
}

std::uint64_t store_lines(const Instruction& in) {
  std::uint64_t beats = in.words.to_uint() / 4;
  if (in.unit == codesign::config::Unit::UnitAct) {
    beats = std::uint64_t(in.words.to_uint()) * codesign::config::ActBeats;
  } else if (in.unit == codesign::config::Unit::UnitRes) {
    beats = std::uint64_t(in.words.to_uint()) * codesign::config::ResBeats;
  }
  return (beats + codesign::config::Ports - 1) / codesign::config::Ports;
}

// One past the last line of its space that an instruction touches.
std::uint64_t last_line(const Instruction& in) {
  const std::uint64_t addr = in.mem_addr.to_uint();
  const std::uint64_t lines = std::uint64_t(in.blocks.to_uint()) * codesign::config::BlockLines;
  switch (in.opcode) {
    case codesign::config::Opcode::OpStore:
      return addr + store_lines(in);
    case codesign::config::Opcode::OpExperts:
      return addr + lines * in.num_experts.to_uint();
    case codesign::config::Opcode::OpAttention:
      return 0;
    default:
      return addr + lines;
  }
}

codesign::InstructionWord instruction_at(const Arguments& a, Dram& dram, std::uint32_t index) {
  codesign::InstructionWord word = 0;
  for (std::size_t b = 0; b < codesign::config::InstructionBeats; ++b) {
    const std::size_t beat = std::size_t(index) * codesign::config::InstructionBeats + b;
    const std::size_t port = beat % codesign::config::Ports;
    const std::size_t line = a.program_addr + beat / codesign::config::Ports;
    const int lsb = static_cast<int>(b * codesign::config::BeatBits);
    word.range(lsb + static_cast<int>(codesign::config::BeatBits) - 1, lsb) =
        dram.view(port)[dram.memory.base + port * dram.memory.stripe + line];
  }
  return word;
}

// What the hardware could only answer with a bus error is refused before the run: addresses outside the buffers. The
// machine itself stops at an illegal instruction.
void check_program(const Arguments& a, Dram& dram) {
  const std::uint64_t bytes = std::uint64_t(a.num_instructions) * codesign::config::InstructionBits / 8;
  const std::uint64_t end = a.program_addr + (bytes + LineBytes - 1) / LineBytes;
  if (end > dram.memory.lines()) {
    refuse("the program must lie within MEMORY's " + std::to_string(dram.memory.lines()) + " lines, not end at line " +
           std::to_string(end) + "; take PROGRAM_ADDR and NUM_INSTRUCTIONS from manifest.json");
  }
  codesign::Before before = codesign::NothingBefore;
  for (std::uint32_t i = 0; i < a.num_instructions; ++i) {
    const codesign::InstructionWord word = instruction_at(a, dram, i);
    if (!codesign::is_legal(word, before)) {
      return;
    }
    const Instruction in = codesign::decode(word);
    before = codesign::then(before, in);
    if (in.space == codesign::config::Space::SpaceOutput) {
      check_range(i, "output", last_line(in), dram.output.lines());
    } else if (in.space == codesign::config::Space::SpaceInput) {
      check_range(i, "input", last_line(in), dram.input.lines());
    } else {
      check_range(i, "memory", last_line(in), dram.memory.lines());
    }
  }
}

void check_sizes(const Arguments& a, const Bytes& memory, const Bytes& inputs) {
  if (memory.size() % LineBytes != 0 || memory.empty()) {
    refuse(a.memory + " must be a memory image of whole " + std::to_string(LineBytes) + "-byte lines, not " +
           std::to_string(memory.size()) + " bytes; generate the bundle again");
  }
  if (inputs.size() != std::uint64_t(a.runs) * a.input_bytes) {
    refuse(a.inputs + " must hold RUNS x INPUT_BYTES = " + std::to_string(std::uint64_t(a.runs) * a.input_bytes) +
           " bytes, not " + std::to_string(inputs.size()));
  }
}

struct Result {
  codesign::Register status;
  codesign::Register fault;
};

// One run of the machine on the input and the zeros that lie in memory.
Result run_once(const Arguments& a, Dram& dram) {
  Result result = {0, 0};
  codesign::Register magic = 0;
  codesign::Register isa_version = 0;
  codesign::Register design_hash = 0;
  codesign::Register cycles = 0;
  codesign::Register unit_state = 0;
  const codesign::Register watchdog = 0;
  codesign_top(dram.view(0), dram.view(1), dram.view(2), dram.view(3), dram.memory.base * BeatBytes,
               dram.input.base * BeatBytes, dram.output.base * BeatBytes, dram.memory.stripe * BeatBytes,
               dram.input.stripe * BeatBytes, dram.output.stripe * BeatBytes, a.program_addr, a.num_instructions,
               watchdog, &magic, &isa_version, &design_hash, &result.status, &cycles, &result.fault, &unit_state);
  if (magic != codesign::config::Magic || isa_version != codesign::config::IsaVersion ||
      design_hash != codesign::config::DesignHash) {
    refuse("the machine must identify itself with the header's magic, version and hash, and it did not");
  }
  return result;
}

const char* status_name(unsigned status) {
  switch (static_cast<codesign::config::Status>(status)) {
    case codesign::config::Status::StatusOk:
      return "OK";
    case codesign::config::Status::StatusIllegalInstruction:
      return "ILLEGAL_INSTRUCTION";
    case codesign::config::Status::StatusReadError:
      return "READ_ERROR";
    case codesign::config::Status::StatusWriteError:
      return "WRITE_ERROR";
    case codesign::config::Status::StatusHang:
      return "HANG";
  }
  return "an unknown status";
}

int simulate(const Arguments& a) {
  const Bytes memory = read_file(a.memory);
  const Bytes inputs = read_file(a.inputs);
  check_sizes(a, memory, inputs);
  Dram dram(memory.size(), a.input_bytes, a.output_bytes);
  dram.fill(dram.memory, memory.data());
  check_program(a, dram);
  Bytes outputs;
  for (std::uint32_t run = 0; run < a.runs; ++run) {
    dram.fill(dram.input, inputs.data() + std::size_t(run) * a.input_bytes);
    dram.fill(dram.output, nullptr);
    const Result result = run_once(a, dram);
    if (result.status != static_cast<unsigned>(codesign::config::Status::StatusOk)) {
      std::fprintf(stderr, "csim: run %u must end with status OK, not %s at instruction %u; see docs/machine.md\n", run,
                   status_name(result.status.to_uint()), result.fault.to_uint());
      return 3;
    }
    dram.append(dram.output, outputs);
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
