// SPDX-License-Identifier: Apache-2.0
//
// The board's memory behind the AXI ports of tb_machine.sv, cycle by cycle: the handshakes of four ports, with random
// stalls where a job asks for them, in front of one controller (dram_controller.hpp). Its configuration
// (dram_config.hpp) is read at reset, and again (but for the file) at the start of each run.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>

#include "dram_controller.hpp"
#include "svdpi.h"

namespace {

using namespace dram;

constexpr unsigned kMaxBursts = 16;      // addresses that a port holds, in each direction
constexpr unsigned kMaxEarlyBeats = 32;  // write beats that a port holds

class Random {  // xorshift64*, Vigna 2016
 public:
  void seed(std::uint64_t seed) { state_ = seed * 2 + 1; }
  bool percent(unsigned p) {
    if (p == 0)
      return false;
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return ((state_ * 0x2545F4914F6CDD1DULL) >> 32) % 100 < p;
  }

 private:
  std::uint64_t state_ = 1;
};

struct ReadPort {
  unsigned bursts = 0;  // unanswered
  bool valid = false;
  Random random;
};

struct WritePort {
  struct Burst {
    std::uint64_t addr;
    unsigned beats;
  };
  std::deque<Burst> addresses;  // whose data are not complete
  std::deque<WriteBeat> early;  // data without address (it may come first)
  Slice growing{0, 0, false, 0};
  bool data_first = false;  // the next address is accepted only after some of its data, as a slave may do
  bool valid = false;
  Random random;
};

Controller controller;
std::array<ReadPort, kPorts> reads;
std::array<WritePort, kPorts> writes;
bool running = false;

void seed_ports() {
  const std::uint64_t seed = controller.config().seed;
  for (unsigned i = 0; i < kPorts; i++) {
    reads[i].random.seed(seed * 2 * kPorts + i);
    writes[i].random.seed(seed * 2 * kPorts + kPorts + i);
  }
}

// A beat of write data meets its address; complete slices go to the controller.
void grow(WritePort& p, WriteQueue& queue) {
  while (!p.addresses.empty() && !p.early.empty()) {
    WritePort::Burst& burst = p.addresses.front();
    if (p.growing.beats == 0)
      p.growing.addr = burst.addr;
    queue.data.push_back(p.early.front());
    p.early.pop_front();
    p.growing.beats++;
    burst.addr += kBeatBytes;
    burst.beats--;
    const bool last = burst.beats == 0;
    if (queue.data.back().last != last)
      fail("WLAST must stand at the last beat of its burst, and only there");
    if (last)
      p.addresses.pop_front();
    if (last || p.growing.beats == controller.config().burst_beats) {
      p.growing.last = last;
      p.growing.arrived = controller.now();
      queue.waiting.push_back(p.growing);
      p.growing.beats = 0;
    }
  }
}

// Answers that were taken at this clock edge are gone.
void take(unsigned i, bool r_taken, bool b_taken) {
  if (r_taken) {
    ReadQueue& queue = controller.reads[i];
    reads[i].bursts -= queue.beats.front().burst_last;
    queue.in_flight -= queue.beats.front().slice_last;
    queue.beats.pop_front();
    reads[i].valid = false;
  }
  if (b_taken) {
    controller.writes[i].responses.pop_front();
    writes[i].valid = false;
  }
}

// Whether a channel's valid stands from now on: what is due may be withheld for a while, but once it stands it stays.
template <typename Answer>
bool offers(bool valid, const std::deque<Answer>& answers, Random& random) {
  if (valid || answers.empty() || answers.front().at > controller.now())
    return valid;
  return !random.percent(controller.config().stall);
}

}  // namespace

extern "C" {

void dram_reset() {
  if (!running && controller.mapped())
    return;  // still in the same reset
  controller.reset(parse());
  reads = {};
  writes = {};
  seed_ports();
  running = false;
}

// Takes CODESIGN_DRAM as it is now, but for the file and the number of banks.
void dram_configure() {
  controller.configure(parse());
  seed_ports();
}

void dram_ar(int port, unsigned long long addr, unsigned char len) {
  const auto i = static_cast<unsigned>(port);
  reads[i].bursts++;
  for (unsigned left = len + 1u; left > 0;) {
    const unsigned beats = std::min(left, controller.config().burst_beats);
    left -= beats;
    controller.reads[i].waiting.push_back({addr, beats, left == 0, controller.now()});
    addr += beats * kBeatBytes;
  }
}

void dram_aw(int port, unsigned long long addr, unsigned char len) {
  WritePort& p = writes[static_cast<unsigned>(port)];
  p.addresses.push_back({addr, len + 1u});
  p.data_first = p.random.percent(controller.config().stall);
}

void dram_w(int port, const svBitVecVal* data, const svBitVecVal* strobe, svBit last) {
  WriteBeat b;
  std::memcpy(b.data, data, kBeatBytes);
  b.strobe = static_cast<std::uint16_t>(*strobe);
  b.last = last;
  writes[static_cast<unsigned>(port)].early.push_back(b);
}

// Once a cycle, after the addresses and data taken at this clock edge. Arguments: answers taken at this edge, a bit a
// port. Results: what the memory drives until the next edge.
void dram_cycle(const svBitVecVal* r_taken, const svBitVecVal* b_taken, svBitVecVal* arready, svBitVecVal* rvalid,
                svBitVecVal* rlast, svBitVecVal* rresp, svBitVecVal* rdata, svBitVecVal* awready, svBitVecVal* wready,
                svBitVecVal* bvalid, svBitVecVal* bresp) {
  running = true;
  controller.tick();
  for (unsigned i = 0; i < kPorts; i++) {
    take(i, *r_taken >> i & 1, *b_taken >> i & 1);
    grow(writes[i], controller.writes[i]);
  }
  controller.serve();
  const unsigned stall = controller.config().stall;
  *arready = *rvalid = *rlast = *rresp = *awready = *wready = *bvalid = *bresp = 0;
  for (unsigned i = 0; i < kPorts; i++) {
    ReadPort& r = reads[i];
    const auto& beats = controller.reads[i].beats;
    *arready |= static_cast<svBitVecVal>(r.bursts < kMaxBursts && !r.random.percent(stall)) << i;
    r.valid = offers(r.valid, beats, r.random);
    if (r.valid) {
      *rvalid |= 1u << i;
      *rlast |= static_cast<svBitVecVal>(beats.front().burst_last) << i;
      *rresp |= static_cast<svBitVecVal>(beats.front().code) << (2 * i);
      std::memcpy(rdata + 4 * i, beats.front().data, kBeatBytes);
    }
    WritePort& w = writes[i];
    const WriteQueue& queue = controller.writes[i];
    const bool aw_room = w.addresses.size() < kMaxBursts && !(w.data_first && w.early.empty());
    const bool w_room = w.early.size() + queue.data.size() < kMaxEarlyBeats;
    *awready |= static_cast<svBitVecVal>(aw_room && !w.random.percent(stall)) << i;
    *wready |= static_cast<svBitVecVal>(w_room && !w.random.percent(stall)) << i;
    w.valid = offers(w.valid, queue.responses, w.random);
    *bvalid |= static_cast<svBitVecVal>(w.valid) << i;
    *bresp |= static_cast<svBitVecVal>(w.valid ? queue.responses.front().code : kOkay) << (2 * i);
  }
}

// Also for trace.cpp.
void dram_statistics(unsigned* hits, unsigned* misses, unsigned* refresh_count, unsigned* turnaround_count) {
  const Statistics& s = controller.statistics();
  *hits = s.row_hits;
  *misses = s.row_misses;
  *refresh_count = s.refreshes;
  *turnaround_count = s.turnarounds;
}

}  // extern "C"
