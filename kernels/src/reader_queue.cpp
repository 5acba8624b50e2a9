// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "codesign/crc32c.hpp"
#include "codesign/reader.hpp"

namespace codesign {

struct Job {
  Request request{};
  std::uint64_t length = 0;  // whole pages
  std::uint64_t issued = 0;  // bytes given out as chunks
  std::size_t open_chunks = 0;
  std::vector<bool> arrived;  // by chunk
  std::size_t landed = 0;     // chunks, from the first, that have arrived
  std::size_t summed = 0;     // chunks, from the first, that are in the checksum
  bool summing = false;       // a thread is at it
  std::uint64_t tell_at = 0;  // bytes from its begin on that are told of when they are here
  std::uint32_t crc = 0;
  Completion completion{};
};

namespace {

constexpr std::size_t kSteps = 12;                // in which a request is told of as it arrives
constexpr std::size_t kCompletions = kSteps + 2;  // of a request at most: the steps, that all is here, its end
constexpr int kPatience = 8;  // reads in a row without progress before the file is held to end there

}  // namespace

void Queue::tell() {
  takeable_.store(!closed_ && !waiting_.empty());
  collectable_.store(closed_ || !completions_.empty() || pending_ == 0);
}

void Queue::push(const Request& request) {
  auto job = std::make_shared<Job>();
  job->request = request;
  job->length = (request.bytes + kPage - 1) / kPage * kPage;
  job->arrived.resize((job->length + chunk_ - 1) / chunk_);
  job->tell_at = request.bytes / kSteps;
  job->completion.tag = request.tag;
  job->completion.status = Status::good;
  job->completion.submitted_ns = now_ns();
  {
    const std::lock_guard lock(mutex_);
    completions_.reserve(kCompletions * (pending_ + 1));  // the threads never allocate
    waiting_.push_back(std::move(job));
    ++pending_;
    tell();
  }
  work_.notify_one();
}

std::size_t Queue::cancel() {
  std::size_t dropped = 0;
  {
    const std::lock_guard lock(mutex_);
    while (!waiting_.empty() && waiting_.back()->issued == 0) {
      Completion& completion = waiting_.back()->completion;
      completion.status = Status::cancelled;
      completion.offset = waiting_.back()->request.offset;
      completions_.push_back(completion);
      waiting_.pop_back();
      ++dropped;
    }
    tell();
  }
  if (dropped > 0)
    done_.notify_all();
  return dropped;
}

void Queue::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    waiting_.clear();
    tell();
  }
  work_.notify_all();
  done_.notify_all();
  closing_.notify_all();
}

bool Queue::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

bool Queue::take(Chunk& chunk) {
  const std::lock_guard lock(mutex_);
  return take_locked(chunk);
}

bool Queue::wait_take(Chunk& chunk) {
  std::unique_lock lock(mutex_);
  work_.wait(lock, [this] { return closed_ || !waiting_.empty(); });
  return take_locked(chunk);
}

bool Queue::take_locked(Chunk& chunk) {
  if (closed_ || waiting_.empty())
    return false;
  const std::shared_ptr<Job> job = waiting_.front();
  if (job->issued == 0)
    job->completion.started_ns = now_ns();
  const std::size_t bytes = std::min<std::uint64_t>(chunk_, job->length - job->issued);
  std::uint8_t* const to = arena_.data() + job->request.place + job->issued;
  chunk = {job, job->request.offset + job->issued, to, bytes, 0, 0, false};
  job->issued += bytes;
  ++job->open_chunks;
  if (job->issued == job->length)
    waiting_.pop_front();
  tell();
  if (!waiting_.empty())
    work_.notify_one();
  return true;
}

void Queue::pause(std::uint32_t microseconds) {
  if (microseconds == 0)
    return;
  std::unique_lock lock(mutex_);
  closing_.wait_for(lock, std::chrono::microseconds(microseconds), [this] { return closed_; });
}

bool Queue::advance(File& file, Chunk& chunk, std::int64_t result) {
  const std::uint64_t at = chunk.offset + chunk.done;
  if (result == -EINTR || result == -EAGAIN)
    return true;
  if (result == -EINVAL && chunk.direct) {  // the file system refuses O_DIRECT: the page cache does
    file.give_up_direct();
    return true;
  }
  if (result < 0) {
    settle(chunk, Status::failed, static_cast<int>(-result), at);
    return false;
  }
  std::size_t done = chunk.done + static_cast<std::size_t>(result);
  if (done < chunk.bytes) {
    if (file.direct())
      done = done / kPage * kPage;  // where O_DIRECT can go on
    chunk.stuck = done > chunk.done ? 0 : chunk.stuck + 1;
    if (result == 0 || chunk.stuck >= kPatience) {
      settle(chunk, Status::ended, 0, at + static_cast<std::uint64_t>(result));
      return false;
    }
    chunk.done = done;
    return true;
  }
  chunk.done = chunk.bytes;
  file.forget(chunk.offset, chunk.bytes);
  settle(chunk, Status::good, 0, 0);
  return false;
}

// Tells, now and then, how much of the begin of a block is here: what is computed of it meanwhile is not used before
// the block is found to be good.
void Queue::landed(Job& job) {
  const std::size_t before = job.landed;
  while (job.landed < job.arrived.size() && job.arrived[job.landed])
    ++job.landed;
  const std::uint64_t here = std::min<std::uint64_t>(job.landed * chunk_, job.request.bytes);
  if (job.landed == before || !job.request.told || here < job.tell_at)
    return;
  job.tell_at = std::min(here + job.request.bytes / kSteps, job.request.bytes);
  completions_.push_back(job.completion);
  completions_.back().status = Status::begun;
  completions_.back().here = here;
  tell();
  done_.notify_all();
}

// Chunks are summed as they arrive, in their order and outside the lock; whoever finds nobody at it does it. So little
// is left to do when the last one is here.
void Queue::settle(const Chunk& chunk, Status status, int error, std::uint64_t where) {
  Job& job = *chunk.job;
  std::unique_lock lock(mutex_);
  Completion& completion = job.completion;
  if (status != Status::good && completion.status == Status::good) {
    completion.status = status;
    completion.error = error;
    completion.offset = where;
    if (job.issued < job.length) {  // its other chunks need not be read
      std::erase(waiting_, chunk.job);
      job.issued = job.length;
      tell();
    }
  }
  job.arrived[(chunk.offset - job.request.offset) / chunk_] = status == Status::good;
  --job.open_chunks;
  if (job.open_chunks == 0 && job.issued == job.length)
    completion.arrived_ns = now_ns();
  landed(job);
  if (job.summing)
    return;
  job.summing = true;
  while (completion.status == Status::good && job.summed < job.arrived.size() && job.arrived[job.summed]) {
    const std::uint64_t from = job.summed * chunk_;
    const std::uint64_t bytes = std::min<std::uint64_t>(chunk_, job.request.bytes - from);
    lock.unlock();
    job.crc = crc32c(arena_.data() + job.request.place + from, bytes, job.crc);
    lock.lock();
    ++job.summed;
  }
  job.summing = false;
  if (job.open_chunks > 0 || job.issued < job.length)
    return;
  if (completion.status == Status::good && job.crc != job.request.crc) {
    completion.status = Status::damaged;
    completion.offset = job.request.offset;
    completion.crc = job.crc;
  }
  completion.verified_ns = now_ns();
  completions_.push_back(completion);
  tell();
  lock.unlock();
  done_.notify_all();
}

std::vector<Completion> Queue::collect(std::int64_t timeout_us) {
  const auto ready = [this] { return collectable_.load(); };
  if (timeout_us > 0)
    watch(timeout_us, ready);
  std::unique_lock lock(mutex_);
  if (timeout_us > 0)
    done_.wait_for(lock, std::chrono::microseconds(timeout_us), ready);
  if (completions_.empty())
    return {};
  pending_ -= static_cast<std::size_t>(std::count_if(
      completions_.begin(), completions_.end(), [](const Completion& one) { return one.status != Status::begun; }));
  std::vector<Completion> next;
  next.reserve(kCompletions * pending_);
  next.swap(completions_);
  tell();
  return next;
}

std::size_t Queue::pending() const {
  const std::lock_guard lock(mutex_);
  return pending_;
}

}  // namespace codesign
