// SPDX-License-Identifier: Apache-2.0
//
// One DDR controller that all ports share, with bandwidth, latency, banks and open rows, refresh and turnarounds of the
// data bus (codesign/schedule/board.py, class Memory). The bytes are a file mapped into memory, which Python maps as
// well. It serves slices of bursts: of every port and direction the oldest, and among those the one that can start
// first (rows that are open, banks that are free, no turnaround; first ready, first come, first served), but after
// kMaxHits slices of a row another row of its bank that is waited for. Data are read, and written, when their slice is
// served.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "dram_config.hpp"

namespace dram {

constexpr unsigned kPorts = 4;
constexpr unsigned kBeatBytes = 16;

struct Slice {  // at most burst_beats beats of a burst
  std::uint64_t addr;
  unsigned beats;
  bool last;  // of its burst
  double arrived;
};

struct ReadBeat {
  double at;  // when the port may answer with it
  std::uint8_t data[kBeatBytes];
  std::uint8_t code;
  bool burst_last, slice_last;
};

struct ReadQueue {
  std::deque<Slice> waiting;
  std::deque<ReadBeat> beats;
  unsigned in_flight = 0;  // slices served and not yet taken
};

struct WriteBeat {
  std::uint8_t data[kBeatBytes];
  std::uint16_t strobe;
  bool last;
};

struct Response {
  double at;
  std::uint8_t code;
};

struct WriteQueue {
  std::deque<Slice> waiting;   // slices whose data are complete
  std::deque<WriteBeat> data;  // theirs
  std::deque<Response> responses;
  std::uint8_t code = kOkay;  // of the burst that is being served
};

struct Statistics {  // since the last reset: slices that met an open row and a closed one, refreshes, turnarounds
  unsigned row_hits = 0, row_misses = 0, refreshes = 0, turnarounds = 0;
};

class Controller {
 public:
  // What the ports fill and empty.
  std::array<ReadQueue, kPorts> reads;
  std::array<WriteQueue, kPorts> writes;

  // Begins at cycle 0 with empty queues and the file mapped.
  void reset(const Config& config);
  // Takes what a run changes: all but the file and the number of banks.
  void configure(const Config& config);
  // The next cycle begins.
  void tick() { now_ += 1; }
  // Refreshes, and serves the slices whose data begin in this cycle.
  void serve();
  double now() const { return now_; }
  bool mapped() const { return memory_ != nullptr; }
  const Config& config() const { return config_; }
  const Statistics& statistics() const { return statistics_; }

 private:
  struct Bank {
    std::uint64_t row = ~0ULL;
    double next_open = 0, free = 0;
    unsigned hits = 0;    // slices of its row so far
    bool wanted = false;  // with another row
  };
  struct Choice {
    double start = 0;
    bool write = false, found = false, hit = false;
    unsigned port = 0;
    double arrived = 0;
  };

  void map_file();
  std::uint8_t* at(std::uint64_t addr) const;
  std::uint8_t code_of(std::uint64_t addr, bool write) const;
  bool allowed(const Slice& s, bool write) const;
  Bank& bank_of(const Slice& s) { return banks_[s.addr / config_.page_bytes % config_.banks]; }
  std::uint64_t row_of(const Slice& s) const { return s.addr / config_.page_bytes / config_.banks; }
  void consider(Choice& best, unsigned port, bool write, const Slice& s);
  template <typename Visit>
  void for_each_head(Visit visit) const;
  Choice choose();
  void occupy(const Slice& s, const Choice& c);
  void serve_read(const Choice& c);
  void serve_write(const Choice& c);

  Config config_;
  std::uint8_t* memory_ = nullptr;
  std::uint64_t mapped_size_ = 0;
  double now_ = 0, bus_free_ = 0, next_refresh_ = 0;
  bool bus_wrote_ = false;
  std::vector<Bank> banks_;
  Statistics statistics_;
};

}  // namespace dram
