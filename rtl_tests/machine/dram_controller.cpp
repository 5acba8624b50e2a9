// SPDX-License-Identifier: Apache-2.0
#include "dram_controller.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace dram {

namespace {

constexpr unsigned kMaxHits = 16;   // slices of one row while another row of its bank is waited for
constexpr double kPatience = 4096;  // cycles after which the oldest slice comes first

}  // namespace

void Controller::reset(const Config& config) {
  config_ = config;
  reads = {};
  writes = {};
  map_file();
  banks_.assign(config_.banks, Bank());
  now_ = bus_free_ = 0;
  next_refresh_ = config_.refresh_interval;
  bus_wrote_ = false;
  statistics_ = {};
}

void Controller::configure(const Config& config) {
  Config c = config;
  c.file = config_.file;
  c.size = config_.size;
  c.base = config_.base;
  c.banks = config_.banks;
  config_ = c;
}

// ---- the file ----

void Controller::map_file() {
  const int fd = open(config_.file.c_str(), O_RDWR);
  struct stat info;
  if (fd < 0 || fstat(fd, &info) != 0)
    fail(config_.file + " cannot be opened");
  if (static_cast<std::uint64_t>(info.st_size) < config_.size)
    fail(config_.file + " is smaller than its size");
  if (memory_ != nullptr)
    munmap(memory_, mapped_size_);
  mapped_size_ = config_.size;
  void* mapped = mmap(nullptr, mapped_size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped == MAP_FAILED)
    fail(config_.file + " cannot be mapped");
  memory_ = static_cast<std::uint8_t*>(mapped);
}

std::uint8_t* Controller::at(std::uint64_t addr) const {
  const std::uint64_t offset = addr - config_.base;
  const bool inside = addr >= config_.base && offset < config_.size && config_.size - offset >= kBeatBytes;
  return inside ? memory_ + offset : nullptr;
}

std::uint8_t Controller::code_of(std::uint64_t addr, bool write) const {
  if (at(addr) == nullptr)
    return kDecodeError;
  for (const Fault& f : config_.faults)
    if (f.concerns(write) && f.covers(addr))
      return f.code;
  return kOkay;
}

// No fault holds the slice back.
bool Controller::allowed(const Slice& s, bool write) const {
  for (const Fault& f : config_.faults) {
    if (!f.concerns(write) || (!f.never && now_ >= s.arrived + f.delay))
      continue;
    for (unsigned i = 0; i < s.beats; i++)
      if (f.covers(s.addr + i * kBeatBytes))
        return false;
  }
  return true;
}

// ---- which slice comes next ----

void Controller::consider(Choice& best, unsigned port, bool write, const Slice& s) {
  const Bank& bank = bank_of(s);
  Choice c;
  c.hit = bank.row == row_of(s);
  if (c.hit && bank.wanted && bank.hits >= kMaxHits)
    return;
  // A closed row is opened as soon as its slice waits and its bank is free; only the rest of that time is lost.
  const double open = std::max({bank.next_open, bank.free, s.arrived}) + config_.row_miss;
  const double bus = std::max(bus_free_, now_) + (write != bus_wrote_ ? config_.turnaround : 0);
  c.start = c.hit ? bus : std::max(bus, open);
  c.write = write;
  c.found = true;
  c.port = port;
  c.arrived = s.arrived;
  const bool old = now_ - s.arrived > kPatience, best_old = best.found && now_ - best.arrived > kPatience;
  const bool better = old != best_old         ? old
                      : old                   ? c.arrived < best.arrived
                      : c.start != best.start ? c.start < best.start
                                              : c.arrived < best.arrived;
  if (!best.found || better)
    best = c;
}

// Calls `visit` for the slice that each port and direction may have served next.
template <typename Visit>
void Controller::for_each_head(Visit visit) const {
  for (unsigned p = 0; p < kPorts; p++) {
    const ReadQueue& r = reads[p];
    const WriteQueue& w = writes[p];
    if (!r.waiting.empty() && r.in_flight < config_.outstanding && allowed(r.waiting.front(), false))
      visit(p, false, r.waiting.front());
    if (!w.waiting.empty() && w.responses.size() < config_.outstanding && allowed(w.waiting.front(), true))
      visit(p, true, w.waiting.front());
  }
}

Controller::Choice Controller::choose() {
  for (Bank& bank : banks_)
    bank.wanted = false;
  for_each_head([this](unsigned, bool, const Slice& s) { bank_of(s).wanted |= bank_of(s).row != row_of(s); });
  Choice best;
  for_each_head([this, &best](unsigned p, bool write, const Slice& s) { consider(best, p, write, s); });
  return best;
}

// ---- serving it ----

void Controller::occupy(const Slice& s, const Choice& c) {
  Bank& bank = bank_of(s);
  if (!c.hit) {
    bank.row = row_of(s);
    bank.next_open = c.start - config_.row_miss + config_.row_cycle;
    bank.hits = 0;
  }
  bank.hits++;
  (c.hit ? statistics_.row_hits : statistics_.row_misses)++;
  statistics_.turnarounds += c.write != bus_wrote_;
  bus_wrote_ = c.write;
  bus_free_ = c.start + s.beats * kBeatBytes / config_.rate;
  bank.free = bus_free_;
}

void Controller::serve_read(const Choice& c) {
  ReadQueue& p = reads[c.port];
  const Slice s = p.waiting.front();
  p.waiting.pop_front();
  p.in_flight++;
  occupy(s, c);
  for (unsigned i = 0; i < s.beats; i++) {
    const std::uint64_t addr = s.addr + i * kBeatBytes;
    p.beats.emplace_back();
    ReadBeat& b = p.beats.back();
    const std::uint8_t* from = at(addr);
    if (from == nullptr)
      std::memset(b.data, 0xA5, kBeatBytes);
    else
      std::memcpy(b.data, from, kBeatBytes);
    b.at = c.start + config_.latency + i * kBeatBytes / config_.rate;
    b.code = code_of(addr, false);
    b.slice_last = i + 1 == s.beats;
    b.burst_last = s.last && b.slice_last;
  }
}

void Controller::serve_write(const Choice& c) {
  WriteQueue& p = writes[c.port];
  const Slice s = p.waiting.front();
  p.waiting.pop_front();
  occupy(s, c);
  for (unsigned i = 0; i < s.beats; i++) {
    const std::uint64_t addr = s.addr + i * kBeatBytes;
    const WriteBeat& b = p.data.front();
    const std::uint8_t code = code_of(addr, true);
    if (code == kOkay)
      for (unsigned byte = 0; byte < kBeatBytes; byte++)
        if (b.strobe >> byte & 1)
          at(addr)[byte] = b.data[byte];
    p.code = std::max(p.code, code);
    p.data.pop_front();
  }
  if (s.last) {
    p.responses.push_back({bus_free_ + config_.latency, p.code});
    p.code = kOkay;
  }
}

void Controller::serve() {
  while (std::max(bus_free_, now_) < now_ + 1) {
    if (config_.refresh > 0 && std::max(bus_free_, now_) >= next_refresh_) {
      bus_free_ = std::max(bus_free_, next_refresh_) + config_.refresh;
      next_refresh_ += config_.refresh_interval;
      for (Bank& bank : banks_)
        bank = {~0ULL, bus_free_, bus_free_, 0, false};
      statistics_.refreshes++;
      continue;
    }
    const Choice c = choose();
    if (!c.found)
      return;
    if (c.write)
      serve_write(c);
    else
      serve_read(c);
  }
}

}  // namespace dram
