// SPDX-License-Identifier: Apache-2.0
// The backend on io_uring, by system calls alone: one thread keeps `depth` reads in flight.
//
// Each read is handed in by a call of its own: of several in one call the kernel merges those that are adjacent, as
// chunks are, into requests of megabytes, and the disk has fewer to work on at a time
// (docs/decisions/2026-11-22-reads-handed-in-one-by-one.md).
#include "codesign/reader.hpp"

#if defined(__linux__) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace codesign {
namespace {

constexpr std::uint64_t kWake = ~std::uint64_t{0};

// The two rings that are shared with the kernel. io_uring(7).
class Ring {
 public:
  explicit Ring(unsigned entries) {
    io_uring_params params{};
    descriptor_ = static_cast<int>(syscall(SYS_io_uring_setup, entries, &params));
    if (descriptor_ < 0)
      return;
    sq_size_ = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    cq_size_ = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
    if (params.features & IORING_FEAT_SINGLE_MMAP)
      sq_size_ = cq_size_ = std::max(sq_size_, cq_size_);
    sq_ = map(sq_size_, IORING_OFF_SQ_RING);
    cq_ = (params.features & IORING_FEAT_SINGLE_MMAP) ? sq_ : map(cq_size_, IORING_OFF_CQ_RING);
    sqes_size_ = params.sq_entries * sizeof(io_uring_sqe);
    sqes_ = static_cast<io_uring_sqe*>(map(sqes_size_, IORING_OFF_SQES));
    if (sq_ == nullptr || cq_ == nullptr || sqes_ == nullptr)
      return;
    sq_tail_ = field(sq_, params.sq_off.tail);
    sq_mask_ = *field(sq_, params.sq_off.ring_mask);
    sq_array_ = field(sq_, params.sq_off.array);
    cq_head_ = field(cq_, params.cq_off.head);
    cq_tail_ = field(cq_, params.cq_off.tail);
    cq_mask_ = *field(cq_, params.cq_off.ring_mask);
    cqes_ = reinterpret_cast<io_uring_cqe*>(static_cast<std::uint8_t*>(cq_) + params.cq_off.cqes);
    good_ = true;
  }
  ~Ring() {
    if (sqes_ != nullptr)
      munmap(sqes_, sqes_size_);
    if (cq_ != nullptr && cq_ != sq_)
      munmap(cq_, cq_size_);
    if (sq_ != nullptr)
      munmap(sq_, sq_size_);
    if (descriptor_ >= 0)
      close(descriptor_);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  bool good() const { return good_; }

  // The caller never has more entries open than the ring holds.
  void prepare(int descriptor, void* to, std::size_t bytes, std::uint64_t offset, std::uint64_t user_data) {
    const unsigned tail = *sq_tail_;  // only this thread writes it
    const unsigned index = tail & sq_mask_;
    io_uring_sqe& entry = sqes_[index];
    std::memset(&entry, 0, sizeof entry);
    entry.opcode = IORING_OP_READ;
    entry.fd = descriptor;
    entry.addr = reinterpret_cast<std::uintptr_t>(to);
    entry.len = static_cast<unsigned>(bytes);
    entry.off = offset;
    entry.user_data = user_data;
    sq_array_[index] = index;
    __atomic_store_n(sq_tail_, tail + 1, __ATOMIC_RELEASE);
    ++unsubmitted_;
  }

  // Hands in what was prepared, and waits for at least `wanted` results. Returns errno.
  int enter(unsigned wanted) {
    if (unsubmitted_ == 0 && wanted == 0)
      return 0;
    const unsigned flags = wanted > 0 ? IORING_ENTER_GETEVENTS : 0;
    const long taken = syscall(SYS_io_uring_enter, descriptor_, unsubmitted_, wanted, flags, nullptr, std::size_t{0});
    if (taken < 0)
      return errno;
    unsubmitted_ -= static_cast<unsigned>(taken);
    return 0;
  }

  // Whether there is a result.
  bool any() const { return *cq_head_ != __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE); }

  bool reap(std::uint64_t& user_data, std::int64_t& result) {
    if (!any())
      return false;
    const unsigned head = *cq_head_;
    const io_uring_cqe& entry = cqes_[head & cq_mask_];
    user_data = entry.user_data;
    result = entry.res;
    __atomic_store_n(cq_head_, head + 1, __ATOMIC_RELEASE);
    return true;
  }

 private:
  void* map(std::size_t size, std::uint64_t offset) const {
    void* const at =
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor_, static_cast<off_t>(offset));
    return at == MAP_FAILED ? nullptr : at;
  }
  static unsigned* field(void* ring, unsigned offset) {
    return reinterpret_cast<unsigned*>(static_cast<std::uint8_t*>(ring) + offset);
  }

  bool good_ = false;
  int descriptor_ = -1;
  void *sq_ = nullptr, *cq_ = nullptr;
  std::size_t sq_size_ = 0, cq_size_ = 0, sqes_size_ = 0;
  io_uring_sqe* sqes_ = nullptr;
  unsigned *sq_tail_ = nullptr, *sq_array_ = nullptr, *cq_head_ = nullptr, *cq_tail_ = nullptr;
  unsigned sq_mask_ = 0, cq_mask_ = 0;
  io_uring_cqe* cqes_ = nullptr;
  unsigned unsubmitted_ = 0;
};

class Uring final : public Transport {
 public:
  Uring(Queue& queue, File& file, unsigned depth)
      : queue_(queue),
        file_(file),
        depth_(depth),
        ring_(depth + 2),
        chunks_(depth + 1),
        event_(eventfd(0, EFD_CLOEXEC)) {
    if (!good())
      return;
    for (std::size_t i = 0; i < chunks_.size(); ++i)
      free_.push_back(i);
    thread_ = std::thread([this] { work(); });
  }
  ~Uring() override {
    if (thread_.joinable()) {
      queue_.close();
      wake();
      thread_.join();
    }
    if (event_ >= 0)
      close(event_);
  }
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;
  bool good() const { return ring_.good() && event_ >= 0; }

  // To wake a thread costs the one who does it as much as the one who is woken: only when it would read at once.
  void offer() override {
    if (hungry_.exchange(false))
      wake();
  }

  void wake() override {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_, &one, sizeof one);
  }

 private:
  void read(std::size_t slot) {
    Chunk& chunk = chunks_[slot];
    chunk.direct = file_.direct();
    ring_.prepare(file_.descriptor(chunk.direct), chunk.to + chunk.done, chunk.bytes - chunk.done,
                  chunk.offset + chunk.done, slot);
    ++flying_;
    hand_in(0);
  }

  void listen() { ring_.prepare(event_, &woken_, sizeof woken_, 0, kWake); }

  // What the kernel has no room for now is handed in with the next call.
  void hand_in(unsigned wanted) {
    const int error = ring_.enter(wanted);
    if (error != 0 && error != EINTR && error != EAGAIN && error != EBUSY)
      broken_ = error;
  }

  void refill() {
    while (flying_ < depth_ && !free_.empty() && queue_.take(chunks_[free_.back()])) {
      const std::size_t slot = free_.back();
      free_.pop_back();
      read(slot);
    }
  }

  // Only when all there was to read is handed in: as long as there is more, results come one behind the other anyway.
  bool something_soon() {
    return !queue_.takeable() && queue_.watch(INT64_MAX, [this] { return ring_.any() || queue_.takeable(); });
  }

  // From here on an offer wakes this thread, if there is room for it; one that came just before is seen here.
  bool may_sleep() {
    hungry_ = flying_ < depth_;
    return !hungry_ || !queue_.takeable();
  }

  // Results of all reads in flight are awaited even when the queue is closed: the kernel writes into the arena.
  void work() {
    listen();
    bool listening = true;
    while (listening || flying_ > 0) {
      refill();
      hand_in(something_soon() || !may_sleep() ? 0 : 1);
      hungry_ = false;
      if (broken_ != 0)
        return fail(broken_);
      std::uint64_t user_data = 0;
      std::int64_t result = 0;
      while (ring_.reap(user_data, result)) {
        if (user_data == kWake) {
          listening = !queue_.closed();
          if (listening)
            listen();
        } else {
          arrived(user_data, result);
        }
      }
    }
  }

  // One chunk more than there are reads in flight: the next read is under way while this one's bytes are summed.
  void arrived(std::size_t slot, std::int64_t result) {
    --flying_;
    refill();
    Chunk& chunk = chunks_[slot];
    queue_.pause(file_.delay_us());
    result = file_.damage(result, chunk.to + chunk.done, chunk.bytes - chunk.done);
    if (queue_.advance(file_, chunk, result) && !queue_.closed()) {
      read(slot);
    } else {
      chunk.job.reset();
      free_.push_back(slot);
    }
  }

  // The ring itself is broken: every read in flight, and every one to come, fails with its error.
  void fail(int error) {
    for (Chunk& chunk : chunks_) {
      if (chunk.job)
        queue_.advance(file_, chunk, -error);
      chunk.job.reset();
    }
    Chunk chunk;
    while (queue_.wait_take(chunk))
      queue_.advance(file_, chunk, -error);
  }

  Queue& queue_;
  File& file_;
  const unsigned depth_;
  unsigned flying_ = 0;  // reads that the kernel has
  std::atomic<bool> hungry_{false};
  int broken_ = 0;  // errno of the ring
  Ring ring_;
  std::vector<Chunk> chunks_;
  std::vector<std::size_t> free_;
  int event_;
  std::uint64_t woken_ = 0;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Transport> make_uring(Queue& queue, File& file, unsigned depth) {
  auto ring = std::make_unique<Uring>(queue, file, depth);
  return ring->good() ? std::move(ring) : nullptr;
}

}  // namespace codesign

#else

namespace codesign {

std::unique_ptr<Transport> make_uring(Queue&, File&, unsigned) {
  return nullptr;
}

}  // namespace codesign

#endif
