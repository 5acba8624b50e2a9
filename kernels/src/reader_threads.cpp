// SPDX-License-Identifier: Apache-2.0
// The backend that works everywhere: a pool of threads, each with one pread at a time.
#include <unistd.h>

#include <cerrno>

#include "codesign/reader.hpp"

namespace codesign {
namespace {

class Threads final : public Transport {
 public:
  Threads(Queue& queue, File& file, unsigned threads) : queue_(queue), file_(file) {
    try {
      for (unsigned i = 0; i < threads; ++i)
        threads_.emplace_back([this] { work(); });
    } catch (...) {
      stop();
      throw;
    }
  }
  ~Threads() override { stop(); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
  void offer() override {}  // they wait on the queue itself
  void wake() override {}

 private:
  void work() {
    Chunk chunk;
    while (queue_.wait_take(chunk)) {
      std::int64_t result = 0;
      do {
        queue_.pause(file_.delay_us());
        const std::size_t wanted = chunk.bytes - chunk.done;
        std::uint8_t* const to = chunk.to + chunk.done;
        chunk.direct = file_.direct();
        result = pread(file_.descriptor(chunk.direct), to, wanted, static_cast<off_t>(chunk.offset + chunk.done));
        result = file_.damage(result < 0 ? -errno : result, to, wanted);
      } while (queue_.advance(file_, chunk, result));
    }
  }

  void stop() {
    queue_.close();
    for (std::thread& thread : threads_)
      thread.join();
    threads_.clear();
  }

  Queue& queue_;
  File& file_;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<Transport> make_threads(Queue& queue, File& file, unsigned threads) {
  return std::make_unique<Threads>(queue, file, threads);
}

}  // namespace codesign
