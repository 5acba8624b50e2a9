// SPDX-License-Identifier: Apache-2.0
// Reads blocks of a file into a bounded arena while others compute (docs/edge.md, section 6).
//
// A read is cut into chunks; one thread drives them through io_uring, or several through pread. A block is handed out
// when all of it has arrived and its CRC-32C is right. Every thread ends when the reader is destroyed.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace codesign {

constexpr std::size_t kPage = 4096;

// Nanoseconds of the monotonic clock, the one of Python's time.monotonic_ns.
std::int64_t now_ns();

// One allocation of at most `bytes` bytes, in huge pages where the system has them.
class Arena {
 public:
  explicit Arena(std::size_t bytes);  // std::bad_alloc
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  std::uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  void* mapped_;
  std::size_t mapped_size_;
  std::uint8_t* data_;
  std::size_t size_;
};

// Damage for tests, done around the backends. Counted in reads of the system, from 1; 0 means never.
struct Faults {
  bool short_reads = false;    // every read returns about half of what it could
  std::uint64_t error_at = 0;  // this read fails with `error`,
  int error = 0;
  std::uint64_t flip_at = 0;   // this one has a bit turned over
  std::uint32_t delay_us = 0;  // every read takes that much longer
  std::uint32_t late_us = 0;   // every fifth time, whoever collects what has arrived comes that much later
  bool refuse_direct = false;  // O_DIRECT is refused, as tmpfs does
  bool refuse_uring = false;   // io_uring is refused, as many containers do
};

struct Request {
  std::uint64_t tag;
  std::uint64_t offset;  // in the file, a multiple of kPage
  std::uint64_t bytes;   // of the block; what is read is rounded up to kPage
  std::uint64_t place;   // in the arena, a multiple of kPage
  std::uint32_t crc;
  bool told = false;  // as it arrives: how much of its begin is here
};

// `begun` is told of requests that go on: `here` bytes of it have arrived, and are not yet checked. `unsound` is not
// the reader's: what was read has the right checksum, and values that nobody can compute with (Mixture::sound).
enum class Status { good, failed, ended, damaged, cancelled, begun, unsound };

struct Completion {
  std::uint64_t tag;
  Status status;
  int error;             // errno when failed
  std::uint64_t offset;  // where in the file it went wrong
  std::uint32_t crc;     // what was found, when damaged
  std::int64_t submitted_ns, started_ns, arrived_ns, verified_ns;
  std::uint64_t here;  // when begun
};

enum class Backend { uring, threads };

struct Options {
  Backend backend = Backend::uring;
  bool direct = true;
  unsigned depth = 4;            // chunks in flight: entries of the ring, or threads
  std::size_t chunk = 1U << 20;  // bytes of a chunk
  std::int64_t watch_us = 0;     // how long threads that have nothing to do look for something before they sleep
  Faults faults;
};

// A file that is read with O_DIRECT as long as the file system allows, else through the page cache.
class File {
 public:
  File(const std::string& path, const Options& options);  // std::system_error
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int descriptor(bool direct) const { return direct ? direct_ : cached_; }
  bool direct() const { return use_direct_.load(std::memory_order_relaxed); }
  void give_up_direct() { use_direct_.store(false, std::memory_order_relaxed); }
  // What a read of `wanted` bytes gave (or -errno), with this session's faults applied.
  std::int64_t damage(std::int64_t result, std::uint8_t* to, std::size_t wanted);
  // Keep what was read out of the page cache.
  void forget(std::uint64_t offset, std::size_t bytes) const;
  std::uint32_t delay_us() const { return faults_.delay_us; }

 private:
  Faults faults_;
  int direct_ = -1;
  int cached_ = -1;
  std::atomic<bool> use_direct_{false};
  std::atomic<std::uint64_t> reads_{0};
};

struct Job;  // one request and how far it is

// Part of a request: bytes `done` .. `bytes` are still to be read.
struct Chunk {
  std::shared_ptr<Job> job;
  std::uint64_t offset = 0;
  std::uint8_t* to = nullptr;
  std::size_t bytes = 0;
  std::size_t done = 0;
  int stuck = 0;        // reads in a row that brought nothing further
  bool direct = false;  // the read under way is with O_DIRECT
};

// What the backends take chunks from and give them back to; and the completions. Thread-safe.
class Queue {
 public:
  Queue(Arena& arena, std::size_t chunk, std::int64_t watch_us) : arena_(arena), chunk_(chunk), watch_us_(watch_us) {}

  void push(const Request& request);
  std::size_t cancel();  // drops requests of which nothing has been read yet; they complete as cancelled
  void close();          // from now on there is nothing to take

  bool take(Chunk& chunk);       // at once, or false
  bool wait_take(Chunk& chunk);  // false when closed
  bool closed() const;
  bool takeable() const { return takeable_.load(); }  // without the lock: there is something to take
  // Looks for what may happen at once, before the caller goes to sleep: to wake a thread can take 50 us and more, a
  // fifth of a layer's end. Gives way to whoever else could run. False when it did not happen in time.
  template <typename Ready>
  bool watch(std::int64_t at_most_us, Ready ready) const {
    const std::int64_t end = now_ns() + std::min(watch_us_, at_most_us) * 1000;
    while (!ready()) {
      if (now_ns() >= end)
        return false;
      std::this_thread::yield();
    }
    return true;
  }
  // Sleeps, but not beyond close().
  void pause(std::uint32_t microseconds);
  // After a read of the rest of a chunk gave `result` (or -errno): true when it must be read on.
  bool advance(File& file, Chunk& chunk, std::int64_t result);

  // Waits at most `timeout_us` for a completion; gives all that there are.
  std::vector<Completion> collect(std::int64_t timeout_us);
  std::size_t pending() const;  // requests that have not been collected

 private:
  bool take_locked(Chunk& chunk);
  void tell();  // those who look without the lock what is new; after every change of the queue
  void landed(Job& job);
  void settle(const Chunk& chunk, Status status, int error, std::uint64_t where);

  Arena& arena_;
  const std::size_t chunk_;
  const std::int64_t watch_us_;
  mutable std::mutex mutex_;
  std::condition_variable work_, done_, closing_;
  std::deque<std::shared_ptr<Job>> waiting_;
  std::vector<Completion> completions_;
  std::size_t pending_ = 0;
  bool closed_ = false;
  std::atomic<bool> takeable_{false}, collectable_{true};
};

// Moves chunks from the queue through the system. Its threads end when the queue is closed and it is destroyed.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual void offer() = 0;  // there is something to take
  virtual void wake() = 0;   // the queue was closed
};

std::unique_ptr<Transport> make_threads(Queue& queue, File& file, unsigned threads);
// nullptr when the kernel does not allow io_uring.
std::unique_ptr<Transport> make_uring(Queue& queue, File& file, unsigned depth);

class Reader {
 public:
  Reader(const std::string& path, std::shared_ptr<Arena> arena, const Options& options);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  void submit(const Request& request);  // std::invalid_argument when it does not fit the arena or is not aligned
  std::size_t cancel();
  std::vector<Completion> collect(std::int64_t timeout_us) {
    collected_ = (collected_ + 1) % 5;
    queue_.pause(collected_ == 0 ? late_us_ : 0);
    return queue_.collect(timeout_us);
  }
  std::size_t pending() const { return queue_.pending(); }
  void close();  // ends all threads; what is pending is lost
  bool closed() const { return queue_.closed(); }

  Backend backend() const { return backend_; }
  bool direct() const { return file_.direct(); }

 private:
  std::shared_ptr<Arena> arena_;
  File file_;
  Queue queue_;
  std::uint32_t late_us_;
  int collected_ = 0;
  Backend backend_;
  std::mutex closing_;
  std::unique_ptr<Transport> transport_;
};

}  // namespace codesign
