// SPDX-License-Identifier: Apache-2.0
//
// The simulated DRAM behind both AXI ports of tb_machine.sv: one file mapped into memory, which Python maps as well.
// Configuration, read from the environment while reset is active:
//   CODESIGN_DRAM_FILE     the file; its size is the size of the DRAM
//   CODESIGN_DRAM_BASE     physical address of its first byte
//   CODESIGN_DRAM_LATENCY  cycles from an accepted address to its first data, and from the last data to the response
//   CODESIGN_DRAM_STALL    percent of cycles in which a ready or a fresh valid is withheld
//   CODESIGN_DRAM_SEED     seed of the stalls
// Addresses outside the file answer DECERR.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>

#include "svdpi.h"

namespace {

constexpr unsigned kBeatBytes = 16;
constexpr unsigned kMaxBursts = 16;  // accepted and unanswered, on each channel
constexpr svBitVecVal kOkay = 0, kDecodeError = 3;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "dram: %s\n", what);
  std::exit(1);
}

std::uint64_t setting(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::strtoull(text, nullptr, 0);
}

class Random {  // xorshift64*, Vigna 2016
 public:
  void seed(std::uint64_t seed) { state_ = seed * 2 + 1; }
  bool percent(unsigned p) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return ((state_ * 0x2545F4914F6CDD1DULL) >> 32) % 100 < p;
  }

 private:
  std::uint64_t state_ = 1;
};

struct Burst {
  std::uint64_t addr;
  unsigned beats;
  std::uint64_t ready_at;
};

struct ReadPort {
  std::deque<Burst> bursts;
  bool valid = false;
  std::uint64_t cycle = 0;
  Random random;
};

struct WritePort {
  std::deque<Burst> addresses;        // whose data is not complete
  std::deque<svBitVecVal> early;      // data without address yet (it may come first): 4 words, then strobe and last, a beat
  struct Response {
    std::uint64_t ready_at;
    svBitVecVal code;
  };
  std::deque<Response> responses;
  svBitVecVal code = kOkay;  // of the burst under way
  bool data_first = false;   // the next address is accepted only after some of its data, as a slave may do
  bool valid = false;
  std::uint64_t cycle = 0;
  Random random;
};

std::uint8_t* memory = nullptr;
std::uint64_t size = 0, base = 0, latency = 0;
unsigned stall = 0;
ReadPort read_ports[2];
WritePort write_port;

std::uint8_t* at(std::uint64_t addr) {
  const std::uint64_t offset = addr - base;
  return addr >= base && offset < size && size - offset >= kBeatBytes ? memory + offset : nullptr;
}

void map_file() {
  const char* path = std::getenv("CODESIGN_DRAM_FILE");
  if (path == nullptr) fail("CODESIGN_DRAM_FILE must name the memory's file");
  const int fd = open(path, O_RDWR);
  struct stat info;
  if (fd < 0 || fstat(fd, &info) != 0) fail("CODESIGN_DRAM_FILE cannot be opened");
  if (memory != nullptr) munmap(memory, size);
  size = static_cast<std::uint64_t>(info.st_size);
  void* mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped == MAP_FAILED) fail("CODESIGN_DRAM_FILE cannot be mapped");
  memory = static_cast<std::uint8_t*>(mapped);
}

// One beat of write data for the oldest address.
void write_beat(WritePort& p, const svBitVecVal* data, svBitVecVal strobe, bool last) {
  Burst& burst = p.addresses.front();
  std::uint8_t* to = at(burst.addr);
  if (to == nullptr) {
    p.code = kDecodeError;
  } else {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(data);
    for (unsigned i = 0; i < kBeatBytes; i++)
      if (strobe >> i & 1) to[i] = bytes[i];
  }
  burst.addr += kBeatBytes;
  burst.beats--;
  if (last != (burst.beats == 0)) fail("WLAST does not stand at the last beat of its burst");
  if (last) {
    p.addresses.pop_front();
    p.responses.push_back({p.cycle + latency, p.code});
    p.code = kOkay;
  }
}

}  // namespace

extern "C" {

void dram_reset() {
  if (memory != nullptr && write_port.cycle == 0 && read_ports[0].cycle == 0) return;  // still in the same reset
  map_file();
  base = setting("CODESIGN_DRAM_BASE");
  latency = setting("CODESIGN_DRAM_LATENCY");
  stall = static_cast<unsigned>(setting("CODESIGN_DRAM_STALL"));
  if (stall > 99) fail("CODESIGN_DRAM_STALL must be at most 99");
  const std::uint64_t seed = setting("CODESIGN_DRAM_SEED");
  for (unsigned i = 0; i < 2; i++) {
    read_ports[i] = ReadPort();
    read_ports[i].random.seed(seed * 3 + i);
  }
  write_port = WritePort();
  write_port.random.seed(seed * 3 + 2);
}

// Arguments: what was transferred at this clock edge. Results: what the memory drives until the next one.
void dram_read_cycle(int port, svBit ar_taken, unsigned long long araddr, unsigned char arlen, svBit r_taken, svBit* arready,
                     svBit* rvalid, svBitVecVal* rdata, svBitVecVal* rresp, svBit* rlast) {
  ReadPort& p = read_ports[port];
  p.cycle++;
  if (ar_taken) p.bursts.push_back({araddr, arlen + 1u, p.cycle + latency});
  if (r_taken) {
    p.bursts.front().addr += kBeatBytes;
    if (--p.bursts.front().beats == 0) p.bursts.pop_front();
    p.valid = false;
  }
  *arready = p.bursts.size() < kMaxBursts && !p.random.percent(stall);
  if (!p.valid && !p.bursts.empty() && p.bursts.front().ready_at <= p.cycle) p.valid = !p.random.percent(stall);
  *rvalid = p.valid;
  *rlast = 0;
  *rresp = kOkay;
  if (!p.valid) return;
  const Burst& burst = p.bursts.front();
  const std::uint8_t* from = at(burst.addr);
  if (from == nullptr)
    std::memset(rdata, 0xA5, kBeatBytes);
  else
    std::memcpy(rdata, from, kBeatBytes);
  *rresp = from == nullptr ? kDecodeError : kOkay;
  *rlast = burst.beats == 1;
}

void dram_write_cycle(svBit aw_taken, unsigned long long awaddr, unsigned char awlen, svBit w_taken, const svBitVecVal* wdata,
                      const svBitVecVal* wstrb, svBit wlast, svBit b_taken, svBit* awready, svBit* wready, svBit* bvalid,
                      svBitVecVal* bresp) {
  WritePort& p = write_port;
  p.cycle++;
  if (aw_taken) {
    p.addresses.push_back({awaddr, awlen + 1u, 0});
    p.data_first = p.random.percent(stall);
  }
  if (w_taken) {
    p.early.insert(p.early.end(), wdata, wdata + 4);
    p.early.push_back((*wstrb & 0xFFFF) | (wlast ? 0x10000 : 0));
  }
  while (!p.addresses.empty() && !p.early.empty()) {  // data that has its address
    svBitVecVal beat[5];
    for (svBitVecVal& word : beat) {
      word = p.early.front();
      p.early.pop_front();
    }
    write_beat(p, beat, beat[4] & 0xFFFF, (beat[4] & 0x10000) != 0);
  }
  if (b_taken) {
    p.responses.pop_front();
    p.valid = false;
  }
  *awready = p.addresses.size() < kMaxBursts && !(p.data_first && p.early.empty()) && !p.random.percent(stall);
  *wready = p.early.size() < 5 * kMaxBursts && !p.random.percent(stall);
  if (!p.valid && !p.responses.empty() && p.responses.front().ready_at <= p.cycle) p.valid = !p.random.percent(stall);
  *bvalid = p.valid;
  *bresp = p.valid ? p.responses.front().code : kOkay;
}

}  // extern "C"
