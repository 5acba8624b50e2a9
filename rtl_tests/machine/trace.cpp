// SPDX-License-Identifier: Apache-2.0
//
// Counters of a run, and a trace of it when one is wanted. tb_machine.sv calls trace_cycle once a cycle. Environment,
// read when a run starts:
//   CODESIGN_REPORT        where the counters of the run go, as JSON, when it is done
//   CODESIGN_TRACE         where the trace goes; absent or empty: none
//   CODESIGN_TRACE_WINDOW  cycles of a window (default 64)
// The trace is text, a record a line, cycles counted from the start of the run:
//   codesign-trace 1
//   D cycle index          instruction dispatched
//   C cycle index          instruction complete
//   B cycle unit           unit (norm, router, load, store) begins to be busy; E cycle unit: it ends
//   W cycle length dense score mix wait_blocks wait_rows kv fifo r0 r1 r2 r3 w0 w1 w2 w3
//                          a window that ended: slots of the array by kind, cycles in which it waited, words of K and V
//                          read, level of the block FIFO at its end, beats of each port
//   S cycle status         the run is over
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "svdpi.h"

extern "C" void dram_statistics(unsigned* hits, unsigned* misses, unsigned* refresh_count, unsigned* turnaround_count);

namespace {

constexpr unsigned kPorts = 4;
enum Flag : unsigned { kSlot, kWaitBlocks, kWaitRows, kKvRead, kDispatch, kNorm, kRouter, kLoad, kStore };
enum Kind : unsigned { kDense, kScore, kMix };  // codesign_pkg::pass_kind_t
constexpr std::array<const char*, 4> kUnits = {"norm", "router", "load", "store"};

struct Counters {
  std::uint64_t length = 0, wait_blocks = 0, wait_rows = 0, kv = 0;
  std::array<std::uint64_t, 4> slots{}, busy{};
  std::array<std::uint64_t, kPorts> reads{}, writes{};
  void add(unsigned flags, unsigned kind, unsigned r, unsigned w) {
    length++;
    if (flags >> kSlot & 1)
      slots[kind & 3]++;
    wait_blocks += flags >> kWaitBlocks & 1;
    wait_rows += flags >> kWaitRows & 1;
    kv += flags >> kKvRead & 1;
    for (unsigned u = 0; u < kUnits.size(); u++)
      busy[u] += flags >> (kNorm + u) & 1;
    for (unsigned p = 0; p < kPorts; p++) {
      reads[p] += r >> p & 1;
      writes[p] += w >> p & 1;
    }
  }
};

struct Memory {
  unsigned hits = 0, misses = 0, refreshes = 0, turnarounds = 0;
};

bool running = false;
std::uint64_t cycle = 0, window_cycles = 64;
unsigned completed_before = 0, flags_before = 0;
Counters total, window;
Memory memory_before;
std::vector<std::uint64_t> dispatched, completed;
std::FILE* trace = nullptr;

std::string setting(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

std::FILE* open_for_writing(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) {
    std::fprintf(stderr, "trace error: %s cannot be written\n", path.c_str());
    std::exit(1);
  }
  return file;
}

Memory memory_now() {
  Memory m;
  dram_statistics(&m.hits, &m.misses, &m.refreshes, &m.turnarounds);
  return m;
}

void start() {
  running = true;
  cycle = 0;
  completed_before = flags_before = 0;
  total = window = Counters();
  memory_before = memory_now();
  dispatched.clear();
  completed.clear();
  if (trace != nullptr)
    std::fclose(trace);
  const std::string path = setting("CODESIGN_TRACE"), length = setting("CODESIGN_TRACE_WINDOW");
  trace = path.empty() ? nullptr : open_for_writing(path);
  window_cycles = length.empty() ? 64 : std::strtoull(length.c_str(), nullptr, 0);
  if (trace != nullptr)
    std::fputs("codesign-trace 1\n", trace);
}

void end_window(int fifo_level) {
  if (trace != nullptr && window.length > 0) {
    std::fprintf(trace, "W %llu %llu %llu %llu %llu %llu %llu %llu %d", static_cast<unsigned long long>(cycle),
                 static_cast<unsigned long long>(window.length), static_cast<unsigned long long>(window.slots[kDense]),
                 static_cast<unsigned long long>(window.slots[kScore]),
                 static_cast<unsigned long long>(window.slots[kMix]),
                 static_cast<unsigned long long>(window.wait_blocks), static_cast<unsigned long long>(window.wait_rows),
                 static_cast<unsigned long long>(window.kv), fifo_level);
    for (const std::uint64_t n : window.reads)
      std::fprintf(trace, " %llu", static_cast<unsigned long long>(n));
    for (const std::uint64_t n : window.writes)
      std::fprintf(trace, " %llu", static_cast<unsigned long long>(n));
    std::fputc('\n', trace);
  }
  window = Counters();
}

void trace_units(unsigned flags) {
  if (trace == nullptr || (flags ^ flags_before) >> kNorm == 0)
    return;
  for (unsigned u = 0; u < kUnits.size(); u++)
    if ((flags ^ flags_before) >> (kNorm + u) & 1)
      std::fprintf(trace, "%c %llu %s\n", flags >> (kNorm + u) & 1 ? 'B' : 'E', static_cast<unsigned long long>(cycle),
                   kUnits[u]);
}

template <typename List>
void write_list(std::FILE* file, const char* name, const List& list) {
  std::fprintf(file, " \"%s\": [", name);
  const char* comma = "";
  for (const std::uint64_t n : list) {
    std::fprintf(file, "%s%llu", comma, static_cast<unsigned long long>(n));
    comma = ", ";
  }
  std::fputs("],\n", file);
}

void write_report(const std::string& path) {
  const std::string part = path + ".part";
  std::FILE* file = open_for_writing(part);
  std::fputs("{\n", file);
  write_list(file, "dispatch_cycles", dispatched);
  write_list(file, "complete_cycles", completed);
  write_list(file, "read_beats", total.reads);
  write_list(file, "write_beats", total.writes);
  const auto number = [file](const char* name, std::uint64_t n, const char* end = ",\n") {
    std::fprintf(file, " \"%s\": %llu%s", name, static_cast<unsigned long long>(n), end);
  };
  number("dense_slots", total.slots[kDense]);
  number("score_slots", total.slots[kScore]);
  number("mix_slots", total.slots[kMix]);
  number("wait_blocks_cycles", total.wait_blocks);
  number("wait_rows_cycles", total.wait_rows);
  number("kv_words", total.kv);
  for (unsigned u = 0; u < kUnits.size(); u++)
    number((std::string(kUnits[u]) + "_cycles").c_str(), total.busy[u]);
  const Memory m = memory_now();
  number("row_hits", m.hits - memory_before.hits);
  number("row_misses", m.misses - memory_before.misses);
  number("refreshes", m.refreshes - memory_before.refreshes);
  number("turnarounds", m.turnarounds - memory_before.turnarounds, "\n");
  std::fputs("}\n", file);
  if (std::fclose(file) != 0 || std::rename(part.c_str(), path.c_str()) != 0) {
    std::fprintf(stderr, "trace error: %s cannot be written\n", path.c_str());
    std::exit(1);
  }
}

void finish(int status, int fifo_level) {
  running = false;
  end_window(fifo_level);
  if (trace != nullptr) {
    std::fprintf(trace, "S %llu %d\n", static_cast<unsigned long long>(cycle), status);
    std::fclose(trace);
    trace = nullptr;
  }
  const std::string path = setting("CODESIGN_REPORT");
  if (!path.empty())
    write_report(path);
}

}  // namespace

// `now_completed`: instructions complete. `flags`: a bit a Flag; `kind`: of the slot. `reads`, `writes`: beats moved at
// this clock edge, a bit a port. Instructions are dispatched, and complete, in order.
extern "C" void trace_cycle(svBit starting, svBit done, int status, int now_completed, const svBitVecVal* flags,
                            int kind, int fifo_level, const svBitVecVal* reads, const svBitVecVal* writes) {
  if (starting)
    start();
  if (!running)
    return;
  cycle++;
  const unsigned bits = *flags;
  total.add(bits, static_cast<unsigned>(kind), *reads, *writes);
  window.add(bits, static_cast<unsigned>(kind), *reads, *writes);
  trace_units(bits);
  flags_before = bits;
  if (bits >> kDispatch & 1) {
    if (trace != nullptr)
      std::fprintf(trace, "D %llu %zu\n", static_cast<unsigned long long>(cycle), dispatched.size());
    dispatched.push_back(cycle);
  }
  if (!starting && now_completed > 0) {
    for (; completed_before < static_cast<unsigned>(now_completed); completed_before++) {
      completed.push_back(cycle);
      if (trace != nullptr)
        std::fprintf(trace, "C %llu %u\n", static_cast<unsigned long long>(cycle), completed_before);
    }
  }
  if (window.length == window_cycles)
    end_window(fifo_level);
  if (done)
    finish(status, fifo_level);
}
