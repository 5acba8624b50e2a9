// SPDX-License-Identifier: Apache-2.0
//
// Drives machine/dram.cpp without a simulator: masters that move as fast as they are let. For test_dram.py.
//   dram_bench PATTERN PORTS BURST_BEATS BURSTS STEP
// PATTERN read, write, both (reads and writes of separate halves) or latency (one burst). Port p starts at p quarters of the
// memory; each burst begins STEP bytes after the one before. Prints a JSON object: cycles, beats, wrong (beats that were not
// as written), codes (answers by AXI code), first (cycle of the first read beat).
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>

#include "svdpi.h"

extern "C" {
void dram_reset();
void dram_ar(int port, unsigned long long addr, unsigned char len);
void dram_aw(int port, unsigned long long addr, unsigned char len);
void dram_w(int port, const svBitVecVal* data, const svBitVecVal* strobe, svBit last);
void dram_cycle(const svBitVecVal* r_taken, const svBitVecVal* b_taken, svBitVecVal* arready, svBitVecVal* rvalid,
                svBitVecVal* rlast, svBitVecVal* rresp, svBitVecVal* rdata, svBitVecVal* awready, svBitVecVal* wready,
                svBitVecVal* bvalid, svBitVecVal* bresp);
}

namespace {

constexpr unsigned kPorts = 4, kBeat = 16;

// What stands at an address: a word that names it.
void content(std::uint64_t addr, svBitVecVal* data, std::uint32_t salt) {
  for (unsigned i = 0; i < 4; i++) data[i] = static_cast<svBitVecVal>((addr + 4 * i) * 2654435761u + salt);
}

struct Reader {
  std::uint64_t next, step;
  unsigned left = 0, beats = 0;
  std::deque<std::uint64_t> expected;
};

struct Writer {
  std::uint64_t next, step;
  unsigned addresses = 0, data_bursts = 0, responses = 0, beat = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const std::string pattern = argv[1];
  const unsigned ports = std::strtoul(argv[2], nullptr, 0), beats = std::strtoul(argv[3], nullptr, 0);
  const unsigned bursts = std::strtoul(argv[4], nullptr, 0);
  const std::uint64_t step = std::strtoull(argv[5], nullptr, 0);
  const std::uint64_t base = std::strtoull(std::getenv("BENCH_BASE"), nullptr, 0), size = std::strtoull(std::getenv("BENCH_SIZE"), nullptr, 0);
  const bool reads = pattern != "write", writes = pattern == "write" || pattern == "both";
  dram_reset();
  std::array<Reader, kPorts> r;
  std::array<Writer, kPorts> w;
  for (unsigned p = 0; p < kPorts; p++) {
    r[p] = {base + p * (size / kPorts), step, p < ports && reads ? bursts : 0, 0, {}};
    w[p] = {base + p * (size / kPorts) + size / kPorts / 2, step};
    if (p >= ports || !writes) w[p].addresses = w[p].data_bursts = w[p].responses = bursts;
  }
  svBitVecVal arready = 0, rvalid = 0, rlast = 0, rresp = 0, awready = 0, wready = 0, bvalid = 0, bresp = 0;
  svBitVecVal rdata[16] = {};
  unsigned long long cycles = 0, moved = 0, wrong = 0, first = 0;
  std::array<unsigned long long, 4> codes{};
  for (bool busy = true; busy && cycles < 1000000; cycles++) {
    busy = false;
    for (unsigned p = 0; p < kPorts; p++) {
      if (rvalid >> p & 1) {
        svBitVecVal want[4];
        content(r[p].expected.front(), want, 0);
        r[p].expected.pop_front();
        codes[rresp >> (2 * p) & 3]++;
        if ((rresp >> (2 * p) & 3) == 0 && std::memcmp(want, rdata + 4 * p, kBeat) != 0) wrong++;
        const bool last = ++r[p].beats == beats;
        if (last != ((rlast >> p & 1) != 0)) wrong++;
        if (last) r[p].beats = 0;
        if (first == 0) first = cycles;
        moved++;
      }
      if (bvalid >> p & 1) {
        codes[bresp >> (2 * p) & 3]++;
        w[p].responses++;
      }
      if (r[p].left > 0 && (arready >> p & 1)) {
        dram_ar(static_cast<int>(p), r[p].next, static_cast<unsigned char>(beats - 1));
        for (unsigned i = 0; i < beats; i++) r[p].expected.push_back(r[p].next + i * kBeat);
        r[p].next += step;
        r[p].left--;
      }
      if (w[p].addresses < bursts && (awready >> p & 1)) {
        dram_aw(static_cast<int>(p), w[p].next + w[p].addresses * step, static_cast<unsigned char>(beats - 1));
        w[p].addresses++;
      }
      if (w[p].data_bursts < bursts && (wready >> p & 1)) {
        svBitVecVal data[4];
        const svBitVecVal strobe = 0xFFFF;
        content(w[p].next + w[p].data_bursts * step + w[p].beat * kBeat, data, 99);
        const bool last = ++w[p].beat == beats;
        dram_w(static_cast<int>(p), data, &strobe, last);
        moved++;
        if (last) {
          w[p].beat = 0;
          w[p].data_bursts++;
        }
      }
      busy = busy || r[p].left > 0 || !r[p].expected.empty() || w[p].responses < bursts;
    }
    const svBitVecVal r_taken = rvalid, b_taken = bvalid;
    dram_cycle(&r_taken, &b_taken, &arready, &rvalid, &rlast, &rresp, rdata, &awready, &wready, &bvalid, &bresp);
  }
  std::printf("{\"cycles\": %llu, \"beats\": %llu, \"wrong\": %llu, \"first\": %llu, \"codes\": [%llu, %llu, %llu, %llu]}\n", cycles,
              moved, wrong, first, codes[0], codes[1], codes[2], codes[3]);
  return 0;
}
