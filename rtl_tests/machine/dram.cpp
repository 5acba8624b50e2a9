// SPDX-License-Identifier: Apache-2.0
//
// The board's memory behind the AXI ports of tb_machine.sv, cycle by cycle: one DDR controller that all ports share, with
// bandwidth, latency, banks and open rows, refresh and turnarounds of the data bus (codesign/schedule/board.py, class Memory).
// The bytes are a file mapped into memory, which Python maps as well. The controller serves slices of bursts: of every
// port and direction the oldest, and among those the one that can start first (rows that are open, banks that are free,
// no turnaround; first ready, first come, first served), but after kMaxHits slices of a row another row of its bank that
// is waited for. Data are read, and written, when their slice is served.
//
// Configuration, in environment variable CODESIGN_DRAM: words name=value (cycles of the machine's clock, bytes):
//   file size base                       the file, its size, physical address of its first byte
//   rate                                 bytes a cycle of the data bus, apart from what is modelled below
//   latency burst_beats outstanding banks page_bytes row_miss row_cycle turnaround refresh_interval refresh
//   stall seed                           percent of cycles in which a ready or a fresh valid is withheld
//   fault=<r|w|rw>:<first>:<bytes>:<slverr|decerr|never|delay:cycles>     any number: what happens at addresses
// Addresses outside the file answer DECERR. It is read at reset, and again (but for the file) at the start of each run.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "svdpi.h"

namespace {

constexpr unsigned kPorts = 4;
constexpr unsigned kBeatBytes = 16;
constexpr unsigned kMaxBursts = 16;      // addresses that a port holds, in each direction
constexpr unsigned kMaxEarlyBeats = 32;  // write beats that a port holds
constexpr unsigned kMaxHits = 16;        // slices of one row while another row of its bank is waited for
constexpr double kPatience = 4096;       // cycles after which the oldest slice comes first
constexpr std::uint8_t kOkay = 0, kSlaveError = 2, kDecodeError = 3;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "dram error: %s\n", what.c_str());
  std::exit(1);
}

class Random {  // xorshift64*, Vigna 2016
 public:
  void seed(std::uint64_t seed) { state_ = seed * 2 + 1; }
  bool percent(unsigned p) {
    if (p == 0) return false;
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return ((state_ * 0x2545F4914F6CDD1DULL) >> 32) % 100 < p;
  }

 private:
  std::uint64_t state_ = 1;
};

struct Fault {
  bool read, write, never;
  std::uint64_t first, bytes;
  std::uint8_t code;
  double delay;
  bool covers(std::uint64_t addr) const { return addr - first < bytes; }
};

struct Config {
  std::string file;
  std::uint64_t size = 0, base = 0, page_bytes = 0, seed = 0;
  double rate = 0, latency = 0, row_miss = 0, row_cycle = 0, turnaround = 0, refresh_interval = 0, refresh = 0;
  unsigned burst_beats = 0, outstanding = 0, banks = 0, stall = 0;
  std::vector<Fault> faults;
};

Fault parse_fault(const std::string& text) {
  std::vector<std::string> part;
  std::stringstream stream(text);
  for (std::string word; std::getline(stream, word, ':');) part.push_back(word);
  if (part.size() < 4) fail("a fault must be <r|w|rw>:<first>:<bytes>:<kind>, not " + text);
  Fault f{part[0].find('r') != std::string::npos, part[0].find('w') != std::string::npos, part[3] == "never",
          std::stoull(part[1], nullptr, 0), std::stoull(part[2], nullptr, 0), kOkay, 0};
  if (part[3] == "slverr") f.code = kSlaveError;
  else if (part[3] == "decerr") f.code = kDecodeError;
  else if (part[3] == "delay" && part.size() > 4) f.delay = std::stod(part[4]);
  else if (!f.never) fail("a fault must be slverr, decerr, never or delay:cycles, not " + part[3]);
  return f;
}

Config parse() {
  const char* text = std::getenv("CODESIGN_DRAM");
  if (text == nullptr) fail("CODESIGN_DRAM must be set");
  std::map<std::string, std::string> value;
  Config c;
  std::stringstream words(text);
  for (std::string word; words >> word;) {
    const auto equals = word.find('=');
    if (equals == std::string::npos) fail("CODESIGN_DRAM must hold name=value, not " + word);
    const std::string name = word.substr(0, equals);
    if (name == "fault") c.faults.push_back(parse_fault(word.substr(equals + 1)));
    else value[name] = word.substr(equals + 1);
  }
  const auto take = [&value](const char* name) {
    const auto found = value.find(name);
    if (found == value.end()) fail(std::string("CODESIGN_DRAM must hold ") + name);
    return found->second;
  };
  const auto whole = [&take](const char* name) { return std::stoull(take(name), nullptr, 0); };
  const auto real = [&take](const char* name) { return std::stod(take(name)); };
  c.file = take("file");
  c.size = whole("size");
  c.base = whole("base");
  c.page_bytes = whole("page_bytes");
  c.seed = whole("seed");
  c.rate = real("rate");
  c.latency = real("latency");
  c.row_miss = real("row_miss");
  c.row_cycle = real("row_cycle");
  c.turnaround = real("turnaround");
  c.refresh_interval = real("refresh_interval");
  c.refresh = real("refresh");
  c.burst_beats = static_cast<unsigned>(whole("burst_beats"));
  c.outstanding = static_cast<unsigned>(whole("outstanding"));
  c.banks = static_cast<unsigned>(whole("banks"));
  c.stall = static_cast<unsigned>(whole("stall"));
  if (c.stall > 99) fail("stall must be at most 99 percent");
  if (c.rate <= 0 || c.banks == 0 || c.page_bytes == 0 || c.burst_beats == 0 || c.outstanding == 0)
    fail("rate, banks, page_bytes, burst_beats and outstanding must be positive");
  return c;
}

// ---- what is under way ----

struct Slice {  // at most burst_beats beats of a burst
  std::uint64_t addr;
  unsigned beats;
  bool last;  // of its burst
  double arrived;
};

struct Beat {
  double at;
  std::uint8_t data[kBeatBytes];
  std::uint8_t code;
  bool burst_last, slice_last;
};

struct ReadPort {
  std::deque<Slice> waiting;
  std::deque<Beat> beats;
  unsigned bursts = 0, in_flight = 0;  // unanswered bursts; slices served and not yet taken
  bool valid = false;
  Random random;
};

struct WriteBeat {
  std::uint8_t data[kBeatBytes];
  std::uint16_t strobe;
  bool last;
};

struct WritePort {
  struct Burst {
    std::uint64_t addr;
    unsigned beats;
  };
  struct Response {
    double at;
    std::uint8_t code;
  };
  std::deque<Burst> addresses;      // whose data are not complete
  std::deque<WriteBeat> early;      // data without address (it may come first)
  std::deque<Slice> waiting;        // slices whose data are complete
  std::deque<WriteBeat> data;       // theirs
  Slice growing{0, 0, false, 0};
  std::deque<Response> responses;
  std::uint8_t code = kOkay;  // of the burst that is being served
  bool data_first = false;    // the next address is accepted only after some of its data, as a slave may do
  bool valid = false;
  Random random;
};

struct Bank {
  std::uint64_t row = ~0ULL;
  double next_open = 0, free = 0;
  unsigned hits = 0;    // slices of its row so far
  bool wanted = false;  // with another row
};

Config config;
std::uint8_t* memory = nullptr;
std::uint64_t mapped_size = 0;
double now = 0, bus_free = 0, next_refresh = 0;
bool bus_wrote = false, running = false;
std::array<ReadPort, kPorts> reads;
std::array<WritePort, kPorts> writes;
std::vector<Bank> banks;
unsigned row_hits = 0, row_misses = 0, refreshes = 0, turnarounds = 0;

std::uint8_t* at(std::uint64_t addr) {
  const std::uint64_t offset = addr - config.base;
  return addr >= config.base && offset < config.size && config.size - offset >= kBeatBytes ? memory + offset : nullptr;
}

void map_file() {
  const int fd = open(config.file.c_str(), O_RDWR);
  struct stat info;
  if (fd < 0 || fstat(fd, &info) != 0) fail(config.file + " cannot be opened");
  if (static_cast<std::uint64_t>(info.st_size) < config.size) fail(config.file + " is smaller than its size");
  if (memory != nullptr) munmap(memory, mapped_size);
  mapped_size = config.size;
  void* mapped = mmap(nullptr, mapped_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped == MAP_FAILED) fail(config.file + " cannot be mapped");
  memory = static_cast<std::uint8_t*>(mapped);
}

std::uint8_t code_of(std::uint64_t addr, bool write) {
  if (at(addr) == nullptr) return kDecodeError;
  for (const Fault& f : config.faults)
    if ((write ? f.write : f.read) && f.covers(addr)) return f.code;
  return kOkay;
}

// No fault holds the slice back.
bool allowed(const Slice& s, bool write) {
  for (const Fault& f : config.faults) {
    if (!(write ? f.write : f.read) || (!f.never && now >= s.arrived + f.delay)) continue;
    for (unsigned i = 0; i < s.beats; i++)
      if (f.covers(s.addr + i * kBeatBytes)) return false;
  }
  return true;
}

// ---- the controller ----

struct Choice {
  double start = 0;
  bool write = false, found = false, hit = false;
  unsigned port = 0;
  double arrived = 0;
};

Bank& bank_of(const Slice& s) { return banks[s.addr / config.page_bytes % config.banks]; }

std::uint64_t row_of(const Slice& s) { return s.addr / config.page_bytes / config.banks; }

void consider(Choice& best, unsigned port, bool write, const Slice& s) {
  const Bank& bank = bank_of(s);
  Choice c;
  c.hit = bank.row == row_of(s);
  if (c.hit && bank.wanted && bank.hits >= kMaxHits) return;
  // A closed row is opened as soon as its slice waits and its bank is free; only the rest of that time is lost.
  const double open = std::max({bank.next_open, bank.free, s.arrived}) + config.row_miss;
  const double bus = std::max(bus_free, now) + (write != bus_wrote ? config.turnaround : 0);
  c.start = c.hit ? bus : std::max(bus, open);
  c.write = write;
  c.found = true;
  c.port = port;
  c.arrived = s.arrived;
  const bool old = now - s.arrived > kPatience, best_old = best.found && now - best.arrived > kPatience;
  const bool better = old != best_old ? old : old ? c.arrived < best.arrived
                      : c.start != best.start ? c.start < best.start : c.arrived < best.arrived;
  if (!best.found || better) best = c;
}

// Calls `visit` for the slice that each port and direction may have served next.
template <typename Visit>
void for_each_head(Visit visit) {
  for (unsigned p = 0; p < kPorts; p++) {
    const ReadPort& r = reads[p];
    const WritePort& w = writes[p];
    if (!r.waiting.empty() && r.in_flight < config.outstanding && allowed(r.waiting.front(), false))
      visit(p, false, r.waiting.front());
    if (!w.waiting.empty() && w.responses.size() < config.outstanding && allowed(w.waiting.front(), true))
      visit(p, true, w.waiting.front());
  }
}

Choice choose() {
  for (Bank& bank : banks) bank.wanted = false;
  for_each_head([](unsigned, bool, const Slice& s) { bank_of(s).wanted |= bank_of(s).row != row_of(s); });
  Choice best;
  for_each_head([&best](unsigned p, bool write, const Slice& s) { consider(best, p, write, s); });
  return best;
}

void occupy(const Slice& s, const Choice& c) {
  Bank& bank = bank_of(s);
  if (!c.hit) {
    bank.row = row_of(s);
    bank.next_open = c.start - config.row_miss + config.row_cycle;
    bank.hits = 0;
  }
  bank.hits++;
  (c.hit ? row_hits : row_misses)++;
  turnarounds += c.write != bus_wrote;
  bus_wrote = c.write;
  bus_free = c.start + s.beats * kBeatBytes / config.rate;
  bank.free = bus_free;
}

void serve_read(const Choice& c) {
  ReadPort& p = reads[c.port];
  const Slice s = p.waiting.front();
  p.waiting.pop_front();
  p.in_flight++;
  occupy(s, c);
  for (unsigned i = 0; i < s.beats; i++) {
    const std::uint64_t addr = s.addr + i * kBeatBytes;
    p.beats.emplace_back();
    Beat& b = p.beats.back();
    const std::uint8_t* from = at(addr);
    if (from == nullptr) std::memset(b.data, 0xA5, kBeatBytes);
    else std::memcpy(b.data, from, kBeatBytes);
    b.at = c.start + config.latency + i * kBeatBytes / config.rate;
    b.code = code_of(addr, false);
    b.slice_last = i + 1 == s.beats;
    b.burst_last = s.last && b.slice_last;
  }
}

void serve_write(const Choice& c) {
  WritePort& p = writes[c.port];
  const Slice s = p.waiting.front();
  p.waiting.pop_front();
  occupy(s, c);
  for (unsigned i = 0; i < s.beats; i++) {
    const std::uint64_t addr = s.addr + i * kBeatBytes;
    const WriteBeat& b = p.data.front();
    const std::uint8_t code = code_of(addr, true);
    if (code == kOkay)
      for (unsigned byte = 0; byte < kBeatBytes; byte++)
        if (b.strobe >> byte & 1) at(addr)[byte] = b.data[byte];
    p.code = std::max(p.code, code);
    p.data.pop_front();
  }
  if (s.last) {
    p.responses.push_back({bus_free + config.latency, p.code});
    p.code = kOkay;
  }
}

void control() {
  while (std::max(bus_free, now) < now + 1) {
    if (config.refresh > 0 && std::max(bus_free, now) >= next_refresh) {
      bus_free = std::max(bus_free, next_refresh) + config.refresh;
      next_refresh += config.refresh_interval;
      for (Bank& bank : banks) bank = {~0ULL, bus_free, bus_free, 0, false};
      refreshes++;
      continue;
    }
    const Choice c = choose();
    if (!c.found) return;
    if (c.write) serve_write(c);
    else serve_read(c);
  }
}

// ---- the ports ----

// A beat of write data meets its address; complete slices go to the controller.
void grow(WritePort& p) {
  while (!p.addresses.empty() && !p.early.empty()) {
    WritePort::Burst& burst = p.addresses.front();
    if (p.growing.beats == 0) p.growing.addr = burst.addr;
    p.data.push_back(p.early.front());
    p.early.pop_front();
    p.growing.beats++;
    burst.addr += kBeatBytes;
    burst.beats--;
    const bool last = burst.beats == 0;
    if (p.data.back().last != last) fail("WLAST must stand at the last beat of its burst, and only there");
    if (last) p.addresses.pop_front();
    if (last || p.growing.beats == config.burst_beats) {
      p.growing.last = last;
      p.growing.arrived = now;
      p.waiting.push_back(p.growing);
      p.growing.beats = 0;
    }
  }
}

void apply(const Config& c) {
  config = c;
  for (unsigned i = 0; i < kPorts; i++) {
    reads[i].random.seed(config.seed * 2 * kPorts + i);
    writes[i].random.seed(config.seed * 2 * kPorts + kPorts + i);
  }
}

}  // namespace

extern "C" {

void dram_reset() {
  if (!running && memory != nullptr) return;  // still in the same reset
  const Config c = parse();
  reads = {};
  writes = {};
  apply(c);
  map_file();
  banks.assign(config.banks, Bank());
  now = bus_free = 0;
  next_refresh = config.refresh_interval;
  running = bus_wrote = false;
  row_hits = row_misses = refreshes = turnarounds = 0;
}

// Takes CODESIGN_DRAM as it is now, but for the file and the number of banks.
void dram_configure() {
  Config c = parse();
  c.file = config.file;
  c.size = config.size;
  c.base = config.base;
  c.banks = config.banks;
  apply(c);
}

void dram_ar(int port, unsigned long long addr, unsigned char len) {
  ReadPort& p = reads[static_cast<unsigned>(port)];
  p.bursts++;
  for (unsigned left = len + 1u; left > 0;) {
    const unsigned beats = std::min(left, config.burst_beats);
    left -= beats;
    p.waiting.push_back({addr, beats, left == 0, now});
    addr += beats * kBeatBytes;
  }
}

void dram_aw(int port, unsigned long long addr, unsigned char len) {
  WritePort& p = writes[static_cast<unsigned>(port)];
  p.addresses.push_back({addr, len + 1u});
  p.data_first = p.random.percent(config.stall);
}

void dram_w(int port, const svBitVecVal* data, const svBitVecVal* strobe, svBit last) {
  WriteBeat b;
  std::memcpy(b.data, data, kBeatBytes);
  b.strobe = static_cast<std::uint16_t>(*strobe);
  b.last = last;
  writes[static_cast<unsigned>(port)].early.push_back(b);
}

// Once a cycle, after the addresses and data taken at this clock edge. Arguments: answers taken at this edge, a bit a port.
// Results: what the memory drives until the next edge.
void dram_cycle(const svBitVecVal* r_taken, const svBitVecVal* b_taken, svBitVecVal* arready, svBitVecVal* rvalid,
                svBitVecVal* rlast, svBitVecVal* rresp, svBitVecVal* rdata, svBitVecVal* awready, svBitVecVal* wready,
                svBitVecVal* bvalid, svBitVecVal* bresp) {
  running = true;
  now += 1;
  for (unsigned i = 0; i < kPorts; i++) {
    ReadPort& r = reads[i];
    if (*r_taken >> i & 1) {
      r.bursts -= r.beats.front().burst_last;
      r.in_flight -= r.beats.front().slice_last;
      r.beats.pop_front();
      r.valid = false;
    }
    WritePort& w = writes[i];
    if (*b_taken >> i & 1) {
      w.responses.pop_front();
      w.valid = false;
    }
    if (!w.early.empty()) grow(w);
  }
  control();
  *arready = *rvalid = *rlast = *rresp = *awready = *wready = *bvalid = *bresp = 0;
  for (unsigned i = 0; i < kPorts; i++) {
    ReadPort& r = reads[i];
    *arready |= static_cast<svBitVecVal>(r.bursts < kMaxBursts && !r.random.percent(config.stall)) << i;
    if (!r.valid && !r.beats.empty() && r.beats.front().at <= now) r.valid = !r.random.percent(config.stall);
    if (r.valid) {
      const Beat& b = r.beats.front();
      *rvalid |= 1u << i;
      *rlast |= static_cast<svBitVecVal>(b.burst_last) << i;
      *rresp |= static_cast<svBitVecVal>(b.code) << (2 * i);
      std::memcpy(rdata + 4 * i, b.data, kBeatBytes);
    }
    WritePort& w = writes[i];
    const bool room = w.addresses.size() < kMaxBursts && !(w.data_first && w.early.empty());
    *awready |= static_cast<svBitVecVal>(room && !w.random.percent(config.stall)) << i;
    *wready |= static_cast<svBitVecVal>(w.early.size() + w.data.size() < kMaxEarlyBeats && !w.random.percent(config.stall)) << i;
    if (!w.valid && !w.responses.empty() && w.responses.front().at <= now) w.valid = !w.random.percent(config.stall);
    *bvalid |= static_cast<svBitVecVal>(w.valid) << i;
    *bresp |= static_cast<svBitVecVal>(w.valid ? w.responses.front().code : kOkay) << (2 * i);
  }
}

// Since the last reset: slices that met an open row and a closed one, refreshes, turnarounds (also for trace.cpp).
void dram_statistics(unsigned* hits, unsigned* misses, unsigned* refresh_count, unsigned* turnaround_count) {
  *hits = row_hits;
  *misses = row_misses;
  *refresh_count = refreshes;
  *turnaround_count = turnarounds;
}

}  // extern "C"
