// SPDX-License-Identifier: Apache-2.0
//
// Drives the memory of machine/ without a simulator: masters that move as fast as they are let. For test_dram.py.
//   dram_bench PATTERN PORTS BURST_BEATS BURSTS STEP
// PATTERN read, write or both (reads and writes of separate halves). Port p starts at p quarters of the memory; each
// burst begins STEP bytes after the one before. Prints a JSON object: cycles, beats, wrong (beats that were not as
// written), codes (answers by AXI code), first (cycle of the first read beat).
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
  for (unsigned i = 0; i < 4; i++)
    data[i] = static_cast<svBitVecVal>((addr + 4 * i) * 2654435761u + salt);
}

struct Bench {
  unsigned ports, beats;  // beats of each burst
  std::uint64_t step;
  unsigned long long cycles = 0, moved = 0, wrong = 0, first = 0;
  std::array<unsigned long long, 4> codes{};
};

// What the memory drives until the next cycle.
struct Answers {
  svBitVecVal arready = 0, rvalid = 0, rlast = 0, rresp = 0, rdata[4 * kPorts] = {};
  svBitVecVal awready = 0, wready = 0, bvalid = 0, bresp = 0;
};

struct Reader {
  std::uint64_t next = 0;
  unsigned left = 0, beat = 0;
  std::deque<std::uint64_t> expected;

  bool busy() const { return left > 0 || !expected.empty(); }

  void take(Bench& bench, const Answers& in, unsigned p) {
    svBitVecVal want[4];
    content(expected.front(), want, 0);
    expected.pop_front();
    const unsigned code = in.rresp >> (2 * p) & 3;
    bench.codes[code]++;
    if (code == 0 && std::memcmp(want, in.rdata + 4 * p, kBeat) != 0)
      bench.wrong++;
    const bool last = ++beat == bench.beats;
    if (last != ((in.rlast >> p & 1) != 0))
      bench.wrong++;
    if (last)
      beat = 0;
    if (bench.first == 0)
      bench.first = bench.cycles;
    bench.moved++;
  }

  void ask(const Bench& bench, unsigned p) {
    dram_ar(static_cast<int>(p), next, static_cast<unsigned char>(bench.beats - 1));
    for (unsigned i = 0; i < bench.beats; i++)
      expected.push_back(next + i * kBeat);
    next += bench.step;
    left--;
  }
};

struct Writer {
  std::uint64_t begin = 0;
  unsigned bursts = 0, addresses = 0, data_bursts = 0, responses = 0, beat = 0;

  bool busy() const { return responses < bursts; }

  void ask(const Bench& bench, unsigned p) {
    const std::uint64_t addr = begin + addresses++ * bench.step;
    dram_aw(static_cast<int>(p), addr, static_cast<unsigned char>(bench.beats - 1));
  }

  void give(Bench& bench, unsigned p) {
    svBitVecVal data[4];
    const svBitVecVal strobe = 0xFFFF;
    content(begin + data_bursts * bench.step + beat * kBeat, data, 99);
    const bool last = ++beat == bench.beats;
    dram_w(static_cast<int>(p), data, &strobe, last);
    bench.moved++;
    if (last) {
      beat = 0;
      data_bursts++;
    }
  }
};

// One cycle of a port; whether it still has something to do.
bool port_cycle(Bench& bench, const Answers& in, unsigned p, Reader& r, Writer& w) {
  if (in.rvalid >> p & 1)
    r.take(bench, in, p);
  if (in.bvalid >> p & 1) {
    bench.codes[in.bresp >> (2 * p) & 3]++;
    w.responses++;
  }
  if (r.left > 0 && (in.arready >> p & 1))
    r.ask(bench, p);
  if (w.addresses < w.bursts && (in.awready >> p & 1))
    w.ask(bench, p);
  if (w.data_bursts < w.bursts && (in.wready >> p & 1))
    w.give(bench, p);
  return r.busy() || w.busy();
}

std::uint64_t number(const char* text) {
  return std::strtoull(text, nullptr, 0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6)
    return 2;
  const std::string pattern = argv[1];
  Bench bench{static_cast<unsigned>(number(argv[2])), static_cast<unsigned>(number(argv[3])), number(argv[5])};
  const auto bursts = static_cast<unsigned>(number(argv[4]));
  const std::uint64_t base = number(std::getenv("BENCH_BASE")), part = number(std::getenv("BENCH_SIZE")) / kPorts;
  dram_reset();
  std::array<Reader, kPorts> readers;
  std::array<Writer, kPorts> writers;
  for (unsigned p = 0; p < kPorts; p++) {
    readers[p].next = base + p * part;
    writers[p].begin = base + p * part + part / 2;
    if (p < bench.ports && pattern != "write")
      readers[p].left = bursts;
    if (p < bench.ports && (pattern == "write" || pattern == "both"))
      writers[p].bursts = bursts;
  }
  Answers in;
  for (bool busy = true; busy && bench.cycles < 1000000; bench.cycles++) {
    busy = false;
    for (unsigned p = 0; p < kPorts; p++)
      busy |= port_cycle(bench, in, p, readers[p], writers[p]);
    const svBitVecVal r_taken = in.rvalid, b_taken = in.bvalid;
    dram_cycle(&r_taken, &b_taken, &in.arready, &in.rvalid, &in.rlast, &in.rresp, in.rdata, &in.awready, &in.wready,
               &in.bvalid, &in.bresp);
  }
  std::printf("{\"cycles\": %llu, \"beats\": %llu, \"wrong\": %llu, \"first\": %llu, ", bench.cycles, bench.moved,
              bench.wrong, bench.first);
  std::printf("\"codes\": [%llu, %llu, %llu, %llu]}\n", bench.codes[0], bench.codes[1], bench.codes[2], bench.codes[3]);
  return 0;
}
