// SPDX-License-Identifier: Apache-2.0
//
// What the simulated memory is told (docs/bundle.md, "Running an engine"), in environment variable CODESIGN_DRAM: words
// name=value (cycles of the machine's clock, bytes):
//   file size base                       the file, its size, physical address of its first byte
//   rate                                 bytes a cycle of the data bus, apart from what is modelled below
//   latency burst_beats outstanding banks page_bytes row_miss row_cycle turnaround refresh_interval refresh
//   stall seed                           percent of cycles in which a ready or a fresh valid is withheld
//   fault=<r|w|rw>:<first>:<bytes>:<slverr|decerr|never|delay:cycles>     any number: what happens at addresses
// Addresses outside the file answer DECERR.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dram {

constexpr std::uint8_t kOkay = 0, kSlaveError = 2, kDecodeError = 3;

// Ends the simulation.
[[noreturn]] void fail(const std::string& what);

struct Fault {
  bool read, write, never;
  std::uint64_t first, bytes;
  std::uint8_t code;
  double delay;
  bool concerns(bool writes) const { return writes ? write : read; }
  bool covers(std::uint64_t addr) const { return addr - first < bytes; }
};

struct Config {
  std::string file;
  std::uint64_t size = 0, base = 0, page_bytes = 0, seed = 0;
  double rate = 0, latency = 0, row_miss = 0, row_cycle = 0, turnaround = 0, refresh_interval = 0, refresh = 0;
  unsigned burst_beats = 0, outstanding = 0, banks = 0, stall = 0;
  std::vector<Fault> faults;
};

// CODESIGN_DRAM as it is now; fails when it is wrong.
Config parse();

}  // namespace dram
